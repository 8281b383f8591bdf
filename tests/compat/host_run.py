"""What the tests of stock models share."""
import os
import random
from pathlib import Path

import numpy as np
import torch


class WorkerRandomClips(torch.utils.data.Dataset):
    """Draws from the worker's global generators, as the toolbox's data sets do, and keeps what it drew."""

    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return self.opt.get('size', 6)

    def __getitem__(self, index):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        with open(self.opt['draws'], 'a') as file:
            file.write(f'{int(index)} {drawn}\n')
        frames = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(int(index))) * (0.5 + 0.5 * drawn[0])
        return {'lq': frames + 0.1 * drawn[1], 'gt': torch.nn.functional.interpolate(frames[2:3], scale_factor=4)[0]}


def read_draws(path='draws.txt'):
    lines = Path(path).read_text().splitlines()
    Path(path).unlink()
    return lines


def read_log():
    return '\n'.join(path.read_text() for path in sorted(Path('experiments').glob('*/*.log'), key=os.path.getmtime))
