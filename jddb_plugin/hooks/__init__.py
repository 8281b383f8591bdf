"""Hooks: knobs that are turned between training steps."""
from jddb_plugin.hooks.hook import HOOK_REGISTRY, Hook, build_hooks
from jddb_plugin.hooks.schedule import SCHEDULES, build_schedule
from jddb_plugin.hooks.schedule_hook import LossWeightHook, TemperatureHook

__all__ = ['HOOK_REGISTRY', 'SCHEDULES', 'Hook', 'LossWeightHook', 'TemperatureHook', 'build_hooks', 'build_schedule']
