"""Color of a DNG by its tags: white balance and the matrix from XYZ to the camera (DNG specification 1.7.1, chapter 6).

XYZ to camera is AnalogBalance x CameraCalibration x ColorMatrix. The last two are stated for one to three lights and
interpolated between them by the reciprocal of the color temperature. CameraCalibration counts only where its signature is
that of the profile.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.dng_tags import Mosaic

#: Color temperature of a light by its code in Exif, as Adobe's own reader takes it.
_TEMPERATURES = {1: 5500, 2: 4150, 3: 2850, 4: 5500, 9: 5500, 10: 6500, 11: 7500, 12: 6400, 13: 5050, 14: 4150, 15: 3525,
                 16: 2925, 17: 2850, 18: 5500, 19: 6500, 20: 5500, 21: 6500, 22: 7500, 23: 5000, 24: 3200}
_D65, _OTHER = 21, 255
_D65_XY = (0.3127, 0.3290)
# Robertson's isotemperature lines (Wyszecki and Stiles, Color Science, 2nd ed., table 1(3.11)): mired, u, v, slope.
_LINES = np.array((
    (0, 0.18006, 0.26352, -0.24341), (10, 0.18066, 0.26589, -0.25479), (20, 0.18133, 0.26846, -0.26876),
    (30, 0.18208, 0.27119, -0.28539), (40, 0.18293, 0.27407, -0.30470), (50, 0.18388, 0.27709, -0.32675),
    (60, 0.18494, 0.28021, -0.35156), (70, 0.18611, 0.28342, -0.37915), (80, 0.18740, 0.28668, -0.40955),
    (90, 0.18880, 0.28997, -0.44278), (100, 0.19032, 0.29326, -0.47888), (125, 0.19462, 0.30141, -0.58204),
    (150, 0.19962, 0.30921, -0.70471), (175, 0.20525, 0.31647, -0.84901), (200, 0.21142, 0.32312, -1.0182),
    (225, 0.21807, 0.32909, -1.2168), (250, 0.22511, 0.33439, -1.4512), (275, 0.23247, 0.33904, -1.7298),
    (300, 0.24010, 0.34308, -2.0637), (325, 0.24792, 0.34655, -2.4681), (350, 0.25591, 0.34951, -2.9641),
    (375, 0.26400, 0.35200, -3.5814), (400, 0.27218, 0.35407, -4.3633), (425, 0.28039, 0.35577, -5.3762),
    (450, 0.28863, 0.35714, -6.7262), (475, 0.29685, 0.35823, -8.5955), (500, 0.30505, 0.35907, -11.324),
    (525, 0.31320, 0.35968, -15.628), (550, 0.32129, 0.36011, -23.325), (575, 0.32931, 0.36038, -40.770),
    (600, 0.33724, 0.36051, -116.45)))


def temperature_of(x: float, y: float) -> tuple[float, float]:
    """(color temperature in kelvin, distance from the black body's line in CIE 1960 uv, positive below it) of a chromaticity.

    Robertson's method (1968).
    """
    u, v = 2 * x / (1.5 - x + 6 * y), 3 * y / (1.5 - x + 6 * y)
    mired, us, vs, slopes = _LINES.T
    length = np.hypot(1, slopes)
    distance = ((v - vs) - slopes * (u - us)) / length  # to each line: above it, the light is bluer
    after = min(max(int(np.argmax(distance <= 0)) if (distance <= 0).any() else len(_LINES) - 1, 1), len(_LINES) - 1)
    above, below = distance[after - 1], -distance[after]
    share = float(min(max(above / (above + below), 0), 1)) if above + below else 0.0
    between = (1 - share) * mired[after - 1] + share * mired[after]
    before, behind = (np.array((1, slopes[line])) / length[line] for line in (after - 1, after))
    direction = (1 - share) * before + share * behind
    nearest = [(1 - share) * line[after - 1] + share * line[after] for line in (us, vs)]
    off = float(np.dot((u - nearest[0], v - nearest[1]), direction / np.hypot(*direction)))
    return (float(1e6 / between) if between > 0 else math.inf), off


@dataclass(frozen=True)
class _Light:
    """Tags of one light: its code, temperature and distance from the black body, AnalogBalance left out."""

    code: int
    temperature: float
    off: float
    matrix: np.ndarray
    calibration: np.ndarray


@dataclass(frozen=True)
class DngColor:
    """Matrices of a DNG, rows in the order red, green, blue.

    Attributes:
        lights: one to three, in the order of the tags; none if the file states no ColorMatrix.
        balance: AnalogBalance, [3].
    """

    lights: tuple[_Light, ...]
    balance: np.ndarray

    def at(self, x: float, y: float) -> np.ndarray:
        """XYZ to camera for a light of chromaticity (x, y)."""
        known = [light for light in self.lights if light.temperature > 0]
        if len(known) < 2 or len({light.temperature for light in known}) < 2:
            weights = np.array([1.0])
            known = list(self.lights[:1])
        else:
            weights = _three_weights(x, y, known) if len(known) == 3 else _two_weights(x, y, known)
        mixed = [sum(weight * getattr(light, name) for weight, light in zip(weights, known))
                 for name in ('calibration', 'matrix')]
        return np.diag(self.balance) @ mixed[0] @ mixed[1]

    def for_daylight(self) -> np.ndarray:
        """XYZ to camera of the light D65 if it is stated, else of the second or first one."""
        light = next((light for light in reversed(self.lights) if light.code == _D65), self.lights[min(1, len(self.lights) - 1)])
        return np.diag(self.balance) @ light.calibration @ light.matrix


def _two_weights(x: float, y: float, lights: Sequence[_Light]) -> np.ndarray:
    warm, cold = sorted(range(2), key=lambda k: lights[k].temperature)
    low, high = 1 / lights[warm].temperature, 1 / lights[cold].temperature
    share = min(max((1 / temperature_of(x, y)[0] - high) / (low - high), 0.0), 1.0)
    weights = np.empty(2)
    weights[warm], weights[cold] = share, 1 - share
    return weights


def _three_weights(x: float, y: float, lights: Sequence[_Light]) -> np.ndarray:
    """By distance in (tint, reciprocal temperature), as DNG 1.6 and later have it for three lights."""
    def place(temperature: float, off: float) -> np.ndarray:
        return np.array((-3000 * off / 200, min(1500 / temperature, 1.0)))

    here = place(*temperature_of(x, y))
    weights = np.array([1 / (np.sum((here - place(light.temperature, light.off)) ** 2) + 1e-8) for light in lights])
    weights = weights / weights.sum()
    weights = np.clip((weights * weights * (3 - 2 * weights) - 0.02) / 0.98, 0, 1)
    return weights / weights.sum()


def color_planes(mosaic: Mosaic) -> Optional[list[int]]:
    """Place of red, green and blue among a DNG's color planes; None if it has others."""
    colors = mosaic.directory.numbers(t.PLANE_COLOR) or (0, 1, 2)
    return [colors.index(color) for color in range(3)] if sorted(colors) == [0, 1, 2] else None


def read_color(mosaic: Mosaic, planes: Sequence[int]) -> DngColor:
    """Matrices of a DNG; entries that are no numbers count as missing."""
    def matrix(code: int) -> Optional[np.ndarray]:
        values = mosaic.of_camera(code)
        if len(values) != 9 or not all(map(math.isfinite, values)) or not any(values):
            return None
        return np.reshape(np.array(values, dtype=float), (3, 3))[list(planes)]

    balance = mosaic.of_camera(t.ANALOG_BALANCE)
    good = len(balance) == 3 and all(math.isfinite(value) and value > 0 for value in balance)
    signed = mosaic.main.text(t.CALIBRATION_SIGNATURE) == mosaic.main.text(t.PROFILE_SIGNATURE)
    lights = []
    for number, codes in enumerate(((t.COLOR_MATRIX_1, t.ILLUMINANT_1, t.CALIBRATION_1),
                                    (t.COLOR_MATRIX_2, t.ILLUMINANT_2, t.CALIBRATION_2),
                                    (t.COLOR_MATRIX_3, t.ILLUMINANT_3, t.CALIBRATION_3))):
        color = matrix(codes[0])
        if color is None:
            continue
        calibration = matrix(codes[2]) if signed else None
        # Columns of a calibration belong to planes as its rows do.
        calibration = np.eye(3) if calibration is None else calibration[:, list(planes)]
        code = int((mosaic.of_camera(codes[1]) or (0,))[0])
        lights.append(_Light(code, *_light_of(mosaic, code, number), color, calibration))
    return DngColor(tuple(lights), np.array([balance[plane] for plane in planes], dtype=float) if good else np.ones(3))


def _light_of(mosaic: Mosaic, code: int, number: int) -> tuple[float, float]:
    """(temperature, distance from the black body) of a light; (0, 0) if it is not known."""
    if code != _OTHER:
        return float(_TEMPERATURES.get(code, 0)), 0.0
    data = mosaic.main.bytes(t.ILLUMINANT_DATA[number])
    if len(data) < 18 or data[:2] != b'\0\0':  # 0: x and y; 1: a spectrum, which is not read
        return 0.0, 0.0
    letters = f'{mosaic.main.order}4u4'
    top_x, low_x, top_y, low_y = (int(value) for value in np.frombuffer(data[2:18], np.dtype(letters)).ravel())
    if not low_x or not low_y or not top_y:
        return 0.0, 0.0
    return temperature_of(top_x / low_x, top_y / low_y)


def read_white_balance(mosaic: Mosaic, color: DngColor, planes: Sequence[int], where: str,
                       notes: list[str]) -> tuple[float, float, float]:
    """Gains of red, green and blue, green 1: by AsShotNeutral, else by AsShotWhiteXY, else for daylight, which is noted.

    Raises:
        DataError: none of these is stated.
    """
    neutral = mosaic.of_camera(t.NEUTRAL)
    if len(neutral) == 3 and all(math.isfinite(value) and value > 0 for value in neutral):
        return _gains([neutral[plane] for plane in planes])
    white = mosaic.of_camera(t.WHITE_XY)
    if color.lights and len(white) == 2 and all(map(math.isfinite, white)) and min(white) > 0 and sum(white) <= 1:
        camera = _camera_white(color, *white)
        if camera.min() > 0:
            return _gains(camera.tolist())
    if not color.lights:
        raise DataError(f'{where}: it states neither white balance nor color matrix; expected AsShotNeutral and ColorMatrix1, '
                        'convert it to a DNG that has them.')
    camera = _camera_white(color, *_D65_XY)
    if not camera.min() > 0:
        raise DataError(f'{where}: its color matrix makes daylight negative; correct ColorMatrix1 and ColorMatrix2.')
    notes.append('states no usable white balance (AsShotNeutral, AsShotWhiteXY); developed for daylight')
    return _gains(camera.tolist())


def _camera_white(color: DngColor, x: float, y: float) -> np.ndarray:
    return color.at(x, y) @ np.array((x / y, 1.0, (1 - x - y) / y))


def _gains(neutral: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in neutral)
    return green / red, 1.0, green / blue
