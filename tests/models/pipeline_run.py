"""What the tests of whole pipelines share."""
import json
import logging
import os
from pathlib import Path

from basicsr.utils import logger as basicsr_logger

from ..conftest import ROOT

DEMO = str(ROOT / 'options' / 'train' / 'demo_two_stage.yml')
METRICS = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}, 'ssim': {'type': 'calculate_ssim', 'crop_border': 0}}


def forget_logger():
    """The toolbox sets its logger up once per process; every run here is to write a log of its own."""
    basicsr_logger.initialized_logger.clear()
    for handler in list(logging.getLogger('basicsr').handlers):
        handler.close()
        logging.getLogger('basicsr').removeHandler(handler)


def small_options(lmdb, **changes):
    """Overrides that make the demo tiny; the model draws the tile, as without the demo's own options."""
    values = {
        'network_g.num_feat': 8, 'network_g.deformable_groups': 2, 'train.tile': 16, 'datasets.train.gt_size': 48,
        'datasets.train.dataroot_gt': lmdb, 'datasets.train.batch_size_per_gpu': 2, 'datasets.train.num_worker_per_gpu': 0,
        'datasets.train.tile': '~', 'datasets.train.synthesis': 'worker',
        'datasets.train.dataset_enlarge_ratio': 1, 'train.total_iter': 2, 'logger.print_freq': 1,
        'logger.save_checkpoint_freq': 1, 'logger.use_tb_logger': 'false', **changes,
    }
    return ['--set', *(f'{key}={value}' for key, value in values.items())]


def validation_options(lmdb):
    return {'datasets.val': json.dumps({'name': 'clips', 'type': 'UnprocessedBurstTestDataset', 'dataroot_gt': str(lmdb),
                                        'noise': 'high', 'num_frame': 5}),
            'val': json.dumps({'val_freq': 2, 'save_img': True, 'metrics': METRICS})}


def read_log(folder='experiments/demo_two_stage'):
    return '\n'.join(path.read_text() for path in sorted(Path(folder).glob('*.log'), key=os.path.getmtime))


def drawn_figures(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events.Tags()['images']
