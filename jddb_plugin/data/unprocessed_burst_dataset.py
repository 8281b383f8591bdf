"""Raw bursts synthesised from sRGB clips by unprocessing (section 4.1): for training, and for reproducible tests."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from basicsr.data.data_util import generate_frame_indices
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from jddb_plugin.checks import DataError, OptionError, check_choice, nearest
from jddb_plugin.data.frame_source import REDS4, Clip, FrameSource
from jddb_plugin.data.images import to_float
from jddb_plugin.data.sampling import TemporalOptions, draw_burst, index_test_clips, sample_generator
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.isp import Camera, reference_camera, sample_camera, unprocess
from jddb_plugin.ops.noise import TEST_LEVELS, add_test_noise, noise_std, sample_noise_level
from jddb_plugin.ops.synthesis import synthesise_batch
from jddb_plugin.options import HOST_KEYS, read_options

#: Tile corners are multiples of it, so that they fall on whole feature pixels.
SCALE = 4


def _check_num_frame(num_frame: int, where: str) -> None:
    if num_frame < 1 or num_frame % 2 == 0:
        raise OptionError(f'{where}.num_frame: must be odd (the reference is the middle frame), got {num_frame}.')


def _noise_level(noise: Union[str, Sequence[float]], where: str) -> tuple[float, float]:
    """(shot, read) of a named level, or as given."""
    if isinstance(noise, str):
        check_choice(noise, TEST_LEVELS, f'{where}.noise')
        return TEST_LEVELS[noise]
    if len(noise) != 2 or min(noise) < 0:
        raise OptionError(f"{where}.noise: expected 'low', 'high' or [shot, read], got {noise!r}.")
    return float(noise[0]), float(noise[1])


def _metadata(camera: Camera) -> dict[str, Tensor]:
    return {
        'red_gain': torch.tensor(camera.red_gain, dtype=torch.float32),
        'blue_gain': torch.tensor(camera.blue_gain, dtype=torch.float32),
        'rgb_gain': torch.tensor(camera.rgb_gain, dtype=torch.float32),
        'cam2rgb': camera.cam2rgb,
    }


def _with_noise_map(noisy: Tensor, shot: float, read: float) -> Tensor:
    """Packed raw [N, 4, H, W] and its noise map as 8 planes."""
    return torch.cat((noisy, noise_std(noisy, shot, read)), dim=1)


@dataclass(frozen=True)
class _Source:
    dataroot_gt: str


@dataclass(frozen=True)
class TrainOptions(TemporalOptions, _Source):
    """Options of :class:`UnprocessedBurstDataset`."""

    io_backend: dict = field(default_factory=lambda: {'type': 'lmdb'})
    clips: Optional[list[str]] = None
    exclude_clips: list[str] = field(default_factory=list)
    val_partition: Optional[str] = None
    gt_size: int = 720
    use_hflip: bool = True
    use_rot: bool = True
    noise: Union[str, list[float]] = 'random'
    tile: Optional[int] = None
    reach: int = 0
    synthesis: str = 'worker'
    stage_dir: Optional[str] = None
    seed: int = 0


@DATASET_REGISTRY.register()
class UnprocessedBurstDataset(Dataset):
    """Training bursts from sRGB clips.

    A sample is drawn from (seed, epoch, index) alone, whatever the number of workers. One camera, one noise level and
    one crop, flip and rotation serve all frames of a burst; the geometry is applied to the RGB frames before they are
    sampled by the mosaic, so the Bayer phase stays rggb.

    Args:
        opt: section of the option file:
            dataroot_gt (str): burst LMDB, or folder of folders of images.
            io_backend (dict): ``{type: lmdb}`` (default) or ``{type: disk}``.
            clips (list[str]): clips to use. Default: all.
            exclude_clips (list[str]): clips to leave out. Default: none.
            val_partition (str): 'REDS4' leaves out those four clips. Default: none.
            num_frame, ref_idx, interval_list, random_reverse: see :class:`jddb_plugin.data.sampling.TemporalOptions`.
            gt_size (int): side of the RGB crop, even. Default: 720.
            use_hflip (bool): flip half of the bursts horizontally. Default: true.
            use_rot (bool): flip vertically and transpose, each half of the bursts. Default: true.
            noise (str | list[float]): 'random' draws a level per burst in the paper's ranges; 'low', 'high' or [shot, read]
                trains for that level alone. Default: 'random'.
            tile (int): side of the training tile in packed px, a multiple of 4. If given, a sample also holds the corner of
                a random tile of the crop, and only the region around it is cut; 'auto' is the model's. Default: none, the model
                draws it.
            reach (int): how far around the tile the region goes, in packed px: what a search can touch. Default: as far as
                the network's search goes.
            synthesis (str): 'worker' makes the raw burst here; 'device' leaves that to the model, a batch at a time on its
                device (JDDBModel can). On a CPU both give the same numbers. Default: 'worker'.
            stage_dir (str): folder on the node's own disk to copy the LMDB to, or 'auto', see staging.py. Default: none.
            seed (int): of all random draws. Default: 0; our entry points fill in ``manual_seed``.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], clean [N, 4, h, w], red_gain, blue_gain, rgb_gain, cam2rgb [3, 3],
        key (str); with a tile also positions [2], its corner in packed px. With ``synthesis: device`` srgb [N, 3, 2h, 2w]
        (uint8, or float32 in [0, 1]), shot, read, seed and ref_idx (int) take the place of lq, gt and clean.
    """

    Options = TrainOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        where = 'datasets.train'
        self.opt = opt
        self.options = options = read_options(TrainOptions, opt, where, ignore=HOST_KEYS)
        options.check(where)
        if options.gt_size < 2 or options.gt_size % 2:
            raise OptionError(f'{where}.gt_size: must be even and positive, got {options.gt_size}.')
        if isinstance(options.noise, str):
            check_choice(options.noise, ('random', *TEST_LEVELS), f'{where}.noise')
        self.noise = None if options.noise == 'random' else _noise_level(options.noise, where)
        check_choice(options.synthesis, ('worker', 'device'), f'{where}.synthesis')
        #: Side of what is cut of a frame, in RGB pixels.
        self.region = options.gt_size
        if options.tile is not None:
            if options.tile < SCALE or options.tile % SCALE or options.tile > options.gt_size // 2:
                raise OptionError(f'{where}.tile: must be a multiple of {SCALE} that fits into gt_size / 2 = '
                                  f'{options.gt_size // 2}, got {options.tile}.')
            if options.reach < 0 or options.reach % SCALE:
                raise OptionError(f'{where}.reach: must be a multiple of {SCALE}, at least 0, got {options.reach}.')
            self.region = min(2 * (options.tile + 2 * options.reach), options.gt_size) // (2 * SCALE) * (2 * SCALE)
        without = list(options.exclude_clips)
        if options.val_partition is not None:
            check_choice(options.val_partition, ('REDS4',), f'{where}.val_partition')
            without += REDS4
        self.source = FrameSource(options.dataroot_gt, options.io_backend, where, stage_dir=options.stage_dir)
        self.samples: list[tuple[Clip, int]] = []
        for name in options.exclude_clips:
            if name not in self.source.clips:
                hint = nearest(name, self.source.clips)
                raise DataError(f"{where}.exclude_clips: '{name}' is not in {self.source.root}; {hint}")
        for clip in self.source.select(options.clips, without, where):
            if min(clip.size) < options.gt_size:
                raise DataError(f'{self.source.root}: clip {clip.name} is {clip.size[1]} x {clip.size[0]}, smaller than '
                                f'gt_size {options.gt_size}; lower gt_size or leave it out by exclude_clips.')
            self.samples += [(clip, k) for k in options.references(len(clip.keys), clip.name, str(self.source.root))]

    def __len__(self) -> int:
        return len(self.samples)

    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in RGB pixels of what is cut from each clip."""
        return {clip.name: (self.region,) * 2 for clip, _ in self.samples}

    def __getitem__(self, index: int) -> dict[str, Any]:
        options = self.options
        generator = sample_generator(options.seed, index)

        def draw(high: int) -> int:
            return int(torch.randint(high, (1,), generator=generator))

        clip, reference = self.samples[index]
        frames = draw_burst(options, reference, len(clip.keys), draw)
        corner = [draw(side - options.gt_size + 1) for side in clip.size]
        size = options.gt_size
        position = None
        if options.tile is not None:
            size = self.region
            places = (options.gt_size // 2 - options.tile) // SCALE + 1
            # The region lies around the tile as far as the crop allows, so that all samples are of one size.
            tile = [draw(places) * SCALE for _ in range(2)]
            last = (options.gt_size // 2 - size // 2) // SCALE * SCALE
            start = [min(max(t - options.reach, 0), last) for t in tile]
            position = [t - s for t, s in zip(tile, start)]
            corner = [c + 2 * s for c, s in zip(corner, start)]
        crops = [self.source.read(clip, i, window=(*corner, size, size)) for i in frames]
        flips = (bool(options.use_hflip and draw(2)), bool(options.use_rot and draw(2)), bool(options.use_rot and draw(2)))
        srgb = _flip(torch.stack([_channels_first(crop) for crop in crops]), *flips)
        camera = sample_camera(generator)
        shot, read = sample_noise_level(generator) if self.noise is None else self.noise
        sample = {
            'srgb': srgb, **_metadata(camera), 'shot': torch.tensor(shot), 'read': torch.tensor(read),
            'seed': torch.randint(2 ** 62, (), generator=generator), 'ref_idx': options.reference,
            'key': clip.keys[reference],
        }
        if position is not None:
            sample['positions'] = _flip_corner(torch.tensor(position), options.tile, size // 2, *flips)
        if options.synthesis == 'worker':
            batch = {key: value[None] for key, value in sample.items() if torch.is_tensor(value)}
            burst = synthesise_batch(batch, options.reference)
            sample.update({key: value[0] for key, value in burst._asdict().items()})
            for key in ('srgb', 'shot', 'read', 'seed'):
                del sample[key]
        return sample


def _channels_first(image: np.ndarray) -> Tensor:
    """RGB [H, W, 3] -> [3, H, W]: uint8 as it is, 16 bit as float32 in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()) if image.dtype == np.uint8 else to_float(image)


def _flip_corner(corner: Tensor, tile: int, side: int, horizontal: bool, vertical: bool, transpose: bool) -> Tensor:
    """Where the corner (y, x) of a tile goes when a square image of ``side`` is flipped by :func:`_flip`."""
    y, x = corner.tolist()
    x = side - tile - x if horizontal else x
    y = side - tile - y if vertical else y
    return torch.tensor((x, y) if transpose else (y, x))


def _flip(frames: Tensor, horizontal: bool, vertical: bool, transpose: bool) -> Tensor:
    """The same flips and transposition for all frames [N, C, H, W]."""
    if horizontal:
        frames = frames.flip(-1)
    if vertical:
        frames = frames.flip(-2)
    if transpose:
        frames = frames.transpose(-2, -1)
    return frames.contiguous()


@dataclass(frozen=True)
class TestOptions:
    """Options of :class:`UnprocessedBurstTestDataset`."""

    dataroot_gt: str
    noise: Union[str, list[float]]
    io_backend: dict = field(default_factory=lambda: {'type': 'lmdb'})
    clips: Optional[list[str]] = None
    num_frame: int = 5
    references: str = 'all'
    padding: str = 'reflection_circle'
    crop: Optional[list[int]] = None
    stage_dir: Optional[str] = None


@DATASET_REGISTRY.register()
class UnprocessedBurstTestDataset(Dataset):
    """Test clips with the published protocol's camera and reproducible noise; one sample per frame.

    Args:
        opt: section of the option file:
            dataroot_gt (str): burst LMDB, or folder of folders of images.
            noise (str | list[float]): 'low', 'high', or [shot, read]; there is no default.
            io_backend (dict): ``{type: lmdb}`` (default) or ``{type: disk}``.
            clips (list[str]): clips to use. Default: all.
            num_frame (int): frames per burst, odd. Default: 5.
            references (str): 'all' frames of a clip, or 'middle': one burst of the first ``num_frame`` frames. Default: 'all'.
            padding (str): where missing neighbours at a clip's ends come from, see the toolbox's
                ``generate_frame_indices``. Default: 'reflection_circle' (the other side).
            crop (list[int]): [y, x, height, width] in RGB pixels, even, the same for all frames. Noise is drawn for the
                crop, as the protocol says. Default: whole frames.
            stage_dir (str): see :class:`UnprocessedBurstDataset`.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], red_gain, blue_gain, rgb_gain, cam2rgb [3, 3], folder (str),
        idx ('i/n'), border (1 where a neighbour is missing), lq_path (str).
    """

    Options = TestOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        where = f"data set '{opt.get('name', 'test')}'"
        self.opt = opt
        self.options = options = read_options(TestOptions, opt, where, ignore=HOST_KEYS)
        _check_num_frame(options.num_frame, where)
        check_choice(options.references, ('all', 'middle'), f'{where}.references')
        check_choice(options.padding, ('replicate', 'reflection', 'reflection_circle', 'circle'), f'{where}.padding')
        self.shot, self.read = _noise_level(options.noise, where)
        self.camera = reference_camera()
        self.source = FrameSource(options.dataroot_gt, options.io_backend, where, stage_dir=options.stage_dir)
        clips = self.source.select(options.clips, (), where)
        self.samples, self.data_info = index_test_clips(clips, options.num_frame, self.source.root,
                                                        middle=options.references == 'middle')
        for clip in clips:
            self._check_crop(clip, where)
        self._recent: OrderedDict[tuple[str, int], tuple[Tensor, Tensor]] = OrderedDict()

    def _check_crop(self, clip: Clip, where: str) -> None:
        crop = self.options.crop
        if crop is None:
            return
        if len(crop) != 4 or min(crop) < 0 or crop[2] % 2 or crop[3] % 2 or not (crop[2] and crop[3]):
            raise OptionError(f'{where}.crop: expected [y, x, height, width] with even height and width, got {crop}.')
        if crop[0] + crop[2] > clip.size[0] or crop[1] + crop[3] > clip.size[1]:
            raise OptionError(f'{where}.crop: {crop} does not fit into clip {clip.name} of {clip.size[1]} x {clip.size[0]}.')

    def __len__(self) -> int:
        return len(self.samples)

    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in RGB pixels of what is restored of each clip."""
        return {clip.name: tuple(self.options.crop[2:]) if self.options.crop else clip.size for clip, _ in self.samples}

    def _frame(self, clip: Clip, index: int) -> tuple[Tensor, Tensor]:
        """(noisy packed raw, clean linear RGB) of one frame; neighbouring bursts share most of their frames."""
        key = (clip.name, index)
        if key not in self._recent:
            image = self.source.read(clip, index)
            if self.options.crop is not None:
                y, x, height, width = self.options.crop
                image = image[y:y + height, x:x + width]
            linear = unprocess(to_float(image), self.camera)
            noisy = add_test_noise(mosaic_rgb(linear), self.shot, self.read, frame_number=index + 1)
            self._recent[key] = (noisy, linear)
            while len(self._recent) > self.options.num_frame:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, centre = self.samples[index]
        neighbours = generate_frame_indices(centre, len(clip.keys), self.options.num_frame, padding=self.options.padding)
        frames = [self._frame(clip, i) for i in neighbours]
        return {
            'lq': _with_noise_map(torch.stack([noisy for noisy, _ in frames]), self.shot, self.read),
            'gt': frames[self.options.num_frame // 2][1].clone(),
            **_metadata(self.camera),
            **{key: values[index] for key, values in self.data_info.items()},
        }
