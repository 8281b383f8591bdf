"""Build a burst LMDB of clips: in parallel, and so that an interrupted build can be completed.

Values are written in the order of the plan, clip by clip. The plan - every frame's key and a stamp of its source - lies
in the ``.partial`` folder, so that a build is only resumed on the source it was started on.
"""
from __future__ import annotations

import dataclasses
import functools
from contextlib import closing
from pathlib import Path
from typing import Iterable, Iterator, Optional, Sequence

from tqdm import tqdm

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter, frame_key, metadata_key
from jddb_plugin.data.folders import log_once
from jddb_plugin.data.images import image_header, to_tiff
from jddb_plugin.data.metadata import CameraMetadata, parse_metadata
from jddb_plugin.data.source_clips import EncodedFrame, SourceClip, Task, image_clip
from jddb_plugin.data.workers import run_in_order


def build(clips: Sequence[SourceClip], output: str, *, overwrite: bool = False, resume: bool = False, workers: int = 0,
          encoding: str = 'png') -> None:
    """Write the clips to the burst LMDB ``output``.

    Args:
        clips: what to write.
        output: ends in ``.lmdb``.
        overwrite, resume: see :class:`~jddb_plugin.data.burst_lmdb.BurstLmdbWriter`.
        workers: processes that read and encode; 0 does it in this one.
        encoding: 'png', or 'tiff' for frames without compression: larger, and decoded many times faster.

    Raises:
        DataError: a source is unreadable, frames of a clip do not fit together, the output exists or is being written, the
            disk is full, or the source is not what it was when the build to resume was started.
    """
    if workers < 0:
        raise OptionError(f'expected at least 0, got {workers}.', field='workers')
    try:
        with BurstLmdbWriter(output, overwrite=overwrite, resume=resume, keep_partial=True, encoding=encoding) as writer:
            _check_names(clips)
            _keep_plan(writer, clips, encoding)
            _write(writer, clips, workers, encoding)
    except KeyboardInterrupt:
        raise DataError(f'{output}: interrupted; what is written so far is kept, pass --resume to complete it.') from None


def write_folders(writer: BurstLmdbWriter, folders: Iterable[Path], *, prefix: str = '') -> None:
    """Add folders of frames, one clip each, named by the folder.

    RGB PNG files go in as they are; other formats are encoded as PNG, 16 bit kept.

    Raises:
        DataError: a folder holds no images, or an image is unreadable or of another size than its clip.
    """
    _write(writer, [image_clip(folder, prefix + folder.name) for folder in folders], 0, 'png')


def _check_names(clips: Sequence[SourceClip]) -> None:
    seen: dict[str, str] = {}
    for clip in clips:
        if clip.name in seen:
            raise DataError(f"{clip.where}: a clip of the name '{clip.name}' is there already, {seen[clip.name]}; rename one.")
        seen[clip.name] = clip.where


def _keep_plan(writer: BurstLmdbWriter, clips: Sequence[SourceClip], encoding: str) -> None:
    """Write the plan, or compare with what an interrupted build left."""
    plan = {frame_key(clip.name, index): f'{stamp}\t{encoding}'
            for clip in clips for index, stamp in enumerate(clip.stamps)}
    if len(writer):
        old = writer.read_plan()
        changed = sorted(set(plan) ^ set(old)) or [key for key in plan if writer.holds(key) and plan[key] != old[key]]
        if changed:
            raise DataError(f'{writer.partial}: was started on another source ({len(changed)} frames differ, the first is '
                            f'{changed[0]}); restore it and --encoding to --resume, or pass --overwrite to start anew.')
    writer.write_plan(plan)


def _write(writer: BurstLmdbWriter, clips: Sequence[SourceClip], workers: int, encoding: str) -> None:
    missing = [(clip, [i for i in range(len(clip.stamps)) if not writer.holds(frame_key(clip.name, i))]) for clip in clips]
    missing = [(clip, indices) for clip, indices in missing if indices]
    for clip, _ in missing:
        clip.check()

    def tasks() -> Iterator[Task]:
        for clip, indices in missing:
            for task in clip.tasks(indices):
                yield task if encoding == 'png' else functools.partial(_uncompressed, task, clip.where)

    total = sum(len(clip.stamps) for clip in clips)
    done = total - sum(len(indices) for _, indices in missing)
    with closing(run_in_order(tasks(), workers)) as results, \
            tqdm(total=total, initial=done, unit='frame', desc=f'Write {writer.path.name}') as progress:
        for clip, indices in missing:
            first = _Likeness.stored(writer, clip) if indices[0] else None
            logged: set[str] = set()
            for index in indices:
                frame = next(results)
                here = _Likeness(image_header(frame.image, clip.where), frame.metadata)
                where = f'{clip.where}: frame {index} ({clip.source(index)})'
                if first is None:
                    first = here
                    if frame.metadata is not None:
                        writer.put_metadata(clip.name, frame.metadata)
                here.check_like(first, where)
                if here.differs(first):
                    writer.put_metadata(clip.name, frame.metadata, index)
                writer.put(clip.name, index, frame.image)
                log_once(frame.notes, logged)
                progress.update()


def _uncompressed(task: Task, where: str) -> EncodedFrame:
    frame = task()
    return EncodedFrame(to_tiff(frame.image, where), frame.metadata, frame.notes)


class _Likeness:
    """What all frames of a clip share: size, channels, bits and, for mosaics, pattern and colour matrix of one camera."""

    def __init__(self, header: tuple[tuple[int, int, int], int], metadata: Optional[CameraMetadata]) -> None:
        (self.height, self.width, channels), depth = header
        self.fields = {'size': f'{self.width} x {self.height}', 'channels': channels, 'bits': depth}
        self.metadata = metadata
        if metadata is not None:
            self.fields.update({'cfa': metadata.cfa, 'bits': metadata.bits,
                                'color_matrix': [[round(value, 3) for value in row] for row in metadata.color_matrix]})

    @classmethod
    def stored(cls, writer: BurstLmdbWriter, clip: SourceClip) -> _Likeness:
        """Of a clip whose first frame was written before an interruption."""
        png, metadata = (writer.get(key) for key in (frame_key(clip.name, 0), metadata_key(clip.name)))
        parsed = parse_metadata(metadata.decode(), metadata_key(clip.name)) if metadata else None
        return cls(image_header(png, clip.where), parsed)

    def check_like(self, first: _Likeness, where: str) -> None:
        """Raise DataError unless all is as in the first frame."""
        for name, value in self.fields.items():
            if value != first.fields.get(name):
                raise DataError(f'{where}: {name} is {value}, but {first.fields.get(name)} in the first frame of the clip; all '
                                'frames of a clip must have one.')

    def differs(self, first: _Likeness) -> bool:
        """Whether metadata, except where they come from, are other than the first frame's."""
        if self.metadata is None or first.metadata is None:
            return False
        return dataclasses.replace(self.metadata, source='') != dataclasses.replace(first.metadata, source='')
