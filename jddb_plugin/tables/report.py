"""Tables 1, 2 and 4 in the paper's layout: this project's scores beside the paper's own."""
from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from jddb_plugin.config import load_options
from jddb_plugin.tables import paper
from jddb_plugin.tables.planning import Evaluation, Training
from jddb_plugin.tables.running import timing_of, trainings_of
from jddb_plugin.tables.systems import ROWS, SYSTEMS, Study

#: Digits that are printed.
METRICS = {'psnr': 2, 'ssim': 4}
MISSING = 'missing'
#: What ``cost`` has measured last.
TABLE3 = Path('results', 'tables', 'table3.md')


def markdown(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too."""
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(headings))]
    lines = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |' for row in cells]
    lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(lines) + '\n'


def clip_scores(tests: Sequence[Evaluation], kind: str) -> dict[str, dict[str, list[float]]]:
    """Scores of tests of one system and one test file, by clip ('average' included) and metric, a value for each seed.

    Args:
        tests: one for each seed; those that are not complete are left out.
        kind: 'all' frames, or those in the 'center', which have real neighbors on both sides.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for test in tests:
        if not test.marker.exists():
            continue
        for file in test.metrics().values():
            for metric, clips in json.loads(file.read_text()).items():
                for clip, values in clips.items():
                    if values[kind] is not None:
                        found.setdefault(clip, {}).setdefault(metric, []).append(values[kind])
    return found


def cell(values: Optional[dict[str, list[float]]], printed: Optional[paper.Score]) -> str:
    """'ours (paper)': PSNR/SSIM as mean over seeds, the sample standard deviation of PSNR after it."""
    own = MISSING
    if values:
        own = '/'.join(f'{statistics.mean(values[metric]):.{digits}f}' for metric, digits in METRICS.items() if metric in values)
        if len(values['psnr']) > 1:
            own += f" ± {statistics.stdev(values['psnr']):.2f}"
    if printed is None:
        return own
    ssim = '' if printed[1] is None else f'/{printed[1]:.4f}'
    return f'{own} ({printed[0]:.2f}{ssim})'


def progress(training: Training) -> int:
    """Iterations of the newest training state; 0 without one."""
    states = training.folder.glob('training_states/*.state')
    return max((int(file.stem) for file in states if file.stem.isdigit()), default=0)


def _by_part(study: Study, seeds: Mapping[str, Sequence[int]]) -> dict[str, list[Training]]:
    """Trainings of rows with their own seeds, by part; those that others start from come first."""
    found: dict[str, list[Training]] = {}
    for key, own in seeds.items():
        for training in trainings_of(study, [SYSTEMS[key]], own):
            same = found.setdefault(training.part, [])
            if training not in same:
                same.append(training)
    starts = {study.start_of(part) for part in found}
    return {part: found[part] for part in sorted(found, key=lambda part: part not in starts)}


def lengths(study: Study, seeds: Mapping[str, Sequence[int]]) -> str:
    """How long each part was trained: iterations, seeds that are complete, CPU time.

    Args:
        study: of the rows.
        seeds: of each row.
    """
    rows = []
    for part, trainings in _by_part(study, seeds).items():
        done = [training for training in trainings if training.marker.exists()]
        planned = {load_options(str(t.file))['train']['total_iter'] for t in trainings if t.file.is_file()}
        if not planned and not study.timed:
            planned = {trainings[0].own_options()['train']['total_iter']}
        goal = '/'.join(f'{value:,}' for value in sorted(planned)) or 'by --seconds'
        newest = max(progress(training) for training in trainings)
        state = 'complete' if len(done) == len(trainings) else MISSING if not done and not newest else f'at {newest:,}'
        cpu = [timing_of(training)['cpu'] for training in done]
        rows.append([part, goal, f'{len(done)} of {len(trainings)}', state, f'{statistics.mean(cpu):,.0f} s' if cpu else ''])
    return markdown(['training', 'iterations', 'seeds complete', 'state', 'CPU time each'], rows)


def _tests(study: Study, key: str, seeds: Sequence[int], stem: str) -> list[Evaluation]:
    source = next(file for file in study.tests if file.stem == stem)
    return [Evaluation(study, SYSTEMS[key], seed, source) for seed in seeds]


def table1(study: Study, seeds: Sequence[int], kind: str) -> str:
    """REDS4, both noise levels."""
    rows = []
    for level in ('low', 'high'):
        found = {key: clip_scores(_tests(study, key, seeds, f'reds4_{level}'), kind) for key in ROWS[1]}
        for clip in ('000', '011', '015', '020', 'average'):
            rows.append([level, clip, *(cell(found[key].get(clip), paper.TABLE1[level][key][clip]) for key in ROWS[1])])
    return markdown(['noise', 'clip', *(SYSTEMS[key].heading for key in ROWS[1])], rows)


def table2(study: Study, seeds: Sequence[int], kind: str) -> str:
    """Videezy4K at high noise. Clips are in sorted order, as the paper numbers them."""
    rows = []
    for key in ROWS[2]:
        found = clip_scores(_tests(study, key, seeds, 'videezy4k'), kind)
        names = {f'{k:02d}': name for k, name in enumerate(sorted(clip for clip in found if clip != 'average'))}
        names['average'] = 'average'
        rows.append([SYSTEMS[key].heading, *(cell(found.get(names.get(clip, '')), printed)
                                             for clip, printed in paper.TABLE2[key].items())])
    return markdown(['system', *paper.TABLE2['two_stage']], rows)


def table4(study: Study, seeds: Sequence[int], kind: str) -> str:
    """Variants of the two-stage network on REDS4 at high noise."""
    rows = []
    for key in ROWS[4]:
        found = clip_scores(_tests(study, key, seeds, 'reds4_high'), kind)
        heading = 'full' if key == 'two_stage' else SYSTEMS[key].heading
        rows.append([heading, *(cell(found.get(clip), paper.TABLE4[key][clip]) for clip in ('000', '020', 'average'))])
    return markdown(['', 'Clip 000', 'Clip 020', 'average of REDS4'], rows)


TABLES = {1: table1, 2: table2, 4: table4}
TITLES = {
    1: 'Table 1: REDS4, PSNR (dB)/SSIM. In brackets the paper.',
    2: 'Table 2: Videezy4K, high noise, PSNR (dB)/SSIM. In brackets the paper.',
    4: 'Table 4: variants of the two-stage network, REDS4, high noise, PSNR (dB)/SSIM. In brackets the paper.',
}


def table3() -> str:
    """Table 3 as it was measured last."""
    return TABLE3.read_text(encoding='utf-8') if TABLE3.is_file() else f'Table 3: {MISSING}: run scripts/tables.py cost\n'


def report(study: Study, tables: Sequence[int], seeds: Sequence[int], kind: str) -> str:
    """The tables as text, each with the length of its trainings; table 3 has none."""
    parts = []
    for number in tables:
        if number == 3:
            parts.append(table3())
            continue
        trained = lengths(study, dict.fromkeys(ROWS[number], seeds))
        parts.append(f'{TITLES[number]}\n\n{TABLES[number](study, seeds, kind)}\n{trained}')
    return '\n'.join(parts)


def write(text: str, file: Path) -> None:
    """Write a report."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')
