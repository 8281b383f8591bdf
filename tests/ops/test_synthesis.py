import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.isp import Camera, sample_camera, unprocess
from jddb_plugin.ops.noise import noise_std
from jddb_plugin.ops.synthesis import synthesise

pytestmark = pytest.mark.cpu_only  # noise of another device's generator differs; the test below says what is equal


def _batch(batch=3, frames=2, dtype=torch.uint8):
    srgb = torch.randint(0, 256, (batch, frames, 3, 12, 16), dtype=torch.uint8)
    cameras = [sample_camera(torch.Generator().manual_seed(k)) for k in range(batch)]
    camera = Camera(*(torch.tensor([getattr(c, name) for c in cameras]) for name in ('rgb_gain', 'red_gain', 'blue_gain')),
                    torch.stack([c.cam2rgb for c in cameras]))
    shot, read = torch.linspace(1e-3, 1e-2, batch), torch.linspace(1e-3, 2e-2, batch)
    return srgb if dtype == torch.uint8 else srgb.to(dtype) / 255, cameras, camera, shot, read, torch.arange(batch) + 5


def test_a_batch_is_its_samples_one_by_one():
    srgb, cameras, camera, shot, read, seeds = _batch()
    burst = synthesise(srgb, camera, shot, read, seeds, ref_idx=1)
    for k, single in enumerate(cameras):
        linear = unprocess(srgb[k].float() / 255, single)
        torch.testing.assert_close(burst.gt[k], linear[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(burst.clean[k], mosaic_rgb(linear), rtol=1e-5, atol=1e-6)
        noise = torch.randn(burst.clean[k].shape, generator=torch.Generator().manual_seed(int(seeds[k])))
        noisy = (burst.clean[k] + noise * noise_std(burst.clean[k], shot[k], read[k])).clamp(0, 1)
        assert torch.equal(burst.lq[k, :, :4], noisy)
        torch.testing.assert_close(burst.lq[k, :, 4:], noise_std(noisy, shot[k], read[k]))


def test_bytes_and_fractions_give_the_same():
    torch.manual_seed(1)
    first = synthesise(_batch()[0], *_batch()[2:], ref_idx=0)
    torch.manual_seed(0)
    srgb, _, *rest = _batch()
    again = synthesise(srgb, *rest, ref_idx=0)
    fractions = synthesise(srgb.float() / 255, *rest, ref_idx=0)
    assert torch.equal(again.lq, fractions.lq)
    assert not torch.equal(first.lq, again.lq)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device is here')
def test_a_gpu_makes_the_same_clean_raw_and_as_much_noise():
    srgb, _, camera, shot, read, seeds = _batch()
    on_cpu = synthesise(srgb, camera, shot, read, seeds, ref_idx=0)
    moved = Camera(*(getattr(camera, name).cuda() for name in ('rgb_gain', 'red_gain', 'blue_gain', 'cam2rgb')))
    on_gpu = synthesise(srgb.cuda(), moved, shot.cuda(), read.cuda(), seeds.cuda(), ref_idx=0)
    torch.testing.assert_close(on_gpu.clean.cpu(), on_cpu.clean, rtol=1e-4, atol=1e-5)
    ratio = (on_gpu.lq[:, :, :4] - on_gpu.clean).std().cpu() / (on_cpu.lq[:, :, :4] - on_cpu.clean).std()
    assert 0.9 < ratio < 1.1


def test_wrong_input_is_named():
    srgb, _, camera, shot, read, seeds = _batch()
    with pytest.raises(ShapeError, match=r'shot: expected \[3\], one per sample of srgb, got \[2\]'):
        synthesise(srgb, camera, shot[:2], read, seeds, ref_idx=0)
    with pytest.raises(ShapeError, match=r'srgb: expected a tensor of shape \[B, N, C, H, W\]'):
        synthesise(srgb[0], camera, shot, read, seeds, ref_idx=0)
    with pytest.raises(ShapeError, match='must be even'):
        synthesise(srgb[..., :15], camera, shot, read, seeds, ref_idx=0)
