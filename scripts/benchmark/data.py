"""Samples per second and core of the training data path, against the plain way.

python scripts/benchmark/data.py [--frames CLIP] [--json FILE]

The plain way decodes five whole 720p frames, cuts 720 x 720, unprocesses each frame, samples it by the mosaic and adds
noise, on one core. Ours decodes, cuts only what the search for a tile can reach (tile 64, radius 8), and leaves the
rest to the device; frames are stored as PNG, or as TIFF without compression, twice as large but quickly decoded.
Frames are those of CLIP (a folder of images), or photographs that scikit-image carries, enlarged.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional

import cv2
import numpy as np
import torch
from common import machine, megabytes, peak_bytes, seconds, table, write_json
from tqdm import tqdm

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.images import decode_srgb, list_images, to_float
from jddb_plugin.data.lmdb_reader import read_value
from jddb_plugin.data.photographs import PHOTOGRAPHS, photograph
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstDataset
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import sample_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.synthesis import synthesize

CPU = torch.device('cpu')
#: Packed pixels: the recipe's tile, and what its search can reach.
TILE, REACH, GT_SIZE = 64, 80, 720


def read_frames(folder: Optional[Path]) -> list[np.ndarray]:
    """At least seven 720p frames."""
    if folder is None:
        images = [image for image in map(photograph, PHOTOGRAPHS) if image is not None]
        frames = [cv2.resize(image, (1280, 720), interpolation=cv2.INTER_CUBIC) for image in images]
        rng = np.random.default_rng(0)  # enlarged photographs are too smooth to be as large as real frames
        return [np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8) for frame in (frames * 7)[:9]]
    files = list_images(folder) if folder.is_dir() else []
    if len(files) < 7:
        raise DataError(f'{folder}: expected a folder of at least seven images, found {len(files)}.')
    return [decode_srgb(file.read_bytes(), str(file)) for file in files]


def plain_sample(root: Path, keys: list[str], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """One sample as one writes it first."""
    generator = torch.Generator().manual_seed(int(rng.integers(2 ** 31)))
    center = int(rng.integers(2, len(keys) - 2))
    camera, noise = sample_camera(generator), NoiseModel.random(generator)
    frames = [decode_srgb(read_value(root, keys[k]), keys[k]) for k in range(center - 2, center + 3)]
    y, x = (int(rng.integers(0, side - GT_SIZE + 1)) for side in frames[0].shape[:2])
    lq = []
    for k, frame in enumerate(frames):
        linear = camera.unprocess(to_float(frame)[:, y:y + GT_SIZE, x:x + GT_SIZE])
        lq.append(noise.with_map(noise.sample(mosaic_rgb(linear), generator=generator)))
        if k == 2:
            gt = linear
    return {'lq': torch.stack(lq), 'gt': gt}


def measure(name: str, sample: Callable[[int], Any], repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of a sample."""
    calls = iter(range(10 ** 9))
    times = seconds(lambda: sample(next(calls)), CPU, repeats=repeats, warmup=3)
    return {'path': name, 'seconds': times[len(times) // 2], 'seconds_best': times[0],
            'peak_bytes': peak_bytes(lambda: sample(next(calls)), CPU)}


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Run and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, metavar='CLIP', help='folder of at least seven 720p frames')
    parser.add_argument('--repeats', type=int, default=25)
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    frames = read_frames(args.frames)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        roots, sizes = {}, {}
        for encoding in ('png', 'tiff'):
            roots[encoding] = Path(folder) / f'{encoding}.lmdb'
            with BurstLmdbWriter(str(roots[encoding]), encoding=encoding) as writer:
                for index, frame in enumerate(tqdm(frames, desc=f'write {encoding}')):
                    writer.put_image('clip', index, frame)
            sizes[encoding] = (roots[encoding] / 'data.mdb').stat().st_size / len(frames)
        keys = [f'clip/{index:08d}' for index in range(len(frames))]
        rng = np.random.default_rng(0)
        rows.append(measure('plain: whole frames, all on the CPU', lambda _: plain_sample(roots['png'], keys, rng), args.repeats))

        def dataset(encoding: str, **options: Any) -> Callable[[int], Any]:
            data = UnprocessedBurstDataset({'name': 'x', 'dataroot_gt': str(roots[encoding]), 'gt_size': GT_SIZE, **options})
            return lambda call: data[call % len(data)]

        region = {'tile': TILE, 'reach': REACH}
        for encoding in ('png', 'tiff'):
            name = encoding.upper()
            rows.append(measure(f'{name}, crop of 720, worker makes the raw', dataset(encoding), args.repeats))
            rows.append(measure(f'{name}, region, worker makes the raw', dataset(encoding, **region), args.repeats))
            rows.append(measure(f'{name}, region, device makes the raw', dataset(encoding, **region, synthesis='device'),
                                args.repeats))
        sample = dataset('tiff', **region, synthesis='device')
        batch = torch.utils.data.default_collate([sample(k) for k in range(4)])
        on_device = {}
        for device in (CPU, torch.device('cuda')) if torch.cuda.is_available() else (CPU,):
            moved = [batch[key].to(device) for key in ('srgb', 'camera', 'noise', 'seed')]
            on_device[device.type] = seconds(lambda: synthesize(*moved, ref_idx=2), device, repeats=args.repeats)[0]  # noqa: B023
    for row in rows:
        row['ratio'] = rows[0]['seconds'] / row['seconds']
    sys.stdout.write('\nOne core, five frames of ' + f'{frames[0].shape[1]} x {frames[0].shape[0]}\n\n' + table(
        ['path', 'seconds a sample', 'samples a second', 'ratio', 'peak memory'],
        [[row['path'], f"{row['seconds']:.4f}", f"{1 / row['seconds']:.1f}", f"{row['ratio']:.1f}", megabytes(row['peak_bytes'])]
         for row in rows]))
    sys.stdout.write(f"\nA frame takes {sizes['png'] / 1e6:.2f} MB as PNG, {sizes['tiff'] / 1e6:.2f} MB as TIFF.\n"
                     + ''.join(f'Raw of a batch of 4 on {name}: {value:.4f} s.\n' for name, value in on_device.items()))
    write_json(args.json, {'machine': machine(CPU), 'rows': rows, 'bytes_per_frame': sizes, 'batch_of_4_seconds': on_device})
    return 0


if __name__ == '__main__':
    sys.exit(main())
