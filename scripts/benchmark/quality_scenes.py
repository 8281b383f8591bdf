"""Bursts with a known truth for the benchmark of quality: frames of clips, and photographs under known motions."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from jddb_plugin.checks import DataError
from jddb_plugin.data.images import decode_srgb
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera, reference_camera
from jddb_plugin.ops.noise import NoiseModel

_SUFFIXES = ('.png', '.jpg', '.jpeg')
#: Motions of a photograph: (pan in px a frame, turn in degrees a frame, zoom a frame, whether a disc moves on its own).
MOTIONS = {
    'static': (0.0, 0.0, 0.0, False),
    'moving': (8.0, 0.2, 0.002, True),
    'turning': (2.0, 1.0, 0.0, False),
    'zooming': (2.0, 0.0, 0.01, False),
    'far': (60.0, 0.1, 0.0, False),
}
#: Bursts of which all frames but the reference are black, show another photograph, or are blurred by a motion of 11 px.
FAILURES = ('black', 'foreign', 'blurred')


@dataclass(frozen=True)
class Scene:
    """A burst and its truth.

    Attributes:
        name: of the clip or photograph.
        kind: 'clip', or the motion.
        border: pixels that are not scored on each side.
        lq: [1, N, 8, h, w], packed noisy raw and its noise map; the middle frame is the reference.
        gt: [3, 2h, 2w], linear camera RGB.
        noise: (shot, read).
    """

    name: str
    kind: str
    border: int
    lq: Tensor
    gt: Tensor
    noise: tuple[float, float]

    def frames(self, count: int) -> Tensor:
        """``lq`` with the ``count`` frames nearest to the reference, which becomes the middle one (of two the second)."""
        middle, total = self.lq.shape[1] // 2, self.lq.shape[1]
        first = min(max(middle - count // 2, 0), total - count)
        return self.lq[:, first:first + count]


def develop(linear: Tensor, camera: Camera | None = None, *, tone_curve: bool = True) -> Tensor:
    """sRGB in [0, 1], as the picture is shown."""
    return (camera or reference_camera()).develop(linear, tone_curve=tone_curve)


def make_scene(name: str, kind: str, border: int, frames: list[np.ndarray], noise: tuple[float, float]) -> Scene:
    """Unprocess sRGB frames [H, W, 3] by the reference camera and add the test noise of frames 1, 2, ... of a clip."""
    size = [side // 8 * 8 for side in frames[0].shape[:2]]
    srgb = torch.stack([torch.from_numpy(frame[:size[0], :size[1]]).permute(2, 0, 1).float() / 255 for frame in frames])
    linear = reference_camera().unprocess(srgb)
    clean = mosaic_rgb(linear)
    model = NoiseModel.of(*noise)
    noisy = torch.stack([model.sample_test_frame(frame, frame_number=k) for k, frame in enumerate(clean, start=1)])
    return Scene(name, kind, border, model.with_map(noisy)[None], linear[len(frames) // 2], noise)


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder.')
    return sorted(folder.iterdir())


def _images(folder: Path) -> list[Path]:
    files = [p for p in _entries(folder) if p.suffix.lower() in _SUFFIXES]
    if not files:
        raise DataError(f'{folder}: holds no images ({", ".join(_SUFFIXES)}).')
    return files


def clip_scenes(root: Path, count: int, noise: tuple[float, float]) -> Iterator[Scene]:
    """One burst of each clip: the ``count`` frames around its middle."""
    for folder in (p for p in _entries(root) if p.is_dir()):
        files = _images(folder)
        first = max((len(files) - count) // 2, 0)
        chosen = files[first:first + count]
        if len(chosen) < count:
            raise DataError(f'{folder}: holds {len(files)} frames; expected at least {count}.')
        frames = [decode_srgb(p.read_bytes(), str(p)) for p in chosen]
        yield make_scene(folder.name, 'clip', 80, frames, noise)


def move_photograph(image: np.ndarray, kind: str, count: int, seed: int, *, size: tuple[int, int]) -> list[np.ndarray]:
    """Frames [height, width, 3] of a camera that moves over a photograph as :data:`MOTIONS` says; the direction is drawn.

    What lies outside of the photograph is mirrored.
    """
    pan, turn, zoom, disc = MOTIONS[kind]
    rng = np.random.default_rng(seed)
    height, width = size
    angle = rng.uniform(-0.4, 0.4) + np.pi * rng.integers(2)
    center = np.array(image.shape[1::-1]) / 2 - 0.5
    shake = rng.uniform(-1, 1, (count, 2)) * (pan > 0)
    piece = np.roll(image, image.shape[1] // 2, axis=1)[..., ::-1]
    frames = []
    for k in range(count):
        t = k - count // 2
        x, y = center + pan * t * np.array((np.cos(angle), np.sin(angle))) + shake[k] * (t != 0)
        matrix = cv2.getRotationMatrix2D((x, y), turn * t, 1 + zoom * t)
        matrix[:, 2] += ((width - 1) / 2 - x, (height - 1) / 2 - y)
        frame = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        if disc:
            mask = np.zeros((height, width), np.float32)
            place = (int(width / 2 + 9 * t), int(height / 2 - 11 * t))
            cv2.circle(mask, place, 55, 1.0, -1, cv2.LINE_AA)
            mask = cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]
            matrix = np.float32([[1, 0, 9 * t], [0, 1, -11 * t]])
            moved = cv2.warpAffine(piece, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
            frame = np.round(frame + mask * (moved.astype(np.float32) - frame)).astype(np.uint8)
        frames.append(frame)
    return frames


def photograph_scenes(root: Path, kind: str, count: int, noise: tuple[float, float], *,
                      size: tuple[int, int] = (448, 512)) -> Iterator[Scene]:
    """A burst of each photograph of a folder."""
    files = _images(root)
    for seed, file in enumerate(files):
        if kind in FAILURES:
            frame, other = (move_photograph(_lying(source), 'static', 1, seed, size=size)[0]
                            for source in (file, files[(seed + 1) % len(files)]))
            other = {'black': np.zeros_like(frame), 'foreign': other, 'blurred': cv2.blur(frame, (11, 1))}[kind]
            frames = [frame if k == count // 2 else other for k in range(count)]
        else:
            frames = move_photograph(_lying(file), kind, count, seed, size=size)
        yield make_scene(file.stem, kind, 40, frames, noise)


def _lying(file: Path) -> np.ndarray:
    """A photograph; upright ones are turned, so that there is room to pan."""
    image = decode_srgb(file.read_bytes(), str(file))
    return image if image.shape[0] <= image.shape[1] else np.ascontiguousarray(np.rot90(image))
