"""Matching features of rows of a burst, as of the whole frames."""
from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import CONTEXT, DPBM, SCALE
from jddb_plugin.inference.source import PaddedRows


class FeatureRows:
    """What a coarse stage matches, made of a few rows at a time.

    Args:
        coarse: in evaluation mode.
        rows: the padded frames.
    """

    def __init__(self, coarse: DPBM, rows: PaddedRows) -> None:
        self.coarse, self.rows = coarse, rows
        self._statistics: Optional[tuple[Tensor, Tensor]] = None

    def read(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """(packed raw [1, N, 4, rows, W], features [1, N, F, rows / 4, W / 4] as of the whole frames)."""
        around, inner = self._around(first, last)
        raw = self.rows.read(*around, planes=4)
        features = self._normalized(raw, whole=around == (0, self.rows.height))[:, :, :, inner]
        return raw[:, :, :, first - around[0]:last - around[0]], features

    def _around(self, first: int, last: int) -> tuple[tuple[int, int], slice]:
        """Rows that the features of rows ``first`` to ``last - 1`` depend on, and where those features lie among theirs."""
        around = max(first - CONTEXT, 0), min(last + CONTEXT, self.rows.height)
        return around, slice((first - around[0]) // SCALE, (last - around[0]) // SCALE)

    def _normalized(self, raw: Tensor, *, whole: bool) -> Tensor:
        """Features of some rows, normalized by the statistics of the whole frames."""
        coarse = self.coarse
        if whole or coarse.downsample is None:
            return _frame_by_frame(coarse.extract, raw)
        if self._statistics is None:
            self._statistics = self._frame_statistics()
        mean, variance = self._statistics
        parts = (slice(index, index + 1) for index in range(raw.shape[1]))
        return torch.cat([coarse.normalize_features(coarse.convolve(raw[:, part]), mean[:, part], variance[:, part])
                          for part in parts], dim=1)

    def _frame_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance [1, N, F] of the features of whole frames, which are never held."""
        step = max(self.rows.grid.size[0] // SCALE, 1) * SCALE
        total = squares = torch.zeros((), dtype=torch.float64, device=self.rows.device)
        count = 0
        for first in range(0, self.rows.height, step):
            around, inner = self._around(first, min(first + step, self.rows.height))
            features = _frame_by_frame(self.coarse.convolve, self.rows.read(*around, planes=4))[:, :, :, inner].double()
            total = total + features.sum(dim=(-2, -1))
            squares = squares + features.square().sum(dim=(-2, -1))
            count += features.shape[-2] * features.shape[-1]
        mean = total / count
        return mean.float(), (squares / count - mean.square()).float()


def _frame_by_frame(compute: Callable[[Tensor], Tensor], raw: Tensor) -> Tensor:
    return torch.cat([compute(raw[:, index:index + 1]) for index in range(raw.shape[1])], dim=1)
