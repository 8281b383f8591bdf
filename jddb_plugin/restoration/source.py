"""The rows of a burst in files, as the tiled inference reads them."""
from __future__ import annotations

from torch import Tensor

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
        raw = self.frames.raw(index, first, last)
        return raw if planes == 4 else self.frames.noise.at(index).planes().to(raw).with_map(raw)

    def noise_levels(self) -> tuple[Tensor, Tensor]:
        """See :class:`jddb_plugin.inference.source.RowSource`."""
        noise = self.frames.noise.at(self.ref_idx).planes()
        return noise.shot, noise.read.square()
