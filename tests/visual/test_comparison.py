import numpy as np
import pytest

from jddb_plugin.checks import ShapeError
from jddb_plugin.visual.comparison import busiest_crop, compare


def test_the_busiest_place_is_magnified():
    image = np.full((120, 160, 3), 128, np.uint8)
    image[60:80, 100:120] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    y, x = busiest_crop(image, 20)
    assert abs(y - 60) <= 8 and abs(x - 100) <= 8


def test_pictures_stand_side_by_side():
    pictures = {name: np.full((60, 80, 3), value, np.uint8) for name, value in (('dark', 10), ('bright', 240))}
    row = compare(pictures, crop=(5, 5))
    assert row.shape[1] == 2 * 80 + 8
    assert (row[40:60, :80] == 10).any() and (row[40:60, 90:] == 240).any()


def test_unequal_pictures_are_refused():
    with pytest.raises(ShapeError, match='different size'):
        compare({'a': np.zeros((4, 4, 3), np.uint8), 'b': np.zeros((4, 6, 3), np.uint8)})
