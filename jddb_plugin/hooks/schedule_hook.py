"""Hooks that set a value of the model by a schedule."""
from __future__ import annotations

from typing import Any, Optional

from jddb_plugin.checks import OptionError
from jddb_plugin.hooks.hook import HOOK_REGISTRY, Hook
from jddb_plugin.hooks.schedule import build_schedule


@HOOK_REGISTRY.register()
class TemperatureHook(Hook):
    """Set the temperature of every soft matching module (section 3.2: soft to hard).

    Args:
        schedule: name of a schedule; its arguments follow.
    """

    def __init__(self, schedule: str = 'step', **arguments: Any) -> None:
        self.schedule = build_schedule(schedule, **arguments)
        self.value = float('nan')

    def before_step(self, model: Any, current_iter: int) -> None:
        """Set the temperature of this iteration."""
        self.value = self.schedule(current_iter)
        modules = [m for m in model.get_bare_model(model.net_g).modules() if hasattr(m, 'temperature')]
        if not modules:
            raise OptionError(f'TemperatureHook: network {type(model.get_bare_model(model.net_g)).__name__} has no module '
                              "with a temperature; remove the hook, or use a network with 'coarse: dpbm'.")
        for module in modules:
            module.temperature = self.value

    def log(self) -> dict[str, float]:
        """The temperature."""
        return {'temperature': self.value}


@HOOK_REGISTRY.register()
class LossWeightHook(Hook):
    """Set the weight of a loss term: its ``loss_weight``, or the ``perceptual_weight`` of a PerceptualLoss.

    Args:
        loss: the option that builds the term, e.g. ``bm_opt``, ``pixel_opt``, ``perceptual_opt``.
        schedule: name of a schedule; its arguments follow.
        weight: attribute of the term that is set in place of those, e.g. ``frame_weight`` of KPNLoss.
    """

    #: Where the toolbox's models keep a term whose attribute is not ``cri_`` and the option's name.
    ATTRIBUTES = {'pixel_opt': 'cri_pix'}
    #: Names of a term's weight.
    WEIGHTS = ('loss_weight', 'perceptual_weight')

    def __init__(self, loss: str, schedule: str = 'step', weight: Optional[str] = None, **arguments: Any) -> None:
        self.loss = loss
        self.weights = self.WEIGHTS if weight is None else (weight,)
        self.schedule = build_schedule(schedule, **arguments)
        self.value = float('nan')

    def before_step(self, model: Any, current_iter: int) -> None:
        """Set the weight of this iteration."""
        name = self.ATTRIBUTES.get(self.loss, 'cri_' + self.loss[:-len('_opt')])
        term = getattr(model, name, None)
        weight = next((name for name in self.weights if hasattr(term, name)), None)
        if weight is None:
            raise OptionError(f"LossWeightHook: the model has no loss '{self.loss}' with a weight "
                              f"({' or '.join(self.weights)}); it must be one of the '*_opt' entries under 'train'.")
        self.value = self.schedule(current_iter)
        setattr(term, weight, self.value)

    def log(self) -> dict[str, float]:
        """The weight, under the loss's name."""
        return {f'weight_{self.loss[:-len("_opt")]}': self.value}
