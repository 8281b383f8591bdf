"""Reference values of the released code."""
import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim

from jddb_plugin import TwoStageJDDB
from jddb_plugin.archs.released import convert_released
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstTestDataset
from jddb_plugin.inference.engine import restore_frame
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.camera import Camera, reference_camera
from jddb_plugin.ops.edges import high_frequency_mask
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.tiling import make_grid


@pytest.fixture
def golden(shared):
    return lambda name: torch.load(shared(f'golden/{name}.pt'), weights_only=True)


@pytest.fixture
def released_downsampler(shared):
    return torch.load(shared('weights/released_downsampler_600000.pth'), weights_only=True)


def _close(found, expected, atol):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_isp_noise_and_mask(golden):
    g = golden('isp_020')
    camera = reference_camera()
    _close(camera.cam2rgb, g['cam2rgb'], 1e-6)
    _close(camera.rgb2cam, g['rgb2cam'], 1e-6)
    _close(camera.unprocess(g['srgb']), g['linear'], 1e-5)
    _close(mosaic_rgb(g['linear']), g['bayer_rggb'], 1e-7)
    noisy = torch.stack([NoiseModel.of(g['shot'], g['read']).sample_test_frame(frame, frame_number=k)
                         for k, frame in enumerate(g['bayer_rggb'], 1)])
    _close(noisy, g['noisy'], 1e-6)
    _close(NoiseModel.of(g['shot'], g['read']).std(g['noisy']), g['noise_map'], 1e-7)
    other = Camera.of(rgb_gain=g['rgb_gain'], red_gain=g['red_gain'], blue_gain=g['blue_gain'], cam2rgb=camera.cam2rgb)
    _close(other.develop(g['linear']), g['srgb_test'], 1e-5)
    _close(other.with_gain(1.0).develop(g['linear']), g['srgb_train'], 1e-5)
    _close(high_frequency_mask(g['linear']), g['edge_map'], 1e-5)


def test_isp_with_other_gains(golden):
    g = golden('isp_020')
    alt = g['alt']
    camera = Camera.of(rgb_gain=alt['rgb_gain'], red_gain=alt['red_gain'], blue_gain=alt['blue_gain'],
                       cam2rgb=reference_camera().cam2rgb)
    _close(camera.unprocess(g['srgb'][0]), alt['linear'], 1e-5)
    _close(camera.develop(alt['linear']), alt['srgb_test'], 1e-5)


@pytest.mark.parametrize('backend', ['grid_sample', 'torchvision'])
def test_network(golden, released_downsampler, backend):
    g = golden('network_nf8')
    net = TwoStageJDDB(num_feat=8, deformable_groups=2, dcn_backend=backend).eval()
    net.load_state_dict(convert_released(g['state_dict'], released_downsampler), strict=True)
    lq = torch.cat((g['raw'], g['noise_map']), dim=2)
    with torch.no_grad():
        restored, interpolated, _ = net.refine(lq, 2, interpolate=True)
    _close(restored, g['output'], 1e-5)
    _close(torch.cat((restored, interpolated)), g['output_train'], 1e-5)


def test_synthesis_of_a_test_clip(golden, shared):
    """The data set makes the very raw frames of the released test, highlight protection included."""
    g = golden('block_matching_020')
    dataset = UnprocessedBurstTestDataset({
        'name': 'REDS', 'type': 'UnprocessedBurstTestDataset', 'dataroot_gt': str(shared('reds/GT')),
        'io_backend': {'type': 'disk'}, 'noise': [g['shot'], g['read']], 'crop': list(g['crop'])})
    sample = dataset[2]
    _close(sample['lq'][:, :4], g['raw'], 1e-6)


def _positions(g):
    line = torch.arange(5) * 16
    return torch.stack(torch.meshgrid(line, line, indexing='ij'), dim=-1).view(1, 25, 2)


