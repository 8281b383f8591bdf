import base64
import dataclasses
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from jddb_plugin.checks import ShapeError
from jddb_plugin.visual.report import BurstReport, FailedBurst, render_report

VOID = {'meta', 'link', 'img', 'input', 'br', 'hr'}
HOSTILE = '<script>alert(1)</script> "quoted" \'single\' & $bursts ${title} &amp; <!-- </style>'


class Page(HTMLParser):
    """Elements in their order, text by element; refuses wrong nesting and attributes given twice."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(source)
        self.close()
        assert not self.open, f'never closed: {self.open}'

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f'<{tag}> has an attribute twice: {attrs}'
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f'</{tag}> closes what is not open'

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else '', data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


def _picture(height, width, seed):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return (255 * (smooth - smooth.min()) / (smooth.max() - smooth.min())).astype(np.uint8)


def _report(**changes):
    report = BurstReport(
        name='garden', before=_picture(60, 90, 0), after=_picture(60, 90, 1), detail_before=_picture(40, 32, 2),
        detail_after=_picture(40, 32, 3), matching=_picture(50, 180, 4),
        facts={'Noise': {'shot': '1.2e-3, 1.3e-3'}, 'Camera': {'model': 'XL', 'ISO': '3200'}, 'Network': {}})
    return dataclasses.replace(report, **changes)


def _decoded(attrs):
    kind, data = re.fullmatch(r'data:image/(\w+);base64,(.+)', attrs['src']).groups()
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)
    return kind, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def test_the_pictures_are_in_the_page():
    report = _report()
    images = Page(render_report([report])).all('img')
    names = ['before', 'after', 'detail_before', 'detail_after', 'matching']
    assert len(images) == len(names)
    for attrs, name in zip(images, names):
        kind, picture = _decoded(attrs)
        expected = getattr(report, name)
        assert kind == ('png' if 'detail' in name else 'jpeg')
        assert (attrs['height'], attrs['width']) == tuple(str(side) for side in expected.shape[:2])
        difference = np.abs(picture.astype(int) - expected)
        assert difference.max() == 0 if kind == 'png' else difference.mean() < 2, name
        assert 'garden' in attrs['alt']


def test_nothing_is_requested():
    source = render_report([_report(), FailedBurst('b', 'c')])
    page = Page(source)
    for tag, attrs in page.elements:
        for key, value in attrs.items():
            assert key != 'src' or value.startswith('data:image/'), (tag, key, value[:40])
            assert key != 'href' or value.startswith(('#', 'data:,')), (tag, key, value[:40])
            assert not key.startswith('on') and key not in ('srcset', 'action', 'background', 'poster', 'ping')
    assert page.all('meta')[1] == {
        'http-equiv': 'Content-Security-Policy',
        'content': "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"}
    assert {tag for tag, _ in page.elements} & {'iframe', 'object', 'embed', 'base', 'form'} == set()
    rest = re.sub(r'data:image/\w+;base64,[\w+/=]+', '', source)
    assert not re.search(r'https?:|//\w|url\(|@import|fetch\(|XMLHttpRequest', rest)


def test_text_is_shown_as_it_is():
    bursts = [_report(name=HOSTILE, facts={HOSTILE: {HOSTILE: HOSTILE}}), FailedBurst(HOSTILE, HOSTILE)]
    page = Page(render_report(bursts, title=HOSTILE))
    plain = Page(render_report([_report(facts={'a': {'b': 'c'}}), FailedBurst('d', 'e')]))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(attrs) for _, attrs in page.elements] == [sorted(attrs) for _, attrs in plain.elements]
    for tag, count in {'title': 1, 'h1': 1, 'h2': 2, 'th': 1, 'td': 1, 'pre': 1, 'bdi': 2}.items():
        assert page.text(tag) == [HOSTILE] * count, tag
    assert page.text('h3')[-1] == HOSTILE
    assert page.all('img')[0]['alt'].endswith(HOSTILE)


def test_names_that_are_not_utf8_can_be_saved():
    page = Page(render_report([FailedBurst('a\udcffb\u202ec\x00d', 'first\nsecond')]).encode('utf-8').decode('utf-8'))
    assert page.text('h2') == ['a\ufffdb\ufffdc\ufffdd']
    assert page.text('pre') == ['first\nsecond']


def test_sliders_and_regions_have_names():
    page = Page(render_report([_report(), _report(name='street')]))
    ranges = page.all('input')
    labels = {attrs['for'] for attrs in page.all('label')}
    assert len(ranges) == 4 and all(attrs['type'] == 'range' for attrs in ranges)
    assert {attrs['id'] for attrs in ranges} == labels and len(labels) == 4
    assert len(set(page.text('label'))) == 4
    identifiers = [attrs['id'] for _, attrs in page.elements if 'id' in attrs]
    assert len(set(identifiers)) == len(identifiers)
    assert {attrs['aria-labelledby'] for attrs in page.all('section') if 'aria-labelledby' in attrs} <= set(identifiers)
    scrolling = [attrs for attrs in page.all('div') if attrs.get('class') == 'scroll']
    assert [attrs['aria-label'][-6:] for attrs in scrolling] == ['garden', 'street']
    assert all(attrs['tabindex'] == '0' for attrs in scrolling)
    assert page.all('html') == [{'lang': 'en'}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))


def test_facts_stand_in_tables():
    page = Page(render_report([_report()]))
    assert page.text('h3')[-2:] == ['Noise', 'Camera']  # a section without facts is left out
    assert page.text('th') == ['shot', 'model', 'ISO']
    assert page.text('td') == [', ', 'XL', '3200'] and page.text('span')[-2:] == ['1.2e-3', '1.3e-3']


def test_failures_are_listed_with_their_errors():
    page = Page(render_report([_report(), FailedBurst('street', 'no frames'), FailedBurst('night', 'no noise')], title='Tests'))
    assert page.text('h1') == ['Tests'] == page.text('title')
    assert page.text('p')[0] == '1 restored, 2 failed.'
    assert page.text('h2') == page.text('bdi') == ['garden', 'street', 'night']
    assert page.text('pre') == ['no frames', 'no noise']
    assert [data for tag, data in page.texts if data == 'failed'] == ['failed'] * 2
    targets = [attrs['href'] for attrs in page.all('a')]
    assert targets == ['#' + attrs['id'] for attrs in page.all('section') if 'id' in attrs] and len(targets) == 3


def test_what_is_not_there_is_left_out():
    page = Page(render_report([_report(detail_before=None, detail_after=None, matching=None, facts={})]))
    assert page.text('h3') == ['Whole picture']
    assert len(page.all('img')) == 2 and not page.all('nav') and not page.all('table')
    assert 'There are no bursts.' in Page(render_report([])).text('p')


def test_slices_of_larger_pictures_are_shown():
    large = _picture(90, 120, 5)
    page = Page(render_report([_report(detail_before=large[10:50, ::-2], detail_after=large[:40, :60])]))
    assert np.array_equal(_decoded(page.all('img')[2])[1], large[10:50, ::-2])


GREY, RGB, WIDE = np.zeros((60, 90), np.uint8), np.zeros((60, 90, 3), np.uint8), np.zeros((60, 91, 3), np.uint8)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'before': GREY}, r'garden: before: expected RGB uint8 \[h, w, 3\], got uint8 \[60, 90\]'),
    ({'after': RGB.astype(np.float32)}, r'garden: after: .* got float32 \[60, 90, 3\]'),
    ({'after': None}, 'garden: after: .* got NoneType'),
    ({'after': WIDE}, r'garden: before and after differ in shape: \[60, 90, 3\], \[60, 91, 3\]'),
    ({'detail_before': RGB, 'detail_after': WIDE}, 'garden: detail_before and detail_after differ in shape'),
    ({'detail_after': np.zeros((40, 32, 4), np.uint8)}, 'garden: detail_after: expected RGB'),
    ({'detail_after': None}, 'garden: detail_before is given, but detail_after is not'),
    ({'detail_before': None}, 'garden: detail_after is given, but detail_before is not'),
    ({'matching': RGB[:0]}, r'garden: matching: .* got uint8 \[0, 90, 3\]'),
])
def test_wrong_pictures_are_named(changes, message):
    with pytest.raises(ShapeError, match=message):
        render_report([_report(), _report(**changes)])
