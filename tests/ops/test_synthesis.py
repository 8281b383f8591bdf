import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera, sample_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.synthesis import synthesize

pytestmark = pytest.mark.cpu_only  # noise of another device's generator differs; the test below says what is equal


def _batch(batch=3, frames=2, dtype=torch.uint8):
    srgb = torch.randint(0, 256, (batch, frames, 3, 12, 16), dtype=torch.uint8)
    cameras = [sample_camera(torch.Generator().manual_seed(k)) for k in range(batch)]
    camera = Camera(*(torch.stack(values) for values in zip(*(camera.to(torch.float32) for camera in cameras))))
    noise = NoiseModel(torch.linspace(1e-3, 1e-2, batch), torch.linspace(1e-3, 2e-2, batch))
    return srgb if dtype == torch.uint8 else srgb.to(dtype) / 255, cameras, camera, noise, torch.arange(batch) + 5


def test_a_batch_is_its_samples_one_by_one():
    srgb, cameras, camera, noise, seeds = _batch()
    burst = synthesize(srgb, camera, noise, seeds, ref_idx=1)
    for k, single in enumerate(cameras):
        linear = single.unprocess(srgb[k].float() / 255)
        torch.testing.assert_close(burst.gt[k], linear[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(burst.clean[k], mosaic_rgb(linear), rtol=1e-5, atol=1e-6)
        normal = torch.randn(burst.clean[k].shape, generator=torch.Generator().manual_seed(int(seeds[k])))
        noisy = (burst.clean[k] + normal * noise.at(k).std(burst.clean[k])).clamp(0, 1)
        assert torch.equal(burst.lq[k, :, :4], noisy)
        torch.testing.assert_close(burst.lq[k, :, 4:], noise.at(k).std(noisy))


def test_bytes_and_fractions_give_the_same():
    torch.manual_seed(1)
    first = synthesize(_batch()[0], *_batch()[2:], ref_idx=0)
    torch.manual_seed(0)
    srgb, _, *rest = _batch()
    again = synthesize(srgb, *rest, ref_idx=0)
    fractions = synthesize(srgb.float() / 255, *rest, ref_idx=0)
    assert torch.equal(again.lq, fractions.lq)
    assert not torch.equal(first.lq, again.lq)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device is here')
def test_a_gpu_makes_the_same_clean_raw_and_as_much_noise():
    srgb, _, camera, noise, seeds = _batch()
    on_cpu = synthesize(srgb, camera, noise, seeds, ref_idx=0)
    on_gpu = synthesize(srgb.cuda(), camera.to('cuda'), noise.to('cuda'), seeds.cuda(), ref_idx=0)
    torch.testing.assert_close(on_gpu.clean.cpu(), on_cpu.clean, rtol=1e-4, atol=1e-5)
    ratio = (on_gpu.lq[:, :, :4] - on_gpu.clean).std().cpu() / (on_cpu.lq[:, :, :4] - on_cpu.clean).std()
    assert 0.9 < ratio < 1.1


def test_wrong_input_is_named():
    srgb, _, camera, noise, seeds = _batch()
    with pytest.raises(ShapeError, match=r'noise.shot: expected \[3\], one per sample of srgb, got \[2\]'):
        synthesize(srgb, camera, NoiseModel(noise.shot[:2], noise.read), seeds, ref_idx=0)
    with pytest.raises(ShapeError, match=r'srgb: expected a tensor of shape \[B, N, C, H, W\]'):
        synthesize(srgb[0], camera, noise, seeds, ref_idx=0)
    with pytest.raises(ShapeError, match='must be even'):
        synthesize(srgb[..., :15], camera, noise, seeds, ref_idx=0)
