"""What a long run adds to any model of the toolbox: it stops on request, keeps its best scores, and reports its speed.

The toolbox's trainer calls a model's methods in a fixed order, once per iteration: ``update_learning_rate``,
``feed_data``, ``optimize_parameters``, then, when due, ``get_current_log``, ``save`` and ``validation``.
:class:`TrainingLifecycleMixin` stands in front of the model's own class and acts between those calls.
"""
from __future__ import annotations

import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Mapping, Optional

from basicsr.utils import get_root_logger

from jddb_plugin.checks import CheckpointError
from jddb_plugin.runtime import history, preemption, processes
from jddb_plugin.runtime.checkpoints import remove_outdated
from jddb_plugin.runtime.data_position import RUN_STATE, seed_step
from jddb_plugin.runtime.meter import Meter

if TYPE_CHECKING:
    from jddb_plugin.runtime.host import HostModel as _Host
else:
    _Host = object  # the model's own class, which comes next in the order of methods


class TrainingLifecycleMixin(_Host):
    """Mixin for models of the toolbox while they train, see :func:`with_lifecycle`."""

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        per_process = opt['datasets']['train']['batch_size_per_gpu'] * (1 if opt['dist'] else max(opt['num_gpu'], 1))
        self._meter: Optional[Meter] = None
        self._batch = per_process * opt['world_size']
        self._saved_at = -1
        self._iteration = 0
        self._validated: dict[str, int] = {}
        self._unwritten: Optional[CheckpointError] = None

    # ------------------------------------------------------------------------------------ iterations

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """First call of an iteration: global random numbers start from (seed, rank, iteration)."""
        if self._meter is None:
            self._repeat_validation(current_iter - 1)
            self._meter = Meter(self._batch, self.device)
        self._iteration = current_iter
        seed_step(self.opt['manual_seed'], self.opt['rank'], current_iter)
        super().update_learning_rate(current_iter, warmup_iter=warmup_iter)

    def optimize_parameters(self, current_iter: int) -> None:
        """The model's step; then the run stops here if it was asked to."""
        super().optimize_parameters(current_iter)
        if self._meter is not None:
            self._meter.count()
        self.stop_if_asked(current_iter)

    def stop_if_asked(self, current_iter: int) -> None:
        """Save and end the run if any of its processes has received a signal; all processes must call this together.

        Raises:
            Preempted: with the iteration that was saved.
        """
        if not processes.any_of(preemption.received() is not None):
            return
        if self._saved_at != current_iter:
            self.save(RUN_STATE.epoch_of(current_iter), current_iter)
        signal = preemption.received() or 'a signal to another process'
        raise preemption.Preempted(f'{signal}: saved iteration {current_iter} and stopped; resume with --auto_resume.')

    def get_current_log(self) -> dict[str, Any]:
        """The model's log, then speed and memory; rank 0 also keeps them as data, for ``jddb plot``."""
        log = OrderedDict(super().get_current_log(), **(self._meter.read() if self._meter is not None else {}))
        if self.opt['rank'] == 0:
            rates = {f'lr_{place}': rate for place, rate in enumerate(self.get_current_learning_rate(), 1)}
            try:
                history.append_metrics(self.opt['path']['experiments_root'], self._iteration, {**log, **rates})
            except OSError as error:  # a full disk stops the run at its next checkpoint
                get_root_logger().warning(f'Numbers of iteration {self._iteration} were not kept: {error}')
        return log

    # ------------------------------------------------------------------------------------- checkpoints

    def save(self, epoch: int, current_iter: int) -> None:
        """Save, in rank 0, and remove what ``logger.keep_last`` and ``keep_every`` do not keep.

        Raises:
            CheckpointError: it could not be written. All processes raise together.
        """
        begin, error = time.perf_counter(), None
        try:
            super().save(epoch, current_iter)
            self._remove_outdated()
        except (CheckpointError, OSError) as caught:
            error = caught if isinstance(caught, CheckpointError) else CheckpointError(f'checkpoints: {caught}')
        processes.fail_together(error, 'saving a checkpoint')
        self._saved_at = current_iter
        self._pause(begin)

    def _remove_outdated(self) -> None:
        keep_last = self.opt['logger'].get('keep_last')
        if keep_last is None or self.opt['rank'] != 0:
            return
        labels = [key[len('network_'):] for key in self.opt if key.startswith('network_')]
        remove_outdated(self.opt['path']['training_states'], self.opt['path']['models'], labels, keep_last=keep_last,
                        keep_every=self.opt['logger'].get('keep_every') or 0)

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """The model's own, and the best scores so far."""
        super().resume_training(resume_state)
        self._saved_at = resume_state['iter']
        if self.opt['rank'] != 0:  # rank 0 alone scores
            return
        metrics = (self.opt.get('val') or {}).get('metrics') or {}
        source = os.path.dirname(os.path.dirname(self.opt['path']['resume_state']))
        entries = history.take_over(source, self.opt['path']['experiments_root'], resume_state['iter'], tuple(metrics))
        for entry in entries:
            if entry['metric'] in metrics:
                self._initialize_best_metric_results(entry['set'])
                super()._update_best_metric_result(entry['set'], entry['metric'], entry['value'], entry['iter'])
            if entry['iter'] == resume_state['iter']:
                self._validated[entry['set']] = entry['iter']

    # -------------------------------------------------------------------------------------- validation

    def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        """Validate, once per iteration and data set; the toolbox counts the last iteration one too far (train.py:208)."""
        current_iter = min(current_iter, int(self.opt['train']['total_iter']))
        name = dataloader.dataset.opt['name']
        if self._validated.get(name) == current_iter:
            return
        begin = time.perf_counter()
        self.stop_if_asked(current_iter)
        self._unwritten = None
        super().validation(dataloader, current_iter, tb_logger, save_img)
        self._keep_best(name, current_iter)
        processes.fail_together(self._unwritten, 'writing scores')
        self._validated[name] = current_iter
        self._pause(begin)

    def _repeat_validation(self, iteration: int) -> None:
        """Validate if the run was interrupted before all scores of its iteration were written.

        Not where the state is another experiment's.
        """
        val = self.opt.get('val') or {}
        if RUN_STATE.resumed is None or not val.get('metrics') or iteration % val['val_freq']:
            return
        source = os.path.dirname(os.path.dirname(os.path.realpath(self.opt['path']['resume_state'])))
        if source != os.path.realpath(self.opt['path']['experiments_root']):
            return
        self._validated = processes.from_rank_0(self._validated)
        for hook in getattr(self, 'hooks', ()):  # what they set is a function of the iteration
            hook.before_step(self, iteration)
        for loader in RUN_STATE.validation_loaders:
            name = loader.dataset.opt['name']
            if self._validated.get(name) != iteration:
                get_root_logger().info(f'Iteration {iteration}: validation on {name} was interrupted, and is repeated now.')
                self.validation(loader, iteration, RUN_STATE.tb_logger, val.get('save_img', False))

    def _update_best_metric_result(self, dataset_name: str, metric: str, val: float, current_iter: int) -> None:
        try:
            history.append(self.opt['path']['experiments_root'], current_iter, dataset_name, metric, val)
        except OSError as error:  # raised when all processes can
            self._unwritten = CheckpointError(f"{self.opt['path']['experiments_root']}: scores could not be written ({error}).")
        super()._update_best_metric_result(dataset_name, metric, float(val), current_iter)

    def _keep_best(self, name: str, current_iter: int) -> None:
        """With ``val.save_best``, keep the network that scored best on a data set by the first metric."""
        best = getattr(self, 'best_metric_results', {}).get(name)  # rank 0 has it
        if not self.opt['val'].get('save_best') or not best or next(iter(best.values()))['iter'] != current_iter:
            return
        averaged = getattr(self, 'net_g_ema', None)
        nets, keys = ([self.net_g, averaged], ['params', 'params_ema']) if averaged is not None else (self.net_g, 'params')
        try:
            self.save_network(nets, 'net_g', f'best_{name}', param_key=keys)
        except CheckpointError as error:
            self._unwritten = error
            return
        get_root_logger().info(f'Kept as the best so far on {name}: net_g_best_{name}.pth.')

    def _pause(self, begin: float) -> None:
        if self._meter is not None:
            self._meter.pause(time.perf_counter() - begin)


def with_lifecycle(cls: type) -> type:
    """A model's class with :class:`TrainingLifecycleMixin` in front."""
    return type(cls.__name__, (TrainingLifecycleMixin, cls), {'__module__': cls.__module__, '__doc__': cls.__doc__})
