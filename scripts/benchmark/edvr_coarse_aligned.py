"""Does coarse alignment help the toolbox's EDVR on large motion? Same seed, same iterations, frames 4 apart.

python scripts/benchmark/edvr_coarse_aligned.py [--frames CLIP] [--iterations 1000] [--seeds 0 1] [--json FILE]

Trains a small EDVR with three frames, x4 on noisy frames, by options/train/edvr_reds.yml, and the same EDVR behind
CoarseAligned, by options/train/edvr_coarse_aligned_reds.yml. Training clips are photographs that scikit-image carries,
seen by a camera that moves by up to 64 px from one frame of a burst to the next. Tested are a photograph that was
not trained on, and the frames of CLIP (a folder of images), 4 apart. A run that is done is not repeated.
"""
from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import torch
import yaml
from common import machine, table, write_json
from tqdm import tqdm

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.data.images import decode_srgb, list_images
from jddb_plugin.data.photographs import PHOTOGRAPHS, photograph

OPTIONS = Path(__file__).resolve().parents[2] / 'options' / 'train'
TEST_PHOTOGRAPH = 'astronaut.png'
#: Side of a training frame, and the distance between the frames of a burst.
SIDE, INTERVAL = 256, 4
#: Standard deviation of the noise on the small frames.
NOISE = 0.05
EDVR = {'type': 'EDVR', 'num_feat': 16, 'num_frame': 3, 'deformable_groups': 4, 'num_extract_block': 2,
        'num_reconstruct_block': 3, 'with_tsa': False}
VARIANTS = {
    'EDVR': ('edvr_reds.yml', {'_delete_': True, **EDVR}),
    'EDVR behind CoarseAligned': ('edvr_coarse_aligned_reds.yml', {'align': {'radius': 4}, 'tile': 32, 'network': {
        '_delete_': True, **EDVR}}),
}


def write_pair(root: Path, clip: str, number: int, image: np.ndarray, rng: np.random.Generator) -> None:
    """Write a frame (RGB) and its small noisy version; sides are cut to multiples of 4."""
    height, width = (side // 4 * 4 for side in image.shape[:2])
    image = image[:height, :width]
    small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA) / 255
    small = (np.clip(small + rng.normal(0, NOISE, small.shape), 0, 1) * 255).round().astype(np.uint8)
    for folder, content in (('gt', image), ('lq', small)):
        path = root / folder / clip / f'{number:08d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(content, cv2.COLOR_RGB2BGR))


