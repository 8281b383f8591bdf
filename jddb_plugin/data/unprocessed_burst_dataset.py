"""Raw bursts synthesized from sRGB clips by unprocessing (section 4.1): for training, and for reproducible tests."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from jddb_plugin.checks import OptionError, check_choice
from jddb_plugin.data.burst_dataset import BurstTestDataset, BurstTestOptions, BurstTrainDataset, BurstTrainOptions
from jddb_plugin.data.frame_source import REDS4, Clip, FrameSource
from jddb_plugin.data.images import to_float
from jddb_plugin.data.sampling import SampleRandom
from jddb_plugin.noise_option import parse_level, parse_noise
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera, reference_camera, sample_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.synthesis import synthesize

#: Tile corners are multiples of it, so that they fall on whole feature pixels.
SCALE = 4


@dataclass(frozen=True)
class _Source:
    dataroot_gt: str


@dataclass(frozen=True)
class TrainOptions(BurstTrainOptions, _Source):
    """Options of :class:`UnprocessedBurstDataset`."""

    val_partition: Optional[str] = None
    gt_size: int = 720
    noise: Union[str, list[float]] = 'random'
    tile: Optional[int] = None
    reach: int = 0
    synthesis: str = 'worker'

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        parse_noise(self.noise, 'random')
        check_choice(self.synthesis, ('worker', 'device'), 'synthesis')
        if self.val_partition is not None:
            check_choice(self.val_partition, ('REDS4',), 'val_partition')
        if self.tile is None:
            return
        if self.tile < SCALE or self.tile % SCALE or self.tile > self.gt_size // 2:
            raise OptionError(f'must be a multiple of {SCALE} that fits into gt_size / 2 = {self.gt_size // 2}, got {self.tile}.',
                              field='tile')
        if self.reach < 0 or self.reach % SCALE:
            raise OptionError(f'must be a multiple of {SCALE}, at least 0, got {self.reach}.', field='reach')

    @property
    def region(self) -> int:
        """Side of what is cut of a frame, in RGB pixels: the crop, or what a search around a tile can touch."""
        if self.tile is None:
            return self.gt_size
        return min(2 * (self.tile + 2 * self.reach), self.gt_size) // (2 * SCALE) * (2 * SCALE)


@DATASET_REGISTRY.register()
class UnprocessedBurstDataset(BurstTrainDataset):
    """Training bursts from sRGB clips.

    A sample is drawn from (seed, epoch, index) alone, whatever the number of workers. One camera, one noise level and
    one crop, flip and rotation serve all frames of a burst; the geometry is applied to the RGB frames before they are
    sampled by the mosaic, so the Bayer phase stays rggb.

    Args:
        opt: section of the option file:
            dataroot_gt (str): burst LMDB, or folder of folders of images.
            io_backend, clips, stage_dir: see :class:`jddb_plugin.data.burst_dataset.ClipOptions`.
            exclude_clips, use_hflip, use_rot, seed: see :class:`jddb_plugin.data.burst_dataset.BurstTrainOptions`.
            num_frame, ref_idx, interval_list, random_reverse: see :class:`jddb_plugin.data.sampling.TemporalOptions`.
            val_partition (str): 'REDS4' excludes those four clips, too. Default: none.
            gt_size (int): side of the RGB crop, even. Default: 720.
            noise (str | list[float]): 'random' draws a level per burst in the paper's ranges; 'low', 'high' or [shot, read]
                trains for that level alone. Default: 'random'.
            tile (int): side of the training tile in packed px, a multiple of 4. If given, a sample also holds the corner of
                a random tile of the crop, and only the region around it is cut; 'auto' is the model's. Default: none, the model
                draws it.
            reach (int): how far around the tile the region extends, in packed px: what a search can touch. Default: the range
                of the network's search.
            synthesis (str): 'worker' makes the raw burst here; 'device' leaves that to the model, a batch at a time on its
                device. On a CPU both give the same numbers. Default: 'worker'.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], clean [N, 4, h, w], camera, noise, ref_idx (int), key (str); with a tile also
        positions [2], its corner in packed px. With ``synthesis: device`` srgb [N, 3, 2h, 2w] (uint8, or float32 in [0, 1]) and
        seed take the place of lq, gt and clean.
    """

    Options = TrainOptions
    options: TrainOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        options = self.options
        level = parse_noise(options.noise, 'random')
        self.fixed_noise = None if isinstance(level, str) else NoiseModel.of(*level)
        self.source = FrameSource(options.dataroot_gt, options.io_backend, self.where, stage_dir=options.stage_dir)
        self.index_clips(self.source, self.choose_clips(self.source, also_without=REDS4 if options.val_partition else ()))

    def sample_size(self, clip: Clip) -> tuple[int, int]:
        """(height, width) in RGB pixels of what is cut from a clip."""
        return self.options.region, self.options.region

    def read_burst(self, clip: Clip, frames: Sequence[int], reference: int, random: SampleRandom) -> dict[str, Any]:
        """Tensors of a sample."""
        options, size = self.options, self.options.region
        y, x = (random.below(side - options.gt_size + 1) for side in clip.size)
        corner = None
        if options.tile is not None:
            places = (options.gt_size // 2 - options.tile) // SCALE + 1
            # The region lies around the tile as far as the crop allows, so that all samples are of one size.
            last = (options.gt_size // 2 - size // 2) // SCALE * SCALE
            tile = [random.below(places) * SCALE for _ in range(2)]
            start = [min(max(t - options.reach, 0), last) for t in tile]
            corner = [t - s for t, s in zip(tile, start)]
            y, x = y + 2 * start[0], x + 2 * start[1]
        crops = [self.source.read(clip, k, window=(y, x, size, size)) for k in frames]
        flips = random.flips(use_hflip=options.use_hflip, use_rot=options.use_rot)
        srgb = flips.apply(torch.stack([_channels_first(crop) for crop in crops]))
        camera = sample_camera(random.generator).to(torch.float32)
        noise = (NoiseModel.random(random.generator) if self.fixed_noise is None else self.fixed_noise).to(torch.float32)
        seed = random.seed()
        sample: dict[str, Any] = {'camera': camera, 'noise': noise}
        if corner is not None and options.tile is not None:
            sample['positions'] = torch.tensor(flips.move_corner(corner, options.tile, size // 2))
        if options.synthesis == 'device':
            return {**sample, 'srgb': srgb, 'seed': seed}
        burst = synthesize(srgb[None], camera.at(None), noise.at(None), seed[None], ref_idx=options.reference)
        return {**sample, **{key: value[0] for key, value in burst._asdict().items()}}


def _channels_first(image: np.ndarray) -> Tensor:
    """RGB [H, W, 3] -> [3, H, W]: uint8 as it is, 16 bit as float32 in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()) if image.dtype == np.uint8 else to_float(image)


