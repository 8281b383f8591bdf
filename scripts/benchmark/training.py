"""Speed and memory of a training: the plain float32 step, each of today's switches alone, and all together.

python scripts/benchmark/training.py [--opt FILE] [--small] [--frames FOLDER] [--set KEY=VALUE ...] [--json FILE]

An iteration is that of the toolbox's trainer: wait for the next batch, feed it, take a step. Model, data set, loader
and its workers are the option file's (default: the paper's recipe; --small: the demo's network, for a CPU), built by
the toolbox; the data are photographs that scikit-image carries, or the images of FOLDER, in a burst LMDB. The switches
are off in "plain", whatever the file says.

Iterations per second and waiting are of a variant that runs alone. Its ratio to the plain step is of medians, of steps
that take turns on the same batches, so that a busy machine slows down both; "plain again" shows how far that can be
trusted. Memory is what a step takes beyond what was held before it. The first iteration, where torch.compile works,
is reported by itself.
"""
from __future__ import annotations

import argparse
import contextlib
import gc
import io
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import torch
from common import machine, megabytes, peak_bytes, synchronize, table, write_json
from data import read_frames
from tqdm import tqdm

import jddb_plugin  # noqa: F401  (before basicsr, which it patches)

# isort: split
import basicsr.train as trainer
from basicsr.utils import get_root_logger
from basicsr.utils.options import parse_options

from jddb_plugin.checks import OptionError, one_line_errors
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import dump_options, load_options, parse_override
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter

OPTIONS = Path(__file__).resolve().parents[2] / 'options' / 'train'
#: Each switch by what it is set to, and what "plain" sets it to; None is torch's or the model's own default.
SWITCHES = {
    'bf16': ('train.precision', 'bf16', 'float32'),
    'channels_last': ('channels_last', True, False),
    'fused': ('train.optim_g.fused', True, None),
    'max_grad_norm': ('train.max_grad_norm', 1000.0, None),
    'ema': ('train.ema_decay', 0.999, 0),
    'compile': ('train.compile', True, False),
}
PLAIN, AGAIN, ALL = 'plain float32', 'plain again', 'all together'
#: Side that the photographs are cut to for --small, like the demo's.
SMALL_SIDE = 408
#: Iterations that a profile covers, and rows of its table.
PROFILED, ROWS = 3, 25


def write_clip(folder: Optional[Path], root: Path, *, small: bool) -> Path:
    """The frames as one clip of a burst LMDB."""
    path = root / 'frames.lmdb'
    with BurstLmdbWriter(str(path), encoding='tiff') as writer:
        for index, frame in enumerate(read_frames(folder)):
            writer.put_image('clip', index, frame[:SMALL_SIDE, :SMALL_SIDE] if small else frame)
    return path


def variants(chosen: Sequence[str]) -> dict[str, list[tuple[str, Any]]]:
    """What is measured, in this order, and its overrides of the option file."""
    plain = [(key, off) for key, _, off in SWITCHES.values()] + [('train.optim_g.foreach', None)]  # fused excludes foreach
    on = {name: (SWITCHES[name][0], SWITCHES[name][1]) for name in chosen}
    result = {PLAIN: plain, **{name: [*plain, override] for name, override in on.items()}}
    if len(on) > 1:
        result[ALL] = [*plain, *on.values()]
    return {**result, AGAIN: plain}


def resolve(file: str, overrides: Sequence[tuple[str, Any]], root: Path) -> dict[str, Any]:
    """Options as the toolbox's trainer has them.

    Raises:
        OptionError: an option is unknown to the installed version, or cannot be used.
    """
    opt = check_options(load_options(file, overrides), is_train=True)
    kind = opt['datasets']['train']['type']
    if kind != 'UnprocessedBurstDataset':
        raise OptionError(f'{file}: datasets.train.type: expected UnprocessedBurstDataset, which reads the frames, got {kind}.')
    opt['datasets'] = {'train': opt['datasets']['train']}
    opt.pop('val', None)
    resolved = root / 'options.yml'
    resolved.write_text(dump_options(opt))
    with mock.patch.object(sys, 'argv', ['train', '-opt', str(resolved)]), contextlib.redirect_stdout(io.StringIO()):
        return parse_options(str(root), is_train=True)[0]


@contextlib.contextmanager
def quiet() -> Iterator[logging.Logger]:
    """The toolbox's logger without its description of every network."""
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield logger
    finally:
        logger.setLevel(level)


class Training:
    """The toolbox's trainer, one iteration at a time."""

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt['train'].get('compile'):
            torch.compiler.reset()  # what another variant has compiled
        with quiet() as logger:
            loader, self.sampler, *_ = trainer.create_train_val_dataloader(opt, logger)
            self.model = trainer.build_model(opt)
        self.device = self.model.device
        self.batch_size = loader.batch_size
        self.prefetcher = trainer.CPUPrefetcher(loader)
        self.iteration = self.epoch = 0
        self.prefetcher.reset()

    def next(self) -> Any:
        """The next batch, of the next epoch where one ends."""
        batch = self.prefetcher.next()
        while batch is None:
            self.epoch += 1
            self.sampler.set_epoch(self.epoch)
            self.prefetcher.reset()
            batch = self.prefetcher.next()
        return batch

    def step(self, batch: Any) -> None:
        """Feed a batch and take a step, to its end."""
        self.iteration += 1
        self.model.update_learning_rate(self.iteration)
        self.model.feed_data(batch)
        self.model.optimize_parameters(self.iteration)
        synchronize(self.device)

    def timed(self) -> tuple[float, float]:
        """Seconds of one iteration: waiting for its batch, and its step."""
        start = time.perf_counter()
        batch = self.next()
        middle = time.perf_counter()
        self.step(batch)
        return middle - start, time.perf_counter() - middle


