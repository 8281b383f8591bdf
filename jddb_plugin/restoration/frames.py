"""The frames of a burst as the network needs them: which one is the reference, whether they belong together, and their raw."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np
import torch
from torch import Tensor

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.dng_opcodes import Shading
from jddb_plugin.data.folders import log_once
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.mosaic_source import stack_noise
from jddb_plugin.data.raw_reader import RawFrame
from jddb_plugin.noise_option import Noise
from jddb_plugin.ops.cfa import red_position
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.restoration.bursts import Burst
from jddb_plugin.restoration.rows import Rows, spool_folder

#: Shares of samples from which on a frame is called black or over-exposed.
_CLIPPED = 0.98
#: Factor by which a frame may be brighter or darker than the reference.
_EXPOSURE = 1.6
#: Frames less sharp than the sharpest by up to this share count as equal: the one nearest to the middle is taken.
_SHARP_ENOUGH = 0.03
#: Packed pixels of which noise is estimated.
_ESTIMATED_PIXELS = 1 << 22


@dataclass(frozen=True)
class Frames:
    """Some frames of a burst, of equal size, camera and exposure.

    Attributes:
        names: of each, for messages.
        ref_idx: index of the reference among them.
        mosaics: as they were stored, [H, W] each.
        metadata: of each; cfa and colors are the same.
        noise: levels [N, 4] of each frame and plane (R, Gr, Gb, B).
        numbers: of each, its index in the burst.
        sharpness: of each, relative to the sharpest; empty if the reference was given.
        shading: lens shading of the reference, which is corrected in its picture; None if there is none.
    """

    names: tuple[str, ...]
    ref_idx: int
    mosaics: tuple[Rows, ...]
    metadata: tuple[CameraMetadata, ...]
    noise: NoiseModel
    numbers: tuple[int, ...]
    sharpness: tuple[float, ...] = ()
    shading: Optional[Shading] = None

    @property
    def reference(self) -> CameraMetadata:
        """Metadata of the reference."""
        return self.metadata[self.ref_idx]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the mosaics."""
        height, width = self.mosaics[0].shape
        return height, width

    @property
    def packed_size(self) -> tuple[int, int]:
        """(height, width) of the packed raw, after at most a row and a column were cropped to reach rggb."""
        y, x = red_position(self.reference.cfa)
        return (self.size[0] - y) // 2, (self.size[1] - x) // 2

    def raw(self, index: int, first: int, last: int) -> Tensor:
        """Packed rows ``first`` to ``last - 1`` of one frame, [4, rows, W] in [0, 1]."""
        return _read_raw(self.mosaics[index], self.metadata[index], first, last)

    def close(self) -> None:
        """Free memory and disk."""
        for mosaic in self.mosaics:
            mosaic.close()


def _read_raw(mosaic: Rows, metadata: CameraMetadata, first: int, last: int) -> Tensor:
    y, x = red_position(metadata.cfa)
    width = (mosaic.shape[1] - x) // 2 * 2
    rows = mosaic.read(y + 2 * first, y + 2 * last)[:, x:x + width]
    return metadata.normalize(torch.from_numpy(rows.astype(np.float32)))