@dataclass(frozen=True)
class _TestSource(_Source):
    noise: Union[str, list[float]]


@dataclass(frozen=True)
class TestOptions(BurstTestOptions, _TestSource):
    """Options of :class:`UnprocessedBurstTestDataset`."""

    crop: Optional[list[int]] = None

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        parse_level(self.noise)
        crop = self.crop
        if crop is not None and (len(crop) != 4 or min(crop) < 0 or crop[2] % 2 or crop[3] % 2 or not (crop[2] and crop[3])):
            raise OptionError(f'expected [y, x, height, width] with even height and width, got {crop}.', field='crop')


@DATASET_REGISTRY.register()
class UnprocessedBurstTestDataset(BurstTestDataset):
    """Test clips with the released protocol's camera and reproducible noise; one sample per frame.

    Args:
        opt: section of the option file:
            dataroot_gt (str): burst LMDB, or folder of folders of images.
            noise (str | list[float]): 'low', 'high', or [shot, read]; there is no default.
            io_backend, clips, stage_dir: see :class:`jddb_plugin.data.burst_dataset.ClipOptions`.
            num_frame, references, padding: see :class:`jddb_plugin.data.burst_dataset.BurstTestOptions`.
            crop (list[int]): [y, x, height, width] in RGB pixels, even, the same for all frames. Noise is drawn for the
                crop, as the protocol says. Default: whole frames.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], camera, noise, folder (str), idx ('i/n'), border (1 where a neighbor is
        missing), lq_path (str).
    """

    Options = TestOptions
    options: TestOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        options = self.options
        self.noise_model = NoiseModel.parse(options.noise)
        self.reference_camera = reference_camera()
        self.source = FrameSource(options.dataroot_gt, options.io_backend, self.where, stage_dir=options.stage_dir)
        clips = self.source.select(options.clips, (), self.where)
        crop = options.crop
        for clip in clips:
            if crop is not None and (crop[0] + crop[2] > clip.size[0] or crop[1] + crop[3] > clip.size[1]):
                raise OptionError(f'{self.where}.crop: {crop} does not fit into clip {clip.name} of {clip.size[1]} x '
                                  f'{clip.size[0]}.')
        self.index_clips(self.source, clips)

    def sample_size(self, clip: Clip) -> tuple[int, int]:
        """(height, width) in RGB pixels of what is restored of a clip."""
        crop = self.options.crop
        return clip.size if crop is None else (crop[2], crop[3])

    def read_frame(self, clip: Clip, index: int) -> tuple[Tensor, Tensor]:
        """Noisy packed raw of one frame, and its clean linear RGB."""
        image = self.source.read(clip, index)
        if self.options.crop is not None:
            y, x, height, width = self.options.crop
            image = image[y:y + height, x:x + width]
        linear = self.reference_camera.unprocess(to_float(image))
        return self.noise_model.sample_test_frame(mosaic_rgb(linear), frame_number=index + 1), linear

    def camera(self, clip: Clip, index: int) -> Camera:
        """The reference camera."""
        return self.reference_camera.to(torch.float32)

    def noise(self, clip: Clip, frames: Sequence[int], burst: Tensor) -> NoiseModel:
        """The level of the options."""
        return self.noise_model
