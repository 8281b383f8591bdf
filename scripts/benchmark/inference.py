"""Time, memory and arithmetic of a restoration, and its speed beside the straightforward way.

python scripts/benchmark/inference.py [--cases uhd] [--tiles K] [--compile] [--profile] [--json FILE]

"Restoration" is the paper's table 3 for this machine: a burst in memory goes through the walk of the restore command, with
its plan. "Matching" holds the features of the matching; "the rest" the refined stage, cutting and blending. Reading, colours
and writing are left out. A whole UHD burst takes about ten minutes on a CPU, so there only some tiles are restored, evenly
spread over the frame, and their seconds are multiplied by the share they are of; everything is matched, and the table says so.

"Refined stage" times tiles of such a burst. "Straightforward" is the eager float32 network as one writes it first:
torchvision's deformable convolution, contiguous tensors, all frames at once, a GRU that convolves (state, input) anew in each
direction from a state of zeros, one tile at a time. Each switch is then turned on alone, and "ours" is the network as the
restore command runs it. All take turns within each repeat, so that a busy machine slows down all; "straightforward again"
shows how far the ratios can be trusted. Exit status 1: ours and the straightforward form differ.

The burst is a photograph that moves, with the noise of the paper's tests. The weights are random (init: passthrough, so that
a picture comes out), with offsets of 1 px on average; --weights takes a checkpoint as it is. FLOP are 2 per multiply-add of
convolutions and matrix products, those of deformable convolutions included, sampling, activations and so on not. "Differences"
are the matching's absolute differences by formula, 3 operations a value, as if every candidate lay inside the frame.
"""
from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional
from unittest import mock

import torch
import torch.nn.functional as F
import torchvision
from common import machine, megabytes, peak_bytes, synchronise, table, write_json
from noisy_raw import LEVEL, moving_burst
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from jddb_plugin.archs import blocks
from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, RefinedStage, TwoStageJDDB
from jddb_plugin.archs.pixel_align import DeformConvPack
from jddb_plugin.checks import OptionError, one_line_errors
from jddb_plugin.inference.align import Alignment, Band
from jddb_plugin.inference.engine import TiledInference, make_alignment
from jddb_plugin.inference.memory import Budget, Plan, default_memory, make_plan, resident_memory
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.deform_conv import deform_conv2d
from jddb_plugin.ops.tiling import TileGrid, make_grid
from jddb_plugin.options import parse_memory
from jddb_plugin.restoration.frames import Frames, load_frames
from jddb_plugin.restoration.source import FramesSource
from jddb_plugin.weights import load_weights

#: Frame, tile, overlap and radius of the paper's tests on REDS4 and on 4K videos.
CASES = {'720p': (720, 1280, 64, 4, 6), 'uhd': (2160, 3840, 128, 16, 16)}
#: Largest difference of the two forms, as a share of the largest value.
TOLERANCE = 1e-4
PLAIN, AGAIN = 'straightforward', 'straightforward again'
ROWS = 25

#: A form of the refined stage: (tiles [t, N, 8, h, w], reference) -> linear camera RGB [t, 3, 2 h, 2 w].
Form = Callable[[Tensor, int], Tensor]


def gru_step(cell: nn.Module, state: Tensor, x: Tensor) -> Tensor:
    """One step of a convolutional GRU."""
    both = torch.cat((state, x), dim=1)
    z, r = torch.sigmoid(cell.update(both)), torch.sigmoid(cell.reset(both))
    q = torch.tanh(cell.candidate(torch.cat((r * state, x), dim=1)))
    return (1 - z) * state + z * q


def double(x: Tensor) -> Tensor:
    """Twice the size."""
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


