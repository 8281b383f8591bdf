"""Hooks: knobs that are turned between training steps."""
from jddb_plugin.registration import load_toolbox

load_toolbox()

# Registration imports the modules of this package, never names of the package itself, which is not complete yet.
from jddb_plugin.hooks.hook import HOOK_REGISTRY, Hook, build_hooks  # noqa: E402
from jddb_plugin.hooks.schedule import SCHEDULES, build_schedule  # noqa: E402
from jddb_plugin.hooks.schedule_hook import LossWeightHook, TemperatureHook  # noqa: E402

__all__ = ['HOOK_REGISTRY', 'SCHEDULES', 'Hook', 'LossWeightHook', 'TemperatureHook', 'build_hooks', 'build_schedule']
