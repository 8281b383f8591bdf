"""Reports of the studies on a small budget: scores, what each row gains, and paired tests of the paper's claims."""
from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Mapping, Optional, Sequence

from jddb_plugin.checks import optional_package
from jddb_plugin.config import load_options
from jddb_plugin.runtime.history import FILE
from jddb_plugin.tables.baseline import kept_scores
from jddb_plugin.tables.planning import Evaluation, Training, test_sets
from jddb_plugin.tables.report import MISSING, lengths, markdown
from jddb_plugin.tables.systems import SYSTEMS, Study

#: What a row must gain over bilinear demosaicking to count as one that learns, dB.
LEAST_GAIN = 4.0
_EVERY = ('small_shift', 'medium_shift', 'large_shift')
#: Paired comparisons of each study: a row, another that it should beat, and where.
CLAIMS = {'mixing': tuple(
    (f'{name}_{way}', name, _EVERY) for name in ('edvr', 'basicvsr') for way in ('coarse', 'aligned')), 'claims': (
    ('two_stage', 'w_ra', ('large_shift',)), ('two_stage', 'w_ca', _EVERY),
    ('w_ca', 'w_ra', ('large_shift',)), ('w_ra', 'w_ca', ('small_shift',)), ('two_stage', 'wo_e2e', ('large_shift',)),
    ('w_ca', 'wo_align', ('large_shift',)), ('w_ra', 'wo_align', ('small_shift',)))}

#: Test set -> clip -> PSNR of each seed.
Scores = dict[str, dict[str, list[float]]]


def scores_of(study: Study, key: str, seeds: Sequence[int], kind: str) -> Scores:
    """PSNR of a row by test set and clip, a value for each complete seed; without 'average'."""
    found: Scores = {}
    for seed in seeds:
        test = Evaluation(study, SYSTEMS[key], seed, study.tests[0])
        if not test.marker.exists():
            continue
        for name, file in test.metrics().items():
            for clip, values in json.loads(file.read_text())['psnr'].items():
                if clip != 'average' and values[kind] is not None:
                    found.setdefault(name, {}).setdefault(clip, []).append(values[kind])
    return found


def _by_seed(clips: dict[str, list[float]]) -> list[float]:
    """Mean over clips of each seed."""
    return [statistics.mean(values) for values in zip(*clips.values())]


def _spread(values: Sequence[float]) -> str:
    text = f'{statistics.mean(values):.2f}'
    return text + (f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else '')


def validations(training: Training) -> list[tuple[int, float]]:
    """(iteration, PSNR) of every validation of a training."""
    file = training.folder / FILE
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [(entry['iter'], entry['value']) for entry in entries if entry['metric'] == 'psnr']


def _names(study: Study) -> list[str]:
    """Test sets of a study."""
    return [section['name'] for section in test_sets(load_options(str(study.tests[0]))).values()]


def _bilinear(study: Study, kind: str) -> dict[str, float]:
    """Scores of test sets where they are kept, or the data are there."""
    options = load_options(str(study.tests[0]))
    found = {}
    for section in options['datasets'].values():
        file = Path('results', study.name, f"bilinear_{section['name']}.json")
        if file.is_file() or Path(section['dataroot_gt']).exists():
            found[section['name']] = kept_scores(file, section, options['val']['metrics'])['psnr']['average'][kind]
    return found


