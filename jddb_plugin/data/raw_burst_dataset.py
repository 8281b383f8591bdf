"""Real raw bursts: clips of Bayer mosaics with the metadata of their camera, with or without ground truth."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.burst_dataset import (
    BurstTestDataset,
    BurstTestOptions,
    BurstTrainDataset,
    BurstTrainOptions,
    with_noise_map,
)
from jddb_plugin.data.frame_source import Clip, FrameSource
from jddb_plugin.data.mosaic_source import MosaicSource
from jddb_plugin.data.sampling import SampleRandom
from jddb_plugin.noise_option import parse_noise
from jddb_plugin.ops.bayer import pack, unpack
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.cfa import flip_mosaic
from jddb_plugin.ops.noise import NoiseModel


@dataclass(frozen=True)
class _Source:
    dataroot_lq: str


@dataclass(frozen=True)
class TrainOptions(BurstTrainOptions, _Source):
    """Options of :class:`RawBurstDataset`."""

    dataroot_gt: Optional[str] = None
    noise: Union[str, list[float]] = 'metadata'

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        parse_noise(self.noise, 'metadata', 'estimate')
        if self.dataroot_gt is None:
            raise OptionError('is missing; training needs the clips as linear camera RGB, too.', field='dataroot_gt')


@dataclass(frozen=True)
class TestOptions(BurstTestOptions, _Source):
    """Options of :class:`RawBurstTestDataset`."""

    dataroot_gt: Optional[str] = None
    noise: Union[str, list[float]] = 'metadata'

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        parse_noise(self.noise, 'metadata', 'estimate')


def _open(options: Union[TrainOptions, TestOptions], where: str) -> MosaicSource:
    mosaics = FrameSource(options.dataroot_lq, options.io_backend, where, frames='mosaic', stage_dir=options.stage_dir)
    truth = None if options.dataroot_gt is None else FrameSource(
        options.dataroot_gt, options.io_backend, where, stage_dir=options.stage_dir, odd=True)
    return MosaicSource(mosaics, truth, parse_noise(options.noise, 'metadata', 'estimate'), where)


@DATASET_REGISTRY.register()
class RawBurstDataset(BurstTrainDataset):
    """Training bursts of real mosaics with ground truth.

    A sample is drawn from (seed, epoch, index) alone. Flips and rotations keep the rggb phase: what a flip would shift
    is cropped. The whole crop is given to the model, which draws the training tile.

    Args:
        opt: section of the option file:
            dataroot_lq (str): burst LMDB of mosaics.
            dataroot_gt (str): burst LMDB of the same clips and frames as linear camera RGB (16 bit, black 0, white
                65535) of the mosaic's size.
            noise (str | list[float]): 'metadata' takes each frame's own profile and refuses a clip without; 'estimate'
                fits it to the burst, see :mod:`jddb_plugin.ops.noise_estimate`; 'low', 'high' or [shot, read] give it.
                Default: 'metadata'.
            gt_size (int): side of the crop in mosaic pixels, even. Default: 512.
            io_backend, clips, stage_dir: see :class:`jddb_plugin.data.burst_dataset.ClipOptions`.
            exclude_clips, use_hflip, use_rot, seed: see :class:`jddb_plugin.data.burst_dataset.BurstTrainOptions`.
            num_frame, ref_idx, interval_list, random_reverse: see :class:`jddb_plugin.data.sampling.TemporalOptions`.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], camera, noise (levels [4] or [N, 4]), ref_idx (int), key (str).
    """

    Options = TrainOptions
    options: TrainOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        self.source = _open(self.options, self.where)
        clips = self.choose_clips(self.source.mosaics)
        self.source.check(clips)
        # To keep the phase, a flip needs two lines more than the crop, and the pattern one.
        self.index_clips(self.source.mosaics, clips, margin=3)

    def sample_size(self, clip: Clip) -> tuple[int, int]:
        """(height, width) in mosaic pixels of what is cut from a clip."""
        return self.options.gt_size, self.options.gt_size

    def read_burst(self, clip: Clip, frames: Sequence[int], reference: int, random: SampleRandom) -> dict[str, Any]:
        """Tensors of a sample."""
        options, source = self.options, self.source
        mosaics = torch.stack([source.mosaic(clip, k) for k in frames])
        # Two lines more than asked for, on an even corner: a flip loses the first and the last of them.
        size = options.gt_size + 2
        y, x = (2 * random.below((side - size) // 2 + 1) for side in mosaics.shape[-2:])
        flips = random.flips(use_hflip=options.use_hflip, use_rot=options.use_rot)

        def flip(image: Tensor) -> Tensor:
            flipped = flip_mosaic(image, flip_x=flips.horizontal, flip_y=flips.vertical, transpose=flips.transpose)
            return flipped[..., :options.gt_size, :options.gt_size].contiguous()

        # Levels and noise belong to the planes before a transposition swaps the two greens.
        raw = torch.stack([source.metadata(clip, k).normalize(mosaic[y:y + size, x:x + size])
                           for k, mosaic in zip(frames, mosaics)])
        noise = source.noise_of(clip, frames, raw)
        lq = with_noise_map(raw, noise)
        truth = source.read_truth(clip, reference)
        if truth is None:
            raise DataError(f'{self.where}: clip {clip.name} has no ground truth.')
        return {
            'lq': torch.cat([pack(flip(unpack(planes))) for planes in lq.split(4, dim=1)], dim=1),
            'gt': flip(truth[:, y:y + size, x:x + size]),
            'camera': source.metadata(clip, reference).camera(),
            'noise': _flipped_noise(noise, flips.transpose),
        }


def _flipped_noise(noise: NoiseModel, transpose: bool) -> NoiseModel:
    """Levels [..., 4] of the planes; a transposition swaps the two greens."""
    return noise.at((..., [0, 2, 1, 3])) if transpose else noise


@DATASET_REGISTRY.register()
class RawBurstTestDataset(BurstTestDataset):
    """Real raw clips to restore; one sample per reference frame.

    Args:
        opt: section of the option file:
            dataroot_lq, dataroot_gt, noise: see :class:`RawBurstDataset`; without dataroot_gt samples have no gt, and there
                are no metrics.
            io_backend, clips, stage_dir: see :class:`jddb_plugin.data.burst_dataset.ClipOptions`.
            num_frame, references, padding: see :class:`jddb_plugin.data.burst_dataset.BurstTestOptions`.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w] if there is one, camera, noise (levels [4] or [N, 4]), folder (str),
        idx ('i/n'), border (1 where a neighbor is missing), lq_path (str).
    """

    Options = TestOptions
    options: TestOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        self.source = _open(self.options, self.where)
        clips = self.source.mosaics.select(self.options.clips, (), self.where)
        self.source.check(clips)
        self.index_clips(self.source.mosaics, clips)

    def read_frame(self, clip: Clip, index: int) -> tuple[Tensor, None]:
        """Normalized packed raw of one frame."""
        return self.source.metadata(clip, index).normalize(self.source.mosaic(clip, index)), None

    def read_truth(self, clip: Clip, index: int) -> Optional[Tensor]:
        """Linear camera RGB of one frame, if there is ground truth."""
        return self.source.read_truth(clip, index)

    def camera(self, clip: Clip, index: int) -> Camera:
        """Camera of the frame's metadata."""
        return self.source.metadata(clip, index).camera()

    def noise(self, clip: Clip, frames: Sequence[int], burst: Tensor) -> NoiseModel:
        """Noise of the metadata, the burst, or the options."""
        return self.source.noise_of(clip, frames, burst)