def load_frames(burst: Burst, *, reference: Union[str, int], count: Optional[int], noise: Noise,
                in_memory: int = 1 << 62, spool: Optional[Path] = None, least: int = 2) -> Frames:
    """Read a burst.

    Args:
        burst: what to read.
        reference: index of the reference among the burst's frames; 'middle'; or 'sharpest'.
        count: how many frames to use, those nearest to the reference; all if None.
        noise: 'metadata' takes each frame's noise profile, 'estimate' fits one to the frames, or (shot, read).
        in_memory: bytes that the mosaics may take; if they take more, they lie in temporary files.
        spool: folder of those files; the system's if None.
        least: frames that the network needs.

    Raises:
        DataError: a frame cannot be read, there are too few frames, they differ in size, camera or exposure, are black or
            over-exposed, or have no noise profile.
        OptionError: the reference or the number of frames is out of range.
    """
    total = len(burst.frames)
    if total < least:
        found = 'one frame' if total == 1 else 'no frame'
        raise DataError(f'{burst.where}: is a burst of {found}; expected at least {least} of the same scene.')
    if isinstance(reference, int) and not 0 <= reference < total:
        raise OptionError(f'{burst.where}: --reference {reference}: the burst has frames 0 .. {total - 1}.')
    if count is not None and not least <= count <= total:
        raise OptionError(f'{burst.where}: --frames {count}: expected {least} .. {total}, as many as the burst has.')
    known_reference = total // 2 if reference == 'middle' else reference if isinstance(reference, int) else None
    wanted = range(total) if known_reference is None else _nearest(known_reference, count, total)
    mosaics: dict[int, Rows] = {}
    metadata: dict[int, CameraMetadata] = {}
    try:
        first = wanted[0]
        brightness: dict[int, float] = {}
        sharpness: dict[int, float] = {}
        shading: dict[int, Optional[Shading]] = {}
        logged: set[str] = set()
        for index in wanted:
            frame = burst.read(index)
            if index != first:
                _check_alike(burst, index, frame, first, mosaics[first].shape, metadata[first])
            fits = frame.mosaic.nbytes * len(wanted) <= in_memory
            mosaics[index] = Rows(frame.mosaic.shape, np.uint16, folder=None if fits else spool or spool_folder())
            mosaics[index].write(0, frame.mosaic)
            metadata[index], shading[index] = frame.metadata, frame.shading
            log_once((*frame.notes, *_crop_note(f'{burst.where}: {burst.frames[index]}', frame)), logged)
            y, x = red_position(frame.metadata.cfa)
            if min(frame.mosaic.shape[0] - y, frame.mosaic.shape[1] - x) < 2:
                raise DataError(f'{burst.where}: {burst.frames[index]}: is too small, {list(frame.mosaic.shape)}.')
            brightness[index] = _brightness(frame, f'{burst.where}: {burst.frames[index]}')
            if known_reference is None:
                sharpness[index] = _sharpness(frame) / max(brightness[index], 1e-6)
        ref = _sharpest(sharpness, total) if known_reference is None else known_reference
        chosen = _nearest(ref, count, total)
        for index in set(mosaics) - set(chosen):
            mosaics.pop(index).close()
        _check_exposure(burst, {index: brightness[index] for index in chosen}, ref)
        ordered = tuple(mosaics[index] for index in chosen)
        known = tuple(metadata[index] for index in chosen)
        best = max(sharpness.values(), default=1) or 1
        levels = _noise(burst, noise, chosen, ordered, known)
        log_once(_strong_noise(burst, levels.at(chosen.index(ref))), logged)
        return Frames(tuple(burst.frames[index] for index in chosen), chosen.index(ref), ordered, known, levels, tuple(chosen),
                      tuple(sharpness[index] / best for index in chosen) if sharpness else (), shading[ref])
    except BaseException:
        for mosaic in mosaics.values():
            mosaic.close()
        raise


def _crop_note(where: str, frame: RawFrame) -> tuple[str, ...]:
    """A line if the metadata's crop is ignored."""
    crop, (height, width) = frame.metadata.crop, frame.mosaic.shape
    if crop is None or frame.metadata.crop_within(height, width) is not None:
        return ()
    return (f'{where}: crop {list(crop)} reaches beyond the {width} x {height} samples, ignored',)


