"""From a burst to a picture: the function behind ``jddb restore``."""
from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Protocol, Union

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.checks import DataError, OptionError, ShapeError
from jddb_plugin.inference.align import Alignment
from jddb_plugin.inference.engine import TiledInference, make_alignment
from jddb_plugin.inference.memory import Budget, Plan, available_memory, default_memory, make_plan, resident_memory
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.restoration.bursts import Burst, burst_of_files, find_bursts
from jddb_plugin.restoration.developing import Developer, auto_exposure
from jddb_plugin.restoration.exif import read_exif
from jddb_plugin.restoration.final import write_final
from jddb_plugin.restoration.frames import Frames, load_frames
from jddb_plugin.restoration.picture import FORMATS, Format, check_suffix
from jddb_plugin.restoration.rows import Rows, spool_folder
from jddb_plugin.restoration.settings import Settings
from jddb_plugin.restoration.source import FramesSource
from jddb_plugin.runtime.machine import computes_in_bf16
from jddb_plugin.weights import load_weights

#: Tiles of the paper's tests (tile, overlap, radius): of REDS4 for video frames up to this many pixels, of 4K for all else.
_SMALL_FRAME = 1280 * 720
_SMALL, _LARGE = (64, 4, 6), (128, 16, 16)
#: Step of the search.
_STRIDE = 2
#: Rows that are developed at once.
_DEVELOPED_ROWS = 64


@dataclass
class Restored:
    """A restored burst.

    Attributes:
        path: picture file; None if none was requested.
        picture: the whole frame as the sensor saw it, [H, W, 3]: not cropped, stretched and turned, as a file is. None if it was
            written to a file.
        frames: its frames; closed.
        inference: the network, the alignment, the plan, and seconds.
        gain: brightness of the picture.
        exif: tags of the reference's file.
        seconds: by part.
    """

    path: Optional[Path]
    picture: Optional[np.ndarray]
    frames: Frames
    inference: TiledInference
    gain: float
    exif: Image.Exif
    seconds: dict[str, float] = field(default_factory=dict)


class Watcher(Protocol):
    """Callbacks for the progress of a restoration."""

    def start(self, frames: Frames, gain: float) -> None:
        """Called before the first row, with the frames and the brightness of the picture."""

    def watch(self, first: int, linear: Tensor) -> None:
        """Called with finished rows: the number of the first one, and linear camera RGB [3, rows, W] on the CPU."""