def _cells(values: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[str]:
    """A row's scores on every set."""
    return [_spread(values[name]) if values.get(name) else MISSING for name in names]


def _gain(means: Mapping[str, Sequence[float]], bilinear: Mapping[str, float]) -> Optional[float]:
    """Least gain over bilinear demosaicking; None where that is not known on every set that the row was tested on."""
    if not means.keys() <= bilinear.keys():
        return None
    return min(statistics.mean(values) - bilinear[name] for name, values in means.items())


def small(study: Study, seeds: dict[str, list[int]], kind: str) -> str:
    """Scores of all rows beside bilinear demosaicking, and whether each learns.

    Args:
        study: 'small'.
        seeds: of each row.
        kind: 'all' or 'center'.
    """
    bilinear = _bilinear(study, kind)
    names = _names(study)
    rows = [['bilinear', '', *_cells({name: [value] for name, value in bilinear.items()}, names), '', '', '']]
    for key in study.rows:
        found = scores_of(study, key, seeds[key], kind)
        if not found:
            rows.append([SYSTEMS[key].heading, f'0 of {len(seeds[key])}', *([MISSING] * len(names)), '', '', ''])
            continue
        means = {name: _by_seed(clips) for name, clips in found.items()}
        gain = _gain(means, bilinear)
        courses = [validations(Training(study, SYSTEMS[key].parts[0], seed)) for seed in seeds[key]]
        courses = [course for course in courses if course]
        first = statistics.mean(course[0][1] for course in courses) if courses else None
        last = statistics.mean(course[-1][1] for course in courses) if courses else None
        learns = gain is not None and gain >= LEAST_GAIN and (first is None or last is None or last > first)
        rows.append([SYSTEMS[key].heading, f'{len(next(iter(means.values())))} of {len(seeds[key])}',
                     *_cells(means, names), MISSING if gain is None else f'{gain:+.2f}',
                     f'{first:.2f} to {last:.2f}' if first is not None else '',
                     MISSING if gain is None else 'yes' if learns else 'NO'])
    table = markdown(['system', 'seeds', *(name.replace('_', ' ') for name in names), 'least gain', 'validation, first to last',
                      'learns'], rows)
    return (f'PSNR (dB) over {kind} frames, mean ± sample standard deviation over seeds. A row learns if it gains at least '
            f'{LEAST_GAIN:g} dB over bilinear demosaicking on every set and beats its own first validation (that of a pair is of '
            f'its denoiser alone, demosaicked bilinearly).\n\n{table}\n{lengths(study, seeds)}')


def paired(first: dict[str, list[float]], second: dict[str, list[float]]) -> Optional[list[str]]:
    """Scene by scene: mean difference of two rows, on how many scenes the first wins, and how likely that is by chance.

    Each scene counts once, with its mean over the seeds. The test is Wilcoxon's signed-rank test, two-sided.
    """
    scenes = [clip for clip in first if clip in second]
    differences = [statistics.mean(first[clip]) - statistics.mean(second[clip]) for clip in scenes]
    if not differences:
        return None
    optional_package('scipy', 'the paired tests of the claims')
    from scipy import stats
    wins = sum(difference > 0 for difference in differences)
    chance = stats.wilcoxon(differences).pvalue if len(differences) > 1 and any(differences) else float('nan')
    return [f'{statistics.mean(differences):+.2f}', f'{wins} of {len(scenes)}', f'{chance:.3f}']


def claims(study: Study, seeds: dict[str, list[int]], kind: str) -> str:
    """Scores of the variants by shift, and the paper's claims as paired tests."""
    found = {key: scores_of(study, key, seeds[key], kind) for key in study.rows}
    names = _names(study)
    headings = {key: 'full' if key == 'two_stage' else SYSTEMS[key].heading for key in study.rows}
    rows = [[headings[key], *_cells({name: _by_seed(clips) for name, clips in found[key].items()}, names)] for key in study.rows]
    tests = []
    for better, worse, where in CLAIMS[study.name]:
        for name in where:
            outcome = paired(found[better].get(name, {}), found[worse].get(name, {}))
            tests.append([f'{headings[better]} > {headings[worse]}', name.replace('_', ' '), *(outcome or [MISSING, '', ''])])
    return (f'PSNR (dB) over {kind} frames, mean ± sample standard deviation over seeds.\n\n'
            + markdown(['', *(name.replace('_', ' ') for name in names)], rows)
            + '\nThe claims, scene by scene (means over seeds): difference in dB, scenes won, p of a two-sided Wilcoxon test.\n\n'
            + markdown(['claim', 'set', 'difference', 'scenes won', 'p'], tests)
            + '\n' + lengths(study, seeds))


REPORTS = {'small': small, 'claims': claims, 'mixing': claims}
