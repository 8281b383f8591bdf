"""The paper's table 4: train and test its five variants on several seeds, and print what each part of the alignment gives.

    python scripts/ablation.py                               # the paper's recipe on REDS, one run after the other
    python scripts/ablation.py --index $SLURM_ARRAY_TASK_ID  # one of the runs: sbatch --array=0-14
    python scripts/ablation.py --table                       # what is finished so far
    python scripts/ablation.py --small --jobs 2              # a CPU-sized stand-in: 20 minutes on two cores

Runs are numbered variant by variant, seed by seed. Every run is a process of its own and goes below the current directory
(experiments/, results/) as ablation_VARIANT_seedK. The command can be repeated: finished runs are skipped, interrupted ones
go on from their newest training state. A training that exits with status 75 (preempted, its state saved) ends the command
with 75 too, so that a job that is requeued on it goes on.

--small trains on photographs under a moving camera and tests on held-out ones with small and with large shifts, and on real
frames if given. Array jobs should run --small --prepare first, so that the data are built once.
"""
from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ablation_data import prepare
from tqdm import tqdm

import jddb_plugin  # noqa: F401  (before basicsr, which it mends)
from jddb_plugin.checks import DataError, OptionError, one_line_errors
from jddb_plugin.cli.pipeline import check_files
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import dump_options, load_options, parse_override
from jddb_plugin.runtime import preemption
from jddb_plugin.runtime.preemption import EXIT_STATUS