def test_features_of_the_released_downsampler(golden, released_downsampler):
    g = golden('block_matching_020')
    net = TwoStageJDDB(num_feat=8, deformable_groups=2, dpbm={'window': 'released'}).eval()
    state = {key: value for key, value in convert_released({}, released_downsampler).items()}
    net.coarse.load_state_dict({key[len('coarse.'):]: value for key, value in state.items()}, strict=True)
    grid = make_grid(256, 256, tile=64, overlap=4, multiple=4, layout='released')
    with torch.no_grad():
        features = net.coarse.extract(grid.pad(g['raw'][None]))[0]
    # Convolutions may sum in another order elsewhere: one unit in the last place of half precision.
    assert (features.half() == g['lr_features']).float().mean() > 0.999
    _close(features, g['lr_features'].float(), 4e-3)


def test_released_offsets(golden):
    g = golden('block_matching_020')
    match = match_tiles(g['lr_features'].float()[None], _positions(g), (18, 18), ref_idx=2,
                        window=SearchWindow(6, 2, 'released'))
    assert torch.equal(match.offset.view(5, 5, 5, 2), g['offsets_lr'].long())


def test_symmetric_window_finds_the_same_or_better(golden):
    g = golden('block_matching_020')
    features, positions, others = g['lr_features'].float()[None], _positions(g), [0, 1, 3, 4]
    match = match_tiles(features, positions, (18, 18), ref_idx=2, window=SearchWindow(6, 2))
    found, released = match.offset.view(5, 5, 5, 2)[:4, :4], g['offsets_lr'].long()[:4, :4]
    differ = (found != released).any(dim=-1)[..., others].nonzero().tolist()
    assert differ == [[1, 0, 2]]
    assert found[1, 0, 3].tolist() == [6, 0]

    def distance(row, col, frame, offset):
        y, x = 16 * row, 16 * col
        tile = features[0, 2, :, y:y + 18, x:x + 18]
        y, x = y + int(offset[0]), x + int(offset[1])
        return (features[0, frame, :, y:y + 18, x:x + 18] - tile).abs().mean().item()

    for row in range(4):
        for col in range(4):
            for frame in others:
                assert distance(row, col, frame, found[row, col, frame]) <= distance(row, col, frame, released[row, col, frame])


def test_the_whole_released_pipeline(golden, released_downsampler, shared):
    g = golden('pipeline_020')
    net = TwoStageJDDB(num_feat=8, deformable_groups=2, dpbm={
        'radius': g['search_radius_lr'], 'window': 'released'})
    net.load_state_dict(convert_released(golden('network_nf8')['state_dict'], released_downsampler), strict=True)
    lq = NoiseModel.of(g['shot'], g['read']).with_map(g['raw'])[None]
    net.eval()
    with torch.no_grad():
        tiles = {'tile': g['tile'], 'overlap': g['overlap'], 'layout': 'released'}
        grid = make_grid(*g['raw'].shape[-2:], multiple=4, **tiles)
        frames = grid.pad(lq)
        match = net.coarse.match(frames, grid.positions(frames.device)[None], grid.size)
        restored = net(lq, **tiles)[0]
        streamed = restore_frame(net, lq, align='tiles', tiling=TilingOptions(**tiles))[0]
    assert torch.equal(match.offset.view(g['offsets_lr'].shape), g['offsets_lr'].long())
    _close(restored, g['output_linear'], 1e-4)
    _close(streamed, g['output_linear'], 1e-4)

    y, x, height, width = g['crop']
    frame = sorted(shared('reds/GT/020').iterdir())[2]
    srgb = cv2.imread(str(frame))[y:y + height, x:x + width, ::-1].astype(np.float32) / 255
    camera = reference_camera()
    clean = camera.unprocess(torch.from_numpy(srgb.transpose(2, 0, 1).copy()))
    developed = [camera.develop(image) for image in (restored, clean)]
    images = [image.permute(1, 2, 0).double().numpy() * 255 for image in developed]
    assert calculate_psnr(*images, crop_border=0) == pytest.approx(g['psnr'], abs=1e-3)
    assert calculate_ssim(*images, crop_border=0) == pytest.approx(g['ssim'], abs=1e-5)