def camera_path(image: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """``count`` frames of a camera that moves at 4 to 16 px a frame and turns back at the photograph's border."""
    speed = rng.uniform(4, 16)
    angle = rng.uniform(0, 2 * np.pi)
    room = np.array(image.shape[:2]) - SIDE
    place = rng.uniform(0, 1, 2) * room
    frames = []
    for t in range(count):
        y, x = np.abs((place + t * speed * np.array([np.sin(angle), np.cos(angle)])) % (2 * room) - room).round().astype(int)
        frames.append(image[y:y + SIDE, x:x + SIDE])
    return frames


def prepare(root: Path, clip: Optional[Path]) -> None:
    """Write the training clips and the test clips, once."""
    if (root / 'complete').exists():
        return
    rng = np.random.default_rng(0)
    images = [image for image in map(photograph, PHOTOGRAPHS) if image is not None and min(image.shape[:2]) > SIDE]
    for k, image in enumerate(tqdm(images, desc='training clips')):
        for number, frame in enumerate(camera_path(image, 100, rng)):  # as long as the toolbox's REDS data set wants them
            write_pair(root / 'train', f'{k + 1:03d}', number, frame, rng)
    (root / 'meta.txt').write_text(''.join(f'{k + 1:03d} 100 ({SIDE},{SIDE},3)\n' for k in range(len(images))))
    for number, frame in enumerate(camera_path(photograph(TEST_PHOTOGRAPH), 9 * INTERVAL, rng)[::INTERVAL]):
        write_pair(root / 'unseen', 'photograph', number, frame, rng)
    if clip is not None:
        files = list_images(clip) if clip.is_dir() else []
        if len(files) <= 2 * INTERVAL:
            raise DataError(f'{clip}: expected a folder of at least {2 * INTERVAL + 1} images, found {len(files)}.')
        for start in range(len(files) - 2 * INTERVAL):
            for number, file in enumerate(files[start::INTERVAL]):
                write_pair(root / 'real', f'start_{start}', number, decode_srgb(file.read_bytes(), str(file)), rng)
    (root / 'complete').touch()


def train(root: Path, variant: str, seed: int, iterations: int) -> dict[str, Any]:
    """Train one variant as a process of its own, and read its last PSNR of each test set from its log."""
    base, network = VARIANTS[variant]
    name = f"{'aligned' if 'Coarse' in variant else 'stock'}_seed{seed}_iter{iterations}"
    result = root / f'{name}.json'
    if result.exists():
        return json.loads(result.read_text())

    def test_set(host_name: str, folder: str) -> dict[str, Any]:
        return {'name': host_name, 'type': 'VideoTestDataset', 'dataroot_gt': str(root / folder / 'gt'), 'num_frame': 3,
                'dataroot_lq': str(root / folder / 'lq'), 'io_backend': {'type': 'disk'}, 'cache_data': False,
                'padding': 'reflection_circle'}

    # The toolbox's video test set takes three names only.
    datasets = {'train': {'dataroot_gt': str(root / 'train/gt'), 'dataroot_lq': str(root / 'train/lq'), 'num_frame': 3,
                          'meta_info_file': str(root / 'meta.txt'), 'gt_size': SIDE, 'interval_list': [INTERVAL],
                          'random_reverse': True, 'num_worker_per_gpu': 1, 'batch_size_per_gpu': 2, 'dataset_enlarge_ratio': 20},
                'val': {'_delete_': True, **test_set('vid4', 'unseen')}}
    if (root / 'real').is_dir():
        datasets['val_2'] = test_set('REDS4', 'real')
    options = {'_base_': str(OPTIONS / base), 'name': name, 'manual_seed': seed, 'datasets': datasets, 'network_g': network,
               'train': {'total_iter': iterations, 'ema_decay': 0.99,
                         'scheduler': {'periods': [iterations], 'restart_weights': [1]}},
               'val': {'val_freq': iterations}, 'logger': {'print_freq': 50, 'use_tb_logger': False}}
    file = root / f'{name}.yml'
    file.write_text(yaml.safe_dump(options))
    start = time.perf_counter()
    subprocess.run([sys.executable, '-m', 'jddb_plugin.train', '-opt', str(file.resolve())], cwd=root, check=True)
    log = max((root / 'experiments' / name).glob('train_*.log')).read_text()
    scores = {host: float(re.findall(rf'Validation {host}\n.*?psnr: ([\d.]+)', log)[-1]) for host in ('vid4', 'REDS4')
              if f'Validation {host}' in log}
    found = {'variant': variant, 'seed': seed, 'iterations': iterations, 'psnr_unseen': scores['vid4'],
             'psnr_real': scores.get('REDS4'), 'seconds': time.perf_counter() - start}
    write_json(result, found)
    return found


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Prepare, train and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, metavar='CLIP', help='folder of at least nine frames to test on')
    parser.add_argument('--iterations', type=int, default=1000)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--work', type=Path, default=Path('results/benchmark/edvr'), help='folder for data and runs')
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    root = args.work.resolve()
    prepare(root, args.frames)
    runs = [train(root, variant, seed, args.iterations) for seed in args.seeds for variant in VARIANTS]
    rows = []
    for variant in VARIANTS:
        own = [run for run in runs if run['variant'] == variant]
        row = [variant]
        for key in ('psnr_unseen', 'psnr_real'):
            values = [run[key] for run in own if run[key] is not None]
            row.append(f"{np.mean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})" if values else '-')
        rows.append([*row, f"{np.mean([run['seconds'] for run in own]):.0f} s"])
    sys.stdout.write(f'\nPSNR in dB after {args.iterations} iterations, mean (each seed)\n\n' + table(
        ['', 'unseen photograph', 'real frames, 4 apart', 'training'], rows))
    write_json(args.json, {'machine': machine(torch.device('cpu')), 'runs': runs})
    return 0


if __name__ == '__main__':
    sys.exit(main())