OPTIONS = Path(__file__).resolve().parents[1] / 'options'
#: Rows of the table by their files below options/train/ablation.
VARIANTS = {'wo_align': 'w/o Align', 'w_ca': 'w/ CA', 'w_ra': 'w/ RA', 'wo_e2e': 'w/o E2E', 'full': 'full'}
METRICS = {'psnr': 2, 'ssim': 4}
SMALL_DATA = Path('datasets/ablation_small')
MODULES = {'train': 'jddb_plugin.train', 'test': 'jddb_plugin.test'}
SIGNALS = (signal.SIGINT, signal.SIGTERM, *(getattr(signal, name) for name in ('SIGHUP', 'SIGUSR1') if hasattr(signal, name)))


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        variant: its file's name below options/train/ablation.
        seed: ``manual_seed`` of the training.
        name: of the experiment, and of the results.
        options: resolved options of 'train' and 'test'.
    """

    variant: str
    seed: int
    name: str
    options: dict[str, dict[str, Any]]

    @property
    def metrics(self) -> dict[str, Path]:
        """Files that the test writes, by test set, in its order."""
        sets = self.options['test']['datasets']
        return {sets[phase]['name']: Path('results', self.name, f"metrics_{sets[phase]['name']}.json") for phase in sorted(sets)}

    @property
    def finished(self) -> bool:
        """Whether all of them are there."""
        return all(file.is_file() for file in self.metrics.values())

    @property
    def trained(self) -> Path:
        """Marks a complete training: a network may have been saved by one that was preempted."""
        return Path('experiments', self.name, 'trained')


# ------------------------------------------------------------------------------------------- options


def _look(options: Any, path: Sequence[Any]) -> Any:
    """What lies at ``path``, None if nothing does."""
    for key in path:
        try:
            options = options[key]
        except (KeyError, IndexError, TypeError):
            return None
    return options


def carry_schedules(layers: Sequence[Mapping[str, Any]]) -> None:
    """Let schedules follow ``total_iter``: milestones and periods keep their place in the training.

    Args:
        layers: sections ``train`` of a variant, of the same with the overlay, and of that with the command line's changes.
            Iterations in the last one are scaled from the ``total_iter`` of the layer that set them to its own, in place.
    """
    final = layers[-1]
    places = [('scheduler', 'periods'), ('scheduler', 'milestones')]
    places += [('hooks', k, key) for k in range(len(final.get('hooks') or [])) for key in ('milestones', 'begin', 'end')]
    for place in places:
        values = [_look(layer, place) for layer in layers]
        origin = max((k for k in range(1, len(layers)) if values[k] != values[k - 1]), default=0)
        if values[-1] is not None:
            _look(final, place[:-1])[place[-1]] = _scaled(values[-1], final['total_iter'] / layers[origin]['total_iter'])


def _scaled(iterations: Any, ratio: float) -> Any:
    return [_scaled(value, ratio) for value in iterations] if isinstance(iterations, list) else math.ceil(iterations * ratio)


def _merge(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve what an option file of this content would hold."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'merged.yml'
        file.write_text(dump_options(content), encoding='utf-8')
        return load_options(str(file), [parse_override(text) for text in overrides])


def make_run(variant: str, seed: int, args: argparse.Namespace) -> Run:
    """Resolve the options of one run."""
    file = OPTIONS / 'train' / 'ablation' / f'{variant}.yml'
    own = load_options(str(file))
    name = f"{own['name']}_seed{seed}" + (f'_{args.overlay.stem}' if args.overlay else '')
    bases = [str(path.resolve()) for path in (file, args.overlay) if path]
    layers = [_merge({'_base_': bases, 'name': name, 'manual_seed': seed}, overrides) for overrides in ((), args.set)]
    train = layers[-1]
    carry_schedules([layer['train'] for layer in (own, *layers)])

    path = {'pretrain_network_g': f'experiments/{name}/models/net_g_latest.pth'}
    if train['train'].get('ema_decay'):
        path['param_key_g'] = 'params_ema'
    # How whole frames are tiled and searched is the test's own affair.
    network = {key: value for key, value in train['network_g'].items() if key not in ('dpbm', 'init')}
    content = {'_base_': str(args.test.resolve()), 'name': name, 'num_gpu': train['num_gpu'], 'network_g': network, 'path': path}
    if args.small and (SMALL_DATA / 'real.lmdb').is_dir():
        like = load_options(str(args.test))['datasets']['test_1']
        content['datasets'] = {'test_9': {**like, 'name': 'real', 'dataroot_gt': str(SMALL_DATA / 'real.lmdb')}}
    return Run(variant, seed, name, {'train': train, 'test': _merge(content, args.set_test)})


def check_run(run: Run) -> None:
    """Know before hours of training what the training or the test would refuse."""
    for phase, options in run.options.items():
        checked = check_options(copy.deepcopy(options), is_train=phase == 'train')
        check_files({**checked, 'path': {} if phase == 'test' else checked['path']})


def option_file(run: Run, phase: str, args: argparse.Namespace) -> Path:
    """The file that is handed to the training or to the test."""
    return args.output / 'options' / f'{run.name}_{phase}.yml'


def keep_options(run: Run, args: argparse.Namespace) -> None:
    """Write the option files of a run, or compare with what it was started with.

    Raises:
        OptionError: it was started with other options; results of both must not meet in one table.
    """
    for phase, options in run.options.items():
        file = option_file(run, phase, args)
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f'.{os.getpid()}')  # a task that is killed here leaves no half of a file
            partial.write_text(dump_options(options), encoding='utf-8')
            partial.replace(file)
        then, now = _flat(load_options(str(file))), _flat(options)
        for key in sorted(then.keys() | now.keys()):
            if then.get(key) != now.get(key):
                raise OptionError(f'{file}: {key} is {then.get(key)!r}, not {now.get(key)!r}: {run.name} was started with other '
                                  'options. Go on with those, work in another folder, or remove that file and what the run left '
                                  f'in experiments/{run.name} and results/{run.name}.')


def _flat(options: Any, prefix: str = '') -> dict[str, Any]:
    """Options by dotted keys."""
    parts = options.items() if isinstance(options, Mapping) else enumerate(options) if isinstance(options, list) else ()
    below = {key: value for name, part in parts for key, value in _flat(part, f'{prefix}.{name}'.strip('.')).items()}
    return below or {prefix: options}


# --------------------------------------------------------------------------------------------- running


class Stopped(Exception):
    """No further process is to be started."""


class Children:
    """Processes under way. What would end this process is handed on to them first, so that they can save their state."""

    def __init__(self, threads: int) -> None:
        self._environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads)}
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.RLock()
        #: Exit status of this command, once it is to stop.
        self.stop_status: Optional[int] = None

    def call(self, arguments: Sequence[str], log: Path) -> int:
        """Run ``python -m`` with ``arguments``, append what it says to ``log``, and return its exit status.

        Raises:
            Stopped: it was not started, or was told to stop, or stopped with status 75 of itself, or a scheduler's signal
                killed it while it was starting.
        """
        with open(log, 'ab') as file:
            with self._lock:
                if self.stop_status is not None:
                    raise Stopped
                # A session of its own: a terminal's Ctrl-C reaches it once, through us.
                process = subprocess.Popen([sys.executable, '-m', *arguments], stdout=file, stderr=subprocess.STDOUT,
                                           env=self._environment, start_new_session=True)
                self._running.add(process)
            status = process.wait()
        with self._lock:
            self._running.discard(process)
            if status in (EXIT_STATUS, *(-number for number in preemption.SIGNALS)):
                self.stop(signal.SIGTERM, EXIT_STATUS)
            if self.stop_status is not None:
                raise Stopped
        return status

    def stop(self, number: int, status: int) -> None:
        """Hand a signal on and start nothing more; a second Ctrl-C kills."""
        with self._lock:
            again = self.stop_status is not None
            self.stop_status = EXIT_STATUS if EXIT_STATUS in (status, self.stop_status) else status
            for process in self._running:
                if not again:
                    process.send_signal(number)
                elif number == signal.SIGINT:
                    process.kill()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals that would end this process."""
        # After a scheduler's signals the command can be repeated, also where they hit a test, which has no state to save.
        status = {number: EXIT_STATUS if number in preemption.SIGNALS else 128 + number for number in SIGNALS}
        before = {number: signal.signal(number, lambda number, _: self.stop(number, status[number])) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def last_line(log: Path) -> str:
    """The last line of a log that says anything; progress bars end theirs by a carriage return."""
    lines = [line.strip() for line in log.read_text(errors='replace').replace('\r', '\n').splitlines()]
    return next((line for line in reversed(lines) if line), 'no word')


def execute(run: Run, args: argparse.Namespace, children: Children) -> Optional[str]:
    """Train and test, as far as that is not done yet; returns what went wrong, None if nothing.

    Raises:
        Stopped: see :meth:`Children.call`.
    """
    if run.finished:
        return None
    log = args.output / 'logs' / f'{run.name}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    for phase, flags in (('train', ['--auto_resume']), ('test', [])):
        if phase == 'train' and run.trained.exists():
            continue
        status = children.call([MODULES[phase], '-opt', str(option_file(run, phase, args)), *flags], log)
        if status:
            return f'{run.name}: {phase} exited with status {status}: {last_line(log)} ({log})'
        if phase == 'train':
            run.trained.touch()
    missing = [str(file) for file in run.metrics.values() if not file.is_file()]
    return f'{run.name}: the test wrote no {missing[0]} ({log})' if missing else None


def execute_all(runs: Sequence[Run], args: argparse.Namespace) -> int:
    """Execute runs, ``args.jobs`` at a time; returns the exit status."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    children = Children(int(os.environ.get('OMP_NUM_THREADS') or max(1, cores // args.jobs)))
    failures = 0
    with children.listening(), ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(runs), unit='run', desc='Runs') as progress:
        futures = [pool.submit(execute, run, args, children) for run in runs]
        try:
            for future in as_completed(futures):
                failure = future.result()
                if failure is not None:
                    failures += 1
                    tqdm.write(f'error: {failure}', file=sys.stderr)
                progress.update()
        except Stopped:
            pass  # what runs still is waited for: one of them may end with status 75
        finally:
            for future in futures:
                future.cancel()
    if children.stop_status is not None:
        return children.stop_status
    return 1 if failures else 0


# ----------------------------------------------------------------------------------------------- table


def scores(run: Run, kind: str) -> dict[str, dict[str, float]]:
    """Metrics of a finished run by test set, and over the clips of all sets, which count equally."""
    found: dict[str, dict[str, float]] = {}
    clips: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for name, file in run.metrics.items():
        content = json.loads(file.read_text())
        found[name] = {metric: content[metric]['average'][kind] for metric in METRICS}
        for metric in METRICS:
            clips[metric] += [values[kind] for clip, values in content[metric].items() if clip != 'average']
        if None in clips['psnr']:
            raise DataError(f"{file}: a clip has no '{kind}' score: none of its frames has real neighbours on both sides.")
    return {**found, 'average': {metric: statistics.mean(values) for metric, values in clips.items()}}


def summarise(runs: Sequence[Run], kind: str) -> dict[str, Any]:
    """All numbers of the finished runs: by run, and mean and sample standard deviation by variant.

    Raises:
        DataError: no run is finished.
    """
    done = [run for run in runs if run.finished]
    if not done:
        raise DataError('no run is finished yet, so there is no table.')
    variants: dict[str, Any] = {}
    for variant in dict.fromkeys(run.variant for run in done):
        mine = {run.seed: scores(run, kind) for run in done if run.variant == variant}
        variants[variant] = {'seeds': list(mine), 'scores': {
            name: {metric: _spread([found[name][metric] for found in mine.values()]) for metric in METRICS}
            for name in next(iter(mine.values()))}}
    return {'score': kind, 'variants': variants, 'unfinished': [run.name for run in runs if not run.finished],
            'runs': {run.name: {name: json.loads(file.read_text()) for name, file in run.metrics.items()} for run in done}}


def _spread(values: list[float]) -> dict[str, Any]:
    return {'mean': statistics.mean(values), 'std': statistics.stdev(values) if len(values) > 1 else None, 'values': values}


def markdown(report: Mapping[str, Any]) -> str:
    """The table: PSNR in dB / SSIM, each as mean ± sample standard deviation over seeds."""

    def cell(score: Mapping[str, Any]) -> str:
        parts = []
        for metric, digits in METRICS.items():
            spread = score[metric]['std']
            parts.append(f"{score[metric]['mean']:.{digits}f}" + ('' if spread is None else f' ± {spread:.{digits}f}'))
        return ' / '.join(parts)

    names = list(dict.fromkeys(name for entry in report['variants'].values() for name in entry['scores'] if name != 'average'))
    if len(names) > 1:
        names.append('average')
    rows = [['', 'seeds', *(name.replace('_', ' ') for name in names)], ['---'] * (len(names) + 2)]
    for variant, entry in report['variants'].items():
        rows.append([VARIANTS[variant], str(len(entry['seeds'])), *(cell(entry['scores'][name]) for name in names)])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows) + '\n'


def write_table(runs: Sequence[Run], args: argparse.Namespace) -> None:
    """Print the table, and write it and its numbers to the output folder."""
    report = summarise(runs, args.score)
    text = markdown(report)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / 'table.json').write_text(json.dumps(report, indent=2) + '\n')
    (args.output / 'table.md').write_text(text)
    sys.stdout.write(f'\n{text}\nPSNR (dB) / SSIM over {report["score"]} frames, mean ± sample standard deviation over seeds. '
                     f'Numbers: {args.output / "table.json"}\n')


# ------------------------------------------------------------------------------------------------ main


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS), help='rows of the table')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--overlay', type=Path, metavar='FILE', help='options merged on top of every variant')
    parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='passed on to the training')
    parser.add_argument('--set-test', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='passed on to the test')
    parser.add_argument('--test', type=Path, metavar='FILE', help='option file of the test (default: REDS4 at high noise)')
    parser.add_argument('--score', choices=('all', 'centre'),
                        help='frames that count: all, or those with real neighbours on both sides (default: all; centre for '
                             '--small)')
    parser.add_argument('--jobs', type=int, default=1, help='runs at once; the cores are shared out among them (default: 1)')
    parser.add_argument('--output', type=Path, metavar='FOLDER', help='for table, logs and option files (default: '
                        'results/ablation)')
    parser.add_argument('--small', action='store_true', help='CPU-sized networks, data and schedules')
    parser.add_argument('--photographs', type=Path, metavar='FOLDER', help='images for --small, besides those of scikit-image')
    parser.add_argument('--frames', type=Path, metavar='FOLDER',
                        help='real frames for --small to test on, one folder of images per clip')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--index', type=int, metavar='K', help='run number K alone, counted from 0, and print no table')
    mode.add_argument('--table', action='store_true', help='run nothing')
    mode.add_argument('--prepare', action='store_true', help='build the data of --small and run nothing')
    args = parser.parse_args(arguments)
    small_only = [name for name in ('photographs', 'frames', 'prepare') if getattr(args, name) and not args.small]
    if small_only:
        parser.error(f'--{small_only[0]} belongs to --small')
    if args.small and args.overlay:
        parser.error('--small is an overlay; give one of the two')
    if args.jobs < 1:
        parser.error('--jobs: expected at least 1')
    if args.small:
        args.overlay = OPTIONS / 'train' / 'ablation' / 'small.yml'
    args.test = args.test or OPTIONS / 'test' / 'ablation' / ('small.yml' if args.small else 'reds4.yml')
    args.score = args.score or ('centre' if args.small else 'all')
    args.output = args.output or Path('results', 'ablation' + (f'_{args.overlay.stem}' if args.overlay else ''))
    return args


@one_line_errors
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run what is asked for; returns the exit status."""
    args = parse(arguments)
    if args.small and not args.table:
        prepare(SMALL_DATA, args.photographs, args.frames)
    if args.prepare:
        return 0
    runs = [make_run(variant, seed, args) for variant in dict.fromkeys(args.variants) for seed in dict.fromkeys(args.seeds)]
    if args.index is not None:
        if not 0 <= args.index < len(runs):
            raise OptionError(f'--index: expected 0 .. {len(runs) - 1} for {len(runs)} runs, got {args.index}.')
        runs = [runs[args.index]]
    status = 0
    if not args.table:
        for run in {run.variant: run for run in runs if not run.finished}.values():
            check_run(run)
        for run in runs:
            keep_options(run, args)
        status = execute_all(runs, args)
        if args.index is not None or status not in (0, 1):
            return status
    if not status or any(run.finished for run in runs):
        write_table(runs, args)
    return status


if __name__ == '__main__':
    sys.exit(main())
