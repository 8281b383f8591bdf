"""Curves from logs: what is read, and that a picture comes out."""
import importlib
import math

import cv2
import numpy as np
import pytest

from ..conftest import ROOT

STAMP = '2026-11-22 10:00:00,000 INFO: '
VALIDATION = (STAMP + 'Validation REDS4\n\t # psnr average: all 30.1234, centre 30.2000\n'
              '\t # psnr 000: all 29.0000, centre none\n\t # psnr best: 30.5000 @ 4 iter\n'
              '\t # niqe average: all 4.0000, centre none\n\t # niqe best: 3.5000 @ 4 iter\n')


@pytest.fixture(scope='module')
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'scripts'))
        yield importlib.import_module('plot_log')


def line(iteration, **values):
    """A training line as the toolbox writes it."""
    items = ''.join(f'{name}: {value:.4e} ' for name, value in values.items())
    return (f'{STAMP}[jddb_..][epoch:{0:3d}, iter:{iteration:8,d}, lr:(1.000e-04,1.000e-05,)] [eta: 1 day, 0:00:00, '
            f'time (data): 0.300 (0.003)] {items}\n')


def read(script, *logs):
    run = script.Run()
    for log in logs:
        script.parse_lines(run, log.splitlines())
    return run


def test_a_training_line_is_read_whatever_its_numbers(script):
    iteration, values = script.parse_training(
        line(123456, l_pix=1.5e3, l_x=-2.0, l_bad=math.nan, up=math.inf, down=-math.inf, data_wait=0.25))
    assert iteration == 123456
    assert (values['lr 1'], values['lr 2'], values['l_pix'], values['l_x']) == (1e-4, 1e-5, 1500, -2)
    assert math.isnan(values['l_bad']) and (values['up'], values['down']) == (math.inf, -math.inf)
    assert values['iterations_per_second'] == pytest.approx(1 / 0.3)
    assert values['data_wait'] == 0.25  # the line's own, not that of the averages
    assert script.parse_training(line(2, l_pix=1.0))[1]['data_wait'] == pytest.approx(0.01)


def test_a_training_line_may_have_no_times_and_be_torn(script):
    torn = '[x..][epoch:  1, iter:       7, lr:(nan,)] l_pix: 1e3 l_total: 2.5e'
    assert script.parse_training(torn)[1].keys() == {'lr 1', 'l_pix'}
    whole = line(7, l_pix=1.0).replace('[eta: 1 day, 0:00:00', '[eta: -1 day, 23:59:59').replace('0.300', '0.000')
    assert script.parse_training(whole)[1].keys() == {'lr 1', 'lr 2', 'l_pix'}
    assert script.parse_training(STAMP + 'Saving models and training states.') is None


def test_our_validation_is_read(script):
    run = read(script, line(2, l_pix=1) + VALIDATION + line(4, l_pix=1))
    assert run.validation == {('REDS4', 'psnr'): [(2, 30.1234)], ('REDS4', 'niqe'): [(2, 4)]}
    assert run.centre == {('REDS4', 'psnr'): [(2, 30.2)]}
    assert run.best == {('REDS4', 'psnr'): [(2, 30.5)], ('REDS4', 'niqe'): [(2, 3.5)]}


def test_the_stock_models_validations_are_read(script):
    video = (STAMP + 'Validation vid4\n\t # psnr: 25.0000\t # calendar: 22.0000\t # city: -inf\n\t    Best: 26.0000 @ 5 iter\n'
             '\t # ssim: 0.8000\t # calendar: 0.7000\n\t    Best: 0.8000 @ 5 iter\n\n')
    image = STAMP + 'Validation Set 5\n\t # psnr: nan\tBest: 31.0000 @ 5000 iter\n\t # ssim: 0.9000\tBest: 0.9000 @ 1 iter\n'
    run = read(script, line(5000, l_pix=1) + video + image + '\t # psnr: 1.0 in a line of something else\n' + VALIDATION)
    assert run.validation[('vid4', 'psnr')] == [(5000, 25)] and run.validation[('vid4', 'ssim')] == [(5000, 0.8)]
    assert run.best[('vid4', 'psnr')] == [(5000, 26)] and run.best[('Set 5', 'psnr')] == [(5000, 31)]
    assert run.validation[('Set 5', 'ssim')] == [(5000, 0.9)]
    assert [key for key in run.validation if key[0] == 'REDS4'] == [('REDS4', 'psnr'), ('REDS4', 'niqe')]


