"""The rows of a burst in files, as the tiled inference reads them."""
from __future__ import annotations

import torch
from torch import Tensor

from jddb_plugin.ops.noise import noise_std
from jddb_plugin.restoration.frames import Frames


class FramesSource:
    """A :class:`jddb_plugin.inference.source.RowSource` of the frames of a burst."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.size = frames.packed_size
        self.count = len(frames.mosaics)
        self.ref_idx = frames.ref_idx

    def read(self, index: int, first: int, last: int, planes: int = 8) -> Tensor:
        """See :class:`jddb_plugin.inference.source.RowSource`."""
        raw = self.frames.light(index, first, last)
        if planes == 4:
            return raw
        shot, read = (level[index].to(raw)[:, None, None] for level in self.frames.noise)
        return torch.cat((raw, noise_std(raw, shot, read)))

    def noise_levels(self) -> tuple[Tensor, Tensor]:
        """See :class:`jddb_plugin.inference.source.RowSource`."""
        shot, read = (level[self.ref_idx].float()[:, None, None] for level in self.frames.noise)
        return shot, read.square()