class Restorer:
    """Restores bursts with one network.

    Args:
        weights: name of weights that come with the package, or a checkpoint of any burst network.
        settings: options of the restoration.

    Raises:
        CheckpointError, OptionError: the checkpoint, or a setting, cannot be used.
    """

    def __init__(self, weights: Union[str, Path] = 'small', settings: Optional[Settings] = None) -> None:
        settings = Settings() if settings is None else settings
        self.weights, self.settings = str(weights), settings
        self.device = choose_device(settings.device)
        self.net = load_weights(self.weights, coarse=settings.coarse).to(self.device)
        self.net.to(memory_format=torch.channels_last)
        self.precision = choose_precision(settings.precision, self.net, self.device)
        self.budget = Budget(default_memory() if settings.memory is None else settings.memory, resident_memory())
        if self.budget.free <= 0:
            if settings.memory is None:
                raise OptionError(f'{available_memory() >> 20} MB are available, too few to restore anything; free some, or give '
                                  'the limit.', field='memory')
            raise OptionError(f'{self.budget.total >> 20} MB is less than Python and the libraries use already '
                              f'({self.budget.held >> 20} MB, and a reserve); give at least '
                              f'{(self.budget.total - self.budget.free >> 20) + 500} MB.', field='memory')

    def restore(self, burst: Union[Burst, str, Path], output: Union[None, str, Path] = None, *,
                watch: Optional[Watcher] = None, progress: bool = True) -> Restored:
        """Restore one burst.

        Args:
            burst: a :class:`Burst`, or the folder of one.
            output: picture file to write, with the format's suffix; None returns an array instead, see :class:`Restored`.
            watch: callbacks for the frames, and for each finished part.
            progress: show a progress bar, on a terminal.

        Raises:
            DataError, OptionError, ShapeError: the burst cannot be restored, or the picture cannot be written; no file remains.
        """
        settings = self.settings
        if not isinstance(burst, Burst):
            burst = _only_burst(Path(burst), settings)
        output = None if output is None else Path(output)
        if output is not None:
            check_suffix(output, settings.format)
        with _translate_errors(burst.where):
            return self._restore(burst, output, watch, progress)

    def _restore(self, burst: Burst, output: Optional[Path], watch: Optional[Watcher], progress: bool) -> Restored:
        settings, kind = self.settings, FORMATS[self.settings.format]
        burst.check()
        start = time.perf_counter()
        frames = load_frames(
            burst, reference=('middle' if burst.is_video else 'sharpest') if settings.reference is None else settings.reference,
            count=self._count(burst), noise=settings.noise, in_memory=self.budget.mosaics, least=self.net.least_frames)
        try:
            picture = self._picture(frames, kind.dtype, in_memory=output is None)
            with contextlib.closing(picture):
                loaded = time.perf_counter()
                result = self._infer(burst, frames, picture, watch, progress)
                restored = time.perf_counter()
                if output is None:
                    result.picture = picture.read(0, picture.shape[0])
                else:
                    result.path = output
                    write_final(output, picture, kind, frames, exif=result.exif,
                                source=burst.camera_file(frames.numbers[frames.ref_idx]),
                                description=_description(burst, frames, result, settings, kind))
        finally:
            frames.close()
        result.seconds = {'reading': loaded - start, **result.inference.seconds,
                          'developing': restored - loaded - sum(result.inference.seconds.values()),
                          'writing': time.perf_counter() - restored}
        return result

    def _count(self, burst: Burst) -> Optional[int]:
        """How many frames to use; None is all.

        Raises:
            OptionError: the network needs another number.
        """
        wanted, given = self.settings.frames, self.net.num_frame
        if given is None:
            return min(5, len(burst.frames)) if burst.is_video and wanted is None else wanted
        if wanted not in (None, given):
            raise OptionError(f'--frames: {type(self.net).__name__} needs {given} frames, got {wanted}.')
        if len(burst.frames) < given:
            raise DataError(f'{burst.where}: {type(self.net).__name__} needs {given} frames, but the burst has '
                            f'{len(burst.frames)}.')
        return given

    def _picture(self, frames: Frames, dtype: DTypeLike, *, in_memory: bool) -> Rows:
        size = int(np.prod(frames.size)) * 3 * np.dtype(dtype).itemsize
        folder = None if in_memory or size <= self.budget.picture else spool_folder()
        return Rows((*frames.size, 3), dtype, folder=folder)

    def _infer(self, burst: Burst, frames: Frames, picture: Rows, watch: Optional[Watcher], progress: bool) -> Restored:
        """Restore ``frames`` into ``picture``."""
        settings, kind = self.settings, FORMATS[self.settings.format]
        tiling, alignment = self._alignment(burst, frames)
        plan = self._plan(alignment, tiling, burst, frames, picture)
        gain = settings.gain if settings.gain is not None else 1.0 if burst.is_video or kind.linear else auto_exposure(frames)
        if watch is not None:
            watch.start(frames, gain)
        develop = Developer(frames, gain, kind)
        with tqdm(total=0, unit='tile', desc=burst.name, disable=None if progress else True, leave=False) as bar:
            inference = TiledInference(self.net, alignment, plan, bf16=self.precision == 'bf16', on_tiles=bar.update)
            bar.total = len(plan.grid)
            for first, linear in inference:
                for start in range(0, linear.shape[1], _DEVELOPED_ROWS):
                    part = linear[:, start:start + _DEVELOPED_ROWS].cpu()
                    for row, values in develop(first + start, part):
                        picture.write(row, values)
                    if watch is not None:
                        watch.watch(first + start, part)
        return Restored(None, None, frames, inference, gain, read_exif(burst.camera_file(frames.numbers[frames.ref_idx])))

    def _alignment(self, burst: Burst, frames: Frames) -> tuple[TilingOptions, Alignment]:
        settings = self.settings
        if min(frames.packed_size) < 2 * SCALE + 1:  # features of a single pixel have no variance to be normalized by
            raise ShapeError(f'{burst.where}: frames of {frames.size[1]} x {frames.size[0]} are too small; expected at least '
                             '18 x 18 samples.')
        small = burst.is_video and frames.size[0] * frames.size[1] <= _SMALL_FRAME
        tile, overlap, radius = _SMALL if small else _LARGE
        released = settings.window == 'released'
        tiling = TilingOptions(settings.tile, settings.overlap, 'released' if released else 'inside', (tile, overlap))
        window = SearchWindow(radius if settings.radius is None else settings.radius, _STRIDE, settings.window)
        align = 'tiles' if settings.align is None and released and self.net.aligned_input else settings.align
        alignment = make_alignment(self.net, FramesSource(frames), align, tiling, window)
        if settings.radius is not None and alignment.windows is None:
            raise OptionError(f'is the range of the search of align: tiles or smooth, not of {alignment.name}; leave it out.',
                              field='radius')
        return tiling, alignment

    def _plan(self, alignment: Alignment, tiling: TilingOptions, burst: Burst, frames: Frames, picture: Rows) -> Plan:
        """Plan what is computed at once; mosaics and picture move to files if there is no memory left beside them."""
        stores = (*frames.mosaics, picture)

        def plan() -> Plan:
            host = self.budget.free - sum(rows.bytes_in_memory for rows in stores)
            free = host if self.device.type == 'cpu' else torch.cuda.mem_get_info(self.device)[0] * 9 // 10
            return make_plan(self.net, alignment, tiling, free=free, host=host, where=burst.where)

        try:
            return plan()
        except OptionError:
            if not any(rows.bytes_in_memory for rows in stores):
                raise
        for rows in stores:
            rows.spill(spool_folder())
        return plan()


