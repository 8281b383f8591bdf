"""What is printed: the paper's figures as they are in the paper, ours where there are some, and what is missing as missing."""
import json
import re
import statistics
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from scipy import stats
from torch import nn

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import DataError
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.ops.bayer import demosaic_bilinear
from jddb_plugin.tables import baseline, clips, command, cost, paper, report, study_report
from jddb_plugin.tables.planning import Evaluation, Training, keep_options
from jddb_plugin.tables.systems import ROWS, SYSTEMS, make_study

from ..conftest import ROOT


def complete(study, key, seed, scores):
    """Files of a complete test: ``scores`` are PSNR by test set and clip; SSIM is a hundredth of them."""
    test = Evaluation(study, SYSTEMS[key], seed, next(file for file in study.tests if set(scores) <= set(
        Evaluation(study, SYSTEMS[key], seed, file).metrics())))
    for name, file in test.metrics().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        psnr = {clip: {'all': value, 'center': value + 1} for clip, value in scores[name].items()}
        psnr['average'] = {kind: statistics.mean(clip[kind] for clip in psnr.values()) for kind in ('all', 'center')}
        ssim = {clip: {kind: value / 100 for kind, value in values.items()} for clip, values in psnr.items()}
        file.write_text(json.dumps({'psnr': psnr, 'ssim': ssim}))
    test.marker.touch()


# -------------------------------------------------------------------------------------------- the paper's


def test_figures_are_the_papers(shared):
    text = shared('paper/two_stage_alignment.md').read_text()
    lines = [line.split('\t') for line in text.splitlines()]
    for name, tables in (('Clip000', '000'), ('Clip011', '011'), ('Clip015', '015'), ('Clip020', '020'), ('Average', 'average')):
        rows = [line[2:9] for line in lines if len(line) == 9 and line[1].strip() == name]
        assert len(rows) == 2
        for level, cells in zip(('low', 'high'), rows):
            for key, found in zip(ROWS[1], cells):
                assert paper.TABLE1[level][key][tables] == tuple(float(part) for part in found.split('/'))
    second = [line for line in lines if len(line) == 14 and re.match(r'\d\d\.\d\d', line[1])]
    for key, line in zip(ROWS[2], second):
        assert [score[0] for score in paper.TABLE2[key].values()] == [float(cell) for cell in line[1:]]
    third = [line for line in lines if len(line) == 14 and line[0] == '' and line[1].startswith('0.')]
    for key, line in zip(ROWS[2], third):
        assert [score[1] for score in paper.TABLE2[key].values()] == [float(cell) for cell in line[1:]]
    names = ('ours(w/o Align)', 'ours(w/ CA)', 'ours(w/ RA)', 'ours(w/o E2E)', 'ours(full)')
    for key, name in zip(ROWS[4], names):
        line = next(line for line in lines if line[0] == name)
        for clip, found in zip(('000', '020', 'average'), line[1:]):
            assert paper.TABLE4[key][clip] == tuple(float(part) for part in found.split('/'))


# ------------------------------------------------------------------------------------------------- tables


def test_missing_rows_stay_visible(workplace, capsys):
    assert command.main(['print']) == 0
    text = capsys.readouterr().out
    assert text.count('missing (') == 2 * 5 * 7 + 4 * 13 + 5 * 3
    assert 'missing (36.59/0.9448)' in text and '| 600,000' in text
    assert (workplace / 'results' / 'tables' / 'tables.md').read_text() in text


def test_own_scores_stand_beside_the_papers(workplace):
    study = make_study('tables')
    for seed, psnr in ((0, 31.0), (1, 32.0)):
        complete(study, 'gcp_net', seed, {'REDS4_high': {'000': psnr, '011': psnr, '015': psnr, '020': psnr}})
    line = [row for row in report.table1(study, [0, 1], 'all').splitlines() if row.startswith('| high  | 000')][0]
    assert '31.50/0.3150 ± 0.71 (32.57/0.9147)' in line and line.count('missing') == 6
    assert '32.50/0.3250' in report.table1(study, [0, 1], 'center')
    assert '31.00/0.3100 (32.57/0.9147)' in report.table1(study, [0], 'all'), 'one seed has no spread'


def test_clips_of_table_2_are_numbered_in_order(workplace):
    study = make_study('tables')
    complete(study, 'two_stage', 0, {'Videezy4K': {f'clip{k:02d}': 30.0 + k for k in range(12)}})
    line = [row for row in report.table2(study, [0], 'all').splitlines() if row.startswith('| Two-stage')][0]
    cells = [cell.strip() for cell in line.split('|')[2:-1]]
    assert cells[0] == '30.00/0.3000 (37.75)' and cells[11] == '41.00/0.4100 (38.27)' and cells[12].startswith('35.50')


