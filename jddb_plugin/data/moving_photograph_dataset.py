"""Training bursts of a camera that moves over still photographs: endless, and made on the fly."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import cv2
import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.camera_motion import FrameMotion, draw_estimation_error, draw_motion, motion_between
from jddb_plugin.data.images import decode_srgb
from jddb_plugin.data.sampling import SampleRandom
from jddb_plugin.noise_option import Noise, parse_noise
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera, sample_camera
from jddb_plugin.ops.curves import linearize
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.optical_flow import SHRINK, gray_bytes, gray_images, refine_motion
from jddb_plugin.ops.stabilization import Stabilizer
from jddb_plugin.ops.warping import warp_mosaic
from jddb_plugin.options import HOST_KEYS, Options

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
#: RGB pixels around the patch that motion and errors of its estimate can reach in an aligned burst.
_MARGIN = 24
#: Photographs whose shorter side is longer are used at 3/4 and 1/2 of their size, if frames fit: detail at the limit of pixels.
_LARGE = 900
#: Shares of the bursts in which one and two of the other frames show the scene, and the rest fail.
_ONE_LEFT, _TWO_LEFT = 0.06, 0.12


@dataclass(frozen=True)
class MovingPhotographOptions(Options):
    """Options of :class:`MovingPhotographDataset`."""

    dataroot_gt: str
    num_frame: int = 5
    ref_idx: Optional[int] = None
    gt_size: int = 96
    aligned: bool = True
    flow_share: float = 0.0
    one_frame_share: float = 0.08
    speed: float = 60.0
    noise: Union[str, list[float]] = 'random'
    bursts_per_photograph: int = 64
    cache_mb: int = 1500
    seed: int = 0

    @property
    def reference(self) -> int:
        """Position of the reference in the burst."""
        return self.num_frame // 2 if self.ref_idx is None else self.ref_idx

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        if self.num_frame < 1:
            raise OptionError(f'must be positive, got {self.num_frame}.', field='num_frame')
        if not 0 <= self.reference < self.num_frame:
            raise OptionError(f'expected 0 .. {self.num_frame - 1}, one of the {self.num_frame} frames of num_frame, got '
                              f'{self.ref_idx}.', field='ref_idx')
        if self.gt_size < 16 or self.gt_size % 8:
            raise OptionError(f'must be a multiple of 8, at least 16, got {self.gt_size}.', field='gt_size')
        for name, least in (('bursts_per_photograph', 1), ('cache_mb', 0), ('speed', 0)):
            if getattr(self, name) < least:
                raise OptionError(f'must be at least {least}, got {getattr(self, name)}.', field=name)
        for name in ('flow_share', 'one_frame_share'):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f'expected 0 .. 1, got {getattr(self, name)}.', field=name)
        if self.flow_share and not self.aligned:
            raise OptionError('flow aligns frames; it needs aligned: true.', field='flow_share')
        parse_noise(self.noise, 'random')


@DATASET_REGISTRY.register()
class MovingPhotographDataset(Dataset):
    """Bursts of a hand-held camera over still photographs, as raw with noise.

    A sample is a function of (seed, epoch, index) alone. Photographs are unprocessed by a random camera (PROTOCOL; a third of
    the bursts are exposed darker or brighter), moved in linear RGB, blurred, sampled by the mosaic, and get noise. In 35 %
    of the bursts an ellipse with other content moves on its own; in a quarter of them (more, with a larger ``one_frame_share``)
    some or all of the other frames show something else: black, white, another scene.

    Args:
        opt: section of the option file:
            dataroot_gt (str): folder of photographs (sRGB images), searched with all its subfolders.
            num_frame, ref_idx (int): frames per burst, and which is the reference. Default: 5, the middle one.
            gt_size (int): side of the RGB patch, a multiple of 8. Default: 96.
            aligned (bool): frames are moved onto the reference by an estimate of the motion with random errors, for networks
                that expect aligned frames. Otherwise they are not moved. Default: true.
            flow_share (float): share of the aligned bursts whose motion is estimated from the noisy frames, by the optical flow
                of ``--align flow``, in place of known motion with random errors. Default: 0.
            one_frame_share (float): share of the bursts in which no frame but the reference shows the scene. Default: 0.08.
            speed (float): fastest pan of unaligned bursts in RGB px a frame. Default: 60.
            noise (str | list[float]): 'random', 'low', 'high' or [shot, read]. Default: 'random'.
            bursts_per_photograph (int): bursts of each photograph in an epoch. Default: 64.
            cache_mb (int): decoded photographs to keep, in megabytes for each process. Default: 1500.
            seed (int): of all random draws. Default: 0; our entry points fill in ``manual_seed``.

    Returns:
        dict with lq [N, 8, h, w], gt [3, 2h, 2w], clean [N, 4, h, w] (of unaligned bursts), camera, noise (levels [4]),
        ref_idx (int), key (str).
    """

    Options = MovingPhotographOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        where = 'datasets.train'
        self.opt = opt
        self.options = options = MovingPhotographOptions.read(opt, where, ignore=HOST_KEYS)
        root = Path(options.dataroot_gt).expanduser()
        if not root.is_dir():
            raise DataError(f'{where}.dataroot_gt: {root}: no such folder.')
        self.files = sorted(p for p in root.rglob('*') if p.suffix.lower() in _SUFFIXES and not p.name.startswith('.'))
        if not self.files:
            raise DataError(f"{where}.dataroot_gt: {root}: holds no photographs ({', '.join(_SUFFIXES)}).")
        self._linear = linearize(torch.arange(256, dtype=torch.float32) / 255).numpy()
        self._cache: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        self._cached_bytes = 0
        self.patch = options.gt_size
        #: Side of a rendered frame in RGB px.
        self.side = options.gt_size + 2 * _MARGIN * options.aligned

    def __len__(self) -> int:
        return len(self.files) * self.options.bursts_per_photograph

    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in RGB pixels of a sample."""
        return {'bursts': (self.patch,) * 2}

    def _photograph(self, index: int) -> list[np.ndarray]:
        """A photograph as uint8 RGB [H, W, 3]; of a large one smaller copies in its place."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        file = self.files[index]
        image = decode_srgb(file.read_bytes(), str(file))
        if image.dtype != np.uint8:
            image = np.round(image / np.iinfo(image.dtype).max * 255).astype(np.uint8)
        if min(image.shape[:2]) < self.side:
            raise DataError(f'{file}: {image.shape[1]} x {image.shape[0]} px are too small; expected at least {self.side} on '
                            'each side. Remove the file, or lower gt_size.')
        sizes = [image]
        if min(image.shape[:2]) > _LARGE:
            smaller = [cv2.resize(image, None, fx=f, fy=f, interpolation=cv2.INTER_AREA) for f in (0.75, 0.5)]
            sizes = [copy for copy in smaller if min(copy.shape[:2]) >= self.side] or sizes
        self._cache[index] = sizes
        self._cached_bytes += sum(s.nbytes for s in sizes)
        while self._cached_bytes > self.options.cache_mb << 20 and len(self._cache) > 1:
            _, gone = self._cache.popitem(last=False)
            self._cached_bytes -= sum(s.nbytes for s in gone)
        return sizes

    def _scene(self, rng: np.random.Generator, index: int, reach: int, camera: Camera) -> np.ndarray:
        """A piece of a photograph as the sensor sees it, [S, S, 3] float32, with ``reach`` px around a frame if it has them."""
        sizes = self._photograph(index)
        image = sizes[rng.integers(len(sizes))]
        side = min(self.side + 2 * reach, *image.shape[:2])
        places = rng.integers(0, [length - side + 1 for length in image.shape[:2]], size=(2, 2))
        # Of two places the one with more detail: much of a photograph is smooth, and teaches little.
        piece = max((image[y:y + side, x:x + side] for y, x in places), key=_detail)
        piece = self._linear[piece]
        piece = np.rot90(piece, int(rng.integers(4)))
        if rng.random() < 0.5:
            piece = piece[:, ::-1]
        sensor = camera.to_sensor(torch.from_numpy(np.ascontiguousarray(piece)).permute(2, 0, 1))
        return np.ascontiguousarray(sensor.permute(1, 2, 0).numpy())

    def _render(self, scene: np.ndarray, motion: FrameMotion) -> np.ndarray:
        """A frame of the scene's middle, [side, side, 3]."""
        offset = (scene.shape[0] - self.side) / 2
        matrix = motion.matrix.copy()
        matrix[:, 2] += int(offset)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(scene, matrix, (self.side, self.side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        if motion.blur is not None:
            image = cv2.filter2D(image, -1, motion.blur, borderType=cv2.BORDER_REFLECT_101)
        return np.clip(image, 0, 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        options = self.options
        random = SampleRandom(options.seed, index)
        rng = np.random.default_rng(int(random.seed()))
        file = int(index) % len(self.files)
        camera = _expose(sample_camera(random.generator), rng)
        noise = _noise_of_planes(parse_noise(options.noise, 'random'), random.generator, rng)
        reference, count = options.reference, options.num_frame
        speed = 0.0 if options.aligned else options.speed
        motions = draw_motion(rng, count, reference, self.side, speed=speed)
        scene = self._scene(rng, file, 8 + int(np.ceil(speed * max(reference, count - 1 - reference))), camera)
        frames = [self._render(scene, motion) for motion in motions]
        if rng.random() < 0.35:
            _add_moving_piece(frames, self._other_scene(rng, camera), reference, rng, self.patch)
        gt = frames[reference]
        for k in _failed_frames(rng, count, reference, options.one_frame_share):
            kind = rng.random()
            frames[k] = (self._other_scene(rng, camera) if kind < 0.6
                         else np.full_like(gt, 0.0 if kind < 0.9 else 1.0))
        clean = mosaic_rgb(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))
        normal = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        noisy = (clean + normal * noise.planes().std(clean)).clamp(0, 1)
        if options.aligned:
            noisy = self._align(noisy, motions, noise, rng)
            gt = gt[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        return {
            'lq': noise.planes().with_map(noisy),
            'gt': torch.from_numpy(np.ascontiguousarray(gt.transpose(2, 0, 1))),
            **({} if options.aligned else {'clean': clean}),
            'camera': camera.to(torch.float32), 'noise': noise, 'ref_idx': options.reference,
            'key': f'{self.files[file].stem}_{int(index)}',
        }

    def _other_scene(self, rng: np.random.Generator, camera: Camera) -> np.ndarray:
        scene = self._scene(rng, int(rng.integers(len(self.files))), 0, camera)
        return scene[:self.side, :self.side]

    def _align(self, noisy: Tensor, motions: list[FrameMotion], noise: NoiseModel, rng: np.random.Generator) -> Tensor:
        """The patch of each frame [N, 4, h, w], moved onto the reference by an estimate of its motion."""
        cells, first = self.patch // 2, _MARGIN // 2
        if self.options.flow_share and rng.random() < self.options.flow_share:
            estimates = self._flow(noisy, motions, noise)[:, first:first + cells, first:first + cells]
        else:
            errors = [draw_estimation_error(rng, cells) for _ in motions]
            errors[self.options.reference] *= 0
            estimates = self._known_motion(motions, first, cells) + np.stack(errors)
        return warp_mosaic(noisy, torch.from_numpy(estimates), (first, first))

    def _known_motion(self, motions: list[FrameMotion], first: int, cells: int) -> np.ndarray:
        """Motion from the reference to each frame, [N, cells, cells, 2] in RGB px."""
        reference = motions[self.options.reference]
        return np.stack([motion_between(reference, motion, first, cells) for motion in motions])

    def _flow(self, noisy: Tensor, motions: list[FrameMotion], noise: NoiseModel) -> np.ndarray:
        """The same, estimated from the noisy frames; it begins where block matching, exact to a few pixels, would."""
        planes = noise.planes()
        gray = gray_bytes(gray_images(noisy, Stabilizer.from_levels(planes.shot, planes.read.square())))
        reference, step = self.options.reference, 2 * SHRINK
        motion = np.round(self._known_motion(motions, 0, self.side // 2) / step) * SHRINK
        for k, image in enumerate(gray):
            if k != reference:
                motion[k] = refine_motion(gray[reference], image, motion[k].astype(np.float32))
        return 2 * motion


def _detail(image: np.ndarray) -> float:
    """Mean difference of neighboring pixels of every second row."""
    green = image[::2, :, 1].astype(np.int16)
    return float(np.abs(green[:, 1:] - green[:, :-1]).mean())


def _expose(camera: Camera, rng: np.random.Generator) -> Camera:
    """A fifth of the bursts up to two stops darker, a tenth up to 0.7 stops brighter, so that more of them is clipped."""
    kind, stops = rng.random(), rng.random()
    factor = 2 ** (2 * stops) if kind < 0.2 else 2 ** (-0.7 * stops) if kind < 0.3 else 1.0
    return camera.with_gain(camera.rgb_gain * factor)


def _noise_of_planes(option: Noise, generator: torch.Generator, rng: np.random.Generator) -> NoiseModel:
    """Levels [4], float32; in 15 % of the bursts with random noise red and blue have levels of their own."""
    noise = NoiseModel.random(generator) if isinstance(option, str) else NoiseModel.of(*option)
    factor = 2 ** rng.uniform(-0.7, 0.7, 3)[[0, 1, 1, 2]]
    if not isinstance(option, str) or rng.random() >= 0.15:
        factor = np.ones(4)
    factors = torch.from_numpy(factor.astype(np.float32))
    return NoiseModel(noise.shot * factors, noise.read * factors.sqrt())


def _failed_frames(rng: np.random.Generator, count: int, reference: int, one_frame_share: float) -> list[int]:
    """Frames that show something else."""
    kind = rng.random()
    others = rng.permutation([k for k in range(count) if k != reference])
    good = next((n for n, share in enumerate(np.cumsum((one_frame_share, _ONE_LEFT, _TWO_LEFT))) if kind < share), len(others))
    return others[good:].tolist()


def _add_moving_piece(frames: list[np.ndarray], piece: np.ndarray, reference: int, rng: np.random.Generator, patch: int) -> None:
    """An ellipse of another scene that moves on its own, with soft edges; ``frames`` are changed in place."""
    side = frames[0].shape[0]
    center = side / 2 + rng.uniform(-0.4, 0.4, 2) * patch
    axes = rng.uniform(0.1, 0.4, 2) * patch
    angle, velocity = rng.uniform(0, np.pi), rng.normal(0, 5, 2)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    for k, frame in enumerate(frames):
        shift = velocity * (k - reference)
        dx, dy = x - center[0] - shift[0], y - center[1] - shift[1]
        along = (dx * np.cos(angle) + dy * np.sin(angle)) / axes[0]
        across = (dy * np.cos(angle) - dx * np.sin(angle)) / axes[1]
        inside = np.clip((1 - np.sqrt(along ** 2 + across ** 2)) * axes.min() + 0.5, 0, 1)[..., None].astype(np.float32)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        moved = cv2.warpAffine(piece, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        frame += inside * (np.clip(moved, 0, 1) - frame)
