import pytest
import yaml
from basicsr.utils.options import ordered_yaml

from jddb_plugin.checks import OptionError
from jddb_plugin.config import dump_options, load_options, parse_override

from .conftest import ROOT


def _write(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_variant_is_a_few_lines(tmp_path):
    _write(tmp_path, 'base.yml', 'name: base\ntrain:\n  total_iter: 100\n  optim_g: {type: Adam, lr: 1.0e-4}\nlist: [1, 2]\n')
    path = _write(tmp_path, 'variant.yml', '_base_: base.yml\nname: variant\ntrain:\n  total_iter: 7\nlist: [3]\n')
    opt = load_options(path)
    assert opt == {'name': 'variant', 'train': {'total_iter': 7, 'optim_g': {'type': 'Adam', 'lr': 1e-4}}, 'list': [3]}


def test_several_bases_and_bases_of_bases(tmp_path):
    (tmp_path / 'sub').mkdir()
    _write(tmp_path, 'a.yml', 'x: {p: 1}\n')
    _write(tmp_path / 'sub', 'b.yml', '_base_: ../a.yml\nx: {q: 2}\n')
    _write(tmp_path, 'c.yml', 'x: {p: 3}\n')
    path = _write(tmp_path, 'd.yml', '_base_: [sub/b.yml, c.yml]\nx: {r: 4}\n')
    assert load_options(path) == {'x': {'p': 3, 'q': 2, 'r': 4}}


def test_delete_drops_what_would_be_merged_into(tmp_path):
    _write(tmp_path, 'a.yml', 'optim: {type: Adam, betas: [0.9, 0.99]}\n')
    path = _write(tmp_path, 'b.yml', '_base_: a.yml\noptim: {_delete_: true, type: SGD}\n')
    assert load_options(path) == {'optim': {'type': 'SGD'}}


def test_overrides_reach_into_lists_and_make_new_keys(tmp_path):
    path = _write(tmp_path, 'a.yml', 'hooks:\n- {type: A, end: 5}\npath: {}\n')
    opt = load_options(path, [parse_override('hooks.0.end=7'), parse_override('path.new=x')])
    assert opt == {'hooks': [{'type': 'A', 'end': 7}], 'path': {'new': 'x'}}


@pytest.mark.parametrize(('text', 'value'), [
    ('1e-4', 1e-4), ('-1', -1), ('-2.5E3', -2500.0), ('a=b', 'a=b'), ('~', None), ('true', True),
    ('[1e-4, -1, x]', [1e-4, -1, 'x']), ('"010"', '010'), ('__import__("os")', '__import__("os")'), ('', None),
    ('{a: 1}', {'a': 1}), ('1e-4_run', '1e-4_run'),
])
def test_values_are_parsed_not_evaluated(text, value):
    assert parse_override(f'train.x={text}') == ('train.x', value)
    assert parse_override(f'train:x={text}', separator=':') == ('train.x', value)


def test_none_is_text_to_us_and_nothing_to_the_toolbox():
    assert parse_override('network_g.coarse=none') == ('network_g.coarse', 'none')
    assert parse_override('path:pretrain_network_g=None', separator=':') == ('path.pretrain_network_g', None)


@pytest.mark.parametrize('text', ['train.total_iter', '=3', 'x=[1, 2', 'x=!!float abc', 'x=!!python/object/apply:os.getcwd []'])
def test_wrong_overrides_are_named(text):
    with pytest.raises(OptionError):
        parse_override(text)


@pytest.mark.parametrize(('number', 'spelling'), [('1e-4', '1.0e-4'), ('5E5', '5.0e+5'), ('2.5e3', '2.5e+3'),
                                                  ('-1e-7', '-1.0e-7')])
def test_numbers_that_yaml_reads_as_text_are_refused(tmp_path, number, spelling):
    path = _write(tmp_path, 'a.yml', f'train:\n  lr: {number}\n')
    with pytest.raises(OptionError, match=f'line 2: YAML reads {number} as text.*write {spelling}'.replace('+', r'\+')):
        load_options(path)
    assert isinstance(yaml.safe_load(spelling), float)
    assert float(spelling) == float(number)


def test_quoted_text_and_tagged_floats_are_taken(tmp_path):
    path = _write(tmp_path, 'a.yml', 'clip: "1e4"\nlr: !!float 1e-4\n')
    assert load_options(path) == {'clip': '1e4', 'lr': 1e-4}


@pytest.mark.parametrize('text', [
    'x: !!python/object/apply:os.system ["true"]\n', 'x: !!python/name:os.system\n', 'x: [1, 2\n', '- 1\n', 'x: 1\nx: 2\n',
])
def test_unsafe_or_broken_files_are_refused_in_one_line(tmp_path, text):
    path = _write(tmp_path, 'a.yml', text)
    with pytest.raises(OptionError) as error:
        load_options(path)
    assert 'a.yml' in str(error.value) and '\n' not in str(error.value)


def test_missing_files_and_circles_are_named(tmp_path):
    with pytest.raises(OptionError, match='nowhere.yml: no such option file'):
        load_options(str(tmp_path / 'nowhere.yml'))
    path = _write(tmp_path, 'a.yml', '_base_: missing.yml\n')
    with pytest.raises(OptionError, match='missing.yml: cannot be read'):
        load_options(path)
    path = _write(tmp_path, 'b.yml', '_base_: b.yml\n')
    with pytest.raises(OptionError, match='inherits from itself'):
        load_options(path)


@pytest.mark.parametrize('path', sorted((ROOT / 'options').rglob('*.yml')), ids=lambda p: p.stem + '-' + p.parent.name)
def test_every_option_file_means_the_same_to_the_toolbox(path):
    opt = load_options(str(path))
    if '_base_' not in path.read_text():  # the toolbox itself knows no inheritance
        with open(path) as file:
            assert yaml.load(file, Loader=ordered_yaml()[0]) == opt
    assert yaml.load(dump_options(opt), Loader=ordered_yaml()[0]) == opt


def test_a_shipped_file_can_be_inherited_by_its_name(tmp_path):
    path = _write(tmp_path, 'mine.yml', '_base_: train/jddb_reds\nname: mine\n')
    opt = load_options(path)
    assert opt['name'] == 'mine' and opt['train']['total_iter'] == 600000
    (tmp_path / 'train').mkdir()
    _write(tmp_path / 'train', 'jddb_reds', 'name: beside\nx: 1\n')  # a file beside it comes first
    assert load_options(path) == {'name': 'mine', 'x': 1}
