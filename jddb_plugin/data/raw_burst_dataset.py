"""Real raw bursts: clips of Bayer mosaics with the metadata of their camera, with or without ground truth."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence, Union

import torch
from basicsr.data.data_util import generate_frame_indices
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from jddb_plugin.checks import DataError, OptionError, check_choice
from jddb_plugin.data.frame_source import Clip, FrameSource
from jddb_plugin.data.images import to_float
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.sampling import TemporalOptions, draw_burst, index_test_clips, sample_generator
from jddb_plugin.ops.bayer import demosaic_bilinear, pack, unpack
from jddb_plugin.ops.cfa import cell_to_rggb, flip_mosaic, normalise, orient, restore_frame, to_rggb
from jddb_plugin.ops.isp import camera_matrix, process, tone_map
from jddb_plugin.ops.noise import noise_std
from jddb_plugin.ops.noise_estimate import estimate_noise
from jddb_plugin.options import HOST_KEYS, read_options

Noise = Union[str, Sequence[float]]


def _check_noise(noise: Noise, where: str) -> None:
    if isinstance(noise, str):
        check_choice(noise, ('metadata', 'estimate'), f'{where}.noise')
    elif len(noise) != 2 or min(noise) < 0 or max(noise) > 1:
        raise OptionError(f"{where}.noise: expected 'metadata', 'estimate' or [shot, read] in 0 .. 1, got {noise!r}.")


def to_light(mosaic: Tensor, metadata: CameraMetadata) -> Tensor:
    """Mosaics [..., H, W] of pattern rggb, even sides, in sample values -> packed raw [..., 4, H / 2, W / 2] in [0, 1]."""
    levels = (cell_to_rggb(level, metadata.cfa) for level in (metadata.black_level, metadata.white_level))
    return normalise(pack(mosaic), *levels)


def colours(metadata: CameraMetadata) -> dict[str, Tensor]:
    """What the ISP needs: gains relative to green, and cam2rgb [3, 3]."""
    red, green, blue = metadata.white_balance
    return {'red_gain': torch.tensor(red / green), 'blue_gain': torch.tensor(blue / green), 'rgb_gain': torch.tensor(1.0),
            'cam2rgb': camera_matrix(torch.tensor(metadata.color_matrix, dtype=torch.float64))}


def develop(mosaic: Tensor, metadata: CameraMetadata) -> Tensor:
    """A picture of a mosaic as it is: demosaicked bilinearly, not denoised.

    Args:
        mosaic: [H, W], as stored, in sample values.
        metadata: of its clip.

    Returns:
        sRGB with tone curve [3, H, W] in [0, 1], upright (height and width may be swapped); its brightness is chosen so
        that 1 % of the samples are white.
    """
    cropped, origin = to_rggb(mosaic, metadata.cfa)
    linear = demosaic_bilinear(to_light(cropped, metadata)[None])[0]
    gains = colours(metadata)
    white = torch.stack((gains['red_gain'], torch.tensor(1.0), gains['blue_gain']))[:, None, None] * linear
    brightness = 1 / torch.quantile(white.flatten()[::max(1, white.numel() // 100000)], 0.99).clamp(min=1e-3)
    picture = tone_map(process(linear, **{**gains, 'rgb_gain': brightness.clamp(min=1)}))
    return orient(restore_frame(picture, origin, tuple(mosaic.shape)), metadata.orientation)


class _Mosaics:
    """Clips of mosaics as packed raw on the scale of light, with what belongs to them."""

    def __init__(self, options: Any, where: str) -> None:
        self.source = FrameSource(options.dataroot_lq, options.io_backend, where, frames='mosaic', stage_dir=options.stage_dir)
        self.truth = None if options.dataroot_gt is None else FrameSource(
            options.dataroot_gt, options.io_backend, where, stage_dir=options.stage_dir, odd=True)
        self.noise = options.noise
        self.where = where
        self._metadata: dict[tuple[str, int], CameraMetadata] = {}

    def clips(self, only: Optional[Sequence[str]], without: Sequence[str]) -> list[Clip]:
        """Clips by name, checked: noise must be known, and the truth must fit."""
        chosen = self.source.select(only, without, self.where)
        for clip in chosen:
            for index in range(len(clip.keys)):
                if self.noise == 'metadata' and self.metadata(clip, index).noise_shot is None:
                    raise DataError(f"{self.source.root}: clip {clip.name}: frame {index}: its metadata holds no noise profile; "
                                    f"give noise: [shot, read], or noise: estimate, in {self.where}.")
            if self.truth is not None:
                other = self.truth.clips.get(clip.name)
                if other is None or other.size != clip.size or len(other.keys) != len(clip.keys):
                    found = 'nothing' if other is None else f'{len(other.keys)} of {other.size[1]} x {other.size[0]}'
                    raise DataError(f'{self.truth.root}: clip {clip.name}: expected {len(clip.keys)} frames of '
                                    f'{clip.size[1]} x {clip.size[0]}, as in {self.source.root}, found {found}.')
        return chosen

    def metadata(self, clip: Clip, index: int) -> CameraMetadata:
        """Of a frame, read once."""
        key = clip.name, index
        if key not in self._metadata:
            self._metadata[key] = self.source.metadata(clip, index)
        return self._metadata[key]

    def mosaic(self, clip: Clip, index: int) -> Tensor:
        """Frame [H, W] of pattern rggb in sample values, even sides."""
        stored = torch.from_numpy(self.source.read(clip, index).astype('float32'))
        return to_rggb(stored, self.metadata(clip, index).cfa)[0]

    def light(self, clip: Clip, index: int, mosaic: Tensor) -> Tensor:
        """Mosaic [H, W] of a frame, pattern rggb -> packed raw [4, H / 2, W / 2] in [0, 1]."""
        return to_light(mosaic, self.metadata(clip, index))

    def linear(self, clip: Clip, index: int) -> Tensor:
        """Ground truth [3, H, W], cropped as the mosaic is."""
        truth = self.truth.read(self.truth.clips[clip.name], index)
        return to_rggb(to_float(truth), self.metadata(clip, index).cfa)[0]

    def with_noise_map(self, clip: Clip, frames: Sequence[int], burst: Tensor) -> Tensor:
        """Packed raw [N, 4, H, W] of some frames and its noise map, [N, 8, H, W]."""
        if self.noise == 'estimate':
            shot, read = estimate_noise(burst)
        elif self.noise == 'metadata':
            known = [self.metadata(clip, index) for index in frames]
            shot, read = (torch.tensor([cell_to_rggb(getattr(one, name), one.cfa) for one in known])
                          for name in ('noise_shot', 'noise_read'))
        else:
            shot, read = (torch.full((4,), float(value)) for value in self.noise)
        return torch.cat((burst, noise_std(burst, shot[..., None, None], read[..., None, None])), dim=1)


@dataclass(frozen=True)
class _Source:
    dataroot_lq: str


@dataclass(frozen=True)
class TrainOptions(TemporalOptions, _Source):
    """Options of :class:`RawBurstDataset`."""

    dataroot_gt: Optional[str] = None
    noise: Union[str, list[float]] = 'metadata'
    io_backend: dict = field(default_factory=lambda: {'type': 'lmdb'})
    clips: Optional[list[str]] = None
    exclude_clips: list[str] = field(default_factory=list)
    gt_size: int = 512
    use_hflip: bool = True
    use_rot: bool = True
    stage_dir: Optional[str] = None
    seed: int = 0


@DATASET_REGISTRY.register()
class RawBurstDataset(Dataset):
    """Training bursts of real mosaics with ground truth.

    A sample is drawn from (seed, epoch, index) alone. Flips and rotations keep the rggb phase: what a flip would shift
    is cropped. The whole crop is given to the model, which draws the training tile.

    Args:
        opt: section of the option file:
            dataroot_lq (str): burst LMDB of mosaics.
            dataroot_gt (str): burst LMDB of the same clips and frames as linear camera RGB (16 bit, black 0, white
                65535) of the mosaic's size.
            noise (str | list[float]): 'metadata' takes each clip's own profile and refuses a clip without; 'estimate'
                fits it to the burst, see :func:`jddb_plugin.ops.noise_estimate.estimate_noise`; or [shot, read].
                Default: 'metadata'.
            num_frame, ref_idx, interval_list, random_reverse: see :class:`TemporalOptions`.
            clips, exclude_clips (list[str]): to use, to leave out. Default: all, none.
            gt_size (int): side of the crop in mosaic pixels, even. Default: 512.
            use_hflip, use_rot (bool): flip horizontally; flip vertically and transpose; each half of the bursts.
            stage_dir (str): folder on the node's own disk to copy the LMDBs to, or 'auto'. Default: none.
            seed (int): of all random draws. Default: 0; our entry points fill in ``manual_seed``.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], red_gain, blue_gain, rgb_gain, cam2rgb [3, 3], key (str).
    """

    Options = TrainOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        where = 'datasets.train'
        self.opt = opt
        self.options = options = read_options(TrainOptions, opt, where, ignore=HOST_KEYS)
        options.check(where)
        _check_noise(options.noise, where)
        if options.dataroot_gt is None:
            raise OptionError(f"{where}: 'dataroot_gt' is missing: training needs the clips as linear camera RGB, too.")
        if options.gt_size < 2 or options.gt_size % 2:
            raise OptionError(f'{where}.gt_size: must be even and positive, got {options.gt_size}.')
        self.mosaics = _Mosaics(options, where)
        self.samples: list[tuple[Clip, int]] = []
        for clip in self.mosaics.clips(options.clips, options.exclude_clips):
            if min(clip.size) < options.gt_size + 3:
                raise DataError(f'{self.mosaics.source.root}: clip {clip.name} is {clip.size[1]} x {clip.size[0]}; gt_size '
                                f'{options.gt_size} needs at least {options.gt_size + 3} on each side, to keep the phase.')
            self.samples += [(clip, reference) for reference in options.references(len(clip.keys), clip.name, where)]

    def __len__(self) -> int:
        return len(self.samples)

    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in mosaic pixels of what is cut from each clip."""
        return {clip.name: (self.options.gt_size,) * 2 for clip, _ in self.samples}

    def __getitem__(self, index: int) -> dict[str, Any]:
        options = self.options
        generator = sample_generator(options.seed, index)

        def draw(high: int) -> int:
            return int(torch.randint(high, (1,), generator=generator))

        clip, reference = self.samples[index]
        frames = draw_burst(options, reference, len(clip.keys), draw)
        mosaics = torch.stack([self.mosaics.mosaic(clip, k) for k in frames])
        # Two lines more than asked for, on an even corner: a flip loses the first and the last of them.
        size = options.gt_size + 2
        y, x = (2 * draw((side - size) // 2 + 1) for side in mosaics.shape[-2:])
        flips = {'flip_x': bool(options.use_hflip and draw(2)), 'flip_y': bool(options.use_rot and draw(2)),
                 'transpose': bool(options.use_rot and draw(2))}

        def turn(image: Tensor) -> Tensor:
            return flip_mosaic(image, **flips)[..., :options.gt_size, :options.gt_size].contiguous()

        # Levels and noise belong to the planes before a transposition swaps the two greens.
        light = torch.stack([self.mosaics.light(clip, k, mosaic[y:y + size, x:x + size]) for k, mosaic in zip(frames, mosaics)])
        lq = self.mosaics.with_noise_map(clip, frames, light)
        return {
            'lq': torch.cat([pack(turn(unpack(planes))) for planes in lq.split(4, dim=1)], dim=1),
            'gt': turn(self.mosaics.linear(clip, reference)[:, y:y + size, x:x + size]),
            **colours(self.mosaics.metadata(clip, reference)),
            'ref_idx': options.reference,
            'key': clip.keys[reference],
        }


@dataclass(frozen=True)
class TestOptions(_Source):
    """Options of :class:`RawBurstTestDataset`."""

    dataroot_gt: Optional[str] = None
    noise: Union[str, list[float]] = 'metadata'
    io_backend: dict = field(default_factory=lambda: {'type': 'lmdb'})
    clips: Optional[list[str]] = None
    num_frame: int = 5
    references: str = 'all'
    padding: str = 'reflection_circle'
    stage_dir: Optional[str] = None


@DATASET_REGISTRY.register()
class RawBurstTestDataset(Dataset):
    """Real raw clips to restore; one sample per reference frame.

    Args:
        opt: section of the option file:
            dataroot_lq, dataroot_gt, noise, clips, stage_dir: see :class:`RawBurstDataset`; without dataroot_gt samples
                have no gt, and metrics are left out.
            num_frame (int): frames per burst, odd; the reference is the middle one. Default: 5.
            references (str): 'all' frames of a clip, or 'middle': one burst of the first ``num_frame`` frames, as in the
                paper's real bursts. Default: 'all'.
            padding (str): where missing neighbours at a clip's ends come from, see the toolbox's
                ``generate_frame_indices``. Default: 'reflection_circle' (the other side).

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w] if there is one, red_gain, blue_gain, rgb_gain, cam2rgb [3, 3], folder
        (str), idx ('i/n'), border (1 where a neighbour is missing), lq_path (str).
    """

    Options = TestOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        where = f"data set '{opt.get('name', 'test')}'"
        self.opt = opt
        self.options = options = read_options(TestOptions, opt, where, ignore=HOST_KEYS)
        if options.num_frame < 1 or options.num_frame % 2 == 0:
            raise OptionError(f'{where}.num_frame: must be odd (the reference is the middle frame), got {options.num_frame}.')
        check_choice(options.references, ('all', 'middle'), f'{where}.references')
        check_choice(options.padding, ('replicate', 'reflection', 'reflection_circle', 'circle'), f'{where}.padding')
        _check_noise(options.noise, where)
        self.mosaics = _Mosaics(options, where)
        self.samples, self.data_info = index_test_clips(
            self.mosaics.clips(options.clips, ()), options.num_frame, self.mosaics.source.root,
            middle=options.references == 'middle')
        self._recent: OrderedDict[tuple[str, int], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self.samples)

    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in mosaic pixels of what is restored of each clip."""
        return {clip.name: clip.size for clip, _ in self.samples}

    def _frame(self, clip: Clip, index: int) -> Tensor:
        """Packed raw [4, h, w] of one frame; neighbouring bursts share most of their frames."""
        key = (clip.name, index)
        if key not in self._recent:
            self._recent[key] = self.mosaics.light(clip, index, self.mosaics.mosaic(clip, index))
            while len(self._recent) > self.options.num_frame:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, centre = self.samples[index]
        neighbours = generate_frame_indices(centre, len(clip.keys), self.options.num_frame, padding=self.options.padding)
        burst = torch.stack([self._frame(clip, i) for i in neighbours])
        sample = {'lq': self.mosaics.with_noise_map(clip, neighbours, burst), **colours(self.mosaics.metadata(clip, centre)),
                  **{key: values[index] for key, values in self.data_info.items()}}
        if self.mosaics.truth is not None:
            sample['gt'] = self.mosaics.linear(clip, centre)
        return sample
