"""PSNR, SSIM, seconds and memory of burst networks and of alternatives, on clips and photographs with a known truth.

    python scripts/benchmark/quality.py --weights small --clips FOLDER_OF_CLIPS --photographs FOLDER --scenes 6

Scores are of the developed picture, with tone curve, without 80 px (clips) or 40 px (photographs) on each side. Prints tables in
Markdown: methods by scene and noise, and with --counts PSNR by the number of frames.
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
from jddb_plugin.weights import load_weights

#: Numbers of frames of the second table.
COUNTS = (1, 2, 3, 5, 8)


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


def score(scene: Scene, result: torch.Tensor) -> tuple[float, float]:
    """(PSNR, SSIM) of the developed picture."""
    inside = slice(scene.border, -scene.border)
    images = [develop(image)[:, inside, inside].permute(1, 2, 0).numpy().astype(np.float64) for image in (result, scene.gt)]
    error = np.mean((images[0] - images[1]) ** 2)
    return -10 * np.log10(error), calculate_ssim(255 * images[0], 255 * images[1], crop_border=0)


def measure(method: Method, scenes: list[Scene], frames: int) -> dict[str, float]:
    """Means over the scenes."""
    rows = []
    for scene in scenes:
        start = time.perf_counter()
        result = _run(method, scene, frames)
        seconds = time.perf_counter() - start
        rows.append((*score(scene, result), seconds))
    psnr, ssim, seconds = np.mean(rows, axis=0).tolist()
    found = {'psnr': psnr, 'ssim': ssim, 'seconds': seconds}
    peak = peak_bytes(lambda: _run(method, scenes[-1], frames), torch.device('cpu'))
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


@one_line_errors
def main() -> int:
    """Print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', nargs='+', default=['small'], help='networks: names of shipped weights, or checkpoints')
    parser.add_argument('--clips', type=Path, help='folder with one folder of at least five frames per clip')
    parser.add_argument('--photographs', type=Path, help='folder of photographs that are moved')
    parser.add_argument('--motions', nargs='+', default=list(MOTIONS), choices=list(MOTIONS))
    parser.add_argument('--scenes', type=int, default=6, help='photographs to use')
    parser.add_argument('--noise', nargs='+', default=['low', 'high'], help='low, high, random1, random2, ...')
    parser.add_argument('--counts', action='store_true', help='also PSNR by the number of frames: static and moving photographs, '
                        'and bursts of which all but the reference fail')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path, help='file for all figures')
    args = parser.parse_args()
    if args.clips is None and args.photographs is None:
        raise OptionError('give --clips or --photographs, or both.')
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    methods = methods_of(args.weights)
    kinds = (['clip'] if args.clips else []) + (args.motions if args.photographs else [])
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    cases = list(itertools.product(noise_levels(args.noise).items(), kinds))
    for (level, noise), kind in tqdm(cases, unit='case', desc='Quality'):
        scenes = list(scenes_of(args, kind, noise, 5))
        for name, (method, _) in methods.items():
            results[name][f'{kind}, {level}'] = measure(method, scenes, 5)
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    output = [f'{title}, 5 frames:\n\n{table(results, columns, value, digits)}\n'
              for title, value, digits in (('PSNR (dB)', 'psnr', 2), ('SSIM', 'ssim', 4), ('Seconds', 'seconds', 2),
                                             ('Memory that the method adds (MB)', 'megabytes', 0))]
    counts: dict[str, dict[str, dict[str, float]]] = {}
    if args.counts and args.photographs:
        for (level, noise), kind in itertools.product(noise_levels(args.noise).items(), ('static', 'moving', *FAILURES)):
            scenes = list(scenes_of(args, kind, noise, max(COUNTS)))
            for name in args.weights:
                row = counts.setdefault(f'{name}: {kind}, {level}', {})
                for count in COUNTS:
                    row[str(count)] = measure(methods[name][0], scenes, count)
        output.append(f'PSNR (dB) by the number of frames:\n\n{table(counts, [str(c) for c in COUNTS], "psnr", 2)}\n')
    sys.stdout.write('\n'.join(output))
    if args.json:
        args.json.write_text(json.dumps({'methods': results, 'counts': counts}, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
