"""A network with buffers for a stock video model, and data for it; importing the module registers both."""
import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from torch import nn


@DATASET_REGISTRY.register()
class RandomVideo(torch.utils.data.Dataset):
    """Clips whose size is their number of frames; validation samples as the toolbox's video test sets give them."""

    def __init__(self, opt):
        self.opt = opt
        names = [f'{clip}{n}' for clip, n in enumerate(opt['frames'])]
        frames = [(name, i, n) for name, n in zip(names, opt['frames']) for i in range(n)]
        self.samples = frames
        self.data_info = {'folder': [f[0] for f in frames], 'border': [0] * len(frames), 'lq_path': ['x.png'] * len(frames),
                          'gt_path': [], 'idx': [f'{i}/{n}' for _, i, n in frames]}

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        folder, i, n = self.samples[index]
        gt = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(int(index)))
        if self.opt['phase'] == 'train':  # as the toolbox's data sets: from the worker's global generator
            gt = gt + 0.1 * torch.rand(())
        return {'lq': gt[None] + 0.1, 'gt': gt, 'folder': folder, 'idx': f'{i}/{n}', 'border': 0, 'lq_path': f'{i}.png'}


@ARCH_REGISTRY.register()
class BufferedNet(nn.Module):
    """A video network with buffers, which DDP broadcasts in every training forward pass."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, x):
        return self.layers(x[:, 0])
