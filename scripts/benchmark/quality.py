"""PSNR, SSIM, CPU seconds and memory of burst networks and of alternatives, on clips and photographs with a known truth.

    python scripts/benchmark/quality.py --clips FOLDER_OF_CLIPS --photographs FOLDER --scenes 6
    python scripts/benchmark/quality.py --clips FOLDER_OF_CLIPS --photographs FOLDER --scenes 18 --counts

Scores are of the developed picture, with tone curve, without 80 px (clips) or 40 px (photographs) on each side. Prints tables in
Markdown: methods by scene and noise; with --counts networks alone, by the number of frames, without and with tone curve, and what
frames that fail cost. Clips need five frames, with --counts as many as its largest number, eight by default.
"""
from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from quality_methods import ALTERNATIVES, Method, network
from quality_scenes import FAILURES, MOTIONS, Scene, clip_scenes, develop, photograph_scenes
from tqdm import tqdm

import jddb_plugin  # noqa: F401  (before basicsr, which it patches)

# isort: split
from basicsr.metrics import calculate_ssim

from jddb_plugin.checks import OptionError, one_line_errors
from jddb_plugin.inference.memory import peak_bytes
from jddb_plugin.noise_option import TEST_LEVELS
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.weights import available, load_weights

#: Numbers of frames of --counts without numbers.
COUNTS = [1, 2, 3, 5, 8]


def noise_levels(names: list[str]) -> dict[str, tuple[float, float]]:
    """(shot, read) by name: 'low', 'high', and 'random1', 'random2', ..., drawn in the range of the training."""
    levels = {}
    for name in names:
        if name in TEST_LEVELS:
            levels[name] = TEST_LEVELS[name]
        elif name.startswith('random') and name[6:].isdigit():
            noise = NoiseModel.random(torch.Generator().manual_seed(int(name[6:])))
            levels[name] = (float(noise.shot), float(noise.read))
        else:
            raise OptionError(f"--noise: '{name}' is unknown; expected {', '.join(TEST_LEVELS)} or random1, random2, ...")
    return levels


def scenes_of(args: argparse.Namespace, kind: str, noise: tuple[float, float], count: int) -> Iterator[Scene]:
    """Scenes of a kind: 'clip', or one of the motions."""
    if kind == 'clip':
        return clip_scenes(args.clips, count, noise)
    return itertools.islice(photograph_scenes(args.photographs, kind, count, noise), args.scenes)


def kinds_of(args: argparse.Namespace) -> list[str]:
    """Kinds of scenes that there is material for."""
    return (['clip'] if args.clips else []) + (args.motions if args.photographs else [])


def score(scene: Scene, result: torch.Tensor) -> tuple[float, float]:
    """(PSNR, SSIM) of the developed picture."""
    images = [image.permute(1, 2, 0).numpy().astype(np.float64) for image in _inside(scene, result, tone_curve=True)]
    return psnr(scene, result, tone_curve=True), calculate_ssim(255 * images[0], 255 * images[1], crop_border=0)


def psnr(scene: Scene, result: torch.Tensor, *, tone_curve: bool) -> float:
    """PSNR of the developed picture, dB."""
    found, truth = _inside(scene, result, tone_curve=tone_curve)
    return float(-10 * (found - truth).double().square().mean().log10())


