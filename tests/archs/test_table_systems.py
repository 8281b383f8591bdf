"""The systems of the paper's tables: parameters, gradients, sizes, references, errors."""
import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.arch_util import DCNv2Pack
from basicsr.archs.basicvsr_arch import BasicVSR
from basicsr.archs.edvr_arch import EDVR
from torch import nn

from jddb_plugin import KPN, DemosaicNet, DenoiseThenDemosaic, EDVRBurst, GCPNet, RViDeNet
from jddb_plugin.archs.blocks import AttentionBlock
from jddb_plugin.archs.kpn_arch import apply_kernels
from jddb_plugin.archs.non_local import GramAttention, criss_cross
from jddb_plugin.archs.passthrough import carry
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.bayer import demosaic_bilinear

from .table_networks import CASES, FIXED, SMALL, build, count, wake


@pytest.mark.parametrize(('network', 'parameters'), [
    (lambda: GCPNet(), 13_792_520),
    (lambda: EDVRBurst(), 6_257_251),
    (lambda: EDVRBurst(num_reconstruct_block=10), 3_155_299),
    (lambda: RViDeNet(), 57_928_303),
    (lambda: KPN(), 28_029_279),
    (lambda: DemosaicNet(), 560_886),
], ids=['GCP-Net', 'EDVR*', 'EDVR* with the depth of EDVR-M', 'RViDeNet*', 'KPN', 'DMN'])
def test_parameters_are_those_of_the_paper(network, parameters):
    assert count(network()) == parameters


def test_a_joined_system_has_the_parameters_of_its_parts():
    assert count(build('EDVR+DMN')) == count(build('EDVR raw')) + count(build('DemosaicNet'))


@pytest.mark.parametrize('name', CASES)
def test_every_parameter_gets_a_gradient(name):
    network = wake(build(name)).train()
    tiles = torch.rand(2, 3, 8, 16, 32)
    shape = {'KPN': (2, 3, 4, 16, 32), 'EDVR raw': (2, 4, 16, 32), 'RViDeNet raw': (2, 4, 16, 32)}.get(name, (2, 3, 32, 64))
    output = network(tiles)
    assert output.shape == shape
    (output * torch.rand(shape)).sum().backward()
    # A bias of criss-cross attention's keys moves all scores of a softmax alike.
    missing = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all() or
               not (p.grad.any() or key.endswith('spatial.key.bias'))]
    assert not missing


@pytest.mark.parametrize('name', CASES)
def test_networks_train_in_bfloat16(name):
    network, tiles = wake(build(name)), torch.rand(1, 3, 8, 16, 16)
    exact = network.restore(tiles, 1)
    with torch.autocast('cpu', torch.bfloat16):
        result = network.restore(tiles, 1)
        network.train()(tiles).float().square().mean().backward()
    assert (result.float() - exact).abs().mean() < 0.05 * exact.abs().mean() + 0.01
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert network.eval().restore(tiles, 1).isfinite().all()


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('ref_idx', [0, 1, 2])
def test_any_frame_can_be_the_reference(name, ref_idx):
    """A change of the reference counts, and that of another frame too, unless one frame is all that is looked at."""
    network, tiles = wake(build(name)), torch.rand(1, 3, 8, 16, 16)
    with torch.no_grad():
        result = network.restore(tiles, ref_idx)
        assert result.shape == (1, 3, 32, 32) and result.isfinite().all()
        for frame in range(3):
            changed = tiles.clone()
            changed[:, frame] += 0.1
            same = torch.equal(network.restore(changed, ref_idx), result)
            assert same == (name == 'DemosaicNet' and frame != ref_idx)


def test_a_residual_network_starts_as_the_reference_it_is_asked_for():
    tiles = torch.rand(1, 3, 8, 16, 16)
    for name in ('EDVRBurst', 'RViDeNet', 'BasicVSRBurst'):
        network = build(name)
        nn.init.zeros_(network.head.output.weight)
        nn.init.zeros_(network.head.output.bias)
        for ref_idx in range(3):
            torch.testing.assert_close(network.restore(tiles, ref_idx), demosaic_bilinear(tiles[:, ref_idx, :4]))


