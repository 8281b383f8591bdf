"""Which frames make a burst, and where a sample's random numbers come from."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.frame_source import Clip


@dataclass(frozen=True)
class TemporalOptions:
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

    def check(self, where: str) -> None:
        """Raise OptionError for values that cannot be."""
        if self.num_frame < 1 or self.num_frame % 2 == 0 and self.ref_idx is None:
            raise OptionError(f'{where}.num_frame: must be odd (the reference is the middle frame) unless ref_idx is given, '
                              f'got {self.num_frame}.')
        if not 0 <= self.reference < self.num_frame:
            raise OptionError(f'{where}.ref_idx: expected 0 .. {self.num_frame - 1}, got {self.ref_idx}.')
        if not self.interval_list or min(self.interval_list) < 1:
            raise OptionError(f'{where}.interval_list: needs positive distances, got {self.interval_list}.')

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
            DataError: there is none.
        """
        found = [k for k in range(count) if self.bursts(k, count)]
        if not found:
            needed = 1 + (self.num_frame - 1) * min(self.interval_list)
            raise DataError(f'{where}: clip {clip} has {count} frames, a burst of {self.num_frame} needs {needed}; leave it out '
                            'by exclude_clips or lower num_frame.')
        return found


def index_test_clips(clips: Sequence[Clip], num_frame: int, root: object, *, middle: bool = False) -> tuple[
        list[tuple[Clip, int]], dict[str, list[Any]]]:
    """References of test clips, and what the toolbox's validation wants to know of each.

    Args:
        clips: in order.
        num_frame: frames per burst, odd.
        root: where they lie, for messages.
        middle: one burst per clip, of its first ``num_frame`` frames, in place of one per frame.

    Returns:
        (clip, frame) of each sample, and lists of lq_path, folder, idx ('i/n') and border (1 where a neighbour is missing).

    Raises:
        DataError: a clip is shorter than a burst.
    """
    samples, info = [], {'lq_path': [], 'folder': [], 'idx': [], 'border': []}
    half = num_frame // 2
    for clip in clips:
        count = len(clip.keys)
        if count < num_frame:
            raise DataError(f'{root}: clip {clip.name} has {count} frames, a burst needs {num_frame}; leave it out by clips, or '
                            'lower num_frame.')
        frames = [half] if middle else range(count)
        for position, i in enumerate(frames):
            samples.append((clip, i))
            info['lq_path'].append(clip.keys[i])
            info['folder'].append(clip.name)
            info['idx'].append(f'{position}/{len(frames)}')
            info['border'].append(int(i < half or i >= count - half))
    return samples, info


def draw_burst(options: TemporalOptions, reference: int, count: int, draw: Callable[[int], int]) -> list[int]:
    """Frames of a random burst around ``reference``; ``draw(n)`` draws from 0 .. n - 1."""
    bursts = options.bursts(reference, count)
    return bursts[draw(len(bursts))]


def sample_generator(seed: int, index: int) -> torch.Generator:
    """Random numbers of one sample: a function of the seed and of the index, which knows its epoch and its draw."""
    entropy = [seed, getattr(index, 'epoch', 0), getattr(index, 'draw', 0), int(index)]
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))
