"""Many bursts, one after another: the batch behind ``jddb restore``."""
from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from tqdm import tqdm

from jddb_plugin.checks import DataError, JDDBError, OptionError, one_line
from jddb_plugin.data.images import IMAGE_SUFFIXES
from jddb_plugin.restoration.bursts import Burst, burst_of_files, find_bursts, with_unique_names
from jddb_plugin.restoration.picture import FORMATS, check_suffix
from jddb_plugin.restoration.reporting import Reporter
from jddb_plugin.restoration.restorer import Restorer
from jddb_plugin.restoration.settings import Settings
from jddb_plugin.visual.report import BurstReport, FailedBurst, render_report


def _find(inputs: Sequence[Path], output: Path, settings: Settings, cfa: Optional[str],
          clips: Sequence[str]) -> tuple[list[Burst], list[FailedBurst]]:
    """All bursts of the inputs, and inputs that hold none."""
    noise = settings.noise if isinstance(settings.noise, tuple) else None
    bursts: list[Burst] = []
    failed: list[FailedBurst] = []
    files = [path for path in inputs if path.is_file()]
    for part in ([files] if files else []) + [[path] for path in inputs if path not in files]:
        try:
            found = [burst_of_files(part, noise=noise, cfa=cfa)] if part is files else \
                find_bursts(part[0], noise=noise, cfa=cfa)
        except JDDBError as error:
            failed.append(FailedBurst(str(part[0]), str(error)))
            continue
        # What was restored into one of several folders is no burst.
        bursts += [burst for burst in found if len(found) == 1 or Path(burst.where).resolve() != output.resolve()]
    if clips and bursts:
        for name in clips:
            if name not in [burst.name for burst in bursts]:
                raise OptionError(f"--clip: there is no burst '{name}'; found {', '.join(burst.name for burst in bursts[:8])}"
                                  f"{' ...' if len(bursts) > 8 else ''}.")
        bursts = [burst for burst in bursts if burst.name in clips]
    return with_unique_names(bursts), failed


def _targets(output: Path, bursts: Sequence[Burst], kind: str) -> list[Path]:
    """The picture file of each burst; their folder is there then, and can be written to."""
    is_file = output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir()
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


def _restore(restorer: Restorer, bursts: Sequence[Burst], targets: Sequence[Path], entries: list[Union[BurstReport, FailedBurst]],
             *, skip_existing: bool, with_report: bool) -> None:
    """Restore one after another; adds what the report shows to ``entries``."""
    for burst, target in tqdm(list(zip(bursts, targets)), unit='burst', disable=len(bursts) < 2 or None):
        if skip_existing and target.is_file():
            tqdm.write(one_line(f'{target}: exists, skipped'))
            continue
        reporter = Reporter(restorer.settings) if with_report else None
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


def restore_all(inputs: Sequence[Path], output: Path, weights: str, settings: Settings, *, cfa: Optional[str] = None,
                clips: Sequence[str] = (), report: Optional[Path] = None, skip_existing: bool = False) -> int:
    """Restore all bursts of some inputs.

    Args:
        inputs: folders of bursts, LMDBs, or the files of one burst.
        output: folder, or the picture's file where there is one burst.
        weights: checkpoint.
        settings: how.
        cfa: pattern of MATLAB files that do not state it.
        clips: names of the bursts to restore; all if empty.
        report: page to write, .html.
        skip_existing: skip bursts whose picture exists.

    Returns:
        Exit status: 0, or 1 if a burst failed.

    Raises:
        JDDBError: nothing could begin.
    """
    entries: list[Union[BurstReport, FailedBurst]] = []
    try:
        bursts, failed = _find(inputs, output, settings, cfa, clips)
        entries += failed
        if not bursts:
            raise DataError(failed[0].error if len(failed) == 1 else f'no burst to restore: {"; ".join(f.error for f in failed)}')
        for burst in failed:
            tqdm.write(one_line(f'error: {burst.error}'), file=sys.stderr)
        targets = _targets(output, bursts, settings.format)
        _check_not_input(targets, bursts)
        if report is not None:
            _check_folder(report.parent)
        _restore(Restorer(weights, settings), bursts, targets, entries, skip_existing=skip_existing,
                 with_report=report is not None)
        if report is not None:
            _write_report(report, entries)
    except OSError as error:
        raise DataError(f'{error}.') from error
    wrong = sum(isinstance(entry, FailedBurst) for entry in entries)
    if wrong:
        sys.stderr.write(f'{wrong} of {len(bursts) + len(failed)} bursts failed\n')
    return int(wrong > 0)