def test_how_far_a_training_is(workplace):
    study = make_study('tables')
    training = Training(study, 'edvr', 0)
    keep_options(training.file, training.options(['train.total_iter=6000'], None), training.name)
    (training.folder / 'training_states').mkdir(parents=True)
    for iteration in (500, 1500):
        (training.folder / 'training_states' / f'{iteration}.state').touch()
    assert '| edvr     | 6,000      | 0 of 1         | at 1,500 |' in report.lengths(study, {'edvr': [0]})
    training.marker.touch()
    assert '| 1 of 1         | complete |' in report.lengths(study, {'edvr': [0]})


# ---------------------------------------------------------------------------------------------- small studies


def test_whether_a_row_learns(workplace, monkeypatch):
    study, kept = make_study('small'), []
    monkeypatch.setattr(study_report, '_bilinear', lambda study, kind: dict.fromkeys(
        ('small_shift', 'medium_shift', 'large_shift', 'real'), 21.0))
    sets = ('small_shift', 'medium_shift', 'large_shift', 'real')
    for key, psnr in (('edvr', 25.0), ('gcp_net', 23.0)):
        complete(study, key, 0, {name: {'a': psnr, 'b': psnr + 1} for name in sets})
        folder = Training(study, key, 0).folder
        folder.mkdir(parents=True)
        (folder / 'validation.jsonl').write_text(''.join(
            json.dumps({'iter': k, 'set': 'x', 'metric': 'psnr', 'value': 20.0 + k}) + '\n' for k in (1, 2)))
        kept.append(folder)
    text = study_report.small(study, {key: [0] for key in study.rows}, 'center')
    rows = {line.split('|')[1].strip(): line for line in text.splitlines() if line.startswith('|')}
    assert '| +5.50' in rows['EDVR*'] and '21.00 to 22.00' in rows['EDVR*'] and rows['EDVR*'].rstrip(' |').endswith('yes')
    assert '| +3.50' in rows['GCP-Net'] and rows['GCP-Net'].rstrip(' |').endswith('NO')
    assert rows['KPN+DMN'].count('missing') == 4
    (kept[0] / 'validation.jsonl').write_text(''.join(
        json.dumps({'iter': k, 'set': 'x', 'metric': 'psnr', 'value': 20.0 - k}) + '\n' for k in (1, 2)))
    text = study_report.small(study, {key: [0] for key in study.rows}, 'center')
    assert next(line for line in text.splitlines() if line.startswith('| EDVR*')).rstrip(' |').endswith('NO')


def test_claims_are_paired_by_scene(workplace):
    study = make_study('claims')
    rng = np.random.default_rng(0)
    base = {f'scene{k}': 25 + rng.normal() for k in range(9)}
    sets = ('small_shift', 'medium_shift', 'large_shift', 'real')
    for seed in (0, 1):
        for key, gain in (('two_stage', 0.5), ('w_ra', 0.0)):
            complete(study, key, seed, {name: {clip: value + gain + 0.01 * rng.normal() for clip, value in base.items()}
                                        for name in sets})
    text = study_report.claims(study, {key: [0, 1] for key in study.rows}, 'center')
    line = next(line for line in text.splitlines() if line.startswith('| full > w/ RA'))
    assert [cell.strip() for cell in line.split('|')[2:-1]] == ['large shift', '+0.50', '9 of 9', '0.004']
    assert 'missing' in next(line for line in text.splitlines() if line.startswith('| w/ CA > w/o Align'))
    first, second = {'a': [1.0, 2.0], 'b': [3.0], 'c': [1.0]}, {'a': [1.0], 'b': [1.0], 'c': [1.5]}
    chance = stats.wilcoxon([0.5, 2.0, -0.5]).pvalue
    assert study_report.paired(first, second) == ['+0.67', '2 of 3', f'{chance:.3f}']
    assert study_report.paired({}, second) is None


def test_bilinear_scores_by_hand(texture_lmdb, workplace):
    section = {'name': 'clips', 'type': 'UnprocessedBurstTestDataset', 'dataroot_gt': str(texture_lmdb), 'noise': 'high',
               'num_frame': 5, 'io_backend': {'type': 'lmdb'}}
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    found = baseline.kept_scores(workplace / 'bilinear.json', section, metrics)['psnr']
    dataset = build_dataset({**section, 'phase': 'test'})
    by_clip = {'a': [], 'b': []}
    for k in range(len(dataset)):
        sample = dataset[k]
        noisy, truth = (sample['camera'].develop(x) for x in (demosaic_bilinear(sample['lq'][2:3, :4]), sample['gt'][None]))
        by_clip[sample['folder']].append(float(-10 * (noisy - truth).double().square().mean().log10()))
    for clip, values in by_clip.items():
        assert found[clip]['all'] == pytest.approx(np.mean(values), abs=1e-3)
        assert found[clip]['center'] == pytest.approx(np.mean(values[2:5]), abs=1e-3)
    assert found['average']['all'] == pytest.approx(np.mean([np.mean(v) for v in by_clip.values()]), abs=1e-3)
    assert baseline.kept_scores(workplace / 'bilinear.json', {'name': 'gone'}, metrics)['psnr'] == found


