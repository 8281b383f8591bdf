"""Clips of Bayer mosaics as normalized packed raw, with their cameras, their noise, and their ground truth if there is one."""
from __future__ import annotations

from typing import Optional, Sequence

import torch
from torch import Tensor

from jddb_plugin.checks import DataError
from jddb_plugin.data.frame_source import Clip, FrameSource
from jddb_plugin.data.images import to_float
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.noise_option import Noise
from jddb_plugin.ops.cfa import to_rggb
from jddb_plugin.ops.noise import NoiseModel


class MosaicSource:
    """Mosaics of an LMDB.

    Args:
        mosaics: where they are read from.
        truth: the same clips and frames as linear camera RGB, or None.
        noise: where their noise is known from: 'metadata', 'estimate', or (shot, read).
        where: the option section, for messages.
    """

    def __init__(self, mosaics: FrameSource, truth: Optional[FrameSource], noise: Noise, where: str) -> None:
        self.mosaics, self.truth = mosaics, truth
        self.noise = noise
        self.where = where
        self._metadata: dict[tuple[str, int], CameraMetadata] = {}

    def check(self, clips: Sequence[Clip]) -> None:
        """Raise DataError unless the noise of all frames is known, and the ground truth fits them."""
        for clip in clips:
            for index in range(len(clip.keys)):
                if self.noise == 'metadata' and self.metadata(clip, index).noise() is None:
                    raise DataError(f'{self.mosaics.root}: clip {clip.name}: frame {index}: its metadata holds no noise profile; '
                                    f'give noise: [shot, read], or noise: estimate, in {self.where}.')
            if self.truth is not None:
                other = self.truth.clips.get(clip.name)
                if other is None or other.size != clip.size or len(other.keys) != len(clip.keys):
                    found = 'nothing' if other is None else f'{len(other.keys)} of {other.size[1]} x {other.size[0]}'
                    raise DataError(f'{self.truth.root}: clip {clip.name}: expected {len(clip.keys)} frames of '
                                    f'{clip.size[1]} x {clip.size[0]}, as in {self.mosaics.root}, found {found}.')

    def metadata(self, clip: Clip, index: int) -> CameraMetadata:
        """Metadata of a frame; each is read once."""
        key = clip.name, index
        if key not in self._metadata:
            self._metadata[key] = self.mosaics.metadata(clip, index)
        return self._metadata[key]

    def mosaic(self, clip: Clip, index: int) -> Tensor:
        """Frame [H, W] of pattern rggb in sample values, even sides."""
        stored = torch.from_numpy(self.mosaics.read(clip, index).astype('float32'))
        return to_rggb(stored, self.metadata(clip, index).cfa)[0]

    def read_truth(self, clip: Clip, index: int) -> Optional[Tensor]:
        """Ground truth [3, H, W] of a frame, cropped as its mosaic is; None if there is none."""
        if self.truth is None:
            return None
        truth = self.truth.read(self.truth.clips[clip.name], index)
        return to_rggb(to_float(truth), self.metadata(clip, index).cfa)[0]

    def noise_of(self, clip: Clip, frames: Sequence[int], burst: Tensor) -> NoiseModel:
        """Noise of some frames, whose packed raw is ``burst`` [N, 4, H, W]: levels [N, 4] from metadata, else [4]."""
        if self.noise == 'estimate':
            return NoiseModel.estimate(burst)
        if isinstance(self.noise, str):
            return stack_noise([self.metadata(clip, index) for index in frames])
        shot, read = self.noise
        return NoiseModel(torch.full((4,), shot), torch.full((4,), read))


def stack_noise(metadata: Sequence[CameraMetadata]) -> NoiseModel:
    """Noise profiles of some frames, levels [N, 4].

    Raises:
        DataError: a frame has none.
    """
    profiles = [one.noise() for one in metadata]
    known = [profile for profile in profiles if profile is not None]
    if len(known) < len(profiles):
        raise DataError(f'{metadata[profiles.index(None)].source}: states no noise profile.')
    return NoiseModel(torch.stack([noise.shot for noise in known]), torch.stack([noise.read for noise in known]))
