"""How well coarse alignment aligns, against no alignment, OpenCV's phase correlation and OpenCV's DIS optical flow.

python scripts/benchmark/alignment.py [--frames CLIP] [--downsampler FILE] [--json FILE]

Every method sees the same noisy packed raw (the paper's high noise), and moves the noisy and the clean frame alike.
"Planted": photographs that scikit-image carries, moved by a known shift; what is reported is the displacement's mean
and median error, and the clean frames' PSNR to the reference, where the truth lies inside the frame. "Real": the frames of CLIP
(a folder), 1, 2 and 4 apart; their motion is not known, so the mean difference and the PSNR to the reference speak
alone, over whole frames. Values are of linear raw in 0 .. 1, displacements in pixels of the packed raw.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from common import machine, table, write_json
from torch import Tensor
from tqdm import tqdm

from jddb_plugin.archs.dpbm_arch import DPBM
from jddb_plugin.archs.released import convert_released
from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.data.images import decode_srgb, list_images, to_float
from jddb_plugin.data.photographs import PHOTOGRAPHS, photograph
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import reference_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.runtime.checkpoints import load_checkpoint

#: Largest displacements of the planted bursts: that of the first and last of five frames.
SHIFTS = (0, 15, 30, 60, 90, 120)
#: Side of a planted frame in packed pixels.
SIDE = 512

#: A method takes noisy and clean packed raw [N, 4, H, W] and the reference, and returns the clean frames aligned, and
#: the displacement of each pixel [N, 2, H, W] as (y, x).
Method = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def coordinates(height: int, width: int) -> Tensor:
    """[2, height, width] of (y, x)."""
    return torch.stack(torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing='ij'))


def warp(frame: Tensor, displacement: Tensor) -> Tensor:
    """Frame [C, H, W] taken at each pixel's place plus its displacement [2, H, W], bilinearly, repeating the border."""
    height, width = frame.shape[-2:]
    y, x = coordinates(height, width) + displacement
    grid = torch.stack((x / (width - 1), y / (height - 1)), dim=-1) * 2 - 1
    return F.grid_sample(frame[None], grid[None], padding_mode='border', align_corners=True)[0]


def gray(frame: Tensor) -> np.ndarray:
    """Packed raw [4, H, W] -> gray [H, W] in [0, 1], gamma coded: what the methods of OpenCV see."""
    return frame.mean(dim=0).clamp(0, 1).pow(1 / 2.2).numpy()


