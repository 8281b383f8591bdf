"""A slow and plain reading of what a DNG's tags mean (specification 1.7.1), from the tags themselves, sample by sample.

It shares nothing with the reader: fractions in place of arrays, and color temperature by search along Planck's law in place of
Robertson's table.
"""
import math
from fractions import Fraction
from functools import cache

#: Kelvin of the lights that the tests use.
TEMPERATURES = {17: 2850, 21: 6500, 23: 5000, 20: 5500}


def active_area(tags):
    """Top, left, bottom, right."""
    return tags.get('ActiveArea', (0, 0, tags['ImageLength'], tags['ImageWidth']))


def black_of(tags, y, x):
    """Black level of row y and column x of the active area."""
    rows, columns = tags.get('BlackLevelRepeatDim', (1, 1))
    values = tags.get('BlackLevel', 0)
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    level = Fraction(values[(y % rows) * columns + x % columns])
    if 'BlackLevelDeltaH' in tags:
        level += Fraction(tags['BlackLevelDeltaH'][x])
    if 'BlackLevelDeltaV' in tags:
        level += Fraction(tags['BlackLevelDeltaV'][y])
    return level


def white_of(tags):
    """WhiteLevel."""
    return tags.get('WhiteLevel', 1 if tags.get('SampleFormat') == 3 else 2 ** tags['BitsPerSample'] - 1)


def cell_means(tags):
    """Mean black level of the four places of a cell of the active area."""
    top, left, bottom, right = active_area(tags)
    sums, counts = [Fraction(0)] * 4, [0] * 4
    for y in range(bottom - top):
        for x in range(right - left):
            place = 2 * (y % 2) + x % 2
            sums[place] += black_of(tags, y, x)
            counts[place] += 1
    return [float(total / count) for total, count in zip(sums, counts)]


def _lobe(value, center, below, above):
    width = below if value < center else above
    return math.exp(-0.5 * ((value - center) / width) ** 2)


def _observer(nm):
    """CIE 1931 color matching functions, the fit of Wyman, Sloan and Shirley (2013)."""
    x = 1.056 * _lobe(nm, 599.8, 37.9, 31.0) + 0.362 * _lobe(nm, 442.0, 16.0, 26.7) - 0.065 * _lobe(nm, 501.1, 20.4, 26.2)
    y = 0.821 * _lobe(nm, 568.8, 46.9, 40.5) + 0.286 * _lobe(nm, 530.9, 16.3, 31.1)
    z = 1.217 * _lobe(nm, 437.0, 11.8, 36.0) + 0.681 * _lobe(nm, 459.0, 26.0, 13.8)
    return x, y, z


@cache
def _black_body(kelvin):
    """(u, v) of the black body by Planck's law."""
    total = [0.0] * 3
    for nm in range(380, 781, 5):
        power = nm ** -5.0 / (math.exp(1.4388e7 / (nm * kelvin)) - 1)
        total = [sum_ + power * part for sum_, part in zip(total, _observer(nm))]
    x, y, z = total
    return 4 * x / (x + 15 * y + 3 * z), 6 * y / (x + 15 * y + 3 * z)


def temperature_of(x, y):
    """Kelvin of the nearest point of the black body's line, 2000 to 12000."""
    u, v = 4 * x / (-2 * x + 12 * y + 3), 6 * y / (-2 * x + 12 * y + 3)
    return min(range(2000, 12001, 10), key=lambda kelvin: math.dist((u, v), _black_body(kelvin)))


def _times(left, right):
    return [[sum(left[i][k] * right[k][j] for k in range(3)) for j in range(len(right[0]))] for i in range(3)]


def _rows(values):
    return [list(values[3 * k:3 * k + 3]) for k in range(3)]


def xyz_to_camera(tags, weights):
    """AnalogBalance x CameraCalibration x ColorMatrix in the order of the planes, mixed of the first and second light."""
    mixed = []
    signed = tags.get('CameraCalibrationSignature', '') == tags.get('ProfileCalibrationSignature', '')
    for name, default in (('CameraCalibration', (1, 0, 0, 0, 1, 0, 0, 0, 1)), ('ColorMatrix', None)):
        parts = [tags.get(f'{name}{number}', default) for number in (1, 2)]
        if name == 'CameraCalibration' and not signed:
            parts = [default, default]
        mixed.append(_rows([sum(weight * (part or parts[0])[k] for weight, part in zip(weights, parts)) for k in range(9)]))
    balance = tags.get('AnalogBalance', (1, 1, 1))
    return _times([[balance[0], 0, 0], [0, balance[1], 0], [0, 0, balance[2]]], _times(*mixed))


def weights_of(tags, x, y):
    """Shares of the first and second light."""
    first, second = (TEMPERATURES.get(tags.get(f'CalibrationIlluminant{number}', 0), 0) for number in (1, 2))
    if 'ColorMatrix2' not in tags or not first or not second or first == second:
        return 1, 0
    share = (1 / temperature_of(x, y) - 1 / second) / (1 / first - 1 / second)
    share = min(max(share, 0), 1)
    return share, 1 - share


def gains_of(tags):
    """Gains of red, green and blue, green 1."""
    order = list(tags.get('CFAPlaneColor', (0, 1, 2)))
    if 'AsShotNeutral' in tags:
        neutral = list(tags['AsShotNeutral'])
    else:
        x, y = tags.get('AsShotWhiteXY', (0.3127, 0.3290))
        white = [[x / y], [1], [(1 - x - y) / y]]
        neutral = [row[0] for row in _times(xyz_to_camera(tags, weights_of(tags, x, y)), white)]
    by_color = [neutral[order.index(color)] for color in range(3)]
    return [by_color[1] / value for value in by_color]
