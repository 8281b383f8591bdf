import dataclasses
import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jddb_plugin.checks import DataError
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata, parse_metadata

GOOD = CameraMetadata(
    cfa='grbg', bits=12, black_level=(64., 64., 65., 63.5), white_level=(4095., 4000., 4000., 4095.),
    white_balance=(2.1, 1., 1.7), color_matrix=((1.02, -0.30, -0.23), (-0.56, 1.63, -0.05), (-0.07, 0.22, 0.64)),
    noise_shot=(1e-3, 2e-3, 2e-3, 1e-3), noise_read=(1e-2, 0., 1e-2, 1e-2), orientation=6, source='IMG_1.dng')
FIELDS = [field.name for field in dataclasses.fields(CameraMetadata)]
# The random values of a run may not depend on those of the last one.
FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def test_metadata_survive_json():
    assert parse_metadata(GOOD.to_json(), 'here') == GOOD
    plain = dataclasses.replace(GOOD, noise_shot=None, noise_read=None)
    assert parse_metadata(plain.to_json(), 'here') == plain


def test_a_hand_written_file_needs_the_camera_only():
    content = json.loads(GOOD.to_json())
    for name in ('format_version', 'kind', 'noise_shot', 'noise_read', 'orientation', 'source'):
        del content[name]
    content['black_level'] = [64, 64, 64, 64]  # whole numbers will do
    read = parse_metadata(json.dumps(content), 'here')
    assert read.noise_shot is None and read.orientation == 1 and read.source == ''
    assert read.black_level == (64., 64., 64., 64.) and isinstance(read.black_level[0], float)


@pytest.mark.parametrize(('field', 'value', 'expected'), [
    ('cfa', 'rgbg', 'one of rggb, grbg, gbrg, bggr'), ('cfa', 3, 'text'), ('bits', 17, '8 to 16'), ('bits', 12.0, 'whole number'),
    ('bits', True, 'whole number'), ('black_level', [1, 2, 3], 'four numbers'), ('black_level', 64, 'a list'),
    ('black_level', [-1, 0, 0, 0], 'at least 0'), ('black_level', [5000] * 4, 'above the black level'),
    ('white_level', [4096] * 4, 'below 4096'), ('white_level', [10 ** 400] * 4, 'a list of numbers'),
    ('white_level', [math.nan] * 4, 'a list of numbers'), ('white_balance', [1, 0, 1], 'three numbers, at least'),
    ('white_balance', ['1', '1', '1'], 'a list of numbers'), ('white_balance', [1, True, 1], 'a list of numbers'),
    ('color_matrix', [[1, 0, 0], [0, 1, 0]], '3 x 3'), ('color_matrix', [[1, 1, 1]] * 3, 'inverted'),
    ('color_matrix', [[0] * 3] * 3, 'inverted'), ('color_matrix', [[math.inf, 0, 0], [0, 1, 0], [0, 0, 1]], 'three lists'),
    ('color_matrix', [1, 0, 0], 'three lists'), ('noise_shot', None, 'both noise_shot and noise_read'),
    ('noise_read', [2, 0, 0, 0], 'in 0 .. 1'), ('orientation', 0, '1 to 8'), ('source', None, 'text'),
    ('format_version', 2, 'version 2'), ('kind', 'xtrans', "kind 'xtrans'"), ('white_levl', 1, "did you mean 'white_level'")])
def test_errors_name_file_field_and_what_was_expected(field, value, expected):
    content = {**json.loads(GOOD.to_json()), field: value}
    with pytest.raises(DataError, match=expected) as error:
        parse_metadata(json.dumps(content), 'clip.json')
    assert str(error.value).startswith('clip.json: ') and '\n' not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize('name', FIELDS[:6])
def test_a_missing_field_is_named(name):
    content = json.loads(GOOD.to_json())
    del content[name]
    with pytest.raises(DataError, match=f"field '{name}' is missing"):
        parse_metadata(json.dumps(content), 'clip.json')


def unless_refused(call):
    """What the call returns, None if it raises a DataError of one line that can be printed."""
    try:
        return call()
    except DataError as error:
        message = str(error)
    assert '\n' not in message and message.encode()
    return None


def parses_or_explains(text):
    parsed = unless_refused(lambda: parse_metadata(text, 'clip.json'))
    if parsed is None:
        return
    assert parsed.check('again') is parsed
    assert parse_metadata(parsed.to_json(), 'again') == parsed


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10 ** 400, -10 ** 400, 1e308, 5e-324, 65535, 4096, True]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.sampled_from(CFA_PATTERNS)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12)


@FUZZ
@given(st.text(max_size=40))
@example('[' * 100000)
@example('9' * 5000)
@example('{"cfa": ' + '[' * 800 + ']' * 800 + '}')
@example('{"\\ud800\\n": 1}')
def test_any_text_parses_or_is_refused(text):
    parses_or_explains(text)


@FUZZ
@given(VALUES)
def test_any_json_parses_or_is_refused(value):
    parses_or_explains(json.dumps(value))


@FUZZ
@given(st.dictionaries(st.sampled_from([*FIELDS, 'format_version', 'kind', 'other']), VALUES, min_size=1, max_size=3),
       st.sets(st.sampled_from(FIELDS), max_size=1))
def test_mutated_metadata_parse_or_are_refused(changes, removed):
    content = {**json.loads(GOOD.to_json()), **changes}
    parses_or_explains(json.dumps({name: value for name, value in content.items() if name not in removed}))


@FUZZ
@given(st.data())
def test_mutated_numbers_parse_or_are_refused(data):
    content = json.loads(GOOD.to_json())
    name = data.draw(st.sampled_from([n for n in FIELDS if isinstance(content[n], list)]))
    numbers = content[name] if name != 'color_matrix' else content[name][data.draw(st.integers(0, 2))]
    numbers[data.draw(st.integers(0, len(numbers) - 1))] = data.draw(NUMBERS)
    parses_or_explains(json.dumps(content))


@FUZZ
@given(st.sampled_from(FIELDS), VALUES)
def test_objects_built_by_hand_are_checked_too(name, value):
    candidate = dataclasses.replace(GOOD, **{name: value})
    if unless_refused(lambda: candidate.check('here')):
        assert candidate.to_json()
