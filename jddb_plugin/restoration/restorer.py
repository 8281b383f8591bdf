"""From a burst to a picture: the function behind ``python -m jddb_plugin.restore``."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Protocol, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.checks import DataError, OptionError, ShapeError, check_choice
from jddb_plugin.data.raw_burst_dataset import colours
from jddb_plugin.inference.align import Alignment
from jddb_plugin.inference.engine import ALIGNMENTS, TiledInference, make_alignment
from jddb_plugin.inference.memory import Budget, Plan, default_memory, make_plan, resident_memory
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.bayer import demosaic_bilinear
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.ops.cfa import red_position
from jddb_plugin.ops.isp import process, to_linear_srgb, tone_map
from jddb_plugin.restoration.bursts import Burst, burst_of_files, find_bursts
from jddb_plugin.restoration.exif import read_exif
from jddb_plugin.restoration.frames import Frames, Noise, load_frames
from jddb_plugin.restoration.picture import FORMATS, check_suffix, quantise, write_picture
from jddb_plugin.restoration.rows import Rows, spool_folder
from jddb_plugin.restoration.source import FramesSource
from jddb_plugin.weights import load_weights

#: Tiles of the paper's tests (tile, overlap, radius): of REDS4 for video frames up to this many pixels, of 4K for all else.
_SMALL_FRAME = 1280 * 720
_SMALL, _LARGE = (64, 4, 6), (128, 16, 16)
#: Step of the search.
_STRIDE = 2
#: No tile, overlap or radius is larger.
_LARGEST = 4096
#: Rows that are developed at once.
_DEVELOPED_ROWS = 64
#: Samples of the reference that its brightness is measured on.
_BRIGHTNESS_SAMPLES = 100_000


@dataclass(frozen=True)
class Settings:
    """How bursts are restored.

    Attributes:
        reference: index of the reference frame, 'middle' or 'sharpest'; None is the sharpest raw frame, or the middle one of a
            video.
        frames: how many frames to use, those nearest to the reference; None is all of a raw burst, five of a video.
        noise: 'metadata', 'estimate', or (shot, read); video frames become raw of that noise.
        kind: what the picture file holds, a name of :data:`jddb_plugin.restoration.picture.FORMATS`.
        gain: brightness of the picture; None makes 1 % of the noisy reference white (1 for video frames, and linear pictures).
        tile, overlap: see :class:`jddb_plugin.inference.tiling.TilingOptions`. By default, what is matched has the size that
            the paper tests with: 64 and 4 for video frames up to 1280 x 720, else 128 and 16.
        radius: how far block matching looks, in units of 4 pixels of the packed raw; None is what the paper tests with: 6 for
            video frames up to 1280 x 720, else 16.
        window: 'symmetric', or 'published' for the released code's search window and padding.
        align: how frames are aligned, see :mod:`jddb_plugin.inference.align`: 'tiles', 'smooth', 'flow' or 'none'. None chooses
            by the network, and is tiles where window is 'published'.
        coarse: stage of TwoStageJDDB, where its checkpoint does not tell: 'block_matching' or 'none'.
        device: 'auto', 'cpu', 'cuda', 'cuda:1', ...
        precision: 'float32', or 'bf16' for the convolutions of the refined stage.
        memory: bytes that the process may hold; None is half of what is available. On a GPU its free memory serves the tiles.
    """

    reference: Union[None, int, str] = None
    frames: Optional[int] = None
    noise: Noise = 'metadata'
    kind: str = 'png'
    gain: Optional[float] = None
    tile: Optional[int] = None
    overlap: Optional[int] = None
    radius: Optional[int] = None
    window: str = 'symmetric'
    align: Optional[str] = None
    coarse: Optional[str] = None
    device: str = 'auto'
    precision: str = 'float32'
    memory: Optional[int] = None

    def check(self) -> None:
        """Raise OptionError for a value that cannot be used."""
        check_choice(self.kind, FORMATS, '--format')
        check_choice(self.window, ('symmetric', 'published'), '--window')
        if self.align is not None:
            check_choice(self.align, ALIGNMENTS, '--align')
        if self.align in ('smooth', 'flow') and self.window == 'published':
            raise OptionError(f'--align {self.align}: --window published moves whole tiles, as the released code does; leave out '
                              'one of them.')
        check_choice(self.precision, ('float32', 'bf16'), '--precision')
        if isinstance(self.noise, str):
            check_choice(self.noise, ('metadata', 'estimate'), '--noise')
        elif len(self.noise) != 2 or not all(0 <= level <= 1 for level in self.noise):
            raise OptionError(f'--noise: expected shot and read in 0 .. 1, got {self.noise}.')
        if isinstance(self.reference, str):
            check_choice(self.reference, ('middle', 'sharpest'), '--reference')
        if self.gain is not None and not 0 < self.gain < 1e4:
            raise OptionError(f'--gain: expected a positive number below 10000, got {self.gain}.')
        for name in ('tile', 'overlap', 'radius'):
            value = getattr(self, name)
            step, least = (1, 0) if name == 'radius' else (SCALE, SCALE * (name == 'tile'))
            if value is not None and (value % step or not least <= value <= _LARGEST):
                raise OptionError(f'--{name}: expected {f"a multiple of {step}" if step > 1 else "a number"} in {least} .. '
                                  f'{_LARGEST}, got {value}.')


@dataclass
class Restored:
    """A restored burst.

    Attributes:
        path: picture file; None if none was asked for.
        picture: the picture [H, W, 3] as the sensor saw it, not turned; None if it was written to a file.
        frames: what it was made of; closed.
        inference: what restored it: the network, the alignment, the plan, and seconds.
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
    """Who looks on while a burst is restored."""

    def start(self, frames: Frames, gain: float) -> None:
        """See the frames, and the brightness of the picture."""

    def watch(self, first: int, linear: Tensor) -> None:
        """See finished rows: the first one's number, and linear camera RGB [3, rows, W] on the CPU."""


