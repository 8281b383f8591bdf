"""What the data sets of bursts share: options, the choice of clips, samples, and the frames that test bursts have in common."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, ClassVar, Mapping, Optional, Sequence

import torch
from basicsr.data.data_util import generate_frame_indices
from torch import Tensor
from torch.utils.data import Dataset

from jddb_plugin.checks import DataError, OptionError, check_choice, nearest
from jddb_plugin.data.frame_source import Clip, FrameSource
from jddb_plugin.data.sampling import SampleRandom, TemporalOptions, index_test_clips
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.options import HOST_KEYS, Options

_PADDINGS = ('replicate', 'reflection', 'reflection_circle', 'circle')


@dataclass(frozen=True)
class ClipOptions(Options):
    """Where clips are read from.

    Attributes:
        io_backend: ``{type: lmdb}`` (default) or ``{type: disk}``.
        clips: names of the clips to use. Default: all.
        stage_dir: folder on the node's own disk to copy LMDBs to, or 'auto', see staging.py. Default: none.
    """

    io_backend: dict = field(default_factory=lambda: {'type': 'lmdb'})
    clips: Optional[list[str]] = None
    stage_dir: Optional[str] = None


@dataclass(frozen=True)
class BurstTrainOptions(TemporalOptions, ClipOptions):
    """Options of all training sets of clips.

    Attributes:
        exclude_clips: names of clips not to use. Default: none.
        gt_size: side of the crop in RGB pixels, even.
        use_hflip: flip half of the bursts horizontally. Default: true.
        use_rot: flip vertically and transpose, each half of the bursts. Default: true.
        seed: of all random draws. Default: 0; our entry points fill in ``manual_seed``.
    """

    exclude_clips: list[str] = field(default_factory=list)
    gt_size: int = 512
    use_hflip: bool = True
    use_rot: bool = True
    seed: int = 0

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        if self.gt_size < 2 or self.gt_size % 2:
            raise OptionError(f'must be even and positive, got {self.gt_size}.', field='gt_size')


@dataclass(frozen=True)
class BurstTestOptions(ClipOptions):
    """Options of all test sets of clips.

    Attributes:
        num_frame: frames per burst, odd; the reference is the middle one. Default: 5.
        references: 'all' frames of a clip, or 'middle': one burst of the first ``num_frame`` frames, as in the paper's real
            bursts. Default: 'all'.
        padding: where missing neighbors at a clip's ends come from, see the toolbox's ``generate_frame_indices``.
            Default: 'reflection_circle' (the other side).
    """

    num_frame: int = 5
    references: str = 'all'
    padding: str = 'reflection_circle'

    def check(self) -> None:
        """Raise OptionError for invalid values."""
        super().check()
        if self.num_frame < 1 or self.num_frame % 2 == 0:
            raise OptionError(f'must be odd (the reference is the middle frame), got {self.num_frame}.', field='num_frame')
        check_choice(self.references, ('all', 'middle'), 'references')
        check_choice(self.padding, _PADDINGS, 'padding')


class BurstDataset(Dataset):
    """Base of data sets whose samples are bursts of clips."""

    #: Class of the options.
    Options: ClassVar[type[ClipOptions]]
    options: ClipOptions
    #: Clip and reference frame of every sample.
    samples: list[tuple[Clip, int]]

    def __init__(self, opt: Mapping[str, Any], where: str) -> None:
        super().__init__()
        self.opt = opt
        self.where = where
        self.options = self.Options.read(opt, where, ignore=HOST_KEYS)

    def __len__(self) -> int:
        return len(self.samples)

    def frame_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in RGB pixels of a sample of each clip."""
        return {clip.name: self.sample_size(clip) for clip, _ in self.samples}

    def sample_size(self, clip: Clip) -> tuple[int, int]:
        """(height, width) in RGB pixels of a sample of a clip."""
        return clip.size