# ---------------------------------------------------------------------------------------------------- data


SETS = (clips.ClipSet('train', (0.0, 2.0), 32, each=2), clips.ClipSet('small_shift', (1.0, 2.0), 32, test=True),
        clips.ClipSet('val', (1.0, 2.0), 32, test=True, limit=1))


def photographs(folder, count=6, side=90):
    folder.mkdir()
    for k in range(count):
        image = np.random.default_rng(k).integers(0, 255, (side, side, 3), np.uint8)
        cv2.imwrite(str(folder / f'p{k}.png'), cv2.GaussianBlur(image, (0, 0), 2))


def test_held_out_photographs_are_not_trained_on(workplace):
    photographs(workplace / 'photos', count=11)
    (workplace / 'clips' / 'walk').mkdir(parents=True)
    for k in range(6):
        cv2.imwrite(str(workplace / 'clips' / 'walk' / f'{k}.png'), np.full((80, 90, 3), 40 * k, np.uint8))
    clips.prepare(workplace / 'data', SETS, workplace / 'photos', workplace / 'clips', real_side=32)

    def names(name):
        return set(FrameSource(str(workplace / 'data' / f'{name}.lmdb'), {'type': 'lmdb'}, 'test').clips)

    held_out = ['p4', 'p9']
    assert {name.split('_')[0] for name in names('train')} == {f'p{k}' for k in range(11)} - set(held_out)
    assert len(names('train')) == 18 and names('small_shift') == {f'{name}_0' for name in held_out}
    assert names('val') == {f'{held_out[0]}_0'} and names('real') == {'walk'}
    clips.prepare(workplace / 'data', SETS, None, None, real_side=32)  # what is there will do
    photographs(workplace / 'others', count=7)
    with pytest.raises(DataError, match='was built of other --photographs or --clips'):
        clips.prepare(workplace / 'data', SETS, workplace / 'others', None, real_side=32)


def test_data_that_cannot_be_built_are_told(workplace):
    with pytest.raises(DataError, match='is not built yet; give --photographs FOLDER once'):
        clips.prepare(workplace / 'data', SETS, None, None, real_side=32)
    photographs(workplace / 'photos', side=40)
    with pytest.raises(DataError, match=r'train.lmdb: none of 5 photographs has at least 56 px on each side'):
        clips.prepare(workplace / 'data', SETS, workplace / 'photos', None, real_side=32)
    photographs(workplace / 'more')
    (workplace / 'clips' / 'walk').mkdir(parents=True)
    cv2.imwrite(str(workplace / 'clips' / 'walk' / '0.png'), np.zeros((60, 90, 3), np.uint8))
    with pytest.raises(DataError, match='walk.*: frames of 90 x 60 px are too small; expected at least 64'):
        clips.prepare(workplace / 'other', SETS, workplace / 'more', workplace / 'clips', real_side=32)
    assert not (workplace / 'other' / 'train.lmdb').exists()  # told before the photographs are filmed


# ------------------------------------------------------------------------------------------------- table 3


class _Toy(BurstNetwork):
    """One convolution that is called ``align``, and one that is not."""

    def __init__(self):
        super().__init__()
        self.align, self.out = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 12, 3, padding=1)

    def restore(self, tiles, ref_idx):
        return nn.functional.pixel_shuffle(self.out(self.align(tiles[:, ref_idx])), 2)


@pytest.fixture
def tiny(monkeypatch):
    """A frame of six tiles, restored by another network than the systems'."""
    monkeypatch.setitem(cost.CASES, 'tiny', (64, 96, 16, 4, 2))

    def measure(network, key='edvr', tiles=1):
        monkeypatch.setattr(cost, 'network_of', lambda system: network)
        return cost.measure_system(SYSTEMS[key], 'tiny', tiles=tiles, device=torch.device('cpu'))

    return measure


def test_cost_counts_all_tiles(tiny):
    found = tiny(_Toy())
    area = (16 + 2 * 4) ** 2
    assert (found.tiles, found.timed) == (6, 1)
    assert found.flop == 2 * 6 * area * (8 * 4 + 4 * 12 * 9)
    assert found.parameters == 8 * 4 + 4 + 4 * 12 * 9 + 12
    assert found.seconds == pytest.approx(found.coarse + found.refined + found.rest) and min(found.refined, found.rest) > 0
    text = cost.table3([('tiny', SYSTEMS['edvr'], found), ('uhd', SYSTEMS['edvr'], found)])
    assert 'extrapolated from 1 of 6 tiles' in text and text.count('6.28 M, 10.4 s') == 1
    every = tiny(_Toy(), tiles=None)
    assert every.timed == every.tiles and 'all tiles' in cost.table3([('tiny', SYSTEMS['edvr'], every)])
    assert every.flop == found.flop