class Restorer:
    """Restores bursts with one network.

    Args:
        weights: name of weights that come with the package, or a checkpoint of any burst network.
        settings: how.

    Raises:
        CheckpointError, OptionError: the checkpoint, or a setting, cannot be used.
    """

    def __init__(self, weights: Union[str, Path] = 'small', settings: Settings = Settings()) -> None:
        settings.check()
        self.weights, self.settings = str(weights), settings
        self.device = _device(settings.device)
        self.net = load_weights(self.weights, coarse=settings.coarse).to(self.device)
        self.net.to(memory_format=torch.channels_last)
        self.budget = Budget(default_memory() if settings.memory is None else settings.memory, resident_memory())
        if self.budget.free <= 0:
            raise OptionError(f'--memory: {self.budget.total >> 20} MB are less than Python and the libraries hold already '
                              f'({self.budget.held >> 20} MB and some to spare); give at least '
                              f'{(self.budget.total - self.budget.free >> 20) + 500} MB.')

    def restore(self, burst: Union[Burst, str, Path], output: Union[None, str, Path] = None, *,
                watch: Optional[Watcher] = None, progress: bool = True) -> Restored:
        """Restore one burst.

        Args:
            burst: a :class:`Burst`, or the folder of one.
            output: picture file to write, with the format's suffix; None returns the picture as an array instead.
            watch: is shown the frames, and each finished part.
            progress: show a bar, on a terminal.

        Raises:
            DataError, OptionError, ShapeError: the burst cannot be restored, or the picture not written; nothing is left behind.
        """
        settings = self.settings
        if not isinstance(burst, Burst):
            burst = _only_burst(Path(burst), settings)
        output = None if output is None else Path(output)
        if output is not None:
            check_suffix(output, settings.kind)
        with _told(burst.where):
            return self._restore(burst, output, watch, progress)

    def _restore(self, burst: Burst, output: Optional[Path], watch: Optional[Watcher], progress: bool) -> Restored:
        settings, kind = self.settings, FORMATS[self.settings.kind]
        start = time.perf_counter()
        frames = load_frames(
            burst, reference=('middle' if burst.is_video else 'sharpest') if settings.reference is None else settings.reference,
            count=self._count(burst),
            noise=settings.noise, in_memory=self.budget.mosaics)
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
                    write_picture(output, picture, kind, orientation=frames.camera.orientation, exif=result.exif,
                                  description=_description(burst, frames, result, settings, kind.linear))
        finally:
            frames.close()
        result.seconds = {'reading': loaded - start, **result.inference.seconds,
                          'developing': restored - loaded - sum(result.inference.seconds.values()),
                          'writing': time.perf_counter() - restored}
        return result

    def _count(self, burst: Burst) -> Optional[int]:
        """How many frames to use; None is all.

        Raises:
            OptionError: the network is made for another number.
        """
        wanted, given = self.settings.frames, self.net.num_frame
        if given is None:
            return min(5, len(burst.frames)) if burst.is_video and wanted is None else wanted
        if wanted not in (None, given):
            raise OptionError(f'--frames: {type(self.net).__name__} is made for {given} frames, got {wanted}.')
        if len(burst.frames) < given:
            raise DataError(f'{burst.where}: {type(self.net).__name__} is made for {given} frames, but the burst has '
                            f'{len(burst.frames)}.')
        return given

    def _picture(self, frames: Frames, dtype: type, *, in_memory: bool) -> Rows:
        size = int(np.prod(frames.size)) * 3 * np.dtype(dtype).itemsize
        folder = None if in_memory or size <= self.budget.picture else spool_folder()
        return Rows((*frames.size, 3), dtype, folder=folder)

    def _infer(self, burst: Burst, frames: Frames, picture: Rows, watch: Optional[Watcher], progress: bool) -> Restored:
        """Restore ``frames`` into ``picture``."""
        settings, kind = self.settings, FORMATS[self.settings.kind]
        tiling, alignment = self._alignment(burst, frames)
        plan = self._plan(alignment, tiling, burst, frames, picture)
        gain = settings.gain if settings.gain is not None else 1.0 if burst.is_video or kind.linear else brightness(frames)
        if watch is not None:
            watch.start(frames, gain)
        develop = _Developer(frames, gain, kind.linear, kind.dtype)
        with tqdm(total=0, unit='tile', desc=burst.name, disable=None if progress else True, leave=False) as bar:
            inference = TiledInference(self.net, alignment, plan, bf16=settings.precision == 'bf16', on_tiles=bar.update)
            bar.total = len(plan.grid)
            for first, linear in inference:
                for start in range(0, linear.shape[1], _DEVELOPED_ROWS):
                    part = linear[:, start:start + _DEVELOPED_ROWS].cpu()
                    for row, values in develop(first + start, part):
                        picture.write(row, values)
                    if watch is not None:
                        watch.watch(first + start, part)
        file = burst.files[frames.numbers[frames.ref_idx]] if burst.files and not burst.is_video else None
        return Restored(None, None, frames, inference, gain, read_exif(file))

    def _alignment(self, burst: Burst, frames: Frames) -> tuple[TilingOptions, Alignment]:
        settings = self.settings
        if min(frames.packed_size) < 2 * SCALE + 1:  # features of a single pixel have no variance to be normalized by
            raise ShapeError(f'{burst.where}: frames of {frames.size[1]} x {frames.size[0]} are too small; expected at least '
                             '18 x 18 samples.')
        small = burst.is_video and frames.size[0] * frames.size[1] <= _SMALL_FRAME
        tile, overlap, radius = _SMALL if small else _LARGE
        published = settings.window == 'published'
        tiling = TilingOptions(settings.tile, settings.overlap, 'published' if published else 'inside', (tile, overlap))
        window = SearchWindow(radius if settings.radius is None else settings.radius, _STRIDE, settings.window)
        align = 'tiles' if settings.align is None and published and self.net.aligned_input else settings.align
        return tiling, make_alignment(self.net, FramesSource(frames), align, tiling, window)

    def _plan(self, alignment: Alignment, tiling: TilingOptions, burst: Burst, frames: Frames, picture: Rows) -> Plan:
        """What is done at once; mosaics and picture leave the memory where nothing fits beside them."""
        stores = (*frames.mosaics, picture)
        if self.device.type == 'cpu':
            free = self.budget.free - sum(rows.bytes_in_memory for rows in stores)
        else:
            free = torch.cuda.mem_get_info(self.device)[0] * 9 // 10
        try:
            return make_plan(self.net, alignment, tiling, free=free, where=burst.where)
        except OptionError:
            if self.device.type != 'cpu' or free == self.budget.free:
                raise
        for rows in stores:
            rows.spill(spool_folder())
        return make_plan(self.net, alignment, tiling, free=self.budget.free, where=burst.where)


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """What the system refuses, as one line about the burst."""
    try:
        yield
    except OSError as error:
        raise DataError(f'{where}: {error}.') from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) and 'allocate memory' not in str(error):
            raise
        raise OptionError(f'{where}: the system has no more memory; give a smaller --memory, --tile or --radius, or fewer '
                          '--frames.') from error