@contextlib.contextmanager
def _translate_errors(where: str) -> Iterator[None]:
    """Turn errors of the system and of memory into one line about the burst."""
    try:
        yield
    except OSError as error:
        raise DataError(f'{where}: {error}.') from error
    except (MemoryError, RuntimeError, cv2.error) as error:
        if not isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) and not re.search(
                'allocate memory|Insufficient memory', str(error)):
            raise
        raise OptionError(f'{where}: out of memory; use a smaller memory, tile or radius, or fewer '
                          'frames.') from error


def choose_device(name: str) -> torch.device:
    """The device of an option.

    Raises:
        OptionError: there is no such device.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"unknown device '{name}'; expected auto, cpu, cuda or cuda:N.", field='device') from error
    if device.type not in ('cpu', 'cuda'):
        raise OptionError(f"'{name}' is not supported; expected auto, cpu, cuda or cuda:N.", field='device')
    count = torch.cuda.device_count()
    if device.type == 'cuda' and not 0 <= (device.index or 0) < count:  # an index beyond 127 comes out negative
        raise OptionError(f"'{name}' does not exist, PyTorch finds {count} GPUs; use cpu or auto.", field='device')
    return device


def choose_precision(name: str, net: BurstNetwork, device: torch.device) -> str:
    """'float32' or 'bf16', for an option that may be 'auto'."""
    if name != 'auto':
        return name
    return 'bf16' if net.suits_bf16 and device.type == 'cpu' and computes_in_bf16() else 'float32'


def _only_burst(path: Path, settings: Settings) -> Burst:
    noise = settings.noise if isinstance(settings.noise, tuple) else None
    bursts = find_bursts(path, noise=noise) if path.is_dir() else [burst_of_files([path], noise=noise)]
    if len(bursts) > 1:
        raise DataError(f'{path}: holds {len(bursts)} bursts; restore those of find_bursts one by one.')
    return bursts[0]


def _description(burst: Burst, frames: Frames, result: Restored, settings: Settings, kind: Format) -> dict[str, object]:
    """Settings and results that a picture file states."""
    return {
        'burst': burst.name, 'frames': list(frames.names), 'reference': frames.names[frames.ref_idx],
        'values': kind.values,
        'gain': round(result.gain, 4), 'window': settings.window, 'align': result.inference.alignment.name,
        'precision': result.inference.precision,
        'noise_shot': [round(float(v), 8) for v in frames.noise.shot[frames.ref_idx]],
        'noise_read': [round(float(v), 8) for v in frames.noise.read[frames.ref_idx]],
    }

