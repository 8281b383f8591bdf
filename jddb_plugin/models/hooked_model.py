"""Hooks for any model of the toolbox, and a picture of the matching in its validation."""
from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Mapping, Optional

from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils.registry import MODEL_REGISTRY

from jddb_plugin.checks import OptionError
from jddb_plugin.hooks.hook import build_hooks
from jddb_plugin.models.evaluation import middle_frames
from jddb_plugin.visual.matching import draw_matching

if TYPE_CHECKING:
    from jddb_plugin.runtime.host import HostModel as _Host
else:
    _Host = object  # the model's own class, which comes next in the order of methods

#: Side of the tiles whose matching is drawn where ``val.tile`` says nothing.
_DRAWN_TILE = 64


class HookMixin(_Host):
    """Runs the hooks listed under ``train: hooks:`` around every optimization step.

    With ``val: matching_figure: true``, validation also draws the matching of one burst of each clip for TensorBoard;
    the network must have a coarse stage (TwoStageJDDB, CoarseAligned, DPBM).

    Put it first: ``class MyModel(HookMixin, SRModel)``.
    """

    @staticmethod
    def check_hooks(opt: Mapping[str, Any]) -> None:
        """Check the options that this mixin reads, before anything is built.

        Raises:
            OptionError: a hook or one of its keys is unknown, or there is nowhere to draw the matching figure.
        """
        build_hooks(opt['train'].get('hooks') or [])
        if (opt.get('val') or {}).get('matching_figure') and not opt['logger']['use_tb_logger']:
            raise OptionError('val.matching_figure: is drawn for TensorBoard; set logger.use_tb_logger: true.')

    def init_training_settings(self) -> None:
        """Build the hooks beside the model's own training settings."""
        self.hooks = build_hooks(self.opt['train'].get('hooks') or [])
        if self._draws_matching() and self._coarse_stage() is None:
            raise OptionError(f"val.matching_figure: {type(self.get_bare_model(self.net_g)).__name__} has no coarse alignment "
                              'that could be drawn; leave it out, or use CoarseAligned or TwoStageJDDB.')
        super().init_training_settings()

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of the model between its hooks."""
        for hook in self.hooks:
            hook.before_step(self, current_iter)
        super().optimize_parameters(current_iter)
        for hook in self.hooks:
            hook.after_step(self, current_iter)

    def get_current_log(self) -> dict[str, Any]:
        """The model's log and the hooks' values."""
        log = OrderedDict(super().get_current_log())
        for hook in self.hooks:
            log.update(hook.log())
        return log

    def _draws_matching(self) -> bool:
        return bool((self.opt.get('val') or {}).get('matching_figure'))

    def _coarse_stage(self) -> Optional[Any]:
        net = getattr(self, 'net_g_ema', None) or self.get_bare_model(self.net_g)  # the one that is validated
        candidate = getattr(net, 'coarse', net)
        return candidate if hasattr(candidate, 'match') else None

    def validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """The model's own validation, and the matching of the middle frame of every clip for TensorBoard."""
        super().validation(dataloader, current_iter, tb_logger, save_img)
        coarse = self._coarse_stage()
        if not (tb_logger and self._draws_matching()) or coarse is None:  # rank 0 alone has a logger
            return
        dataset = dataloader.dataset
        for folder, index in middle_frames(dataset).items():
            burst = dataset[index]['lq'].to(self.device)
            largest = min(burst.shape[-2:]) // coarse.scale * coarse.scale
            side = min((self.opt.get('val') or {}).get('tile') or _DRAWN_TILE, largest)
            image = draw_matching(burst, coarse, tile=side)
            tb_logger.add_image(f"matching/{dataset.opt['name']}/{folder}", image, current_iter, dataformats='HWC')


@MODEL_REGISTRY.register()
class HookedVideoBaseModel(HookMixin, VideoBaseModel):
    """The toolbox's VideoBaseModel with hooks."""


@MODEL_REGISTRY.register()
class HookedSRModel(HookMixin, SRModel):
    """The toolbox's SRModel with hooks."""
