"""A small network for aligned bursts: stabilized noise, a robust gate on the frames, and one U-Net.

Not of the paper. All of its work is done at the resolution of the packed raw, by plain 3x3 convolutions, which a CPU computes
fastest; a further frame costs no more than its planes in the first layer. Steps:

1. Values are transformed so that noise has one known standard deviation everywhere (:mod:`jddb_plugin.ops.stabilization`), and
   scaled down where it is strong.
2. Where a frame differs from the reference by more than noise explains - wrongly aligned, occluded, moving - a gate takes
   the reference in its place: the robust merge of burst denoising (Hasinoff et al., SIGGRAPH Asia 2016; Wronski et al., 2019),
   with a learned threshold, at full, half and quarter resolution. Noise hides less at quarter resolution: what differs there does
   not count at the others either, and a frame that differs there nearly everywhere around a place counts nowhere near it.
3. A U-Net sees reference, gated frames, their mean, the gates and the noise level, and predicts the residual of the
   demosaicked mean in units of the noise.
"""
from __future__ import annotations

import math
from typing import Any, Mapping, NamedTuple, Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.blocks import bias_of
from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.state_shapes import blocks_of
from jddb_plugin.checks import CheckpointError, OptionError
from jddb_plugin.ops.stabilization import Stabilizer, noise_levels

#: Neighbors that the U-Net sees one by one; further ones are merged into them.
SLOTS = 4
#: Mean absolute difference of two values with independent normal noise of standard deviation 1.
_EXPECTED_DIFFERENCE = 2 / math.sqrt(math.pi)
#: Pixels of quarter resolution around a place in which a frame is judged as a whole.
_AROUND = 8
#: Shares of them that must be trusted for it to count at all, and in full.
_SHARES = (0.35, 0.6)
#: A file may claim any number of channels, and they are allocated before it is compared with the rest of it.
_MOST_CHANNELS = 1024
#: Where noise is stronger than this, stabilized values are scaled down until it has this strength, as those of a darker scene.
#: The weights restore that better: by 0.11 to 0.18 dB at the paper's high noise; far beyond it colors would turn green.
_MOST_NOISE = 0.04
#: Added to the noise level that scales the residual, so that there is one without noise, too.
_LEAST_SCALE = 0.02
#: Color of each plane of the packed raw, and the plane whose noise counts for each color.
_PLANES_OF_COLORS = (0, 1, 3)


class RobustGate(nn.Module):
    """How much a frame can be trusted at each pixel, from its difference to the reference in units of the noise.

    d is the mean over the planes and a window of 5 x 5 pixels of |t_k - t_ref|, divided by its expectation: 1 where only noise
    differs. The weight is sigmoid(slope (threshold - log d)).
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(4.0))
        self.threshold = nn.Parameter(torch.tensor(math.log(1.8)))

    def forward(self, difference: Tensor, sigma: Tensor) -> Tensor:
        """Weight [T, 1, h, w] of a frame.

        Args:
            difference: [T, 4, h, w], the frame less the reference, both stabilized.
            sigma: [T, 4, 1, 1], standard deviation of the noise in one frame.
        """
        distance = (difference.abs() / (_EXPECTED_DIFFERENCE * sigma)).mean(dim=1, keepdim=True)
        distance = _mean_around(distance, 2)
        return torch.sigmoid(self.slope * (self.threshold - distance.clamp(min=1e-3).log()))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x plus two convolutions of it."""
        return self.second(F.relu(self.first(x), inplace=True)).add_(x)  # in place: new memory costs a CPU as much as the sum


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(count)))


