"""From the paths of a command line to bursts: folders, files, rolls, photographs."""
from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from jddb_plugin.data.images import IMAGE_SUFFIXES
from jddb_plugin.data.raw_reader import TIFF_SUFFIXES
from jddb_plugin.restoration.bursts import Burst, burst_of_files, burst_of_mosaics, find_bursts
from jddb_plugin.restoration.export_burst import photograph_burst
from jddb_plugin.restoration.shading import with_maps_beside


def bursts_of(paths: Sequence[Path], *, noise: Optional[tuple[float, float]] = None, cfa: Optional[str] = None,
              frames_of_file: bool = False, lens_shading: bool = False, photographs: Optional[int] = None,
              skip: Optional[Path] = None) -> list[Burst]:
    """Bursts of one folder, LMDB or zip file, or of files.

    Args:
        paths: one folder or zip file, or files.
        noise: (shot, read) that video frames get.
        cfa: pattern of raw files that do not state it.
        frames_of_file: each camera file is a burst, and the mosaics in it are its frames; else all files are one burst.
        lens_shading: use the lens shading maps that lie beside the frames.
        photographs: make a burst of this many frames from a picture that is given alone; None takes it for a frame.
        skip: a folder that is not searched, e.g. that of the results.

    Raises:
        DataError, OptionError: there are none, or frames cannot be told from bursts.
    """
    if not paths[0].is_file() or paths[0].suffix.lower() == '.zip':
        found = find_bursts(paths[0], noise=noise, cfa=cfa, frames_of_file=frames_of_file, skip=skip)
    elif frames_of_file:
        found = [burst_of_mosaics(file) for file in paths]
    elif photographs is not None and len(paths) == 1 and _is_photograph(paths[0]):
        found = [photograph_burst(paths[0], noise, frames=photographs)]
    else:
        found = [burst_of_files(paths, noise=noise, cfa=cfa)]
    return [with_maps_beside(burst) for burst in found] if lens_shading else found


def _is_photograph(file: Path) -> bool:
    suffix = file.suffix.lower()
    return suffix in IMAGE_SUFFIXES and not (suffix in TIFF_SUFFIXES and any(file.parent.glob('*.json')))
