"""Whole frames of any size by every system of the tables, through the engine of validation and restoration."""
import pytest
import torch
from basicsr.archs import build_network

from jddb_plugin.inference.engine import default_alignment, restore_frame
from jddb_plugin.inference.tiling import TilingOptions

from ..archs.table_networks import CASES


def build(name):
    return build_network(dict(CASES[name])).eval()


@pytest.mark.parametrize('name', CASES)
def test_frames_of_any_size_are_restored_in_tiles(name):
    network, lq = build(name), torch.rand(1, 3, 8, 50, 70)
    assert default_alignment(network) == 'none', 'these systems align by themselves'
    result = restore_frame(network, lq, tiling=TilingOptions(tile=32, overlap=16))
    assert result.shape == (1, 3, 100, 140) and result.isfinite().all()
    for ref_idx in (0, 2):
        assert restore_frame(network, lq, ref_idx).shape == (1, 3, 100, 140)


@pytest.mark.parametrize('name', ['GCPNet', 'EDVRBurst', 'EDVR raw', 'KPN', 'DemosaicNet', 'EDVR+DMN'])
def test_tiles_show_little_of_where_they_lie(name):
    """With the frame as one tile or as many, the difference is small beside what the network changes."""
    network, lq = build(name), torch.rand(1, 3, 8, 64, 96)
    whole = network(lq)
    tiled = restore_frame(network, lq, tiling=TilingOptions(tile=32, overlap=16))
    spread = (whole - whole.mean(dim=(-2, -1), keepdim=True)).abs().mean()
    assert (tiled - whole).abs().mean() < 0.05 * spread