def _inside(scene: Scene, result: torch.Tensor, *, tone_curve: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What is scored of the picture and of its truth, developed."""
    inside = slice(scene.border, -scene.border)
    found, truth = (develop(image, tone_curve=tone_curve)[:, inside, inside] for image in (result, scene.gt))
    return found, truth


def measure(method: Method, scenes: list[Scene]) -> dict[str, float]:
    """Means over the scenes."""
    rows = []
    for scene in scenes:
        start = time.process_time()
        result = _run(method, scene, 5)
        seconds = time.process_time() - start
        rows.append((*score(scene, result), seconds))
    mean, ssim, seconds = np.mean(rows, axis=0).tolist()
    found = {'psnr': mean, 'ssim': ssim, 'seconds': seconds}
    peak = peak_bytes(lambda: _run(method, scenes[-1], 5), torch.device('cpu'))
    if peak is not None:
        found['megabytes'] = peak / 1e6
    return found


def _run(method: Method, scene: Scene, frames: int) -> torch.Tensor:
    with torch.inference_mode():
        return method(scene.frames(frames), scene.noise)


def methods_of(weights: list[str]) -> dict[str, tuple[Method, bool]]:
    """All that is compared: networks by name or checkpoint, and alternatives whose packages are installed."""
    found = {name: (network(load_weights(name).eval()), True) for name in weights}
    for name, entry in ALTERNATIVES.items():
        if name == 'Menon' and importlib.util.find_spec('colour_demosaicing') is None:
            sys.stderr.write('Menon: the package colour-demosaicing is not installed; left out.\n')
            continue
        found[name] = entry
    return found


def table(results: dict[str, dict[str, dict[str, float]]], columns: list[str], value: str, digits: int) -> str:
    """A Markdown table of methods by columns."""
    lines = ['| | ' + ' | '.join(columns) + ' |', '| --- |' + ' --- |' * len(columns)]
    for name, row in results.items():
        cells = [f'{row[column][value]:.{digits}f}' if value in row.get(column, {}) else '' for column in columns]
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def compare(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Tables of all methods with five frames, and their figures."""
    methods = methods_of(args.weights)
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    cases = list(itertools.product(noise_levels(args.noise).items(), kinds_of(args)))
    for (level, noise), kind in tqdm(cases, unit='case', desc='Quality'):
        scenes = list(scenes_of(args, kind, noise, 5))
        for name, (method, _) in methods.items():
            results[name][f'{kind}, {level}'] = measure(method, scenes)
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    text = '\n'.join(f'{title}, 5 frames:\n\n{table(results, columns, value, digits)}\n' for title, value, digits in (
        ('PSNR (dB)', 'psnr', 2), ('SSIM', 'ssim', 4), ('CPU seconds', 'seconds', 2),
        ('Memory that the method adds (MB)', 'megabytes', 0)))
    return text, results


def by_count(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Tables of the networks by the number of frames, and what failing frames cost; and their figures."""
    counts = args.counts or COUNTS
    header = '| | ' + ' | '.join(f'{count} frames' if count > 1 else '1 frame' for count in counts) + ' |'
    lines, costs = [header, '| --- |' + ' --- |' * len(counts)], ['| | mean | worst |', '| --- | --- | --- |']
    figures: dict[str, Any] = {}
    kinds = [*kinds_of(args), *(FAILURES if args.photographs else ())]
    cases = list(itertools.product(args.weights, noise_levels(args.noise).items(), kinds))
    for name, (level, noise), kind in tqdm(cases, unit='case', desc='Frames'):
        method, title = network(load_weights(name).eval()), f'{name}: {kind}, {level}'
        found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for scene in scenes_of(args, kind, noise, max(counts)):
            for count in counts:
                result = _run(method, scene, count)
                found[count].append((psnr(scene, result, tone_curve=False), psnr(scene, result, tone_curve=True)))
        figures[title] = found
        means = [np.mean(found[count], axis=0) for count in counts]
        lines.append(f'| {title} | ' + ' | '.join(f'{plain:.2f} / {toned:.2f}' for plain, toned in means) + ' |')
        if kind in FAILURES and {1, 5} <= found.keys():
            gains = np.array(found[5])[:, 1] - np.array(found[1])[:, 1]
            costs.append(f'| {title} | {gains.mean():+.3f} | {gains.min():+.3f} |')
    text = 'PSNR (dB) without / with tone curve:\n\n' + '\n'.join(lines) + '\n'
    if len(costs) > 2:
        text += '\nFive frames of which all but the reference fail, against one frame (dB):\n\n' + '\n'.join(costs) + '\n'
    return text, figures


@one_line_errors
def main() -> int:
    """Print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', nargs='+', default=available(),
                        help=f'networks: names of shipped weights, or checkpoints (default: {" ".join(available())})')
    parser.add_argument('--clips', type=Path, help='folder with one folder of frames per clip')
    parser.add_argument('--photographs', type=Path, help='folder of photographs that are moved')
    parser.add_argument('--motions', nargs='+', default=list(MOTIONS), choices=list(MOTIONS))
    parser.add_argument('--scenes', type=int, default=6, help='photographs to use')
    parser.add_argument('--noise', nargs='+', default=['low', 'high'], help='low, high, random1, random2, ...')
    parser.add_argument('--counts', nargs='*', type=int, metavar='N', help='networks alone, by the number of frames (default: '
                        f'{" ".join(map(str, COUNTS))}), and bursts of which all but the reference fail')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path, help='file for all figures')
    args = parser.parse_args()
    if args.clips is None and args.photographs is None:
        raise OptionError('give --clips or --photographs, or both.')
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if min(args.counts or [1]) < 1:
        raise OptionError(f'--counts: expected numbers of frames, from 1, got {min(args.counts)}.')
    text, figures = (compare if args.counts is None else by_count)(args)
    sys.stdout.write(text)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