class BurstTrainDataset(BurstDataset):
    """Base of training sets: a sample is a function of (seed, epoch, index) alone, whatever the number of workers.

    Subclasses list their samples with :meth:`index_clips`, and say by :meth:`read_burst` how a burst is read.
    """

    options: BurstTrainOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt, 'datasets.train')

    def index_clips(self, source: FrameSource, clips: Sequence[Clip], margin: int = 0) -> None:
        """List a sample for every frame of ``clips`` that can be a reference.

        Args:
            source: of the clips.
            clips: chosen ones, see :meth:`choose_clips`.
            margin: pixels that a clip must be larger than ``gt_size``.

        Raises:
            DataError: a clip is too short for a burst, or too small for a crop.
        """
        needed = self.options.gt_size + margin
        for clip in clips:
            if min(clip.size) < needed:
                raise DataError(f'{source.root}: clip {clip.name} is {clip.size[1]} x {clip.size[0]}, too small: gt_size '
                                f'{self.options.gt_size} needs {needed} x {needed}. Lower gt_size, or exclude the clip by '
                                'exclude_clips.')
        self.samples = [(clip, k) for clip in clips
                        for k in self.options.references(len(clip.keys), clip.name, str(source.root))]

    def choose_clips(self, source: FrameSource, *, also_without: Sequence[str] = ()) -> list[Clip]:
        """Clips by the options ``clips`` and ``exclude_clips``.

        Args:
            source: of the clips.
            also_without: further names to exclude, whether the source has them or not.

        Raises:
            DataError: a clip that an option names does not exist, or no clip is left.
        """
        for name in self.options.exclude_clips:
            if name not in source.clips:
                raise DataError(f"{self.where}.exclude_clips: '{name}' is not in {source.root}; {nearest(name, source.clips)}")
        return source.select(self.options.clips, (*self.options.exclude_clips, *also_without), self.where)

    def read_burst(self, clip: Clip, frames: Sequence[int], reference: int, random: SampleRandom) -> dict[str, Any]:
        """Tensors of a sample: ``frames`` of a clip, of which ``reference`` is one."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = SampleRandom(self.options.seed, index)
        clip, reference = self.samples[index]
        frames = random.burst(self.options, reference, len(clip.keys))
        return {**self.read_burst(clip, frames, reference, random), 'ref_idx': self.options.reference,
                'key': clip.keys[reference]}


class BurstTestDataset(BurstDataset):
    """Base of test sets: one sample per frame, or per clip. Frames that bursts have in common are read once.

    Subclasses fill ``samples`` with :meth:`index_clips`, and say how a frame is read, and what its camera and noise are.

    Attributes:
        data_info: what the toolbox's validation needs to know of every sample.
    """

    options: BurstTestOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt, f"data set '{opt.get('name', 'test')}'")

    def index_clips(self, source: FrameSource, clips: Sequence[Clip]) -> None:
        """List the samples of some clips of a source, see :func:`jddb_plugin.data.sampling.index_test_clips`."""
        self.samples, self.data_info = index_test_clips(clips, self.options.num_frame, source.root,
                                                        middle=self.options.references == 'middle')
        self._recent: OrderedDict[tuple[str, int], tuple[Tensor, Optional[Tensor]]] = OrderedDict()

    def read_frame(self, clip: Clip, index: int) -> tuple[Tensor, Optional[Tensor]]:
        """Noisy packed raw [4, h, w] of one frame, and its clean linear camera RGB [3, 2h, 2w] if both are made at once."""
        raise NotImplementedError

    def read_truth(self, clip: Clip, index: int) -> Optional[Tensor]:
        """Clean linear camera RGB [3, 2h, 2w] of one frame; None if there is no ground truth."""
        truth = self._frame(clip, index)[1]
        return None if truth is None else truth.clone()

    def camera(self, clip: Clip, index: int) -> Camera:
        """Camera of one frame, fields of float32."""
        raise NotImplementedError

    def noise(self, clip: Clip, frames: Sequence[int], burst: Tensor) -> NoiseModel:
        """Noise of some frames, whose packed raw is ``burst`` [N, 4, h, w]: levels [], [4] or [N, 4]."""
        raise NotImplementedError

    def _frame(self, clip: Clip, index: int) -> tuple[Tensor, Optional[Tensor]]:
        key = (clip.name, index)
        if key not in self._recent:
            self._recent[key] = self.read_frame(clip, index)
            while len(self._recent) > self.options.num_frame:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, center = self.samples[index]
        frames = generate_frame_indices(center, len(clip.keys), self.options.num_frame, padding=self.options.padding)
        burst = torch.stack([self._frame(clip, k)[0] for k in frames])
        noise = self.noise(clip, frames, burst)
        sample = {'lq': with_noise_map(burst, noise), 'camera': self.camera(clip, center), 'noise': noise.to(torch.float32),
                  **{key: values[index] for key, values in self.data_info.items()}}
        truth = self.read_truth(clip, center)
        if truth is not None:
            sample['gt'] = truth
        return sample


def with_noise_map(burst: Tensor, noise: NoiseModel) -> Tensor:
    """Packed raw [N, 4, h, w] and its noise map, [N, 8, h, w]; levels of ``noise`` are [], [4] or [N, 4]."""
    return (noise.planes() if noise.shot.ndim else noise).with_map(burst)