def measure(name: str, training: Training, plain: Training, *, repeats: int, warmup: int) -> dict[str, Any]:
    """Speed and memory of one variant, and its ratio to the plain step."""
    first = sum(training.timed())
    for _ in range(warmup):
        training.timed()
    waits, alone = zip(*(training.timed() for _ in range(repeats)))
    whole = sum(waits) + sum(alone)
    steps: dict[Training, list[float]] = {plain: [], training: []}
    for turn in range(repeats):
        batch = training.next()
        for one in list(steps)[::1 if turn % 2 else -1]:  # neither always finds the batch in the cache
            start = time.perf_counter()
            one.step(batch)
            steps[one].append(time.perf_counter() - start)
    held = torch.cuda.memory_allocated(training.device) if training.device.type == 'cuda' else None
    peak = peak_bytes(lambda: training.step(batch), training.device)
    return {'name': name, 'iterations_per_second': repeats / whole, 'samples_per_second': repeats * training.batch_size / whole,
            'data_wait': sum(waits) / whole, 'step_seconds': statistics.median(steps[training]),
            'plain_step_seconds': statistics.median(steps[plain]),
            'ratio': statistics.median(steps[plain]) / statistics.median(steps[training]), 'first_seconds': first,
            'held_bytes': held, 'peak_bytes': peak}


def profile(name: str, training: Training) -> str:
    """A table of the operators that take most time."""
    cuda = training.device.type == 'cuda'
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    batches = [training.next() for _ in range(PROFILED)]
    with torch.profiler.profile(activities=activities) as found:
        for batch in batches:
            training.step(batch)
    events = found.key_averages()
    device = 'device' if hasattr(events[0], 'self_device_time_total') else 'cuda'  # its name before torch 2.3
    by = f'self_{device}_time_total' if cuda else 'self_cpu_time_total'
    return f'{name}, {PROFILED} iterations on {training.device}\n\n{events.table(sort_by=by, row_limit=ROWS)}\n\n'


def run(args: argparse.Namespace, root: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the table, and profiles of the plain and the full step by their names."""
    file = args.opt or str(OPTIONS / ('demo_two_stage.yml' if args.small else 'jddb_reds.yml'))
    given = [('datasets.train.dataroot_gt', str(write_clip(args.frames, root, small=args.small))),
             ('num_gpu', 1 if args.device == 'cuda' else 0), *map(parse_override, args.set)]
    wanted = variants(args.switches)
    resolved = {name: resolve(file, [*given, *overrides], root) for name, overrides in wanted.items()}  # errors come first
    rows, profiles = [], {}
    plain = Training(resolved[PLAIN])
    for name, opt in tqdm(resolved.items(), desc='training steps'):
        training = plain if name == PLAIN else Training(opt)
        rows.append(measure(name, training, plain, repeats=args.repeats, warmup=args.warmup))
        if args.profile is not None and name in (PLAIN, list(wanted)[-2]):
            profiles[name] = profile(name, training)
        del training  # and the loader's workers
        gc.collect()
    return rows, profiles


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Run and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--opt', metavar='FILE', help='option file; default: options/train/jddb_reds.yml')
    parser.add_argument('--small', action='store_true', help='options/train/demo_two_stage.yml and small frames, for a CPU')
    parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='override options')
    parser.add_argument('--switches', nargs='*', choices=SWITCHES, default=list(SWITCHES), metavar='NAME',
                        help=f"of {', '.join(SWITCHES)}; default: all")
    parser.add_argument('--frames', type=Path, metavar='FOLDER', help='folder of at least seven images')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--repeats', type=int, default=20, help='iterations that are measured')
    parser.add_argument('--warmup', type=int, default=3, help='iterations before them, beside the first')
    parser.add_argument('--profile', type=Path, metavar='FILE', help='write the operators of the plain and the full step by time')
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    if args.repeats < 1 or args.warmup < 0:
        raise OptionError(f'expected --repeats of at least 1 and --warmup of at least 0, got {args.repeats} and {args.warmup}.')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise OptionError('--device cuda: no CUDA device is here.')
    torch.backends.cudnn.benchmark = True  # as the toolbox's trainer
    with tempfile.TemporaryDirectory() as folder:
        rows, profiles = run(args, Path(folder))
    sys.stdout.write(f'\nTraining on {args.device}, {args.repeats} iterations\n\n' + table(
        ['switch', 'iterations/s', 'waiting for data', 'step', 'plain step', 'ratio', 'first iteration', "step's memory"],
        [[row['name'], f"{row['iterations_per_second']:.3f}", f"{row['data_wait']:.1%}", f"{row['step_seconds']:.4f} s",
          f"{row['plain_step_seconds']:.4f} s", f"{row['ratio']:.2f}", f"{row['first_seconds']:.1f} s",
          megabytes(row['peak_bytes'])] for row in rows]))
    if args.profile is not None:
        args.profile.parent.mkdir(parents=True, exist_ok=True)
        args.profile.write_text(''.join(profiles.values()))
    write_json(args.json, {'machine': machine(torch.device(args.device)), 'device': args.device, 'opt': args.opt, 'set': args.set,
                           'small': args.small, 'repeats': args.repeats, 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())
