"""How an optimization step is taken: precision, clipping, and what happens when it goes wrong."""
from __future__ import annotations

import functools
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jddb_plugin.checks import OptionError, TrainingError, check_choice
from jddb_plugin.options import Options
from jddb_plugin.runtime import processes


@dataclass(frozen=True)
class StepOptions(Options):
    """Switches of today's practice under ``train``; the defaults are the paper's plain step.

    Attributes:
        precision: 'float32', or 'bf16' to run the refined stage's convolutions in bfloat16 (autocast). Matching, the
            sampling of the deformable convolutions and the losses stay in float32, and so does validation.
        compile: run the refined stage through torch.compile.
        max_grad_norm: clip the gradients of the network, and those of its coarse stage, to this norm each: the matching's
            losses are far larger than the others, and would dominate the norm. Default: none.
        max_skipped: steps in a row that may be skipped for a loss or gradient that is not finite.
    """

    precision: str = 'float32'
    compile: bool = False
    max_grad_norm: Optional[float] = None
    max_skipped: int = 10

    def check(self) -> None:
        """Raise OptionError for a value that cannot be used."""
        check_choice(self.precision, ('float32', 'bf16'), 'precision')
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise OptionError(f'must be positive, got {self.max_grad_norm}.', field='max_grad_norm')
        if self.max_skipped < 0:
            raise OptionError(f'must be at least 0, got {self.max_skipped}.', field='max_skipped')


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: Optional[float]) -> Tensor:
    """Norm of all gradients together, before they are clipped to ``max_norm`` in place."""
    return nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm)


def joined_loss(terms: Mapping[str, Tensor], sums: Iterable[str]) -> Tensor:
    """Total loss of eq. (9), as if one process had the whole batch.

    Several processes average their gradients. That is right for means; a sum over samples (``sums`` names those
    terms) must be as many times larger.
    """
    world = dist.get_world_size() if processes.is_distributed() else 1
    weighted = [term * (world if name in sums else 1) for name, term in terms.items()]
    return functools.reduce(torch.add, weighted)


def joined_values(values: Mapping[str, Tensor], sums: Iterable[str]) -> OrderedDict[str, float]:
    """Numbers for the log, the same in every process: sums over the whole batch, or means over the processes.

    One transfer from the device serves all of them.
    """
    stacked = torch.stack([value.detach().float() for value in values.values()])
    if processes.is_distributed():
        dist.all_reduce(stacked)
        world = dist.get_world_size()
        stacked /= torch.tensor([1 if name in sums else world for name in values], device=stacked.device)
    return OrderedDict(zip(values, stacked.tolist()))


class SkipCounter:
    """Counts steps that were skipped because something was not finite.

    Attributes:
        in_a_row: since the last good step.
        in_all: since the run was started or resumed.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.in_a_row = self.in_all = 0

    def accepts(self, values: Mapping[str, Any], iteration: int) -> bool:
        """Whether the step may be taken.

        Raises:
            TrainingError: too many steps in a row may not; the weights are those of the last good step.
        """
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        self.in_all += 1
        if self.in_a_row > self.allowed:
            raise TrainingError(f'iteration {iteration}: training has diverged, {self.in_a_row} steps in a row were skipped. Not '
                                f'finite: {", ".join(wrong)}. Checkpoints are unaffected: lower the learning rate or set '
                                'train.max_grad_norm, and resume with --auto_resume.')
        return False
