"""Compare the demo's restored frames with bilinear demosaicking and the shipped weights: a table, and a picture."""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

import jddb_plugin  # noqa: F401  (before basicsr, which it patches)

# isort: split
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import imwrite

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.config import load_options
from jddb_plugin.data.images import decode_srgb
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstTestDataset
from jddb_plugin.inference.engine import restore_frame
from jddb_plugin.ops.bayer import demosaic_bilinear
from jddb_plugin.ops.curves import tone_map
from jddb_plugin.visual.comparison import compare
from jddb_plugin.weights import load_weights

TARGET_DB = 4.0


def develop(linear: torch.Tensor, sample: dict) -> torch.Tensor:
    """Linear camera RGB [3, H, W] -> sRGB in [0, 1], as the metrics see it."""
    return sample['camera'].develop(linear)


def to_255(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [0, 1] -> [H, W, 3] in [0, 255], not rounded."""
    return image.permute(1, 2, 0).numpy().astype(np.float64) * 255


def scores_of(dataset: UnprocessedBurstTestDataset, restore: Callable[[torch.Tensor], torch.Tensor],
              name: str) -> tuple[float, float]:
    """Mean PSNR and SSIM of what ``restore`` makes of each burst: lq [N, 8, h, w] -> linear camera RGB [3, 2h, 2w]."""
    scores = []
    for index in tqdm(range(len(dataset)), unit='frame', desc=name):
        sample = dataset[index]
        images = [to_255(develop(image, sample)) for image in (restore(sample['lq']), sample['gt'])]
        scores.append((calculate_psnr(*images, crop_border=0), calculate_ssim(*images, crop_border=0)))
    return tuple(np.mean(scores, axis=0).tolist())


def bilinear(lq: torch.Tensor) -> torch.Tensor:
    """The noisy reference frame, demosaicked bilinearly."""
    return demosaic_bilinear(lq[None, len(lq) // 2, :4])[0]


def picture(image: torch.Tensor) -> np.ndarray:
    """sRGB without tone curve [3, H, W] -> the picture that is shown, RGB uint8."""
    return to_255(tone_map(image)).round().astype(np.uint8)


@one_line_errors
def main() -> int:
    """Print the table and write the picture; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--opt', default='options/test/demo.yml', help='option file of the test')
    parser.add_argument('--results', type=Path, default=Path('results/demo'), help='folder that the test wrote')
    args = parser.parse_args()
    options = load_options(args.opt)['datasets']['test']
    dataset = UnprocessedBurstTestDataset(options)
    metrics = args.results / f"metrics_{options['name']}.json"
    if not metrics.is_file():
        raise DataError(f'{metrics}: missing; run jddb test -opt {args.opt} first.')
    restored = json.loads(metrics.read_text())
    psnr, ssim = (restored[name]['average']['all'] for name in ('psnr', 'ssim'))
    plain_psnr, plain_ssim = scores_of(dataset, bilinear, 'Bilinear')
    shipped = load_weights('small').eval()
    shipped_psnr, shipped_ssim = scores_of(dataset, lambda lq: restore_frame(shipped, lq[None])[0], 'Shipped weights')
    middle = len(dataset) // 2
    sample = dataset[middle]
    stem = Path(sample['lq_path']).stem
    files = sorted((args.results / 'visualization' / options['name'] / sample['folder']).glob(f'{stem}_*.png'))
    if not files:
        raise DataError(f'{args.results}: holds no restored frame {stem}; test with val.save_img: true.')
    reference = sample['lq'][len(sample['lq']) // 2, :4]
    image = compare({
        'noisy, bilinear': picture(develop(demosaic_bilinear(reference[None])[0], sample)),
        'just trained': decode_srgb(files[-1].read_bytes(), str(files[-1])),
        'shipped weights': picture(develop(restore_frame(shipped, sample['lq'][None])[0], sample)),
        'truth': picture(develop(sample['gt'], sample)),
    })
    imwrite(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), str(args.results / 'comparison.png'))
    gain = psnr - plain_psnr
    height, width = sample['gt'].shape[-2:]
    lines = [f"Scene '{sample['folder']}', not trained on, {len(dataset)} frames of {width} x {height}:", '',
             '| | PSNR (dB) | SSIM |', '| --- | --- | --- |',
             f'| noisy frame, bilinear demosaicking | {plain_psnr:.2f} | {plain_ssim:.4f} |',
             f'| {options["num_frame"]} frames, the network just trained | {psnr:.2f} | {ssim:.4f} |',
             f'| {options["num_frame"]} frames, the shipped weights | {shipped_psnr:.2f} | {shipped_ssim:.4f} |', '',
             f'Gain: {gain:.2f} dB. Picture: {args.results / "comparison.png"}']
    sys.stdout.write('\n'.join(lines) + '\n')
    if gain < TARGET_DB:
        sys.stderr.write(f'error: the gain is below {TARGET_DB:.0f} dB; the training did not succeed.\n')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
