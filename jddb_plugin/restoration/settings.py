"""How bursts are restored. Does not import torch, so that the command line answers at once."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from jddb_plugin.checks import OptionError, check_choice
from jddb_plugin.noise_option import Noise, parse_noise
from jddb_plugin.options import Options, option, parse_memory

#: Names of :data:`jddb_plugin.restoration.picture.FORMATS`.
FORMAT_NAMES = ('png', 'png16', 'tiff', 'tiff16', 'linear16', 'linear32', 'dng')
#: Those of :data:`jddb_plugin.inference.engine.ALIGNMENTS`.
ALIGNMENT_NAMES = ('tiles', 'smooth', 'flow', 'none')
#: Of the convolutions.
PRECISIONS = ('auto', 'float32', 'bf16')

#: Tile, overlap and radius are at most this.
_LARGEST = 4096
#: Tile and overlap are multiples of it: the scale of the matching features.
_STEP = 4


def _parse_noise(value: Noise) -> Noise:
    return parse_noise(value, 'metadata', 'estimate')


def _parse_reference(text: str) -> Union[int, str]:
    if text in ('middle', 'sharpest'):
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise OptionError(f"expected the index of a frame, middle or sharpest, got '{text}'.", field='reference')
    return int(text)


@dataclass(frozen=True)
class Settings(Options):
    """How bursts are restored.

    Attributes:
        reference: index of the reference frame, 'middle' or 'sharpest'; None is the sharpest frame of a raw burst, and the
            middle one of a video.
        frames: how many frames to use, those nearest to the reference; None is all of a raw burst, and five of a video.
        noise: 'metadata', 'estimate', 'low' or 'high' (the paper's), 'SHOT,READ', or (shot, read); video frames become raw of
            that noise.
        format: of the picture file, a name of :data:`jddb_plugin.restoration.picture.FORMATS`.
        gain: brightness of the picture; None makes 1 % of the noisy reference white (1 for video frames, and linear pictures).
        device: 'auto', 'cpu', 'cuda', 'cuda:1', ...
        precision: of the convolutions: 'float32', 'bf16', or 'auto', which is bf16 for networks that it suits, on a CPU that
            computes in it.
        memory: bytes that the process may hold, or a text such as '2G'; None is half of the available memory. On a GPU the
            tiles use its free memory.
        tile, overlap: of the tiles that are matched and restored. None is the paper's for align 'tiles': 64 and 4 for video
            frames up to 1280 x 720, otherwise 128 and 16; and as large as the memory allows for the others.
        radius: of the search of align 'tiles' and 'smooth', see :class:`jddb_plugin.archs.dpbm_arch.DPBM`. None is the paper's: 6
            for those video frames, otherwise 16.
        window: 'symmetric', or 'released' for the released code's search window and padding.
        align: how frames are aligned, see :mod:`jddb_plugin.inference.align`: 'tiles', 'smooth', 'flow' or 'none'. None chooses
            by the network, or 'tiles' if window is 'released'.
        coarse: coarse stage of the network, if its checkpoint does not state it: 'block_matching' or 'none'.

    Raises:
        OptionError: a value has the wrong type, or cannot be used.
    """

    reference: Union[None, int, str] = option(None, group='input', metavar='N', parse=_parse_reference, help=(
        "index of the reference frame, from 0; 'middle'; or 'sharpest' (default; for videos: middle)"))
    frames: Optional[int] = option(None, group='input', metavar='K', help=(
        'use the K frames nearest to the reference (default: all; for videos: 5)'))
    noise: Noise = option('metadata', group='input', metavar='LEVEL', parse=_parse_noise, help=(
        "SHOT,READ on the scale where black is 0 and white 1; 'low' or 'high', the paper's; 'estimate' fits them to the burst; "
        "default: the files' noise profile"))
    format: str = option('png', group='output', choices=FORMAT_NAMES, help=(
        'sRGB of 8 or 16 bits (png, png16, tiff, tiff16), linear sRGB (linear16, linear32: floats), or a linear DNG for raw '
        'converters (dng); default: by the suffix of OUT, else png'))
    gain: Optional[float] = option(None, group='output', metavar='X', help=(
        'brightness of the picture (default: 1 %% of the noisy reference becomes white)'))
    device: str = option('auto', group='how', metavar='DEVICE', help='auto (default), cpu, cuda, cuda:1, ...')
    precision: str = option('auto', group='how', choices=PRECISIONS, help=(
        "of the convolutions (default: auto, which is bf16 for the package's weights on a CPU that has it, else float32)"))
    memory: Optional[int] = option(None, group='how', metavar='SIZE', parse=parse_memory, help=(
        'memory limit of the process, e.g. 2G (default: half of the available memory)'))
    tile: Optional[int] = option(None, group='how', metavar='N', help=(
        'side of a tile in pixels of the packed raw (default: as memory allows; with --align tiles 128, for small videos 64)'))
    overlap: Optional[int] = option(None, group='how', metavar='N', help='context on each side of a tile (default: 16; 4)')
    radius: Optional[int] = option(None, group='how', metavar='N', help=(
        'range of the search of --align tiles and smooth in units of 4 pixels of the packed raw (default: 16; 6)'))
    window: str = option('symmetric', group='how', choices=('symmetric', 'released'), help=(
        "released: the released code's search window and padding"))
    align: Optional[str] = option(None, group='how', choices=ALIGNMENT_NAMES, help=(
        'flow: pixels by optical flow; smooth: pixels by a field of motion; tiles: each tile as a whole, as in the paper; none '
        '(default: by the network)'))
    coarse: Optional[str] = option(None, group='how', metavar='STAGE', help=(
        'block_matching or none, for a checkpoint without matching features'))

    def __post_init__(self) -> None:
        object.__setattr__(self, 'noise', _parse_noise(self.noise))  # texts of the command line are accepted from Python, too
        if isinstance(self.memory, str):
            object.__setattr__(self, 'memory', parse_memory(self.memory))
        super().__post_init__()

    def check(self) -> None:
        """Raise OptionError for a value that cannot be used."""
        check_choice(self.format, FORMAT_NAMES, 'format')
        check_choice(self.window, ('symmetric', 'released'), 'window')
        check_choice(self.precision, PRECISIONS, 'precision')
        if self.align is not None:
            check_choice(self.align, ALIGNMENT_NAMES, 'align')
        if self.align in ('smooth', 'flow') and self.window == 'released':
            raise OptionError(f'{self.align} cannot be combined with window released, which moves whole tiles as the released '
                              'code does; remove one of them.', field='align')
        if isinstance(self.reference, str):
            check_choice(self.reference, ('middle', 'sharpest'), 'reference')
        elif self.reference is not None and self.reference < 0:
            raise OptionError(f'expected the index of a frame, from 0, got {self.reference}.', field='reference')
        if self.frames is not None and self.frames < 1:
            raise OptionError(f'expected at least 1, got {self.frames}.', field='frames')
        if self.memory is not None and self.memory < 1:
            raise OptionError(f'expected a positive number of bytes, got {self.memory}.', field='memory')
        if self.gain is not None and not 0 < self.gain < 1e4:
            raise OptionError(f'expected a positive number below 10000, got {self.gain}.', field='gain')
        for name, step, least in (('tile', _STEP, _STEP), ('overlap', _STEP, 0), ('radius', 1, 0)):
            value = getattr(self, name)
            if value is not None and (value % step or not least <= value <= _LARGEST):
                wanted = f'a multiple of {step}' if step > 1 else 'a number'
                raise OptionError(f'expected {wanted} in {least} .. {_LARGEST}, got {value}.', field=name)


@dataclass(frozen=True)
class Inputs:
    """Paths that are searched for bursts.

    Attributes:
        paths: folders of bursts, LMDBs, or the files of one burst.
        cfa: pattern of MATLAB files that do not state it.
        clips: names of the bursts to restore; all if empty.
        frames_of_file: each camera file is a burst, whose mosaics are the frames.
        lens_shading: use the lens shading maps beside the frames.
    """

    paths: Sequence[Path]
    cfa: Optional[str] = None
    clips: Sequence[str] = ()
    frames_of_file: bool = False
    lens_shading: bool = False