def by_displacement(find: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Method:
    """A method that finds one displacement field per frame: (reference, frame) in gray -> [2, H, W] or [2, 1, 1]."""

    def run(noisy: Tensor, clean: Tensor, ref_idx: int) -> tuple[Tensor, Tensor]:
        reference = gray(noisy[ref_idx])
        fields = [torch.zeros(2, *clean.shape[-2:]) if t == ref_idx else
                  torch.as_tensor(find(reference, gray(noisy[t])), dtype=torch.float32).expand(2, *clean.shape[-2:])
                  for t in range(len(clean))]
        return torch.stack([warp(frame, field) for frame, field in zip(clean, fields)]), torch.stack(fields)

    return run


def phase_correlation(reference: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """One displacement for the whole frame."""
    window = cv2.createHanningWindow(reference.shape[::-1], cv2.CV_64F)
    (x, y), _ = cv2.phaseCorrelate(reference.astype(np.float64), frame.astype(np.float64), window)
    return np.array([y, x]).reshape(2, 1, 1)


def dis_flow(reference: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """DIS optical flow, medium preset."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    images = ((image * 255).round().astype(np.uint8) for image in (reference, frame))
    return np.ascontiguousarray(flow.calc(*images, None)[..., ::-1].transpose(2, 0, 1))


def block_matching(coarse: DPBM) -> Method:
    """Coarse alignment; clean frames and coordinates move along with the noisy planes that are matched."""

    def run(noisy: Tensor, clean: Tensor, ref_idx: int) -> tuple[Tensor, Tensor]:
        place = coordinates(*clean.shape[-2:])
        with torch.no_grad():
            aligned = coarse(torch.cat((noisy, clean, place.expand(len(clean), -1, -1, -1)), dim=1)[None], ref_idx)[0]
        return aligned[:, 4:8], aligned[:, 8:] - place

    return run


def and_then_flow(coarse: Method) -> Method:
    """A coarse method, then DIS between the reference and the frames it aligned: what a refined stage starts from."""

    def run(noisy: Tensor, clean: Tensor, ref_idx: int) -> tuple[Tensor, Tensor]:
        moved, _ = coarse(noisy, noisy, ref_idx)
        aligned, field = coarse(noisy, clean, ref_idx)
        reference = gray(noisy[ref_idx])
        steps = [torch.zeros_like(f) if t == ref_idx else torch.as_tensor(dis_flow(reference, gray(moved[t])))
                 for t, f in enumerate(field)]
        both = torch.cat((aligned, field), dim=1)
        both = torch.stack([warp(frame, step) for frame, step in zip(both, steps)])
        return both[:, :4], both[:, 4:] + torch.stack(steps)

    return run


def methods(downsampler: Optional[Path]) -> dict[str, Method]:
    """All methods by name."""
    result = {
        'no alignment': by_displacement(lambda reference, _: np.zeros((2, 1, 1))),
        'phase correlation (OpenCV)': by_displacement(phase_correlation),
        'DIS optical flow (OpenCV)': by_displacement(dis_flow),
        'block matching, radius 6': block_matching(DPBM(features='bicubic', radius=6).eval()),
        'block matching, radius 16': block_matching(DPBM(features='bicubic', radius=16).eval()),
        'the same, then DIS': and_then_flow(block_matching(DPBM(features='bicubic', radius=16).eval())),
    }
    if downsampler is not None:
        learned = DPBM(radius=16).eval()
        state = convert_released({}, load_checkpoint(str(downsampler)))
        learned.load_state_dict({key[len('coarse.'):]: value for key, value in state.items()})
        result['block matching, radius 16, released features'] = block_matching(learned)
    return result


def scores(method: Method, clean: Tensor, ref_idx: int, seed: int, truth: Optional[Tensor] = None,
           judged: Optional[list[int]] = None) -> dict[str, float]:
    """Scores of one burst, means over the judged frames.

    Args:
        method: the method.
        clean: packed raw [N, 4, H, W].
        ref_idx: the reference.
        seed: of the noise.
        truth: displacement (y, x) of each frame [N, 2], if known.
        judged: frames that count; all but the reference if None.
    """
    noisy = NoiseModel.parse('high').sample(clean, generator=torch.Generator().manual_seed(seed))
    aligned, field = method(noisy, clean, ref_idx)
    entries = []
    for t in judged or [t for t in range(len(clean)) if t != ref_idx]:
        inside = torch.ones(clean.shape[-2:], dtype=torch.bool)
        entry = {}
        if truth is not None:
            place = coordinates(*clean.shape[-2:]) + truth[t].view(2, 1, 1)
            limit = torch.tensor(clean.shape[-2:]).view(2, 1, 1) - 1
            inside = ((place >= 0) & (place <= limit)).all(dim=0)
            errors = (field[t] - truth[t].view(2, 1, 1)).norm(dim=0)[inside]
            entry['error'], entry['median_error'] = float(errors.mean()), float(errors.median())
        difference = (aligned[t] - clean[ref_idx])[:, inside]
        entry['difference'] = float(difference.abs().mean())
        entry['psnr'] = float(-10 * difference.square().mean().clamp(min=1e-10).log10())
        entries.append(entry)
    return {key: float(np.mean([entry[key] for entry in entries])) for key in entries[0]}


def planted(image: np.ndarray, shift: int, seed: int) -> tuple[Tensor, Tensor]:
    """Five frames that move steadily over a photograph mirrored at its borders; (clean raw, truth).

    The first and the last frame are ``shift`` packed pixels away from the middle one, in a direction drawn by ``seed``.
    """
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    step = np.array([np.sin(angle), np.cos(angle)]) * shift / 2
    room = 2 * shift + 4
    margin = [max(0, (2 * SIDE + 2 * room - side + 1) // 2) for side in image.shape[:2]]
    wide = np.pad(image, ((margin[0],) * 2, (margin[1],) * 2, (0, 0)), mode='symmetric')
    frames, truth = [], []
    for t in range(-2, 3):
        y, x = np.round(step * t).astype(int)
        top, left = ((side - 2 * SIDE) // 2 + 2 * moved for side, moved in zip(wide.shape, (y, x)))
        frames.append(wide[top:top + 2 * SIDE, left:left + 2 * SIDE])
        truth.append((-y, -x))
    raw = torch.stack([mosaic_rgb(reference_camera().unprocess(to_float(frame))) for frame in frames])
    return raw, torch.tensor(truth, dtype=torch.float32)


def real(frames: Tensor, interval: int) -> list[tuple[Tensor, int]]:
    """Bursts of a clip, ``interval`` apart, of five frames or of three where the clip is too short; (clean raw, ref_idx)."""
    count = 5 if 4 * interval < len(frames) else 3
    span = (count - 1) * interval
    return [(frames[start:start + span + 1:interval], count // 2) for start in range(len(frames) - span)]


def read_clip(folder: Path) -> Tensor:
    """A folder of images as clean packed raw [N, 4, H, W]."""
    files = list_images(folder) if folder.is_dir() else []
    if len(files) < 9:
        raise DataError(f'{folder}: expected a folder of at least nine images, found {len(files)}.')
    images = [decode_srgb(file.read_bytes(), str(file)) for file in files]
    return torch.stack([mosaic_rgb(reference_camera().unprocess(to_float(image))) for image in images])


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Run and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, metavar='CLIP', help='folder of at least nine frames')
    parser.add_argument('--downsampler', type=Path, metavar='FILE', help="the release's downsampler, for its features")
    parser.add_argument('--photographs', type=int, default=4, help='how many of the photographs to plant shifts in')
    parser.add_argument('--shifts', type=int, nargs='+', default=SHIFTS, help='in packed pixels')
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    frames = read_clip(args.frames) if args.frames is not None else None
    report: dict[str, Any] = {'machine': machine(torch.device('cpu'))}
    images = [image for image in map(photograph, PHOTOGRAPHS) if image is not None][:args.photographs]
    candidates = methods(args.downsampler)

    bursts = {shift: [planted(image, shift, seed) for seed, image in enumerate(images)] for shift in args.shifts}
    rows: dict[str, list[dict[str, float]]] = {}
    with tqdm(total=len(candidates) * len(bursts), desc='planted shifts') as progress:
        for name, method in candidates.items():
            rows[name] = []
            for some in bursts.values():
                found = [scores(method, clean, 2, seed, truth, [0, 4]) for seed, (clean, truth) in enumerate(some)]
                rows[name].append({key: float(np.mean([entry[key] for entry in found])) for key in found[0]})
                progress.update()
    report['planted'] = {'shifts': list(args.shifts), 'photographs': len(images), 'scores': rows}
    columns = [f'{shift} px' for shift in args.shifts]
    for key, title, form in (('error', 'mean error of the displacement, packed px', '{:.1f}'),
                             ('median_error', 'median error of the displacement, packed px', '{:.1f}'),
                             ('psnr', 'PSNR of the aligned clean frame to the reference, dB', '{:.1f}')):
        sys.stdout.write(f'\nPlanted shifts, {len(images)} photographs: {title}\n\n' + table(
            ['', *columns], [[name, *(form.format(entry[key]) for entry in entries)] for name, entries in rows.items()]))

    if frames is not None:
        rows = {}
        for name, method in tqdm(candidates.items(), desc='real frames'):
            rows[name] = []
            for interval in (1, 2, 4):
                found = [scores(method, clean, ref_idx, seed) for seed, (clean, ref_idx) in enumerate(real(frames, interval))]
                rows[name].append({key: float(np.mean([entry[key] for entry in found])) for key in found[0]})
        report['real'] = {'clip': args.frames.name, 'intervals': [1, 2, 4], 'scores': rows}
        sys.stdout.write(f'\nReal frames of clip {args.frames.name}: mean difference x 1000, and PSNR in dB\n\n' + table(
            ['', *(f'{interval} apart' for interval in (1, 2, 4))],
            [[name, *(f"{entry['difference'] * 1000:.1f} / {entry['psnr']:.1f}" for entry in entries)]
             for name, entries in rows.items()]))
    write_json(args.json, report)
    return 0


if __name__ == '__main__':
    sys.exit(main())