@ARCH_REGISTRY.register()
class GatedUNet(BurstNetwork):
    """Small network for bursts whose frames were moved onto the reference.

    Any number of frames, one alone included, and any reference. 1, 2, ... at the end of names: full, half, quarter resolution of
    the packed raw.

    Args:
        channels: of the three scales.
        blocks: residual blocks of the three scales; those of the first two exist twice, on the way down and up.
    """

    multiple = 4
    suits_bf16 = True  # what the convolutions compute is a residual in units of the noise: 0.005 dB

    base_kernel: Tensor

    def __init__(self, channels: Sequence[int] = (32, 64, 128), blocks: Sequence[int] = (2, 2, 2)) -> None:
        super().__init__()
        if len(channels) != 3 or len(blocks) != 3 or min(channels) < 1 or min(blocks) < 0:
            raise OptionError(f'GatedUNet: channels and blocks need three values each, got {list(channels)} and {list(blocks)}.')
        first, second, third = channels
        self.gates = nn.ModuleList([RobustGate() for _ in range(3)])
        # Reference and mean, gated frames and their gates, noise of the planes and of the mean.
        self.head = nn.Conv2d(4 + 4 + 5 * SLOTS + 4 + 1, first, 3, padding=1)
        self.down1 = _blocks(first, blocks[0])
        self.to2 = nn.Conv2d(first, second, 2, stride=2)
        self.merged2 = nn.Conv2d(4 + 1, second, 3, padding=1)
        self.down2 = _blocks(second, blocks[1])
        self.to3 = nn.Conv2d(second, third, 2, stride=2)
        self.merged3 = nn.Conv2d(4 + 1, third, 3, padding=1)
        self.middle = _blocks(third, blocks[2])
        self.from3 = nn.Conv2d(third, 4 * second, 1)
        self.up2 = _blocks(second, blocks[1])
        self.from2 = nn.Conv2d(second, 4 * first, 1)
        self.up1 = _blocks(first, blocks[0])
        self.tail = nn.Conv2d(first, 12, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=0.01)
        nn.init.zeros_(bias_of(self.tail))
        self.register_buffer('base_kernel', _base_kernel(), persistent=False)
        # Convolutions of each scale, the widest gate, and what pooling and upsampling reach beyond.
        self.context = 2 + 4 * blocks[0] + 2 * (4 * blocks[1] + 1) + 4 * (2 * blocks[2] + 1) + 4 * (3 + _AROUND) + 3

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """See :meth:`BurstNetwork.detect`."""
        return {'gates.0.slope', 'head.weight', 'to2.weight', 'to3.weight'} <= state.keys()

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """See :meth:`BurstNetwork.options_of`."""
        blocks = [blocks_of(state, name) for name in ('down1', 'down2', 'middle')]
        channels = [state[f'{name}.weight'].shape[0] if state[f'{name}.weight'].ndim else 0 for name in ('head', 'to2', 'to3')]
        if not all(1 <= count <= _MOST_CHANNELS for count in channels):
            raise CheckpointError(f'{where}: GatedUNet of {channels} channels; expected 1 .. {_MOST_CHANNELS}.')
        return {'channels': channels, 'blocks': blocks}

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """See :meth:`BurstNetwork.restore`."""
        self.check_tiles(tiles, ref_idx)
        raw, noise_map = tiles[:, :, :4], tiles[:, :, 4:]
        stabilizer = self._stabilizer(raw[:, ref_idx], noise_map[:, ref_idx])
        factor = (_MOST_NOISE / stabilizer.sigma.amax(dim=1, keepdim=True)).clamp(max=1)
        sigma = factor * stabilizer.sigma
        reference = factor * stabilizer.apply(raw[:, ref_idx])
        order = sorted((k for k in range(raw.shape[1]) if k != ref_idx), key=lambda k: abs(k - ref_idx))
        others = [factor * stabilizer.apply(raw[:, k]) for k in order]
        scales = [_Scale.of(reference, others, factor) for factor in (1, 2, 4)]
        weights = self._weights(scales, sigma)
        planes, mean = self._full_resolution(scales[0], weights[0], sigma)
        features1 = self.down1(F.relu(self.head(planes)))
        features2 = self.to2(features1) + self.merged2(_merged(scales[1], weights[1]))
        features2 = self.down2(F.relu(features2))
        features3 = self.to3(features2) + self.merged3(_merged(scales[2], weights[2]))
        features3 = self.middle(F.relu(features3))
        features2 = self.up2(features2 + F.pixel_shuffle(self.from3(features3), 2))
        features1 = self.up1(features1 + F.pixel_shuffle(self.from2(features2), 2))
        residual = self.tail(features1).to(reference.dtype)
        with torch.autocast(tiles.device.type, enabled=False):
            base = F.conv2d(F.pad(mean, (1, 1, 1, 1), mode='replicate'), self.base_kernel)
        scale = (sigma + _LEAST_SCALE)[:, _PLANES_OF_COLORS, :, :].repeat_interleave(4, dim=1)
        stabilized = F.pixel_shuffle(base + scale * residual, 2)
        return stabilizer.planes(_PLANES_OF_COLORS).invert(stabilized / factor)

    @staticmethod
    def _stabilizer(raw: Tensor, noise_map: Tensor) -> Stabilizer:
        """Transform of each plane, [T, 4, 1, 1]; both greens share theirs."""
        levels = []
        for level in noise_levels(raw, noise_map):
            green = level[:, 1:3].mean(dim=1, keepdim=True)
            levels.append(torch.cat((level[:, :1], green, green, level[:, 3:]), dim=1))
        return Stabilizer.from_levels(*levels)

    def _weights(self, scales: list[_Scale], sigma: Tensor) -> list[list[Tensor]]:
        """Weight of every frame, [T, 1, h, w] each, at every scale."""
        weights = [[gate(difference, sigma / scale.factor) for difference in scale.differences]
                   for gate, scale in zip(self.gates, scales)]
        coarsest = scales[-1].factor
        trusted = [(2 * weight).clamp(max=1) for weight in weights[-1]]  # half of the weight is enough
        shows_scene = [_shows_scene(share) for share in trusted]
        vetoes = [share * around for share, around in zip(trusted, shows_scene)]
        vetoed = [[weight * F.interpolate(veto, scale_factor=coarsest // scale.factor, mode='bilinear', align_corners=False)
                   for weight, veto in zip(own, vetoes)] for scale, own in zip(scales[:-1], weights)]
        return [*vetoed, [weight * around for weight, around in zip(weights[-1], shows_scene)]]

    @staticmethod
    def _full_resolution(scale: _Scale, weights: list[Tensor], sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(planes that the U-Net sees, robust mean [T, 4, h, w])."""
        reference, none = scale.reference, torch.zeros_like(scale.reference[:, :1])
        slots = [(torch.zeros_like(reference), none)] * SLOTS
        for k, (difference, weight) in enumerate(zip(scale.differences, weights)):
            before, weight_before = slots[k % SLOTS]
            slots[k % SLOTS] = before + weight * difference, weight_before + weight
        mean, noise = scale.robust_mean(weights)
        planes = [_centered(reference), _centered(mean)]
        for difference, weight in slots:
            planes += [_centered(reference + difference / weight.clamp(min=1)), weight.clamp(max=1)]
        planes += [10 * sigma.expand_as(reference), noise]
        return torch.cat(planes, dim=1), mean


def _mean_around(x: Tensor, reach: int) -> Tensor:
    """Mean over the pixels of [T, 1, h, w] up to ``reach`` away in each direction, of those that there are."""
    for size, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        x = F.avg_pool2d(x, size, stride=1, padding=padding, count_include_pad=False)
    return x


def _shows_scene(trusted: Tensor) -> Tensor:
    """How far a frame shows the reference's scene around each pixel, 0 .. 1, by the share of it that is trusted, [T, 1, h, w].

    Where a frame shows something else, or was not found, some of it resembles the reference by chance: at high noise mostly 2 to
    15 % of a foreign scene are trusted, in places a third. Shares of 0.25 and 0.5 let such a burst lose 0.14 dB, these 0.04.
    """
    share = _mean_around(trusted, _AROUND)
    least, enough = _SHARES
    return ((share - least) / (enough - least)).clamp(0, 1)


class _Scale(NamedTuple):
    """A burst at 1 / factor of the resolution, stabilized.

    Attributes:
        factor: 1, 2 or 4.
        reference: [T, 4, h, w].
        differences: of the other frames to it, the nearest first, like ``reference``.
    """

    factor: int
    reference: Tensor
    differences: list[Tensor]

    @classmethod
    def of(cls, reference: Tensor, others: list[Tensor], factor: int) -> _Scale:
        """Means over squares of ``factor`` pixels of the frames [T, 4, H, W]."""
        if factor > 1:
            reference, *others = (F.avg_pool2d(frame, factor) for frame in (reference, *others))
        return cls(factor, reference, [frame - reference for frame in others])

    def robust_mean(self, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Weighted mean [T, 4, h, w] of the frames, and its noise relative to one frame's, [T, 1, h, w]."""
        total, weight_sum = torch.zeros_like(self.reference), torch.zeros_like(self.reference[:, :1])
        for difference, weight in zip(self.differences, weights):
            total, weight_sum = total + weight * difference, weight_sum + weight
        return self.reference + total / (1 + weight_sum), (1 + weight_sum).rsqrt()


def _merged(scale: _Scale, weights: list[Tensor]) -> Tensor:
    """Robust mean and its noise, [T, 5, h, w], as the U-Net sees them."""
    mean, noise = scale.robust_mean(weights)
    return torch.cat((_centered(mean), noise), dim=1)


def _centered(stabilized: Tensor) -> Tensor:
    return 3 * (stabilized - 0.3)


def _taps(shift: int) -> Tensor:
    """Weights of the samples at -1, 0 and 1 for a place ``shift`` half pixels away: smoothed on a sample, linear between two."""
    return torch.tensor({-1: (2.0, 2.0, 0.0), 0: (1.0, 2.0, 1.0), 1: (0.0, 2.0, 2.0)}[shift]) / 4


def _base_kernel() -> Tensor:
    """Kernel [12, 4, 3, 3] of a smoothing bilinear demosaicking of packed raw, planes R Gr Gb B.

    Output plane 4 c + 2 y + x is color c at (y, x) of the cell, as pixel shuffling expects it.
    """
    kernel = torch.zeros(12, 4, 3, 3)
    for color, planes in enumerate(((0,), (1, 2), (3,))):
        for y in range(2):
            for x in range(2):
                for plane in planes:
                    rows, columns = _taps(y - plane // 2), _taps(x - plane % 2)
                    kernel[4 * color + 2 * y + x, plane] = torch.outer(rows, columns) / len(planes)
    return kernel
