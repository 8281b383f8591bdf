"""Hook base class and registry."""
from __future__ import annotations

from typing import Any, Mapping, Sequence

from basicsr.utils.registry import Registry

from jddb_plugin.checks import OptionError, nearest

HOOK_REGISTRY = Registry('hook')


class Hook:
    """Something that happens around training steps.

    A hook keeps no state of its own: what it does is a function of the iteration, so that a resumed run goes on
    exactly as an uninterrupted one.
    """

    def before_step(self, model: Any, current_iter: int) -> None:
        """Called before the optimization step of iteration ``current_iter`` (counted from 1)."""

    def after_step(self, model: Any, current_iter: int) -> None:
        """Called after it."""

    def log(self) -> dict[str, float]:
        """Values to show in the training log, by name."""
        return {}


def build_hooks(options: Sequence[Mapping[str, Any]]) -> list[Hook]:
    """Build the hooks listed under ``train: hooks:``.

    Raises:
        OptionError: an entry has no type, names an unknown hook or an unknown key.
    """
    hooks = []
    for index, entry in enumerate(options):
        where = f'train.hooks[{index}]'
        if not isinstance(entry, Mapping) or 'type' not in entry:
            raise OptionError(f"{where}: expected a mapping with a 'type', got {entry!r}.")
        arguments = dict(entry)
        name = arguments.pop('type')
        if name not in HOOK_REGISTRY:
            raise OptionError(f"{where}: unknown hook '{name}'; {nearest(name, HOOK_REGISTRY.keys())}")
        try:
            hooks.append(HOOK_REGISTRY.get(name)(**arguments))
        except TypeError as error:
            raise OptionError(f'{where} ({name}): {error}') from error
    return hooks
