"""Build a burst LMDB from clips, in parallel; an interrupted build can be resumed.

Values are written in the order of the plan, clip by clip. The plan - every frame's key and a stamp of its source - lies
in the ``.partial`` folder, so that a build is only resumed with the source it was started with.
"""
from __future__ import annotations

import dataclasses
import functools
from contextlib import closing
from pathlib import Path
from typing import Iterable, Iterator, Optional, Sequence

from tqdm import tqdm

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.folders import log_once
from jddb_plugin.data.images import image_header, to_tiff
from jddb_plugin.data.lmdb_reader import frame_key, metadata_key
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
        workers: processes that read and encode; 0 uses this one.
        encoding: 'png', or 'tiff' for frames without compression: larger, and decoded many times faster.

    Raises:
        DataError: a source is unreadable, frames of a clip differ in size or camera, the output exists or is being written, the
            disk is full, or the source has changed since the build to resume was started.
    """
    if workers < 0:
        raise OptionError(f'expected at least 0, got {workers}.', field='workers')
    try:
        with BurstLmdbWriter(output, overwrite=overwrite, resume=resume, keep_partial=True, encoding=encoding) as writer:
            _check_names(clips)
            _keep_plan(writer, clips, encoding)
            _write(writer, clips, workers, encoding)
    except KeyboardInterrupt:
        raise DataError(f'{output}: interrupted; frames written so far are kept. Continue with --resume.') from None


def write_folders(writer: BurstLmdbWriter, folders: Iterable[Path], *, prefix: str = '') -> None:
    """Add folders of frames, one clip each, named by the folder.

    RGB PNG files are stored as they are; other formats are encoded as PNG, 16 bits are kept.

    Raises:
        DataError: a folder holds no images, or an image is unreadable or of another size than its clip.
    """
    _write(writer, [image_clip(folder, prefix + folder.name) for folder in folders], 0, 'png')


def _check_names(clips: Sequence[SourceClip]) -> None:
    seen: dict[str, str] = {}
    for clip in clips:
        if clip.name in seen:
            raise DataError(f"{clip.where}: duplicate clip name '{clip.name}', used by {seen[clip.name]}; rename one of them.")
        seen[clip.name] = clip.where


def _keep_plan(writer: BurstLmdbWriter, clips: Sequence[SourceClip], encoding: str) -> None:
    """Write the plan, or compare it with that of an interrupted build."""
    plan = {frame_key(clip.name, index): f'{stamp}\t{encoding}'
            for clip in clips for index, stamp in enumerate(clip.stamps)}
    if len(writer):
        old = writer.read_plan()
        changed = sorted(set(plan) ^ set(old)) or [key for key in plan if writer.holds(key) and plan[key] != old[key]]
        if changed:
            raise DataError(f'{writer.partial}: was started with another source ({len(changed)} frames differ, the first is '
                            f'{changed[0]}). Restore the source and --encoding to continue with --resume, or start over with '
                            '--overwrite.')
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
            first = _FrameSignature.stored(writer, clip) if indices[0] else None
            logged: set[str] = set()
            for index in indices:
                frame = next(results)
                here = _FrameSignature(image_header(frame.image, clip.where), frame.metadata)
                where = f'{clip.where}: frame {index} ({clip.source(index)})'
                if first is None:
                    first = here
                    if frame.metadata is not None:
                        writer.put_metadata(clip.name, frame.metadata)
                here.check_equal(first, where)
                own = here.own_metadata(first)
                if own is not None:
                    writer.put_metadata(clip.name, own, index)
                writer.put(clip.name, index, frame.image)
                log_once(frame.notes, logged)
                progress.update()


def _uncompressed(task: Task, where: str) -> EncodedFrame:
    frame = task()
    return EncodedFrame(to_tiff(frame.image, where), frame.metadata, frame.notes)


class _FrameSignature:
    """Properties that all frames of a clip share: size, channels, bits and, for mosaics, pattern and color matrix."""

    def __init__(self, header: tuple[tuple[int, int, int], int], metadata: Optional[CameraMetadata]) -> None:
        (self.height, self.width, channels), depth = header
        self.fields = {'size': f'{self.width} x {self.height}', 'channels': channels, 'bits': depth}
        self.metadata = metadata
        if metadata is not None:
            self.fields.update({'cfa': metadata.cfa, 'bits': metadata.bits,
                                'color_matrix': [[round(value, 3) for value in row] for row in metadata.color_matrix]})

    @classmethod
    def stored(cls, writer: BurstLmdbWriter, clip: SourceClip) -> _FrameSignature:
        """Signature of the first frame of a clip, written before an interruption."""
        key = frame_key(clip.name, 0)
        image, metadata = writer.get(key), writer.get(metadata_key(clip.name))
        if image is None:
            raise DataError(f'{writer.partial}: {key}: missing; start over with --overwrite.')
        parsed = parse_metadata(metadata.decode(), metadata_key(clip.name)) if metadata else None
        return cls(image_header(image, clip.where), parsed)

    def check_equal(self, first: _FrameSignature, where: str) -> None:
        """Raise DataError unless this frame has the properties of the first one."""
        for name, value in self.fields.items():
            if value != first.fields.get(name):
                raise DataError(f'{where}: {name} is {value}, but {first.fields.get(name)} in the first frame of the clip; all '
                                'frames of a clip must have the same.')

    def own_metadata(self, first: _FrameSignature) -> Optional[CameraMetadata]:
        """The frame's metadata, if they differ from the first frame's in more than their source."""
        if self.metadata is None or first.metadata is None:
            return None
        differs = dataclasses.replace(self.metadata, source='') != dataclasses.replace(first.metadata, source='')
        return self.metadata if differs else None
