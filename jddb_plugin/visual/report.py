"""A report page: bursts before and after restoration, and their data."""
from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Mapping, Optional, Sequence, Union

import cv2
import numpy as np

from jddb_plugin.checks import ShapeError

_TEMPLATE = Path(__file__).with_name('report.html')
_JPEG = ('jpeg', (cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444))
_PNG = ('png', (cv2.IMWRITE_PNG_COMPRESSION, 6))
# Control characters, those that turn the direction of text, and surrogates, which stand for bytes that are not UTF-8.
_UNPRINTABLE = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]')
_POWER = re.compile(r'\d[\d.]*e[-+]\d+')


@dataclass(frozen=True)
class BurstReport:
    """What the page shows of one restored burst; pictures are RGB uint8 [h, w, 3]."""

    name: str  # heading
    before: np.ndarray  # the noisy reference frame, demosaicked bilinearly; a preview of up to about 1600 px width
    after: np.ndarray  # restored, of the same shape
    detail_before: Optional[np.ndarray]  # a crop at 100 %, or None for both
    detail_after: Optional[np.ndarray]  # of the same shape
    matching: Optional[np.ndarray]  # figure of the coarse alignment, of any size
    facts: Mapping[str, Mapping[str, str]]  # section heading -> name -> value


@dataclass(frozen=True)
class FailedBurst:
    """A burst that could not be restored, and why."""

    name: str
    error: str


def render_report(bursts: Sequence[Union[BurstReport, FailedBurst]], *, title: str = 'Restored bursts') -> str:
    """Put all bursts on one page: before and after under a slider, the matching, facts; failures by their error.

    The page needs nothing else: pictures are data URIs, and its Content-Security-Policy forbids any request. Previews and
    the matching are JPEG, details PNG. Without scripts and on paper, before and after stand next to each other. Any text is
    shown as it is; characters that cannot be, as U+FFFD.

    Args:
        bursts: in the order of the page.
        title: its title and first heading.

    Returns:
        HTML, to be saved as UTF-8.

    Raises:
        ShapeError: a picture is not RGB uint8, before and after differ in shape, or a detail lacks its other half; names
            the burst and the picture.
    """
    anchors = [f'burst-{number}' for number in range(1, len(bursts) + 1)]
    sections = [_failure(burst, anchor) if isinstance(burst, FailedBurst) else _burst(burst, anchor)
                for burst, anchor in zip(bursts, anchors)]
    page = Template(_TEMPLATE.read_text(encoding='utf-8'))
    return page.substitute(title=_text(title), contents=_contents(bursts, anchors), bursts='\n'.join(sections))


def _text(value: object) -> str:
    """Text for HTML, between tags and in quoted attributes."""
    return html.escape(_UNPRINTABLE.sub('\ufffd', str(value)), quote=True)


def _contents(bursts: Sequence[Union[BurstReport, FailedBurst]], anchors: Sequence[str]) -> str:
    """How many bursts there are, how to use the slider, and links if there are several."""
    failed = sum(isinstance(burst, FailedBurst) for burst in bursts)
    lines = [f'<p>{len(bursts) - failed} restored, {failed} failed.</p>' if bursts else '<p>There are no bursts.</p>']
    if failed < len(bursts):
        lines.append('<p class="quiet hint">Drag across a picture, or select it with the Tab key and use the arrow keys, Home '
                     'and End: the noisy frame is on the left of the bar, the restored one on the right.</p>')
    if len(bursts) > 1:
        lines.append('<nav aria-label="Bursts"><ol>')
        for burst, anchor in zip(bursts, anchors):
            mark = ' <span class="bad">failed</span>' if isinstance(burst, FailedBurst) else ''
            lines.append(f'<li><a href="#{anchor}"><bdi>{_text(burst.name)}</bdi></a>{mark}</li>')
        lines.append('</ol></nav>')
    return '\n'.join(lines)


def _failure(burst: FailedBurst, anchor: str) -> str:
    return (f'<section class="burst failed" id="{anchor}" aria-labelledby="{anchor}-name">\n'
            f'<h2 id="{anchor}-name">{_text(burst.name)}</h2>\n'
            f'<p class="bad">This burst was not restored:</p>\n<pre>{_text(burst.error)}</pre>\n</section>')


