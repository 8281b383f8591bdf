import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.bayer import demosaic_bilinear, mosaic_rgb, pack, unpack


def test_pack_puts_the_cell_in_order():
    mosaic = torch.arange(16.).view(4, 4)
    packed = pack(mosaic)
    assert packed.shape == (4, 2, 2)
    assert packed[:, 0, 0].tolist() == [0, 1, 4, 5]  # R Gr / Gb B
    assert packed[:, 1, 1].tolist() == [10, 11, 14, 15]


def test_unpack_is_the_inverse_of_pack():
    mosaic = torch.rand(2, 5, 8, 6)
    assert torch.equal(unpack(pack(mosaic)), mosaic)


def test_mosaic_takes_each_color_at_its_place():
    rgb = torch.rand(3, 6, 8)
    packed = mosaic_rgb(rgb)
    for i in range(3):
        for j in range(4):
            expected = [rgb[0, 2 * i, 2 * j], rgb[1, 2 * i, 2 * j + 1], rgb[1, 2 * i + 1, 2 * j], rgb[2, 2 * i + 1, 2 * j + 1]]
            assert packed[:, i, j].tolist() == [v.item() for v in expected]


@pytest.mark.parametrize('shape', [(3, 5, 4), (3, 4, 5), (4, 4, 4), (4, 4)])
def test_mosaic_refuses_wrong_shapes(shape):
    with pytest.raises(ShapeError, match='even|expected'):
        mosaic_rgb(torch.rand(shape))


def test_bilinear_demosaicking_agrees_with_opencv():
    mosaic = torch.from_numpy(np.random.default_rng(0).integers(0, 65535, (20, 24)).astype(np.uint16).astype(np.float32))
    ours = demosaic_bilinear(pack(mosaic)[None])[0].permute(1, 2, 0).numpy(force=True)
    # OpenCV names patterns by the second row's second and third pixel.
    theirs = cv2.cvtColor(mosaic.numpy(force=True).astype(np.uint16), cv2.COLOR_BayerBG2RGB).astype(np.float32)
    assert np.abs(ours - theirs)[1:-1, 1:-1].max() <= 1  # OpenCV rounds


def test_bilinear_demosaicking_keeps_a_constant_up_to_the_border():
    rgb = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 6, 8)
    torch.testing.assert_close(demosaic_bilinear(mosaic_rgb(rgb)), rgb)
