"""The directories of a DNG: which one holds the mosaic, and the names of its tags (DNG specification 1.7.1)."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Sequence

from jddb_plugin.data.tiff_tags import Directory, Number

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PREDICTOR = 273, 277, 278, 279, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SAMPLE_FORMAT = 322, 323, 324, 325, 339
MAKE, MODEL, ORIENTATION = 271, 272, 274
CFA_DIM, CFA_PATTERN, VERSION, BACKWARD_VERSION, UNIQUE_MODEL = 33421, 33422, 50706, 50707, 50708
PLANE_COLOR, CFA_LAYOUT, LINEARIZATION, BLACK_REPEAT, BLACK, DELTA_H, DELTA_V, WHITE = range(50710, 50718)
DEFAULT_SCALE, CROP_ORIGIN, CROP_SIZE, COLOR_MATRIX_1, COLOR_MATRIX_2, CALIBRATION_1, CALIBRATION_2 = range(50718, 50725)
ANALOG_BALANCE, NEUTRAL, WHITE_XY, BASELINE_EXPOSURE = 50727, 50728, 50729, 50730
ILLUMINANT_1, ILLUMINANT_2, ACTIVE_AREA, MASKED_AREAS = 50778, 50779, 50829, 50830
CALIBRATION_SIGNATURE, PROFILE_SIGNATURE = 50931, 50932
ROW_INTERLEAVE, COLUMN_INTERLEAVE = 50975, 52547
OPCODES = (51008, 51009, 51022)
NOISE_PROFILE, ILLUMINANT_3, CALIBRATION_3, COLOR_MATRIX_3 = 51041, 52529, 52530, 52531
ILLUMINANT_DATA = (52533, 52534, 52535)

_CFA = 32803
#: Names of compression codes, for messages.
_COMPRESSIONS = {
    1: 'none', 5: 'LZW', 6: 'JPEG', 7: 'lossless JPEG', 8: 'Deflate', 9: 'VC-5', 32767: 'Sony ARW', 32773: 'PackBits',
    34713: 'Nikon NEF', 34892: 'lossy JPEG', 34925: 'LZMA', 50000: 'Zstandard', 50002: 'JPEG XL', 52546: 'JPEG XL',
}


@dataclass(frozen=True)
class Mosaic:
    """One mosaic of a DNG.

    Attributes:
        directory: that holds it; its levels, geometry and noise belong there.
        main: the file's first directory, which holds color and orientation.
        following: directories after the first one.
        number: which mosaic of the file it is, from 0.
        count: how many the file has.
    """

    directory: Directory
    main: Directory
    following: tuple[Directory, ...] = ()
    number: int = 0
    count: int = 1

    def of_frame(self, code: int) -> tuple[Number, ...]:
        """Values of a tag of the mosaic's directory; of the first one where that lacks it."""
        return self.directory.numbers(code) or self.main.numbers(code)

    def of_camera(self, code: int) -> tuple[Number, ...]:
        """Values of a tag of the first directory; of the mosaic's where that lacks it."""
        return self.main.numbers(code) or self.directory.numbers(code)


def is_dng(directories: Sequence[Directory]) -> bool:
    """Whether these are the directories of a DNG."""
    return bool(directories) and VERSION in directories[0]


def _is_mosaic(directory: Directory) -> bool:
    return directory.number(PHOTOMETRIC) == _CFA and directory.number(SAMPLES, 1) == 1


def find_mosaics(directories: Sequence[Directory]) -> list[Mosaic]:
    """The mosaics of a DNG, in the order they are stored.

    Those of full resolution (NewSubfileType 0) and of the largest size; smaller ones are copies. If none is of full
    resolution, the largest of the others.
    """
    found = [part for directory in directories for part in directory.walk() if _is_mosaic(part)]
    full = [part for part in found if part.number(SUBFILE_TYPE) == 0] or found

    def area(part: Directory) -> int:
        return part.whole(WIDTH) * part.whole(HEIGHT)

    largest = max(map(area, full), default=0)
    chosen = [part for part in full if area(part) == largest]
    return [Mosaic(part, directories[0], tuple(directories[1:]), number, len(chosen)) for number, part in enumerate(chosen)]


def compression_name(directory: Directory) -> str:
    """Name of a directory's compression and its code."""
    code = directory.whole(COMPRESSION, 1)
    return f'{_COMPRESSIONS[code]} (compression {code})' if code in _COMPRESSIONS else f'compression {code}'


def largest(directories: Iterable[Directory]) -> Directory:
    """The directory of the largest picture, whatever it holds."""
    parts = [part for directory in directories for part in directory.walk()]
    return max(parts, key=lambda part: part.number(WIDTH) * part.number(HEIGHT))
