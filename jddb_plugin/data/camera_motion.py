"""Motion of a hand-held camera over a still photograph, and errors of its estimate."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class FrameMotion:
    """Motion and blur of one frame.

    Attributes:
        matrix: [2, 3], takes a pixel (x, y, 1) of the frame to its place in the photograph.
        blur: kernel of motion blur, or None.
    """

    matrix: np.ndarray
    blur: np.ndarray | None


def _affine(linear: np.ndarray, shift: np.ndarray, center: np.ndarray) -> np.ndarray:
    """[2, 3] of x -> center + linear (x - center) + shift."""
    return np.concatenate((linear, (center - linear @ center + shift)[:, None]), axis=1)


def homogeneous(matrix: np.ndarray) -> np.ndarray:
    """[2, 3] -> [3, 3]."""
    return np.concatenate((matrix, [[0.0, 0.0, 1.0]]))


def _line_blur(length: float, angle: float) -> np.ndarray:
    """Kernel of a straight motion by ``length`` pixels while the shutter is open."""
    side = int(np.ceil(length)) // 2 * 2 + 3
    kernel = np.zeros((side, side), np.float32)
    for t in np.linspace(-0.5, 0.5, 4 * side):
        x, y = side // 2 + t * length * np.cos(angle), side // 2 + t * length * np.sin(angle)
        left, top = int(np.floor(x)), int(np.floor(y))
        for row, down in ((top, 1 - y + top), (top + 1, y - top)):
            for col, right in ((left, 1 - x + left), (left + 1, x - left)):
                kernel[row, col] += down * right
    return kernel / kernel.sum()


def draw_motion(rng: np.random.Generator, frames: int, ref_idx: int, size: int, *, speed: float) -> list[FrameMotion]:
    """Motion of each frame of a burst relative to its reference.

    A fifth of the bursts stand still. The others pan by up to ``speed`` pixels a frame, shake by up to one, turn, zoom and shear
    by 0.8 % (30 % of them by 3 %) per frame, and a fifth of their frames are blurred along a line.

    Args:
        rng: random numbers.
        frames, ref_idx: of the burst.
        size: side of the frame in pixels.
        speed: fastest pan in pixels a frame.
    """
    center = np.full(2, (size - 1) / 2)
    still = rng.random() < 0.2
    strength = 0.03 if rng.random() < 0.3 else 0.008
    angle = rng.uniform(0, 2 * np.pi)
    velocity = speed * rng.random() * np.array((np.cos(angle), np.sin(angle)))
    drift = rng.normal(0, strength / 2, (2, 2))
    motions = []
    for k in range(frames):
        jitter = rng.normal(0, strength / 3, (2, 2))
        shake = rng.uniform(-1, 1, 2)
        blurred = rng.random() < 0.2
        length, direction = rng.uniform(1, 5), rng.uniform(0, np.pi)
        if still or k == ref_idx:
            motions.append(FrameMotion(np.eye(2, 3), None))
            continue
        distance = k - ref_idx
        linear = np.eye(2) + drift * distance / max(frames - 1, 1) + jitter
        matrix = _affine(linear, velocity * distance + shake, center)
        motions.append(FrameMotion(matrix, _line_blur(length, direction) if blurred else None))
    return motions


def motion_between(reference: FrameMotion, other: FrameMotion, first: int, size: int) -> np.ndarray:
    """Displacement (dy, dx) from the reference to the other frame, [size, size, 2], at the centers of cells of 2 x 2 pixels.

    Args:
        reference, other: the frames.
        first: row and column of the first cell.
        size: cells along each axis.
    """
    matrix = np.linalg.inv(homogeneous(other.matrix)) @ homogeneous(reference.matrix)
    axis = np.arange(first, first + size) * 2 + 0.5
    x, y = np.meshgrid(axis, axis)
    moved = np.stack((x, y, np.ones_like(x)), axis=-1) @ matrix[:2].T
    return np.stack((moved[..., 1] - y, moved[..., 0] - x), axis=-1).astype(np.float32)


def draw_estimation_error(rng: np.random.Generator, size: int) -> np.ndarray:
    """Error of a motion estimate, [size, size, 2] in pixels.

    A smooth error of 0.15, 0.35 or 0.9 pixels; a third of the frames are off by 1.2 pixels as a whole, an eighth by 12.
    """
    amplitude = rng.choice((0.15, 0.35, 0.9))
    error = cv2.resize(rng.normal(0, amplitude, (4, 4, 2)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    kind = rng.random()
    shift = rng.normal(0, 1, 2) * (12.0 if kind < 0.12 else 1.2 if kind < 0.45 else 0.0)
    return error + shift.astype(np.float32)