def test_lines_after_a_validation_are_not_part_of_it(script):
    noise = STAMP + 'Saving models.\n\t # psnr: 99.0000\n'
    assert read(script, VALIDATION + noise).validation[('REDS4', 'psnr')] == [(0, 30.1234)]


def test_a_validation_that_is_repeated_counts_once(script):
    run = read(script, line(2, l_pix=1) + VALIDATION + VALIDATION.replace('30.1234', '30.2222'))
    assert run.validation[('REDS4', 'psnr')] == [(2, 30.2222)]


def test_a_resumed_run_replaces_what_it_does_again(script):
    first = ''.join(line(k, l_pix=k, once=1) for k in (2, 4)) + VALIDATION + line(6, l_pix=6) + line(8, l_pix=8) + VALIDATION
    again = STAMP + 'Start training from epoch: 0, iter: 4\n' + line(6, l_pix=60)
    run = read(script, first, again)
    assert run.training['l_pix'] == [(2, 2), (4, 4), (6, 60)]
    assert run.validation[('REDS4', 'psnr')] == [(4, 30.1234)]
    run = read(script, first, line(4, l_pix=40))  # a log that lost its beginning
    assert run.training['l_pix'] == [(2, 2), (4, 40)] and run.training['once'] == [(2, 1)]
    assert run.validation[('REDS4', 'psnr')] == []
    # The first validation of a resumed run, before its first line.
    run = read(script, first, STAMP + 'Start training from epoch: 0, iter: 6\n' + VALIDATION)
    assert [point.iteration for point in run.validation[('REDS4', 'psnr')]] == [4, 6]


def test_logs_of_a_folder_are_read_in_the_order_of_their_times(script, tmp_path):
    (tmp_path / 'train_z_20261122_090000.log').write_text(line(2, l_pix=1) + line(4, l_pix=1))
    (tmp_path / 'train_a_20261122_100000.log').write_text(line(4, l_pix=2))
    (tmp_path / 'by_hand.log').write_bytes(b'\xff\xfe\n' + line(4, l_pix=3).replace('10:00', '11:00').encode())
    (tmp_path / 'empty.log').touch()
    (tmp_path / 'test_x_20261123_100000.log').write_text(VALIDATION)
    run = script.read_run(tmp_path)
    assert run.training['l_pix'] == [(2, 1), (4, 3)] and not run.validation
    assert script.read_run(tmp_path / 'train_a_20261122_100000.log').training['l_pix'] == [(4, 2)]


