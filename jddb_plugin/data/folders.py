"""Which files of a folder are the frames of a clip."""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Iterable

from jddb_plugin.checks import DataError
from jddb_plugin.data.images import IMAGE_SUFFIXES, list_images

#: Formats that LibRaw reads; .x3f and .gpr are listed to be refused by name.
CAMERA_SUFFIXES = (
    '.dng', '.3fr', '.arw', '.bay', '.cap', '.cr2', '.cr3', '.crw', '.cs1', '.dcr', '.dcs', '.drf', '.erf', '.fff', '.gpr',
    '.iiq', '.k25', '.kdc', '.mdc', '.mef', '.mos', '.mrw', '.nef', '.nrw', '.orf', '.ori', '.pef', '.ptx', '.raf', '.raw',
    '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f')
_logger = logging.getLogger('jddb_plugin')


def frames_of_folder(folder: Path) -> tuple[list[Path], bool]:
    """Frames of a clip, in order, and whether they are raw; none if the folder holds neither images nor raw files.

    A TIFF is a mosaic if camera metadata lies beside it, otherwise a picture. Pictures beside camera files (raw + JPEG,
    previews, lens shading maps) are skipped, and the log says so.

    Raises:
        DataError: it holds pictures beside TIFF mosaics or MATLAB files, or one shot in two raw formats.
    """
    images = list_images(folder)
    if len(images) == sum(not path.name.startswith('.') for path in folder.iterdir()):
        return images, False
    from jddb_plugin.data.raw_reader import list_raw_files
    has_metadata = any(folder.glob('*.json'))
    mosaics = [f for f in list_raw_files(folder) if f.suffix.lower() not in IMAGE_SUFFIXES or has_metadata]
    camera = [f for f in mosaics if f.suffix.lower() in CAMERA_SUFFIXES]
    if camera:
        seen: dict[str, Path] = {}
        for file in camera:
            twin = seen.setdefault(file.stem, file)
            if twin is not file:
                raise DataError(f'{folder}: holds the same shot twice, {twin.name} and {file.name}; move the files of one format '
                                'to another folder.')
        skipped = [f for f in images if f not in camera]
        if skipped:
            _logger.warning('%s: skipped %d pictures beside raw files (%s%s)', folder, len(skipped), skipped[0].name,
                            ', ...' if len(skipped) > 1 else '')
        return camera, True
    pictures = [f for f in images if f not in mosaics]
    if mosaics and pictures:
        raise DataError(f'{folder}: holds raw files and pictures, {mosaics[0].name} and {pictures[0].name}; a folder must hold '
                        'either raw files or images.')
    return (mosaics, True) if mosaics else (pictures, False)


def log_once(notes: Iterable[str], logged: set[str]) -> None:
    """Log notes, 'FILE: what' each, unless the same was logged of another file of the burst."""
    for note in notes:
        text = note.rpartition(': ')[2]
        if text not in logged:
            logged.add(text)
            _logger.warning('%s', note)
