"""Many bursts, one after another: the batch behind ``jddb restore``."""
from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from tqdm import tqdm

from jddb_plugin.checks import DataError, JDDBError, OptionError, one_line
from jddb_plugin.data.images import IMAGE_SUFFIXES
from jddb_plugin.files import atomic_write
from jddb_plugin.restoration.bursts import Burst, with_unique_names
from jddb_plugin.restoration.export_burst import export_burst
from jddb_plugin.restoration.inputs import bursts_of
from jddb_plugin.restoration.picture import FORMATS, check_suffix
from jddb_plugin.restoration.reporting import Reporter
from jddb_plugin.restoration.restorer import Restorer
from jddb_plugin.restoration.settings import Inputs, Settings
from jddb_plugin.restoration.shards import Shard
from jddb_plugin.visual.report import BurstReport, FailedBurst, render_report


def _find(inputs: Inputs, output: Optional[Path], settings: Settings, *,
          photographs: Optional[int] = None) -> tuple[list[Burst], list[FailedBurst]]:
    """All bursts of the inputs, and inputs that hold none; a photograph makes a burst of ``photographs`` frames."""
    noise = settings.noise if isinstance(settings.noise, tuple) else None
    bursts: list[Burst] = []
    failed: list[FailedBurst] = []
    files = [path for path in inputs.paths if path.is_file() and path.suffix.lower() != '.zip']
    for part in ([files] if files else []) + [[path] for path in inputs.paths if path not in files]:
        try:
            found = bursts_of(part, noise=noise, cfa=inputs.cfa, frames_of_file=inputs.frames_of_file,
                              lens_shading=inputs.lens_shading, photographs=photographs, skip=output)
        except JDDBError as error:
            failed.append(FailedBurst(str(part[0]), str(error)))
            continue
        bursts += found
    if inputs.clips and bursts:
        for name in inputs.clips:
            if name not in [burst.name for burst in bursts]:
                raise OptionError(f"--clip: burst '{name}' does not exist; found {', '.join(burst.name for burst in bursts[:8])}"
                                  f"{' ...' if len(bursts) > 8 else ''}.")
        bursts = [burst for burst in bursts if burst.name in inputs.clips]
    if not bursts:
        errors = [entry.error for entry in failed]
        raise DataError(errors[0] if len(errors) == 1 else f'no burst can be restored: {"; ".join(errors)}')
    return with_unique_names(bursts), failed


def _targets(output: Path, bursts: Sequence[Burst], kind: str, *, several: bool) -> list[Path]:
    """The picture file of each burst; makes their folder, and checks that it can be written to."""
    is_file = output.suffix.lower() in (*IMAGE_SUFFIXES, '.dng') and not output.is_dir()
    if is_file:
        check_suffix(output, kind)
    if is_file and (len(bursts) > 1 or several):
        raise OptionError(f'{output}: is one file, but there are {len(bursts)} bursts; give a folder.')
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


def _check_not_input(targets: Sequence[Path], bursts: Sequence[Burst], folders: Sequence[Path]) -> None:
    """Raise OptionError for a picture that would replace a frame, or lie among those of one of ``folders``, given as a whole."""
    inputs = {file.resolve() for burst in bursts for file in burst.files}
    searched = {folder.resolve() for folder in folders}
    crowded = {file.parent for file in inputs if searched & {file.parent, *file.parents}}
    for target in targets:
        if target.resolve() in inputs:
            raise OptionError(f'{target}: is a frame of the burst and would be overwritten; choose another --output.')
        if target.resolve().parent in crowded:
            raise OptionError(f'{target}: would lie among the frames of a burst, and be taken for one of them later; choose '
                              'another --output.')


def _write_report(path: Path, entries: Sequence[Union[BurstReport, FailedBurst]]) -> None:
    try:
        with atomic_write(path) as file:
            file.write_text(render_report(entries), encoding='utf-8')
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror or error}).') from error


def _restore(restorer: Restorer, bursts: Sequence[Burst], targets: Sequence[Path], entries: list[Union[BurstReport, FailedBurst]],
             *, skip_existing: bool, with_report: bool) -> None:
    """Restore one burst after another; adds the entries of the report to ``entries``."""
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


def restore_all(inputs: Inputs, output: Path, weights: str, settings: Settings, *, report: Optional[Path] = None,
                skip_existing: bool = False, shard: Optional[Shard] = None) -> int:
    """Restore all bursts of some inputs.

    Args:
        inputs: where the bursts are.
        output: folder, or the picture's file where there is one burst.
        weights: name of weights, or checkpoint.
        settings: how.
        report: page to write, .html.
        skip_existing: skip bursts whose picture exists.
        shard: restore only this part of the bursts, skip existing pictures, and record the part in the output folder.

    Returns:
        Exit status: 0, or 1 if a burst failed.

    Raises:
        JDDBError: no burst can be restored.
    """
    entries: list[Union[BurstReport, FailedBurst]] = []
    try:
        bursts, failed = _find(inputs, output, settings)
        entries += failed
        if shard is not None:
            bursts, failed = shard.of(bursts), shard.of(failed)
            entries = list(failed)
        for entry in failed:
            tqdm.write(one_line(f'error: {entry.error}'), file=sys.stderr)
        targets = _targets(output, bursts, settings.format, several=shard is not None)
        _check_not_input(targets, bursts, [path for path in inputs.paths if path.is_dir()])
        if report is not None:
            _check_folder(report.parent)
        _restore(Restorer(weights, settings), bursts, targets, entries, skip_existing=skip_existing or shard is not None,
                 with_report=report is not None)
        if report is not None:
            _write_report(report, entries)
    except OSError as error:
        raise DataError(f'{error}.') from error
    wrong = sum(isinstance(entry, FailedBurst) for entry in entries)
    if shard is not None:
        failures = {broken.name: broken.error for broken in entries if isinstance(broken, FailedBurst)}
        sys.stdout.write(shard.report(output, len(bursts) + len(failed) - wrong, failures) + '\n')
    elif wrong:
        sys.stderr.write(f'{wrong} of {len(bursts) + len(failed)} bursts failed\n')
    return int(wrong > 0)


def export_all(inputs: Inputs, folder: Path, settings: Settings) -> int:
    """Write the noisy raw of video frames or photographs as DNGs.

    Args:
        inputs: where they are.
        folder: gets the frames of one burst, or a folder for each of several.
        settings: noise, reference and number of frames.

    Returns:
        Exit status: 0, or 1 if a burst failed.

    Raises:
        JDDBError: there is nothing to export.
    """
    bursts, failed = _find(inputs, None, settings, photographs=settings.frames or 5)
    for entry in failed:
        tqdm.write(one_line(f'error: {entry.error}'), file=sys.stderr)
    wrong = len(failed)
    for burst in bursts:
        target = folder if len(bursts) == 1 else folder / burst.name
        try:
            written = export_burst(burst, target, reference=settings.reference, frames=settings.frames)
        except JDDBError as error:
            tqdm.write(one_line(f'error: {error}'), file=sys.stderr)
            wrong += 1
            continue
        tqdm.write(one_line(f'{target}: {len(written)} frames of {burst.name}'))
    return int(wrong > 0)
