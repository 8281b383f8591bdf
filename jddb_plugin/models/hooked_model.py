"""Hooks for any model of the toolbox."""
from __future__ import annotations

from collections import OrderedDict
from typing import Any

from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils.registry import MODEL_REGISTRY

from jddb_plugin.hooks import build_hooks


class HookMixin:
    """Runs the hooks listed under ``train: hooks:`` around every optimisation step.

    Put it first: ``class MyModel(HookMixin, SRModel)``.
    """

    def init_training_settings(self) -> None:
        """Build the hooks beside the model's own training settings."""
        self.hooks = build_hooks(self.opt['train'].get('hooks') or [])
        super().init_training_settings()

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of the model between its hooks."""
        for hook in self.hooks:
            hook.before_step(self, current_iter)
        super().optimize_parameters(current_iter)
        for hook in self.hooks:
            hook.after_step(self, current_iter)

    def get_current_log(self) -> dict[str, Any]:
        """The model's log and the hooks' values."""
        log = OrderedDict(super().get_current_log())
        for hook in self.hooks:
            log.update(hook.log())
        return log


@MODEL_REGISTRY.register()
class HookedVideoBaseModel(HookMixin, VideoBaseModel):
    """The toolbox's VideoBaseModel with hooks."""


@MODEL_REGISTRY.register()
class HookedSRModel(HookMixin, SRModel):
    """The toolbox's SRModel with hooks."""
