"""Curves from the numbers of a training, and that a picture comes out."""
import json
import math

import cv2
import pytest

from jddb_plugin.cli.main import main
from jddb_plugin.cli.plot import labels
from jddb_plugin.visual.curves import draw_curves, read_curves, running_mean


def write_run(folder, entries, scores=()):
    folder.mkdir(parents=True)
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    if scores:
        (folder / 'validation.jsonl').write_text(''.join(json.dumps(entry) + '\n' for entry in scores))
    return folder


def score(iteration, value):
    return {'iter': iteration, 'set': 'REDS4', 'metric': 'psnr', 'value': value}


def test_curves_are_read_and_torn_lines_skipped(tmp_path):
    run = write_run(tmp_path / 'a', [{'iter': 2, 'l_pix': 3.0, 'lr_1': 1e-4}, {'iter': 4, 'l_pix': math.nan}], [score(4, 30.5)])
    with open(run / 'metrics.jsonl', 'a') as file:
        file.write('{"iter": 6, "l_pi')
    curves = read_curves(run)
    assert list(curves) == ['l_pix', 'lr_1', 'psnr on REDS4']
    assert curves['lr_1'] == {2: 1e-4} and curves['psnr on REDS4'] == {4: 30.5}
    assert list(curves['l_pix']) == [2, 4] and curves['l_pix'][2] == 3 and math.isnan(curves['l_pix'][4])


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    first = [{'iter': place, 'l_pix': float(place), 'l_bm': 1.0} for place in (2, 4, 6, 8)]
    run = write_run(tmp_path / 'a', [*first, {'iter': 6, 'l_pix': 60.0}])
    assert read_curves(run) == {'l_pix': {2: 2, 4: 4, 6: 60}, 'l_bm': {2: 1, 4: 1}}


def test_the_running_mean_leaves_out_what_is_not_finite():
    assert running_mean([1, 3, math.inf, 5], 2)[:2] == [1, 2]
    assert math.isnan(running_mean([1, 3, math.inf, 5], 2)[2]) and running_mean([1, 3, math.inf, 5], 2)[3] == 5


def test_panels_and_labels(tmp_path):
    curves = {'peak_memory_gb': {1: 1.0}, 'lr_1': {1: 1e-4}, 'l_pix': {1: 2.0, 2: 1.0}, 'grad_norm': {1: 1.0},
              'psnr on x': {2: 30.0}, 'iterations_per_second': {1: 1.0}}
    figure = draw_curves([('a', curves), ('b', {'l_pix': {1: 3.0}})], columns=2)
    titles = [panel.get_title(loc='left') for panel in figure.axes if panel.get_visible()]
    assert titles == ['psnr on x', 'l_pix', 'lr_1', 'grad_norm', 'iterations_per_second', 'peak_memory_gb']
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['a', 'b']
    assert [panel.get_yscale() for panel in figure.axes[:2]] == ['linear', 'log']
    assert labels([tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']) == ['a/run', 'b/run']
    assert labels([tmp_path / 'a' / 'run', tmp_path / 'b']) == ['run', 'b']


def test_a_picture_is_written(tmp_path):
    run = write_run(tmp_path / 'a', [{'iter': 2, 'l_pix': 3.0}, {'iter': 4, 'l_pix': 2.0}])
    assert main(['plot', str(run), str(run), '-o', str(tmp_path / 'new' / 'x.png'), '--smooth', '2']) == 0
    assert cv2.imread(str(tmp_path / 'new' / 'x.png')).shape[1] > 300


def test_what_is_wrong_is_reported_in_one_line(tmp_path, capsys):
    run = str(write_run(tmp_path / 'a', [{'iter': 2, 'l_pix': 3.0}]))
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'odd' / 'metrics.jsonl').mkdir(parents=True)
    output = str(tmp_path / 'x.png')
    for given, message in (([str(tmp_path / 'nowhere'), '-o', output], 'nowhere: no such folder'),
                           ([str(tmp_path / 'empty'), '-o', output], 'empty: holds no numbers of a training'),
                           ([str(tmp_path / 'odd'), '-o', output], 'odd: holds no numbers'),
                           ([run, '-o', output, '--smooth', '0'], '--smooth: expected at least 1, got 0'),
                           ([run, '-o', str(tmp_path / 'x.gif')], '--output: expected a name that ends in'),
                           ([run, '-o', str(tmp_path / 'a' / 'metrics.jsonl' / 'x.png')], 'cannot be written')):
        assert main(['plot', *given]) == 2, given
        error = capsys.readouterr().err
        assert error.startswith('error: ') and message in error and error.count('\n') == 1, error


@pytest.mark.parametrize('line', ['null', '[1]', '{"iter": "x"}', '\ufffd'])
def test_lines_of_something_else_are_skipped(tmp_path, line):
    run = write_run(tmp_path / 'a', [{'iter': 2, 'l_pix': 3.0}])
    with open(run / 'metrics.jsonl', 'a') as file:
        file.write(line + '\n')
    assert read_curves(run) == {'l_pix': {2: 3.0}}