def _burst(burst: BurstReport, anchor: str) -> str:
    _check(burst)
    name = _text(burst.name)
    parts = [f'<section class="burst" id="{anchor}" aria-labelledby="{anchor}-name">\n<h2 id="{anchor}-name">{name}</h2>',
             '<div class="part">\n<h3>Whole picture</h3>',
             _slider(burst.before, burst.after, _JPEG, f'{anchor}-whole', f'whole picture of {name}'), '</div>']
    if burst.detail_before is not None and burst.detail_after is not None:
        height, width = burst.detail_before.shape[:2]
        parts += ['<div class="part">\n<h3>Detail at 100 %</h3>',
                  f'<p class="quiet">{width} x {height} pixels; made smaller where the page is narrower.</p>',
                  _slider(burst.detail_before, burst.detail_after, _PNG, f'{anchor}-detail', f'detail of {name}'), '</div>']
    if burst.matching is not None:
        parts += ['<div class="part">\n<h3>Coarse alignment</h3>',
                  f'<div class="scroll" style="--w: {burst.matching.shape[1]}" role="region" tabindex="0"',
                  f'aria-label="Coarse alignment of {name}">',
                  _image(burst.matching, _JPEG, f'Matches of each frame with the reference, and differences before and after '
                                                f'alignment: {name}'), '</div>\n</div>']
    tables = [_table(heading, facts) for heading, facts in burst.facts.items() if facts]
    if tables:
        parts += ['<div class="facts">', *tables, '</div>']
    return '\n'.join([*parts, '</section>'])


def _slider(before: np.ndarray, after: np.ndarray, coding: tuple[str, tuple[int, ...]], key: str, what: str) -> str:
    """Two pictures and the range that divides them; ``what`` is escaped."""
    height, width = before.shape[:2]
    return (f'<div class="stage" style="--w: {width}; --h: {height}">\n'
            f'<div class="shot before"><span class="tag">noisy, bilinear</span>'
            f'{_image(before, coding, f"Noisy reference frame, demosaicked bilinearly: {what}")}</div>\n'
            f'<div class="shot after"><span class="tag">restored</span>{_image(after, coding, f"Restored: {what}")}</div>\n'
            f'<label class="unseen" for="{key}">Divider of noisy and restored, {what}</label>\n'
            f'<input type="range" id="{key}" min="0" max="100" step="1" value="50" autocomplete="off">\n'
            f'<div class="bar" aria-hidden="true"><div class="knob"></div></div>\n</div>')


def _image(picture: np.ndarray, coding: tuple[str, tuple[int, ...]], alt: str) -> str:
    """The picture as an element with its data; ``alt`` is escaped."""
    kind, settings = coding
    _, data = cv2.imencode(f'.{kind}', cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), settings)
    height, width = picture.shape[:2]
    return (f'<img width="{width}" height="{height}" alt="{alt}" draggable="false" '
            f'src="data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode("ascii")}">')


def _table(heading: str, facts: Mapping[str, str]) -> str:
    # No line breaks in 1e-5.
    values = [_POWER.sub(r'<span class="number">\g<0></span>', _text(value)) for value in facts.values()]
    rows = '\n'.join(f'<tr><th scope="row">{_text(name)}</th><td>{value}</td></tr>' for name, value in zip(facts, values))
    return f'<section>\n<h3>{_text(heading)}</h3>\n<table>\n{rows}\n</table>\n</section>'


def _check(burst: BurstReport) -> None:
    """Raise ShapeError unless the pictures can be shown, in pairs of one shape."""
    names = ('before', 'after', 'detail_before', 'detail_after', 'matching')
    for name in names:
        picture = getattr(burst, name)
        if picture is None and name not in names[:2]:
            continue
        if getattr(picture, 'dtype', None) != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
            got = f'{picture.dtype} {list(picture.shape)}' if hasattr(picture, 'dtype') else type(picture).__name__
            raise ShapeError(f'{burst.name}: {name}: expected RGB uint8 [h, w, 3], got {got}.')
    for first, second in (names[:2], names[2:4]):
        one, other = getattr(burst, first), getattr(burst, second)
        if (one is None) != (other is None):
            given, lacking = (first, second) if other is None else (second, first)
            raise ShapeError(f'{burst.name}: {given} is given, but {lacking} is not; expected both or none.')
        if one is not None and one.shape != other.shape:
            raise ShapeError(f'{burst.name}: {first} and {second} differ in shape: {list(one.shape)}, {list(other.shape)}.')