def test_seconds_are_extrapolated_where_tiles_were_left_out(tiny, monkeypatch):
    """By a clock that moves by 1 whenever it is read: a restored tile takes 3, of which its aligning submodule takes 1."""
    clock = iter(range(10 ** 6))
    monkeypatch.setattr(cost, 'now', lambda device: float(next(clock)))
    found = {tiles: tiny(_Toy(), tiles=tiles) for tiles in (None, 1, 2)}
    assert [found[tiles].timed for tiles in (None, 1, 2)] == [6, 1, 2]
    assert [found[tiles].refined for tiles in (None, 1, 2)] == [6.0] * 3
    # Two for each of six tiles; what is spent between tiles, 1 for each of two rows and for each restored tile, is as it was.
    assert [found[tiles].rest for tiles in (None, 1, 2)] == [12.0 + 2 + count for count in (6, 1, 2)]
    assert len({found[tiles].coarse for tiles in (None, 1, 2)}) == 1


def test_cost_of_the_two_stage_network_has_its_matching(tiny, monkeypatch):
    from jddb_plugin import TwoStageJDDB
    names = []
    make = cost.make_alignment
    monkeypatch.setattr(cost, 'make_alignment', lambda *args: names.append(args[2]) or make(*args))
    found = tiny(TwoStageJDDB(8, 2), 'two_stage')
    assert found.coarse > 0 and found.refined > 0 and found.rest > 0
    tiny(_Toy())
    assert names == ['tiles', 'none']


def test_table_3_is_printed_as_it_was_measured(workplace, capsys, monkeypatch):
    assert command.main(['print', '--tables', '3']) == 0
    assert capsys.readouterr().out.startswith('Table 3: missing: run scripts/tables.py cost\n\nWritten to')
    monkeypatch.setitem(cost.CASES, 'tiny', (64, 96, 16, 4, 2))
    monkeypatch.setattr(command.cost, 'network_of', lambda system: _Toy())
    assert command.main(['cost', '--systems', 'edvr', '--cases', 'tiny', '--tiles', '1', '--device', 'cpu']) == 0
    text = capsys.readouterr().out
    assert "The paper's 19.7 s of the two-stage network are 3.6 s of coarse alignment and 16.1 s of refined" in text
    assert command.main(['print', '--tables', '3']) == 0
    assert capsys.readouterr().out.startswith(text)
    assert command.main(['print', '--tables', '3', '4']) == 0
    both = capsys.readouterr().out
    assert text in both and 'Table 4: variants' in both and 'Scores over all frames' in both


def test_help_lists_the_rows_of_every_study(capsys):
    with pytest.raises(SystemExit):
        command.main(['run', '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    for study in ('tables', 'small', 'claims', 'mixing'):
        assert all(key in text for key in make_study(study).rows)


MODULES_WHILE_MEASURING = '''
import sys, torch
from jddb_plugin import DemosaicNet
from jddb_plugin.tables import cost
peak_bytes = cost.peak_bytes
def watched(*args):
    before = set(sys.modules)
    found = peak_bytes(*args)
    print('new:', sorted(set(sys.modules) - before))
    return found
cost.peak_bytes = watched
cost.measure(DemosaicNet(4, 2).eval(), torch.rand(1, 8, 16, 16))
'''


def test_modules_that_counting_needs_are_loaded_before_the_clock_starts():
    result = subprocess.run([sys.executable, '-c', MODULES_WHILE_MEASURING], capture_output=True, text=True, cwd=ROOT)
    assert 'new: []' in result.stdout, result.stdout[:500] + result.stderr


@pytest.mark.parametrize('key', ROWS[3])
def test_tiles_fit_every_network(key):
    multiple = {'kpn_dmn': 16, 'rvidenet': 8, 'rvidenet_dmn': 8}.get(key, 4)
    for case in cost.CASES:
        cost.tiling_of(case, multiple).check(multiple)


def test_networks_of_table_3_are_those_that_are_trained(monkeypatch):
    built = []
    monkeypatch.setattr(cost, 'build_network', lambda options: built.append(options) or SimpleNamespace())
    for key in ROWS[3]:
        cost.network_of(SYSTEMS[key])
    kinds = [options['type'] for options in built]
    assert kinds == ['EDVRBurst', 'RViDeNet', 'GCPNet', 'TwoStageJDDB', *['DenoiseThenDemosaic'] * 3]
    assert [options['denoiser']['type'] for options in built[4:]] == ['KPN', 'EDVRBurst', 'RViDeNet']
