"""Which frames make a burst, and the random draws of a sample."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.frame_source import Clip
from jddb_plugin.options import Options


@dataclass(frozen=True)
class TemporalOptions(Options):
    """Which frames make a burst.

    Attributes:
        num_frame: frames per burst, at least 1. Default: 5.
        ref_idx: position of the reference in the burst. Default: the middle one.
        interval_list: distances between frames to draw from. Default: [1].
        random_reverse: take half of the bursts backwards in time; the reference keeps its position. Default: false.
    """

    num_frame: int = 5
    ref_idx: Optional[int] = None
    interval_list: list[int] = field(default_factory=lambda: [1])
    random_reverse: bool = False

    @property
    def reference(self) -> int:
        """Position of the reference in the burst."""
        return self.num_frame // 2 if self.ref_idx is None else self.ref_idx

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        if self.num_frame < 1 or self.num_frame % 2 == 0 and self.ref_idx is None:
            raise OptionError('must be odd (the reference is the middle frame) unless ref_idx is given, '
                              f'got {self.num_frame}.', field='num_frame')
        if not 0 <= self.reference < self.num_frame:
            raise OptionError(f'expected 0 .. {self.num_frame - 1}, got {self.ref_idx}.', field='ref_idx')
        if not self.interval_list or min(self.interval_list) < 1:
            raise OptionError(f'needs positive distances, got {self.interval_list}.', field='interval_list')

    def steps(self, interval: int) -> list[list[int]]:
        """Distances of a burst's frames from its reference, for each direction of time that may be drawn."""
        forward = [(k - self.reference) * interval for k in range(self.num_frame)]
        return [forward, [-step for step in forward]] if self.random_reverse else [forward]

    def bursts(self, reference: int, count: int) -> list[list[int]]:
        """All bursts around frame ``reference`` that fit into a clip of ``count`` frames; each direction if drawn."""
        found = []
        for interval in self.interval_list:
            for steps in self.steps(interval):
                frames = [reference + step for step in steps]
                if min(frames) >= 0 and max(frames) < count:
                    found.append(frames)
        return found

    def references(self, count: int, clip: str, where: str) -> list[int]:
        """Frames of a clip that can be a reference.

        Raises:
            DataError: the clip is too short for a burst.
        """
        found = [k for k in range(count) if self.bursts(k, count)]
        if not found:
            needed = 1 + (self.num_frame - 1) * min(self.interval_list)
            raise DataError(f'{where}: clip {clip} has {count} frames, a burst of {self.num_frame} needs {needed}; exclude the '
                            'clip by exclude_clips, or lower num_frame.')
        return found


def index_test_clips(clips: Sequence[Clip], num_frame: int, root: object, *, middle: bool = False) -> tuple[
        list[tuple[Clip, int]], dict[str, list[Any]]]:
    """References of test clips, and what the toolbox's validation needs to know of each.

    Args:
        clips: in order.
        num_frame: frames per burst, odd.
        root: folder of the clips, for messages.
        middle: one burst per clip, of its first ``num_frame`` frames, instead of one per frame.

    Returns:
        (clip, frame) of each sample, and lists of lq_path, folder, idx ('i/n') and border (1 where a neighbor is missing).

    Raises:
        DataError: a clip is shorter than a burst.
    """
    samples: list[tuple[Clip, int]] = []
    info: dict[str, list[Any]] = {'lq_path': [], 'folder': [], 'idx': [], 'border': []}
    half = num_frame // 2
    for clip in clips:
        count = len(clip.keys)
        if count < num_frame:
            raise DataError(f'{root}: clip {clip.name} has {count} frames, a burst needs {num_frame}; choose other clips by '
                            'clips, or lower num_frame.')
        frames = [half] if middle else range(count)
        for position, i in enumerate(frames):
            samples.append((clip, i))
            info['lq_path'].append(clip.keys[i])
            info['folder'].append(clip.name)
            info['idx'].append(f'{position}/{len(frames)}')
            info['border'].append(int(i < half or i >= count - half))
    return samples, info


class Flips(NamedTuple):
    """Flips of all frames of a burst: along x, along y, and after them a transposition."""

    horizontal: bool
    vertical: bool
    transpose: bool

    def apply(self, frames: Tensor) -> Tensor:
        """Flip images [..., H, W]; a mosaic would lose its phase, see :func:`jddb_plugin.ops.cfa.flip_mosaic`."""
        frames = frames.flip([dim for dim, flipped in ((-1, self.horizontal), (-2, self.vertical)) if flipped])
        return (frames.transpose(-2, -1) if self.transpose else frames).contiguous()

    def move_corner(self, corner: Sequence[int], tile: int, side: int) -> tuple[int, int]:
        """Where the corner (y, x) of a square tile goes when :meth:`apply` flips a square image of ``side``."""
        y, x = corner
        x = side - tile - x if self.horizontal else x
        y = side - tile - y if self.vertical else y
        return (x, y) if self.transpose else (y, x)


class SampleRandom:
    """The random draws of one training sample: a function of the seed and of the index, which knows its epoch and its draw."""

    def __init__(self, seed: int, index: int) -> None:
        entropy = [seed, getattr(index, 'epoch', 0), getattr(index, 'draw', 0), int(index)]
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
        self.generator = torch.Generator().manual_seed(int(state >> 1))

    def below(self, high: int) -> int:
        """A whole number in 0 .. high - 1."""
        return int(torch.randint(high, (1,), generator=self.generator))

    def seed(self) -> Tensor:
        """A scalar, to seed another generator with."""
        return torch.randint(2 ** 62, (), generator=self.generator)

    def burst(self, options: TemporalOptions, reference: int, count: int) -> list[int]:
        """Frames of a burst around ``reference`` in a clip of ``count`` frames."""
        bursts = options.bursts(reference, count)
        return bursts[self.below(len(bursts))]

    def flips(self, *, use_hflip: bool, use_rot: bool) -> Flips:
        """Each flip for half of the samples; a flip along x if ``use_hflip``, the others if ``use_rot``."""
        return Flips(bool(use_hflip and self.below(2)), bool(use_rot and self.below(2)), bool(use_rot and self.below(2)))