@pytest.mark.parametrize('name', ['KPN', 'EDVR raw', 'RViDeNet raw'])
def test_a_denoiser_alone_is_demosaicked_bilinearly(name):
    network, tiles = build(name), torch.rand(1, 3, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(tiles), demosaic_bilinear(network.denoise(tiles, 1)))


@pytest.mark.parametrize('name', FIXED)
def test_wrong_input_is_named(name):
    network = build(name)
    with pytest.raises(ShapeError, match='needs 3 frames, got 2'):
        network.restore(torch.rand(1, 2, 8, 16, 16), 1)
    with pytest.raises(ShapeError, match=r'multiples of \d+, got 17 x 16'):
        network.restore(torch.rand(1, 3, 8, 17, 16), 1)
    with pytest.raises(ShapeError, match=r'expected 8 planes .* got \[1, 3, 4, 16, 16\]'):
        network.restore(torch.rand(1, 3, 4, 16, 16), 1)
    with pytest.raises(ShapeError, match=r'expected 0 \.\. 2 for 3 frames, got 3'):
        network.restore(torch.rand(1, 3, 8, 16, 16), 3)


@pytest.mark.parametrize(('options', 'message'), [
    ({'type': 'GCPNet', 'num_feat': 12, 'deformable_groups': 8}, 'even and a multiple of deformable_groups, got 12 and 8'),
    ({'type': 'EDVRBurst', 'num_frame': 0}, 'num_frame must be at least 1'),
    ({'type': 'EDVRBurst', 'output': 'mosaic'}, "network_g.output: 'mosaic' is not a valid choice"),
    ({'type': 'RViDeNet', 'num_feat': 12, 'deformable_groups': 4}, 'multiple of 8 and of deformable_groups, got 12 and 4'),
    ({'type': 'KPN', 'kernel_size': 4}, 'kernel_size odd, got 64, 5 and 4'),
    ({'type': 'DemosaicNet', 'num_block': 1}, 'num_block at least 2'),
    ({'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'DemosaicNet'}, 'demosaicker': {'type': 'DemosaicNet'}},
     'network_g.denoiser.type: DemosaicNet is not a denoiser; use KPN'),
    ({'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'KPN'}, 'demosaicker': {'type': 'KPN'}},
     'network_g.demosaicker.type: KPN is not a demosaicker; use DemosaicNet'),
    ({'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'GCPNet'}, 'demosaicker': {'type': 'DemosaicNet'}},
     'GCPNet is not a denoiser'),
    ({'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'EDVRBurst', **SMALL['EDVRBurst']},
      'demosaicker': {'type': 'DemosaicNet'}},
     'network_g.denoiser: EDVRBurst has output: rgb here; a denoiser needs output: raw'),
    ({'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'KPM'}, 'demosaicker': {'type': 'DemosaicNet'}}, "did you mean 'KPN'"),
    ({'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'KPN', 'num_feet': 8}, 'demosaicker': {'type': 'DemosaicNet'}},
     "network_g.denoiser: unknown key 'num_feet'; did you mean 'num_feat'"),
], ids=str)
def test_wrong_options_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        build_network(options)


def test_a_network_built_for_rgb_gives_no_mosaic():
    with pytest.raises(OptionError, match='EDVRBurst was built with output: rgb and gives no mosaic; set output: raw'):
        build('EDVRBurst').denoise(torch.rand(1, 3, 8, 16, 16), 1)


def test_a_tile_that_is_too_small_to_be_reflected():
    with pytest.raises(ShapeError, match=r'h and w of at least 17, got \[1, 4, 16, 20\]; use larger tiles'):
        DemosaicNet().demosaic(torch.rand(1, 4, 16, 20))
    assert DemosaicNet().demosaic(torch.rand(1, 4, 17, 17)).shape == (1, 3, 34, 34)


def extent(network, frames, size, width):
    """Farthest row, in packed px, that a pixel of the result depends on, found by its gradient."""
    network = network.double()
    for layer in network.modules():
        if isinstance(layer, DCNv2Pack):  # offsets that count, and move by less than a pixel
            nn.init.normal_(layer.conv_offset.weight, 0, 1e-3)
            nn.init.normal_(layer.conv_offset.bias, 0, 1e-2)
        if isinstance(layer, AttentionBlock):  # its average over the whole tile counts for nothing
            nn.init.zeros_(layer.excite.weight)
    tiles = torch.rand(1, frames, 8, size, width, dtype=torch.float64, requires_grad=True)
    result = network.restore(tiles, frames // 2)
    farthest = 0
    for row in range(size, size + 2 * network.multiple):
        gradient, = torch.autograd.grad(result[..., row, width].sum(), tiles, retain_graph=True)
        rows = gradient.abs().amax(dim=(0, 1, 2, 4)).nonzero()
        farthest = max(farthest, row // 2 - int(rows.min()), int(rows.max()) - row // 2)
    return farthest


@pytest.mark.parametrize(('network', 'frames', 'size', 'width'), [
    (lambda: EDVRBurst(8, 3, 2, 1, 2), 3, 144, 8),
    (lambda: EDVRBurst(8, 3, 2, 0, 1, output='raw'), 3, 144, 8),
    (lambda: GCPNet(4, 3, 2), 3, 288, 8),
    (lambda: KPN(1, 1, 5), 1, 368, 16),
    (lambda: DemosaicNet(8), 1, 48, 18),
], ids=['EDVR', 'EDVR raw', 'GCP-Net', 'KPN', 'DMN'])
def test_context_is_the_receptive_field(network, frames, size, width):
    network = network()
    if isinstance(network, KPN):  # so that no pixel is lost to a ReLU
        for parameter in network.parameters():
            parameter.data.abs_()
    assert extent(network, frames, size, width) == network.context


def test_context_of_what_looks_everywhere_is_unbounded():
    assert build('RViDeNet').context is None
    assert build('BasicVSRBurst').context is None
    parts = {'denoiser': {'type': 'RViDeNet', **SMALL['RViDeNet'], 'output': 'raw'}, 'demosaicker': {'type': 'DemosaicNet'}}
    assert DenoiseThenDemosaic(**parts).context is None
    assert build('EDVR+DMN').context == build('EDVR raw').context + 4


def test_basicvsr_is_the_toolboxs_up_to_its_head():
    """On RGB, and with the same weights, the same features are fused for the middle frame."""
    theirs = BasicVSR(num_feat=8, num_block=1).eval()
    mine = build('BasicVSRBurst')
    state = {key: value for key, value in theirs.state_dict().items() if key.split('.')[0] in
             ('spynet', 'backward_trunk', 'forward_trunk', 'fusion')}
    # Packed raw has eight channels: the others get no weight.
    for branch in ('backward_trunk', 'forward_trunk'):
        key = f'{branch}.main.0.weight'
        own = torch.zeros_like(mine.state_dict()[key])
        own[:, :3], own[:, 8:] = state[key][:, :3], state[key][:, 3:]
        state[key] = own
    mine.load_state_dict(state, strict=False)
    frames = torch.rand(1, 5, 3, 64, 64)
    tiles = torch.cat((frames, torch.rand(1, 5, 5, 64, 64)), dim=2)
    features = []
    for network in (mine, theirs):
        network.fusion.register_forward_hook(lambda module, inputs, output: features.append(output.clone()))
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr('jddb_plugin.archs.basicvsr_burst_arch._visible', lambda frame: frame[:, :3])
        mine.restore(tiles, 2)
        theirs(frames)
    torch.testing.assert_close(features[0], features[1 + 2])


def test_edvr_is_the_toolboxs_up_to_its_head():
    """The same weights give the same features behind the trunk."""
    mine = wake(build('EDVRBurst'))
    theirs = EDVR(num_in_ch=8, num_feat=8, num_frame=3, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1).eval()
    names = {'conv_first': 'first', 'feature_extraction': 'extract',
             'conv_l2_1': 'pyramid.down2.0', 'conv_l2_2': 'pyramid.down2.1',
             'conv_l3_1': 'pyramid.down3.0', 'conv_l3_2': 'pyramid.down3.1',
             'pcd_align': 'align', 'fusion': 'fuse', 'reconstruction': 'trunk'}
    own, state = mine.state_dict(), theirs.state_dict()
    for key in state:
        name = next((old for old in names if key.startswith(old + '.')), None)
        if name is not None:
            state[key] = own[names[name] + key[len(name):]]
    theirs.load_state_dict(state)
    features = []
    for layer in (mine.trunk, theirs.reconstruction):
        layer.register_forward_hook(lambda module, inputs, output: features.append(output))
    tiles = torch.rand(2, 3, 8, 16, 16)
    with torch.no_grad():
        mine.restore(tiles, 1)
        with pytest.raises(RuntimeError, match='must match'):  # it adds its input to RGB
            theirs(tiles)
    torch.testing.assert_close(features[0], features[1])


def test_kernels_filter_each_pixel_by_its_own():
    frames, kernels = torch.rand(1, 2, 4, 5, 6, dtype=torch.float64), torch.randn(1, 2, 9, 5, 6, dtype=torch.float64)
    expected = torch.zeros_like(frames)
    for n in range(2):
        for y in range(5):
            for x in range(6):
                for tap in range(9):
                    row, col = y + tap // 3 - 1, x + tap % 3 - 1
                    if 0 <= row < 5 and 0 <= col < 6:
                        expected[0, n, :, y, x] += kernels[0, n, tap, y, x] * frames[0, n, :, row, col]
    torch.testing.assert_close(apply_kernels(frames, kernels), expected)


def test_criss_cross_attention_equals_its_definition():
    query, key, value = (torch.randn(2, c, 4, 5, dtype=torch.float64, requires_grad=True) for c in (2, 2, 3))
    expected = torch.zeros_like(value)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                cross = [(y, k) for k in range(5)] + [(k, x) for k in range(4) if k != y]
                scores = torch.stack([query[b, :, y, x] @ key[b, :, r, c] for r, c in cross]).softmax(dim=0)
                expected[b, :, y, x] = sum(s * value[b, :, r, c] for s, (r, c) in zip(scores, cross))
    torch.testing.assert_close(criss_cross(query, key, value), expected)
    with torch.no_grad():
        torch.testing.assert_close(criss_cross(query, key, value), expected)
    assert torch.autograd.gradcheck(criss_cross, (query, key, value), eps=1e-6, atol=1e-5)


def test_criss_cross_attention_in_pieces_is_the_same(monkeypatch):
    from jddb_plugin.archs import non_local
    tensors = [torch.randn(1, c, 6, 8, dtype=torch.float64) for c in (2, 2, 3)]
    with torch.no_grad():
        whole = criss_cross(*tensors)
        monkeypatch.setattr(non_local, '_CHUNK', 100)
        torch.testing.assert_close(criss_cross(*tensors), whole)


def test_gram_attention_equals_its_definition():
    layer = GramAttention()
    nn.init.constant_(layer.weight, 0.5)
    x = torch.rand(2, 3, 4, 5)
    result = layer(x)
    for b in range(2):
        for i in range(3):
            likeness = torch.stack([(x[b, i] * x[b, j]).sum() for j in range(3)])
            attention = (likeness.max() - likeness).softmax(dim=0)
            mixed = sum(a * x[b, j] for j, a in enumerate(attention))
            torch.testing.assert_close(result[b, i], x[b, i] + 0.5 * mixed)


def test_the_memory_of_gcp_net_runs_over_the_frames():
    """The offsets of a frame depend on the frames before it, and not on those behind."""
    network = wake(build('GCPNet')).double()
    seen = []
    network.align.cascade.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    tiles = torch.rand(1, 3, 8, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        network.restore(tiles, 1)
        before, seen[:] = list(seen), []
        tiles[:, 0] += 0.1
        network.restore(tiles, 1)
        assert not torch.equal(seen[2], before[2])
        before, seen[:] = list(seen), []
        tiles[:, 2] += 0.1
        network.restore(tiles, 1)
        assert torch.equal(seen[0], before[0]) and torch.equal(seen[1], before[1])


def test_carry_copies_channels():
    layer = nn.Conv2d(4, 3, 3, padding=1)
    with torch.no_grad():
        layer.weight.zero_()
        carry(layer, first=1)
        x = torch.rand(1, 4, 5, 5)
        torch.testing.assert_close(layer(x), x[:, 1:])