class Straightforward:
    """The refined stage as one writes it first, with the weights of ``stage``.

    Args:
        stage: whose modules it is made of.
        backend: of the deformable convolutions; None calls torchvision's.
        one_by_one: frames are extracted and aligned one after another.
        reuse: the GRU is ours: the input's part of the convolutions once for both directions, and no state of zeros.
        rows: the convolutions of the spatial gates, which have one output channel, are computed row by row.
    """

    def __init__(self, stage: RefinedStage, *, backend: Optional[str] = None, one_by_one: bool = False,
                 reuse: bool = False, rows: bool = False) -> None:
        self.stage, self.backend, self.one_by_one, self.reuse, self.rows = stage, backend, one_by_one, reuse, rows

    def __call__(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Restore tiles."""
        with mock.patch.object(blocks, 'one_by_one', return_value=self.rows):  # what the blocks ask for how they compute
            return self.restore(tiles, ref_idx)

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """The stages in turn."""
        step = 1 if self.one_by_one else tiles.shape[1]
        features = torch.cat([self.stage.extract(part.flatten(0, 1)).unflatten(0, part.shape[:2])
                              for part in tiles.split(step, dim=1)], dim=1)
        reference = self.pyramid(features[:, ref_idx])
        aligned = torch.cat([self.align(part, reference) for part in features.split(step, dim=1)], dim=1)
        return self.stage.reconstruct(self.stage.fuse(aligned, ref_idx)[0] if self.reuse else self.fuse(aligned, ref_idx))

    def pyramid(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Features at three levels."""
        half = self.stage.align.down2(frames)
        return frames, half, self.stage.align.down3(half)

    def align(self, features: Tensor, reference: tuple[Tensor, ...]) -> Tensor:
        """Align frames [B, n, C, H, W] from the coarsest level to the finest."""
        align, count = self.stage.align, features.shape[1]
        offset = aligned = None
        for level, frame, other in zip((align.level3, align.level2, align.level1),
                                       self.pyramid(features.flatten(0, 1))[::-1], reference[::-1]):
            found = align.act(level.offset1(torch.cat((frame, other.repeat_interleave(count, dim=0)), dim=1)))
            if offset is not None:
                found = align.act(level.offset2(torch.cat((found, 2 * double(offset)), dim=1)))
            offset = align.act(level.offset3(found))
            moved = self.deform(level.dcn, frame, offset)
            aligned = moved if aligned is None else level.join(torch.cat((moved, double(align.act(aligned))), dim=1))
        return aligned.unflatten(0, features.shape[:2])

    def deform(self, layer: nn.Module, x: Tensor, feat: Tensor) -> Tensor:
        """Deformable convolution."""
        first, second, mask = layer.conv_offset(feat).chunk(3, dim=1)
        offset, mask = torch.cat((first, second), dim=1), torch.sigmoid(mask)
        if self.backend is None:
            return torchvision.ops.deform_conv2d(x, offset, layer.weight, layer.bias, padding=1, mask=mask)
        return deform_conv2d(x, offset, mask, layer.weight, layer.bias, padding=1, deformable_groups=layer.deformable_groups,
                             backend=self.backend)

    def fuse(self, features: Tensor, ref_idx: int) -> Tensor:
        """Walk from both ends to the reference; states beyond it, which the paper's code computes too, are left out."""
        states = []
        for walk in (range(ref_idx + 1), range(features.shape[1] - 1, ref_idx - 1, -1)):
            state = torch.zeros_like(features[:, 0])
            for t in walk:
                state = gru_step(self.stage.fuse.cell, state, features[:, t])
            states.append(state)
        return self.stage.fuse.join(torch.cat(states, dim=1))


class PartialInference(TiledInference):
    """The engine of the restore command, which restores only some batches of tiles, evenly spread; the others stay black."""

    def __init__(self, *args: Any, tiles: Optional[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        batches = len(self.grid.rows) * -(-len(self.grid.cols) // self.plan.tile_batch)
        count = batches if tiles is None else min(batches, -(-tiles // self.plan.tile_batch))
        self.chosen = {int((k + 0.5) * batches / count) for k in range(count)}
        self.batch, self.restored, self.restoring = 0, 0, 0.0

    def restore(self, band: Band, chosen: slice) -> Tensor:
        """Some tiles of a row."""
        self.batch += 1
        if self.batch - 1 not in self.chosen:
            return torch.zeros(chosen.stop - chosen.start, 3, *(UPSCALE * side for side in self.grid.size), device=self.device)
        start = self._now()
        result = super().restore(band, chosen)
        self.restoring += self._now() - start
        self.restored += len(result)
        return result

    def rest(self) -> float:
        """Seconds of everything but matching, for all tiles."""
        return self.seconds['restoration'] + self.restoring * (len(self.grid) / self.restored - 1)


def make_network(case: str, args: argparse.Namespace) -> TwoStageJDDB:
    """In evaluation mode on the device, not yet channels last."""
    dpbm = {'radius': CASES[case][4]}
    if args.weights is not None:
        return load_weights(args.weights, dpbm=dpbm).to(args.device)
    torch.manual_seed(0)
    net = TwoStageJDDB(args.features, max(1, args.features // 8), dpbm=dpbm, init='passthrough')
    return net.eval().requires_grad_(False).to(args.device)


def deformable_layers(stage: nn.Module) -> list[DeformConvPack]:
    """Of levels 1 to 3."""
    return [getattr(stage.align, f'level{k}').dcn for k in (1, 2, 3)]


@torch.no_grad()
def randomise_offsets(stage: RefinedStage, tiles: Tensor, ref_idx: int) -> None:
    """Replace the zeros that offsets begin with, so that they are 1 px on average at each level on these tiles."""
    layers = deformable_layers(stage)
    for layer in layers:
        layer.conv_offset.weight.normal_(0, 0.01)
    for layer, size in zip(layers, stage(tiles, ref_idx).offset_size):
        layer.conv_offset.weight.div_(size)  # what they are computed of does not depend on them


def read_burst(case: str, frames: int) -> Frames:
    """The case's burst."""
    return load_frames(moving_burst(CASES[case][:2], frames), reference='middle', count=None, noise=LEVEL)


def tiling_of(case: str) -> TilingOptions:
    """The paper's tiles."""
    return TilingOptions(*CASES[case][2:4])


def tiles_of(case: str, frames: Frames) -> TileGrid:
    """Where they lie."""
    *_, tile, overlap, _ = CASES[case]
    return make_grid(*frames.packed_size, tile=tile, overlap=overlap, multiple=SCALE)


def planned(net: TwoStageJDDB, frames: Frames, case: str, args: argparse.Namespace) -> tuple[Alignment, Plan]:
    """Alignment of whole tiles, as in the paper, and how much is done at once."""
    alignment = make_alignment(net, FramesSource(frames), 'tiles', tiling_of(case))
    return alignment, make_plan(net, alignment, tiling_of(case), free=free_bytes(frames, args), where=case)


@torch.no_grad()
def some_tiles(net: TwoStageJDDB, frames: Frames, case: str, count: int) -> Tensor:
    """Tiles [count, N, 8, h, w] from the middle of a burst, coarsely aligned."""
    device = next(net.parameters()).device
    raw = torch.stack([frames.raw(k, 0, frames.packed_size[0]) for k in range(len(frames.mosaics))])
    lq = frames.noise.planes().with_map(raw)[None].to(device)
    grid = tiles_of(case, frames)
    lq, every = grid.pad(lq), grid.positions(device)
    middle = torch.arange(count, device=device) + max(0, (len(every) - count) // 2)
    positions = every[middle % len(every)][None]
    match = net.coarse.match(lq, positions, grid.size, frames.ref_idx)
    return net.coarse.align(lq, positions, grid.size, match, frames.ref_idx)[0]


@torch.no_grad()
def flop(function: Callable[[], Any]) -> int:
    """Of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def counts(net: TwoStageJDDB, frames: Frames, case: str, tile: Tensor) -> dict[str, Any]:
    """Parameters and arithmetic of a whole burst."""
    stage = copy.deepcopy(net.refine)
    for layer in deformable_layers(stage):
        layer.backend = 'grid_sample'  # whose matrix product is counted
    grid, window = tiles_of(case, frames), net.coarse.window
    height, width = grid.padded
    burst = tile.new_zeros(1, len(frames.mosaics), 4, height, width)
    searched = sum(((last - first) // step + 1) ** 2 for first, last, step in (window.coarse, window.fine))
    values = grid.size[0] // SCALE * (grid.size[1] // SCALE) * net.coarse.num_feat
    return {'tiles': len(grid), 'parameters': sum(p.numel() for p in net.parameters()),
            'parameters_coarse': sum(p.numel() for p in net.coarse_parameters()),
            'flop_refined': flop(lambda: stage(tile, frames.ref_idx)) * len(grid),
            'flop_features': flop(lambda: net.coarse.extract(burst)),
            'operations_differences': 3 * len(grid) * (len(frames.mosaics) - 1) * searched * values}


def free_bytes(frames: Frames, args: argparse.Namespace) -> int:
    """What the restore command would plan with."""
    if args.device.type == 'cuda':
        return torch.cuda.mem_get_info(args.device)[0] * 9 // 10
    return args.budget.free - sum(rows.bytes_in_memory for rows in frames.mosaics)


def profile(function: Callable[[], Any], device: torch.device) -> str:
    """A table of the operators that take most time."""
    cuda = device.type == 'cuda'
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=activities) as found:
        function()
        synchronise(device)
    events = found.key_averages()
    name = 'device' if hasattr(events[0], 'self_device_time_total') else 'cuda'  # before torch 2.3
    return events.table(sort_by=f'self_{name}_time_total' if cuda else 'self_cpu_time_total', row_limit=ROWS)


def restoration(case: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the table, one for each precision."""
    frames, net = read_burst(case, args.frames), make_network(case, args)
    if args.weights is None:
        randomise_offsets(net.refine, some_tiles(net, frames, case, 1), frames.ref_idx)
    common = counts(net, frames, case, some_tiles(net, frames, case, 1))
    net.refine.to(memory_format=torch.channels_last)
    _, plan = planned(net, frames, case, args)
    rows = []
    for precision in args.precision:
        def walk(tiles: Optional[int] = args.tiles, precision: str = precision) -> PartialInference:
            with tqdm(total=common['tiles'], unit='tile', desc=f'{case}, {precision}', leave=False) as bar:
                alignment, plan = planned(net, frames, case, args)
                stream = PartialInference(net, alignment, plan, bf16=precision == 'bf16', on_tiles=bar.update, tiles=tiles)
                for _ in stream:
                    pass
            return stream

        walk(1)  # libraries choose their kernels
        walks: list[PartialInference] = []
        peaks = [peak_bytes(lambda: walks.append(walk()), args.device) for _ in range(args.repeats)]  # noqa: B023
        matching = statistics.median(one.seconds['alignment'] for one in walks)
        rest = statistics.median(one.rest() for one in walks)
        pixels = math.prod(CASES[case][:2])
        rows.append({
            'case': case, 'precision': precision, 'frames': args.frames, **common, 'tiles_restored': walks[0].restored,
            'step': plan.step, 'tile_batch': plan.tile_batch, 'seconds': matching + rest, 'seconds_matching': matching,
            'seconds_rest': rest, 'seconds_per_megapixel': (matching + rest) / pixels * 1e6,
            'flop_per_second': common['flop_refined'] / rest, 'every_seconds_matching': [w.seconds['alignment'] for w in walks],
            'every_seconds_rest': [w.rest() for w in walks],
            'peak_bytes': None if None in peaks else max(peaks), 'profile': profile(walk, args.device) if args.profile else None})
    return rows


def difference(net: TwoStageJDDB, tile: Tensor, ref_idx: int) -> dict[str, float]:
    """Largest difference of the straightforward form from ours, and the largest value; in float64 where float32 is TF32."""
    stage, tile = (net.refine, tile) if tile.device.type == 'cpu' else (copy.deepcopy(net.refine).double(), tile.double())
    with torch.inference_mode():
        expected = stage(tile, ref_idx).restored
        return {'difference': float((Straightforward(stage)(tile, ref_idx) - expected).abs().max()),
                'largest': float(expected.abs().max())}


def ours(stage: nn.Module, *, bf16: bool = False) -> Form:
    """The refined stage as the restore command calls it."""

    def run(tiles: Tensor, ref_idx: int) -> Tensor:
        with torch.autocast(tiles.device.type, dtype=torch.bfloat16, enabled=bf16):
            return stage(tiles, ref_idx).restored.float()

    return run


def variants(stage: RefinedStage, batch: int, args: argparse.Namespace) -> dict[str, tuple[Form, int]]:
    """Forms and how many tiles they restore at once, by name; ``batch`` is the plan's."""
    last = copy.deepcopy(stage).to(memory_format=torch.channels_last)
    result: dict[str, tuple[Form, int]] = {
        PLAIN: (Straightforward(stage), 1),
        'with grid_sample': (Straightforward(stage, backend='grid_sample'), 1),
        'with frames one by one': (Straightforward(stage, one_by_one=True), 1),
        'with gates by rows': (Straightforward(stage, rows=True), 1),
        'with channels_last': (Straightforward(last), 1),
        'with GRU reuse': (Straightforward(stage, reuse=True), 1),
    }
    for count in sorted({1, 2, 4, batch}):
        result[f'ours, {count} at once'] = (ours(last), count)
    if not args.no_bf16:
        result[f'ours, {batch} at once, bf16'] = (ours(last, bf16=True), batch)
    if args.compile:
        result[f'ours, {batch} at once, compiled'] = (ours(torch.compile(last, dynamic=False)), batch)
    return {**result, AGAIN: (Straightforward(stage), 1)}


def psnr(a: Tensor, b: Tensor, frames: Frames) -> float:
    """Of developed pictures, dB."""
    a, b = (frames.reference.camera().develop(image.cpu()) for image in (a, b))
    return float(-10 * (a - b).square().mean().clamp(min=1e-20).log10())


@torch.inference_mode()
def speed(case: str, args: argparse.Namespace) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The two forms' difference, and a row for each variant."""
    frames, net = read_burst(case, args.frames), make_network(case, args)
    if args.weights is None:
        randomise_offsets(net.refine, some_tiles(net, frames, case, 1), frames.ref_idx)
    batch = planned(net, frames, case, args)[1].tile_batch
    tiles = some_tiles(net, frames, case, max(4, batch))
    found = {**difference(net, tiles[:1], frames.ref_idx),
             'offset_px': [float(size) for size in net.refine(tiles[:1], frames.ref_idx).offset_size]}
    forms = variants(net.refine, batch, args)
    times: dict[str, list[float]] = {name: [] for name in forms}
    first, pictures = {}, {}

    def timed(name: str) -> float:
        form, count = forms[name]
        synchronise(args.device)
        start = time.perf_counter()
        pictures[name] = form(tiles[:count], frames.ref_idx)
        synchronise(args.device)
        return time.perf_counter() - start

    for name in tqdm(forms, desc='first calls', leave=False):
        first[name] = timed(name)
        for _ in range(2 * name.endswith('compiled')):
            timed(name)
    exact = pictures[f'ours, {batch} at once']
    quality = {name: psnr(picture, exact, frames) for name, picture in pictures.items() if 'bf16' in name or 'compiled' in name}
    pictures.clear()
    for turn in tqdm(range(args.repeats), desc='repeats', leave=False):
        for name in list(forms)[::1 if turn % 2 else -1]:
            times[name].append(timed(name))
            pictures.clear()
    rows = []
    for name, (form, count) in forms.items():
        each = [count * plain / own for plain, own in zip(times[PLAIN], times[name])]
        median, plain = statistics.median(times[name]), statistics.median(times[PLAIN])
        rows.append({
            'name': name, 'tiles_at_once': count, 'seconds': median, 'samples_per_second': count / median,
            'ratio': count * plain / median, 'ratio_least': min(each), 'ratio_most': max(each), 'every_seconds': times[name],
            'first_seconds': first[name], 'psnr': quality.get(name),
            'peak_bytes': peak_bytes(lambda: form(tiles[:count], frames.ref_idx), args.device)})  # noqa: B023
    return found, rows


def tell_restoration(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table as text."""
    lines = []
    for row in rows:
        part = row['tiles_restored'], row['tiles']
        lines.append([
            row['case'], row['precision'], f"{row['parameters'] / 1e6:.2f} M", f"{row['parameters_coarse'] / 1e3:.1f} k",
            f"{row['flop_refined'] / 1e9:.0f}", f"{row['flop_features'] / 1e9:.1f}", f"{row['operations_differences'] / 1e9:.1f}",
            f"{row['seconds_matching']:.3f} s", f"{row['seconds_rest']:.2f} s", f"{row['seconds']:.2f} s",
            'all tiles' if part[0] == part[1] else f'extrapolated from {part[0]} of {part[1]} tiles',
            f"{row['seconds_per_megapixel']:.3f}", f"{row['flop_per_second'] / 1e9:.0f}", megabytes(row['peak_bytes'])])
    text = f'\nRestoration on {args.device}, {args.frames} frames, median of {args.repeats}, {weights_text(args)}\n\n'
    text += table(
        ['case', 'precision', 'parameters', 'coarse stage', 'GFLOP', 'features, GFLOP', 'differences, Gop', 'matching',
         'the rest', 'seconds', 'measured', 's per megapixel', 'GFLOP/s of the rest', 'peak memory'], lines)
    text += '\nThe paper, UHD on another GPU (2080 Ti): 12.05 M parameters, 19.7 s, of which matching takes 3.6 s.\n'
    text += 'Peak memory is beyond the network, its libraries and the mosaics. At once were matched and restored: ' + '; '.join(
        f"{row['case']} {row['precision']}: {row['step']} rows of tiles, and {row['tile_batch']} tiles" for row in rows) + '.\n'
    return text + ''.join(f"\nProfile: {row['case']}, {row['precision']}\n\n{row['profile']}\n" for row in rows if row['profile'])


def weights_text(args: argparse.Namespace) -> str:
    """What the network holds."""
    if args.weights is not None:
        return 'weights of a checkpoint'
    return f'{args.features} features, random weights, offsets of 1 px on average'


def tell_speed(case: str, found: dict[str, Any], rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table as text."""
    extra = {row['name']: ' '.join(
        [f"{row['psnr']:.1f} dB to float32" if row['psnr'] is not None else ''] +
        [f"first call {row['first_seconds']:.1f} s"] * row['name'].endswith('compiled')).strip() for row in rows}
    side = CASES[case][2] + 2 * CASES[case][3]
    return (
        f'\nRefined stage on {args.device}, tiles of {side} x {side}, {args.frames} frames, {args.repeats} repeats in turns, '
        f'{weights_text(args)}\n\n' + table(
            ['form', 'tiles at once', 'median', 'tiles/s', 'ratio', 'least .. most', 'peak memory', ''],
            [[row['name'], row['tiles_at_once'], f"{row['seconds']:.4f} s", f"{row['samples_per_second']:.3f}",
              f"{row['ratio']:.2f}", f"{row['ratio_least']:.2f} .. {row['ratio_most']:.2f}", megabytes(row['peak_bytes']),
              extra[row['name']]] for row in rows])
        + f"\nLargest difference of straightforward and ours: {found['difference']:.1e}, of values up to {found['largest']:.2f}. "
        f"Offsets at levels 1 to 3: {', '.join(f'{size:.2f}' for size in found['offset_px'])} px.\n")


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Run and print; returns the exit status: 1 if the two forms differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=('restoration', 'speed'), default=['restoration', 'speed'])
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES), help='of the restoration')
    parser.add_argument('--speed-case', choices=CASES, default=next(iter(CASES)), help='whose tiles the forms are timed on')
    parser.add_argument('--device', type=torch.device, default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--frames', type=int, default=5)
    parser.add_argument('--features', type=int, default=64, help="of a network with random weights; 64 is the paper's")
    parser.add_argument('--weights', metavar='FILE', help='checkpoint of a network, in place of random weights')
    parser.add_argument('--tiles', type=int, metavar='K', help='restore K tiles and extrapolate; 0: all; default: 8; GPU: all')
    parser.add_argument('--precision', nargs='+', choices=('float32', 'bf16'),
                        help='of the restoration; default: both, on a CPU float32')
    parser.add_argument('--memory', metavar='SIZE', help='as of the restore command, on a CPU')
    parser.add_argument('--repeats', type=int, help='default: 5 on a CPU, else 20')
    parser.add_argument('--no-bf16', action='store_true', help='leave bf16 out of the forms')
    parser.add_argument('--compile', action='store_true', help='also time torch.compile, which takes minutes to compile')
    parser.add_argument('--profile', action='store_true', help='print the operators that take most time')
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    cpu = args.device.type == 'cpu'
    if args.device.type == 'cuda' and not torch.cuda.is_available():
        raise OptionError('--device cuda: no CUDA device is here.')
    args.repeats = (5 if cpu else 20) if args.repeats is None else args.repeats
    if args.repeats < 1 or args.frames < 3 or not args.frames % 2 or (args.tiles or 0) < 0:
        raise OptionError(f'expected --repeats of at least 1, an odd number of --frames from 3 on and --tiles of at least 0, got '
                          f'{args.repeats}, {args.frames} and {args.tiles}.')
    args.tiles = (8 if cpu else None) if args.tiles is None else args.tiles or None
    args.precision = args.precision or (['float32'] if cpu else ['float32', 'bf16'])
    # Before the first burst, as the restore command takes it.
    args.budget = Budget(default_memory() if args.memory is None else parse_memory(args.memory), resident_memory())
    report: dict[str, Any] = {
        'machine': machine(args.device), 'device': str(args.device), 'frames': args.frames, 'weights': weights_text(args),
        'repeats': args.repeats, 'cudnn_tf32': None if cpu else torch.backends.cudnn.allow_tf32}
    if not cpu:
        sys.stdout.write(f"float32 convolutions may use TF32: {report['cudnn_tf32']}\n")
    good = True
    if 'restoration' in args.parts:
        report['restoration'] = [row for case in args.cases for row in restoration(case, args)]
        sys.stdout.write(tell_restoration(report['restoration'], args))
    if 'speed' in args.parts:
        found, rows = speed(args.speed_case, args)
        report['speed'] = {'case': args.speed_case, **found, 'rows': rows}
        sys.stdout.write(tell_speed(args.speed_case, found, rows, args))
        good = found['difference'] <= TOLERANCE * found['largest']
        if not good:
            sys.stderr.write('error: the straightforward form and ours differ\n')
    write_json(args.json, report)
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
