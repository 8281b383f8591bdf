"""Options of the trainings and tests of a study: resolved, shortened, kept."""
from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import torch

from jddb_plugin.archs.denoise_then_demosaic_arch import join_checkpoints
from jddb_plugin.checks import OptionError
from jddb_plugin.config import dump_options, load_options, parse_override
from jddb_plugin.files import atomic_write
from jddb_plugin.runtime.checkpoints import load_checkpoint
from jddb_plugin.tables.clips import left_out
from jddb_plugin.tables.systems import Study, System

#: Options of a two-stage network that a test chooses itself: how whole frames are tiled and searched.
_OF_THE_TEST = ('dpbm',)
#: Options that count while a training begins alone.
_OF_THE_START = ('init',)


def merge(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve what an option file of this content would hold."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'merged.yml'
        file.write_text(dump_options(content), encoding='utf-8')
        return load_options(str(file), [parse_override(text) for text in overrides])


@dataclass(frozen=True)
class Training:
    """The training of a part with one seed.

    Attributes:
        study: it belongs to.
        part: its file's name.
        seed: ``manual_seed``.
    """

    study: Study
    part: str
    seed: int

    @property
    def name(self) -> str:
        """Of the experiment."""
        return f'{self.study.name}_{self.part}_seed{self.seed}'

    @property
    def folder(self) -> Path:
        """Of the experiment."""
        return Path('experiments', self.name)

    @property
    def marker(self) -> Path:
        """Is there when the training is complete; a network may have been saved by one that was interrupted."""
        return self.folder / 'trained'

    @property
    def weights(self) -> Path:
        """The network of a complete training."""
        return self.folder / 'models' / 'net_g_latest.pth'

    @property
    def file(self) -> Path:
        """Its resolved options, kept for the whole training."""
        return Path('results', self.study.name, 'options', f'{self.name}.yml')

    def state(self) -> Mapping[str, torch.Tensor]:
        """Weights of the complete training, the averaged ones where there are some."""
        content = load_checkpoint(str(self.weights))
        return content.get('params_ema', content['params'])

    def own_options(self) -> dict[str, Any]:
        """What its file holds."""
        return load_options(str(self.study.train / f'{self.part}.yml'))

    def options(self, overrides: Sequence[str], iterations: Optional[int]) -> dict[str, Any]:
        """Resolve the options.

        Args:
            overrides: KEY=VALUE of the command line.
            iterations: length of the training where the study gives it in seconds.
        """
        own = self.own_options()
        base = (self.study.train / f'{self.part}.yml').resolve()
        content: dict[str, Any] = {'_base_': str(base), 'name': self.name, 'manual_seed': self.seed}
        start = self.study.start_of(self.part)
        if start is not None:
            content['path'] = {'pretrain_network_g': str(Training(self.study, start, self.seed).weights), 'strict_load_g': False}
        options = merge(content, overrides)
        if iterations is not None:
            options['train']['total_iter'] = iterations
        scale_schedules(own, options)
        return options


#: Counts of iterations that keep their place in a training of another length. A factor keeps its effect.
_PLACES = ('train.warmup_iter', 'val.val_freq', 'logger.print_freq', 'logger.save_checkpoint_freq', 'logger.keep_every')


def scale_schedules(own: Mapping[str, Any], final: dict[str, Any]) -> None:
    """Let schedules follow ``total_iter``.

    Args:
        own: options of the training's own file.
        final: the same after everything that was merged on top; what differs from ``own`` is left alone, the rest is scaled in
            place.
    """
    ratio = final['train']['total_iter'] / own['train']['total_iter']
    if ratio == 1:
        return

    def scaled(value: Any) -> Any:
        if isinstance(value, list):
            return [scaled(part) for part in value]
        return max(1, round(value * ratio)) if value > 0 else value

    for place in _PLACES:
        section, key = place.split('.')
        mine, theirs = final.get(section) or {}, own.get(section) or {}
        if mine.get(key) is not None and mine[key] == theirs.get(key):
            mine[key] = scaled(mine[key])
    pairs = [(final['train']['scheduler'], own['train']['scheduler']),
             *zip(final['train'].get('hooks') or [], own['train'].get('hooks') or [])]
    for mine, theirs in pairs:
        for key in ('periods', 'milestones', 'begin', 'end', 'factor'):
            if key in mine and mine[key] == theirs.get(key):
                mine[key] = mine[key] ** (1 / ratio) if key == 'factor' else scaled(mine[key])
    periods = final['train']['scheduler'].get('periods')
    if periods:  # rounding must not end the last one before the training
        periods[-1] += max(0, final['train']['total_iter'] - sum(periods))


def test_sets(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Test sets of resolved options, without those that ``prepare`` had no clips for."""
    return {key: section for key, section in options['datasets'].items() if not left_out(Path(section.get('dataroot_gt') or ''))}


@dataclass(frozen=True)
class Evaluation:
    """The test of a system with one seed by one test file."""

    study: Study
    system: System
    seed: int
    source: Path

    @property
    def trainings(self) -> list[Training]:
        """Those of the system's parts."""
        return [Training(self.study, part, self.seed) for part in self.system.parts]

    @property
    def name(self) -> str:
        """Of the results."""
        return f'{self.study.name}_{self.system.key}_seed{self.seed}_{self.source.stem}'

    @property
    def file(self) -> Path:
        """Its resolved options."""
        return Path('results', self.study.name, 'options', f'{self.name}.yml')

    @property
    def marker(self) -> Path:
        """Is there when the test is complete."""
        return Path('results', self.name, 'tested')

    def metrics(self) -> dict[str, Path]:
        """Files with scores by the names of the test sets, those of the kept options where there are some."""
        sets = test_sets(load_options(str(self.file if self.file.is_file() else self.source)))
        return {section['name']: Path('results', self.name, f"metrics_{section['name']}.json") for section in sets.values()}

    def options(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Resolve the options; the trainings' own must be kept already."""
        parts = [load_options(str(training.file)) for training in self.trainings]
        networks = [{key: value for key, value in part['network_g'].items() if key not in _OF_THE_START} for part in parts]
        two_stage = networks[0]['type'] == 'TwoStageJDDB'
        path: dict[str, Any] = {'strict_load_g': True}
        if len(parts) == 2:
            network = {'_delete_': True, 'type': 'DenoiseThenDemosaic', 'denoiser': networks[0], 'demosaicker': networks[1]}
            path['pretrain_network_g'] = str(self.joined_weights)
        else:
            network = {k: v for k, v in networks[0].items() if k not in _OF_THE_TEST} if two_stage else {
                '_delete_': True, **networks[0]}
            path['pretrain_network_g'] = str(self.trainings[0].weights)
        averaged = len(parts) == 1 and parts[0]['train'].get('ema_decay')
        path['param_key_g'] = 'params_ema' if averaged else 'params'
        content = {'_base_': str(self.source.resolve()), 'name': self.name, 'model_type': parts[0]['model_type'],
                   'num_gpu': parts[0]['num_gpu'], 'network_g': network, 'path': path,
                   'val': _tiling(networks[0], two_stage, self.system.align)}
        options = merge(content, overrides)
        return {**options, 'datasets': test_sets(options)}

    @property
    def joined_weights(self) -> Path:
        """One checkpoint of a denoiser and a demosaicker."""
        return Path('experiments', f'{self.study.name}_{self.system.key}_seed{self.seed}.pth')

    def prepare(self) -> None:
        """Join the weights of two parts."""
        if len(self.system.parts) == 2:
            with atomic_write(self.joined_weights) as file:
                torch.save({'params': join_checkpoints(*(training.state() for training in self.trainings))}, file)


def _tiling(network: Mapping[str, Any], two_stage: bool, align: str) -> dict[str, Any]:
    """What a test file says of alignment and tiles holds for the two-stage network; other systems get frames as they are.

    Args:
        network: options of the system's network.
        two_stage: it is a two-stage network.
        align: of the system.
    """
    if two_stage:
        return {'align': 'none'} if network.get('coarse') == 'none' else {}
    if align == 'tiles':
        return {'align': align}
    return {'align': align, 'tile': None, 'overlap': None}


def keep_options(file: Path, options: Mapping[str, Any], name: str) -> None:
    """Write resolved options, or compare with what the training was started with.

    Raises:
        OptionError: they differ; results of both must not meet in one table.
    """
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            partial.write_text(dump_options(options), encoding='utf-8')
    then, now = flat(load_options(str(file))), flat(options)
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise OptionError(f'{file}: {key} is {then.get(key)!r}, not {now.get(key)!r}: {name} was started with other options. '
                              f'Continue with those, work in another folder, or remove that file and experiments/{name}.')


def flat(options: Any, prefix: str = '') -> dict[str, Any]:
    """Options by dotted keys."""
    parts = options.items() if isinstance(options, Mapping) else enumerate(options) if isinstance(options, list) else ()
    below = {key: value for name, part in parts for key, value in flat(part, f'{prefix}.{name}'.strip('.')).items()}
    return below or {prefix: options}