def _nearest(reference: int, count: Optional[int], total: int) -> range:
    """The ``count`` frames around the reference; at a burst's ends they lie on one side."""
    count = total if count is None else count
    first = min(max(reference - count // 2, 0), total - count)
    return range(first, first + count)


def _check_alike(burst: Burst, index: int, frame: RawFrame, first: int, size: tuple[int, ...], known: CameraMetadata) -> None:
    where, other = f'{burst.where}: {burst.frames[index]}', burst.frames[first]
    if frame.mosaic.shape != size:
        raise DataError(f'{where}: {frame.mosaic.shape[1]} x {frame.mosaic.shape[0]} samples, but {other} has '
                        f'{size[1]} x {size[0]}; all frames of a burst must have one size.')
    if frame.metadata.cfa != known.cfa or not np.allclose(frame.metadata.color_matrix, known.color_matrix, atol=1e-3):
        raise DataError(f'{where}: pattern {frame.metadata.cfa} and color matrix are not those of {other} ({known.cfa}); '
                        'all frames of a burst must be of one camera.')


def _cells(frame: RawFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples [4, n], and black and white [4, 1], of some lines of the mosaic, by their place in the cell."""
    height, width = (side // 2 * 2 for side in frame.mosaic.shape)
    lines = np.arange(0, height, 2)[::max(1, height * width // (1 << 21))]
    rows = [frame.mosaic[lines + i, :width] for i in (0, 1)]
    samples = np.stack([row[:, j::2].ravel() for row in rows for j in (0, 1)]).astype(np.float32)
    black, white = (np.array(level, np.float32)[:, None] for level in (frame.metadata.black_level, frame.metadata.white_level))
    return samples, black, white


def _brightness(frame: RawFrame, where: str) -> float:
    """Mean normalized level of a frame.

    Raises:
        DataError: nearly all of it is black, or white.
    """
    samples, black, white = _cells(frame)
    if (samples <= black).mean() > _CLIPPED:
        raise DataError(f'{where}: is a black frame (more than {_CLIPPED:.0%} of its samples are at the black level or below); '
                        'remove it, or correct black_level.')
    if (samples >= white).mean() > _CLIPPED:
        raise DataError(f'{where}: is over-exposed (more than {_CLIPPED:.0%} of its samples are at the white level); remove it, '
                        'or correct white_level.')
    return float(((samples - black) / (white - black)).clip(0, 1).mean())


def _check_exposure(burst: Burst, brightness: dict[int, float], reference: int) -> None:
    expected = brightness[reference]
    odd = {index: value for index, value in brightness.items() if not expected / _EXPOSURE < value < expected * _EXPOSURE}
    if not odd:
        return
    if 1 < len(odd) == len(brightness) - 1 and max(odd.values()) < min(odd.values()) * _EXPOSURE:
        raise DataError(f'{burst.where}: {burst.frames[reference]}: the reference has another exposure than all others: its mean '
                        f'level is {expected:.4f}, theirs {min(odd.values()):.4f} and more; remove it.')
    index = next(iter(odd))
    raise DataError(f'{burst.where}: {burst.frames[index]}: has another exposure: its mean level is {odd[index]:.4f}, that of '
                    f'the reference {burst.frames[reference]} is {expected:.4f}; remove it.')


def _sharpness(frame: RawFrame) -> float:
    """Mean gradient of the greens at half of their size: noise is averaged out there, motion blur is not."""
    y, x = red_position(frame.metadata.cfa)
    height, width = ((side - offset) // 2 * 2 for side, offset in zip(frame.mosaic.shape, (y, x)))
    mosaic = frame.mosaic[y:y + height, x:x + width]
    green = cv2.addWeighted(mosaic[0::2, 1::2], 0.5, mosaic[1::2, 0::2], 0.5, 0)
    smooth = cv2.GaussianBlur(cv2.resize(green, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                              if min(green.shape) > 1 else green, (0, 0), 1.0)
    black, white = frame.metadata.black_level[0], frame.metadata.white_level[0]
    if min(smooth.shape) < 2:
        return 0.0
    return sum(float(np.mean(cv2.absdiff(smooth[dy:, dx:], smooth[:smooth.shape[0] - dy, :smooth.shape[1] - dx])))
               for dy, dx in ((1, 0), (0, 1))) / (white - black)


def _sharpest(sharpness: dict[int, float], total: int) -> int:
    enough = (1 - _SHARP_ENOUGH) * max(sharpness.values())
    return min((index for index, value in sharpness.items() if value >= enough), key=lambda index: abs(index - total // 2))


def _noise(burst: Burst, noise: Noise, chosen: range, mosaics: tuple[Rows, ...],
           metadata: tuple[CameraMetadata, ...]) -> NoiseModel:
    """Levels [N, 4]."""
    if noise == 'metadata':
        for index, known in zip(chosen, metadata):
            if known.noise() is None:
                raise DataError(f'{burst.where}: {burst.frames[index]}: states no noise profile; give --noise SHOT,READ, or '
                                '--noise estimate to fit one to the burst.')
        return stack_noise(metadata)
    if isinstance(noise, str):
        level = _estimate(burst, mosaics, metadata)
        if float(level.read.max()) == 0 and float(level.shot.max()) == 0:
            raise DataError(f'{burst.where}: its noise cannot be estimated (frames without noise, or black, or white); give '
                            '--noise SHOT,READ.')
    else:
        shot, read = noise
        level = NoiseModel(torch.full((4,), shot), torch.full((4,), read))
    return NoiseModel(level.shot.expand(len(mosaics), 4), level.read.expand(len(mosaics), 4))


def _strong_noise(burst: Burst, noise: NoiseModel) -> tuple[str, ...]:
    """A note for the log about levels [4] that no network is trained for."""
    if not noise.beyond_training():
        return ()
    return (f'{burst.where}: noise of shot {float(noise.shot.max()):.3g} and read {float(noise.read.max()):.3g} is far '
            'stronger than what networks are trained with (0.01 and 0.032): the picture may be blurred, too dark, and of wrong '
            'colors; check --noise, or the noise profile of the frames.',)


def _estimate(burst: Burst, mosaics: tuple[Rows, ...], metadata: tuple[CameraMetadata, ...]) -> NoiseModel:
    """Noise [4] of bands of rows, spread over the frames: all rows of small frames, a part of large ones."""
    y, x = red_position(metadata[0].cfa)
    height, width = (mosaics[0].shape[0] - y) // 2, (mosaics[0].shape[1] - x) // 2
    if min(height, width) < 8:
        raise DataError(f'{burst.where}: frames of {mosaics[0].shape[1]} x {mosaics[0].shape[0]} are too small to estimate their '
                        'noise; give --noise SHOT,READ.')
    band = min(64, height)
    bands = max(1, min(height // band, _ESTIMATED_PIXELS // (len(mosaics) * band * width)))
    firsts = np.linspace(0, height - band, bands).astype(int)
    return NoiseModel.estimate(torch.stack([
        torch.cat([_read_raw(mosaic, known, first, first + band) for first in firsts], dim=1)
        for mosaic, known in zip(mosaics, metadata)]))
