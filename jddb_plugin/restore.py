"""Restore bursts: python -m jddb_plugin.restore INPUT... -o OUT --weights FILE.

INPUT is a folder of the frames of one burst (DNG and other raw files, MATLAB files of SC_burst, TIFF mosaics with their JSON),
a folder of such folders, or a burst LMDB, whose clips are bursts; or several files, which are one burst. Frames of videos
(images, LMDBs of them) become noisy raw first, by --noise.

OUT is a folder, or the picture's file where there is one burst. A burst that fails is told and left out; the others go on, and
the exit status is 1. Ctrl-C leaves no half-written file.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Optional, Sequence, Union

from tqdm import tqdm

from jddb_plugin.checks import DataError, JDDBError, OptionError, one_line, one_line_errors
from jddb_plugin.data.images import IMAGE_SUFFIXES
from jddb_plugin.data.metadata import CFA_PATTERNS
from jddb_plugin.ops.noise import parse_noise
from jddb_plugin.restoration.bursts import Burst, with_unique_names
from jddb_plugin.restoration.export_burst import export_burst
from jddb_plugin.restoration.inputs import bursts_of
from jddb_plugin.restoration.picture import FORMATS, check_suffix
from jddb_plugin.restoration.plan import parse_memory
from jddb_plugin.restoration.reporting import Reporter
from jddb_plugin.restoration.restorer import Restorer, Settings
from jddb_plugin.visual.report import BurstReport, FailedBurst, render_report

_SUFFIXES = {'.png': 'png', '.tif': 'tiff', '.tiff': 'tiff', '.dng': 'dng'}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m jddb_plugin.restore', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', nargs='+', type=Path, metavar='INPUT', help='folders, an LMDB, or the files of one burst')
    parser.add_argument('-o', '--output', type=Path, metavar='OUT', help='folder, or the picture of one burst')
    parser.add_argument('--weights', metavar='FILE', help='checkpoint of TwoStageJDDB')
    what = parser.add_argument_group('what to restore')
    what.add_argument('--reference', metavar='N', help="index of the reference frame, from 0; 'middle'; or 'sharpest' "
                      '(default; for videos: middle)')
    what.add_argument('--frames', type=int, metavar='K', help='use the K frames nearest to the reference (default: all; '
                      'for videos: 5)')
    what.add_argument('--noise', metavar='LEVEL', help="SHOT,READ on the scale where black is 0 and white 1; 'low' or 'high', "
                      "the paper's; 'estimate' fits them to the burst; default: the files' noise profile")
    what.add_argument('--cfa', choices=CFA_PATTERNS, help='pattern of MATLAB files that do not state it')
    what.add_argument('--clip', action='append', metavar='NAME', help='only this clip of an LMDB, or this folder of several; '
                      'can be repeated')
    what.add_argument('--frames-of-file', action='store_true', help=(
        'each camera file is a burst: its mosaics are the frames (rolls, pixel shift)'))
    what.add_argument('--lens-shading', action='store_true', help='use the lens shading maps beside the frames (HDR+ data set)')
    out = parser.add_argument_group('what comes out')
    out.add_argument('--format', choices=FORMATS, help=(
        'sRGB of 8 or 16 bits (png, png16, tiff, tiff16), linear light in the primaries of sRGB (linear16, linear32: floats), '
        'or a linear DNG for raw converters (dng); default: by the suffix of OUT, else png'))
    out.add_argument('--export-burst', type=Path, metavar='FOLDER', help=(
        'write the noisy raw of video frames or of a photograph as DNGs, and restore nothing; -o and --weights are not needed'))
    out.add_argument('--gain', type=float, help='brightness of the picture (default: 1 %% of the noisy reference becomes white)')
    out.add_argument('--report', type=Path, metavar='FILE', help='also write a page, .html: before and after, and what was done')
    out.add_argument('--skip-existing', action='store_true', help='leave out bursts whose picture is there: go on with a batch')
    how = parser.add_argument_group('how')
    how.add_argument('--device', default='auto', help='auto (default), cpu, cuda, cuda:1, ...')
    how.add_argument('--precision', default='float32', help='float32 (default) or bf16')
    how.add_argument('--memory', metavar='SIZE', help='what the process may hold, e.g. 2G (default: half of what is available)')
    how.add_argument('--tile', type=int, help='side of a tile in pixels of the packed raw (default: 128; for videos up to 720p: '
                     '64)')
    how.add_argument('--overlap', type=int, help='context on each side of a tile (default: 16; 4)')
    how.add_argument('--radius', type=int, help='reach of the search in units of 4 pixels of the packed raw (default: 16; 6)')
    how.add_argument('--window', default='symmetric', help="symmetric, or published: the released code's window and padding")
    how.add_argument('--align', help='smooth: by a field of motion (default); tiles: each tile as a whole, as in the paper')
    how.add_argument('--coarse', help='block_matching or none, for a checkpoint without matching features')
    return parser


def _reference(text: Optional[str]) -> Union[None, int, str]:
    if text is None or text in ('middle', 'sharpest'):
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise OptionError(f"--reference: expected the index of a frame, middle or sharpest, got '{text}'.")
    return int(text)


def _settings(args: argparse.Namespace) -> Settings:
    noise = 'metadata' if args.noise is None else args.noise
    if noise not in ('metadata', 'estimate'):
        noise = parse_noise(noise, '--noise')
    kind = args.format or _SUFFIXES.get(args.output.suffix.lower() if args.output is not None else '', 'png')
    return Settings(
        reference=_reference(args.reference), frames=args.frames, noise=noise, kind=kind, gain=args.gain, tile=args.tile,
        overlap=args.overlap, radius=args.radius, window=args.window, align=args.align, coarse=args.coarse, device=args.device,
        precision=args.precision, memory=None if args.memory is None else parse_memory(args.memory))


def _find(args: argparse.Namespace, settings: Settings) -> tuple[list[Burst], list[FailedBurst]]:
    """All bursts of the command line, and inputs that hold none."""
    noise = settings.noise if isinstance(settings.noise, tuple) else None
    bursts: list[Burst] = []
    failed: list[FailedBurst] = []
    files = [path for path in args.input if path.is_file()]
    for part in ([files] if files else []) + [[path] for path in args.input if path not in files]:
        try:
            found = bursts_of(part, noise=noise, cfa=args.cfa, frames_of_file=args.frames_of_file, lens_shading=args.lens_shading,
                              photographs=None if args.export_burst is None else args.frames or 5)
        except JDDBError as error:
            failed.append(FailedBurst(str(part[0]), str(error)))
            continue
        # What was restored into one of several folders is no burst.
        bursts += [burst for burst in found if len(found) == 1 or args.output is None
                   or Path(burst.where).resolve() != args.output.resolve()]
    if args.clip and bursts:
        for name in args.clip:
            if name not in [burst.name for burst in bursts]:
                raise OptionError(f"--clip: there is no burst '{name}'; found {', '.join(burst.name for burst in bursts[:8])}"
                                  f"{' ...' if len(bursts) > 8 else ''}.")
        bursts = [burst for burst in bursts if burst.name in args.clip]
    return with_unique_names(bursts), failed


def _targets(output: Path, bursts: Sequence[Burst], kind: str) -> list[Path]:
    """The picture file of each burst; their folder is there then, and can be written to."""
    is_file = output.suffix.lower() in (*IMAGE_SUFFIXES, '.dng') and not output.is_dir()
    if is_file:
        check_suffix(output, kind)
    if is_file and len(bursts) > 1:
        raise OptionError(f'{output}: one file, but there are {len(bursts)} bursts; give a folder.')
    folder = output.parent if is_file else output
    _check_folder(folder)
    return [output] if is_file else [folder / f'{burst.name}{FORMATS[kind].suffix}' for burst in bursts]


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f'{folder}: cannot be written to ({error.strerror or error}); choose another folder.') from error


def _check_not_input(targets: Sequence[Path], bursts: Sequence[Burst]) -> None:
    inputs = {file.resolve() for burst in bursts for file in burst.files}
    for target in targets:
        if target.resolve() in inputs:
            raise OptionError(f'{target}: is a frame of the burst; choose another --output.')


def _write_report(path: Path, entries: Sequence[Union[BurstReport, FailedBurst]]) -> None:
    partial = path.with_name(f'{path.name}.partial')
    try:
        partial.write_text(render_report(entries), encoding='utf-8')
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror or error}).') from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _restore_all(restorer: Restorer, bursts: Sequence[Burst], targets: Sequence[Path], args: argparse.Namespace,
                 entries: list[Union[BurstReport, FailedBurst]]) -> None:
    """Restore one after another; adds what the report tells to ``entries``."""
    for burst, target in tqdm(list(zip(bursts, targets)), unit='burst', disable=len(bursts) < 2 or None):
        if args.skip_existing and target.is_file():
            tqdm.write(one_line(f'{target}: is there, left out'))
            continue
        reporter = None if args.report is None else Reporter(restorer.settings)
        try:
            result = restorer.restore(burst, target, watch=reporter)
        except JDDBError as error:
            tqdm.write(one_line(f'error: {error}'), file=sys.stderr)
            entries.append(FailedBurst(burst.name, str(error)))
            continue
        tqdm.write(one_line(f'{target}: {len(result.frames.names)} of {len(burst.frames)} frames, reference '
                            f'{result.frames.names[result.frames.ref_idx]}, {sum(result.seconds.values()):.1f} s'))
        if reporter is not None:
            entries.append(reporter.report(burst.name, result, burst.where))


def _stop(number: int, frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: what is half done is cleared away."""
    try:
        before = signal.signal(signal.SIGTERM, _stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@one_line_errors
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Restore; returns the exit status: 0, 1 if a burst failed, 2 if nothing could begin, 130 after Ctrl-C."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.export_burst is None and (args.output is None or args.weights is None):
        parser.error('the following arguments are required: -o/--output, --weights')
    settings = _settings(args)
    settings.check()
    if args.report is not None and args.report.suffix.lower() not in ('.html', '.htm'):
        raise OptionError(f'--report {args.report}: expected a name that ends in .html.')
    with _terminable():
        return _run(args, settings)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    entries: list[Union[BurstReport, FailedBurst]] = []
    try:
        bursts, failed = _find(args, settings)
        entries += failed
        if not bursts:
            raise DataError(failed[0].error if len(failed) == 1 else f'no burst to restore: {"; ".join(f.error for f in failed)}')
        for burst in failed:
            tqdm.write(one_line(f'error: {burst.error}'), file=sys.stderr)
        if args.export_burst is not None:
            return _export_all(bursts, args, settings) or int(bool(failed))
        targets = _targets(args.output, bursts, settings.kind)
        _check_not_input(targets, bursts)
        if args.report is not None:
            _check_folder(args.report.parent)
        _restore_all(Restorer(args.weights, settings), bursts, targets, args, entries)
        if args.report is not None:
            _write_report(args.report, entries)
    except KeyboardInterrupt:
        sys.stderr.write('interrupted; pictures that were written are whole\n')
        return 130
    except OSError as error:
        raise DataError(f'{error}.') from error
    wrong = sum(isinstance(entry, FailedBurst) for entry in entries)
    if wrong:
        sys.stderr.write(f'{wrong} of {len(bursts) + len(failed)} bursts failed\n')
    return int(wrong > 0)


def _export_all(bursts: Sequence[Burst], args: argparse.Namespace, settings: Settings) -> int:
    wrong = 0
    for burst in bursts:
        folder = args.export_burst if len(bursts) == 1 else args.export_burst / burst.name
        try:
            written = export_burst(burst, folder, reference=settings.reference, frames=args.frames)
        except JDDBError as error:
            tqdm.write(one_line(f'error: {error}'), file=sys.stderr)
            wrong = 1
            continue
        tqdm.write(one_line(f'{folder}: {len(written)} frames of {burst.name}'))
    return wrong


if __name__ == '__main__':
    sys.exit(main())
