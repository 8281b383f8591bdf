"""From finished rows to the picture file: camera RGB for a DNG, else a picture that is cropped, stretched and turned upright."""
from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Mapping, Optional

from PIL import Image

from jddb_plugin.restoration.frames import Frames
from jddb_plugin.restoration.geometry import final_picture
from jddb_plugin.restoration.picture import Format, write_dng, write_picture
from jddb_plugin.restoration.rows import Rows


def write_final(path: Path, picture: Rows, kind: Format, frames: Frames, *, exif: Image.Exif, description: Mapping[str, object],
                source: Optional[Path] = None) -> None:
    """Write the picture of a burst, see :func:`jddb_plugin.restoration.picture.write_picture`.

    Args:
        path: file to write.
        picture: [H, W, 3] of ``kind.dtype``, of the whole frame as the sensor saw it.
        kind: what the file shall hold. A DNG holds the whole frame; its tags say how to crop, stretch and turn it.
        frames: of the burst.
        exif, description: tags and text that the file holds beside.
        source: the reference's file, whose color tags a DNG copies.

    Raises:
        DataError: the file cannot be written.
    """
    if kind.camera:
        write_dng(path, picture, frames.reference, exif=exif, description=description, source=source)
        return
    final = final_picture(picture, frames.reference)
    with contextlib.closing(picture if final is None else final) as chosen:
        write_picture(path, chosen, kind, orientation=frames.reference.orientation, exif=exif, description=description)