def _device(name: str) -> torch.device:
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"--device: '{name}' is none; expected auto, cpu, cuda or cuda:N.") from error
    if device.type not in ('cpu', 'cuda'):
        raise OptionError(f"--device: '{name}' is not supported; expected auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count()
    if device.type == 'cuda' and not 0 <= (device.index or 0) < count:  # an index beyond 127 comes out negative
        raise OptionError(f"--device: there is no '{name}', PyTorch finds {count} GPUs; use cpu or auto.")
    return device


def _only_burst(path: Path, settings: Settings) -> Burst:
    noise = settings.noise if isinstance(settings.noise, tuple) else None
    bursts = find_bursts(path, noise=noise) if path.is_dir() else [burst_of_files([path], noise=noise)]
    if len(bursts) > 1:
        raise DataError(f'{path}: holds {len(bursts)} bursts; choose one of find_bursts, or restore them one by one.')
    return bursts[0]


def brightness(frames: Frames) -> float:
    """Gain that makes 1 % of the samples of the noisy, white balanced reference white; at least 1."""
    height, width = frames.packed_size
    step = max(1, height * width // _BRIGHTNESS_SAMPLES)
    rows = [frames.light(frames.ref_idx, row, row + 1)[:, 0] for row in range(0, height, max(1, round(step ** 0.5)))]
    light = torch.cat([row[:, ::max(1, round(step ** 0.5))] for row in rows], dim=1)
    gains = colours(frames.camera)
    white = torch.stack((light[0] * gains['red_gain'], light[1:3].mean(dim=0), light[3] * gains['blue_gain']))
    return float(1 / torch.quantile(white.flatten(), 0.99).clamp(min=1e-3, max=1))


class _Developer:
    """Linear camera RGB of the cropped mosaic -> rows of the picture of the whole frame."""

    def __init__(self, frames: Frames, gain: float, linear: bool, dtype: type) -> None:
        self.colours = {**colours(frames.camera), 'rgb_gain': gain}
        self.linear, self.dtype = linear, dtype
        self.size = frames.size
        self.origin = red_position(frames.camera.cfa)
        self.last = self.origin[0] + 2 * frames.packed_size[0]

    def __call__(self, first: int, linear: Tensor) -> list[tuple[int, np.ndarray]]:
        """(row, values [rows, W, 3]): lines that were cropped to reach rggb repeat the nearest one."""
        if not bool(torch.isfinite(linear).all()):
            raise DataError('the network gave values that are not finite; use --precision float32, or other weights.')
        values = self.rgb(linear)
        left = self.origin[1]
        values = np.pad(values, ((0, 0), (left, self.size[1] - left - values.shape[1]), (0, 0)), mode='edge')
        first += self.origin[0]
        parts = [(first, values)]
        if first == self.origin[0] == 1:
            parts.append((0, values[:1]))
        if first + len(values) == self.last < self.size[0]:
            parts.append((self.last, values[-1:]))
        return parts

    def rgb(self, linear: Tensor) -> np.ndarray:
        """[3, h, w] -> [h, w, 3] as the picture holds it."""
        image = to_linear_srgb(linear, **self.colours) if self.linear else tone_map(process(linear, **self.colours))
        return quantise(image.permute(1, 2, 0).numpy(), self.dtype)


def develop_srgb(frames: Frames, gain: float, linear: Tensor) -> np.ndarray:
    """Linear camera RGB [3, h, w] of a burst's camera -> sRGB uint8 [h, w, 3] to look at."""
    return _Developer(frames, gain, False, np.uint8).rgb(linear)


def noisy_rows(frames: Frames, first: int, last: int) -> Tensor:
    """Linear camera RGB [3, 2 rows, 2 W] of the noisy reference's packed rows, demosaicked bilinearly."""
    above, below = max(first - 2, 0), min(last + 2, frames.packed_size[0])
    rgb = demosaic_bilinear(frames.light(frames.ref_idx, above, below)[None])[0]
    return rgb[:, 2 * (first - above):2 * (last - above)]


def _description(burst: Burst, frames: Frames, result: Restored, settings: Settings, linear: bool) -> dict[str, object]:
    """What a picture file tells of its making."""
    return {
        'burst': burst.name, 'frames': list(frames.names), 'reference': frames.names[frames.ref_idx],
        'values': 'linear light, sRGB primaries, white balanced' if linear else 'sRGB',
        'gain': round(result.gain, 4), 'window': settings.window, 'align': result.inference.alignment.name,
        'precision': settings.precision,
        'noise_shot': [round(float(v), 8) for v in frames.noise[0][frames.ref_idx]],
        'noise_read': [round(float(v), 8) for v in frames.noise[1][frames.ref_idx]],
    }