def test_labels_are_as_long_as_they_must(script, tmp_path):
    assert script.labels([tmp_path / 'a' / 'run', tmp_path / 'b']) == ['run', 'b']
    assert script.labels([tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']) == ['a/run', 'b/run']


def test_the_running_mean_leaves_out_what_is_not_finite(script):
    values = np.array([1, 3, math.nan, 5, math.inf, 7, 9])
    np.testing.assert_allclose(script.smooth(values, 3), [1, 2, math.nan, 4, math.nan, 6, 8])
    np.testing.assert_array_equal(script.smooth(np.arange(5.0), 1), np.arange(5.0))


@pytest.mark.parametrize(('values', 'best', 'found'), [
    ((1, 3, 2), (1, 3, 3), 1), ((3, 1, 2), (3, 1, 1), 1), ((1, 2, 3), (1, 2, 3), 2), ((3, 2, 1), (3, 2, 1), 2),
    ((1, 3, 3, math.nan), (), 1), ((3, 1, 5, 4), (3, 3, 5, 5), 2), ((math.nan,), (math.nan,), None)])
def test_the_best_is_found_whichever_way_a_metric_goes(script, values, best, found):
    points, marks = ([script.Point(k, value) for k, value in enumerate(some)] for some in (values, best))
    point = script.find_best(points, marks)
    assert (None if point is None else point.iteration) == found


def test_a_picture_is_written_in_its_size(script, tmp_path):
    values = {'l_pix': 10.0, 'l_signed': -1.0, 'grad_norm': math.nan, 'temperature': 0.01, 'weight_bm': 0.0,
              'samples_per_second': 12.0, 'peak_memory_gb': 1.0}
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'train.log').write_text(line(2, **values) + line(4, **values) + VALIDATION + line(6, l_pix=1.0))
    output = tmp_path / 'new' / 'curves.png'
    runs = [str(tmp_path / name) for name in ('a', 'b', 'a')]
    assert script.main([*runs, '-o', str(output), '--smooth', '2', '--columns', '4']) == 0
    wanted = script.panels([script.read_run(tmp_path / 'a')])
    assert wanted == ['l_pix', 'l_signed', ('REDS4', 'psnr'), ('REDS4', 'niqe'), 'lr 1', 'lr 2', 'temperature', 'weight_bm',
                      'grad_norm', 'samples_per_second', 'data_wait', 'peak_memory_gb']
    stock = read(script, line(2, l_pix=1.0))
    assert script.panels([stock]) == ['l_pix', 'lr 1', 'lr 2', 'iterations_per_second', 'data_wait']
    assert 'iterations_per_second' in script.panels([stock, script.read_run(tmp_path / 'a')])
    figure = script.draw([script.read_run(tmp_path / name) for name in ('a', 'b')], ['a', 'b'], columns=4)
    assert len(figure.axes) == len(wanted) and [text.get_text() for text in figure.legends[0].get_texts()] == ['a', 'b']
    psnr = figure.axes[2]
    assert [text.get_text() for text in psnr.texts] == ['$\\bigstar$ 30.12 at 4'] * 2 + ['psnr on REDS4 (dashed: centre frames)']
    height, width = cv2.imread(str(output)).shape[:2]
    assert (width, height) == pytest.approx(tuple(figure.get_size_inches() * figure.dpi), abs=1)
    assert figure.axes[0].get_yscale() == 'log' and figure.axes[1].get_yscale() == 'linear'
    script.plt.close(figure)


def test_what_is_wrong_is_said_in_one_line(script, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'early').mkdir()
    (tmp_path / 'early' / 'train.log').write_text(STAMP + 'Start training from epoch: 0, iter: 0\n' + VALIDATION)
    (tmp_path / 'odd' / 'train.log').mkdir(parents=True)
    (tmp_path / 'good.log').write_text(line(2, l_pix=1))
    good, output = str(tmp_path / 'good.log'), str(tmp_path / 'x.png')
    for arguments, message in (
            ([str(tmp_path / 'nowhere'), '-o', output], 'nowhere: no such folder or file'),
            ([good, str(tmp_path / 'empty'), '-o', output], 'empty: holds no *.log'),
            ([str(tmp_path / 'early'), '-o', output], 'early: holds no training line'),
            ([str(tmp_path / 'odd'), '-o', output], 'train.log: cannot be read'),
            ([good, '-o', output, '--smooth', '0'], 'expected --smooth and --columns of at least 1'),
            ([good, '-o', str(tmp_path / 'x.pdf')], 'expected the name of a .png file'),
            ([good, '-o', str(tmp_path / 'good.log' / 'x.png')], 'cannot be written')):
        assert script.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and message in error and error.count('\n') == 1
