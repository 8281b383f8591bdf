"""Burst networks that may leave demosaicking to another network."""
from __future__ import annotations

from typing import Optional

from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import OptionError, check_choice
from jddb_plugin.ops.bayer import demosaic_bilinear


class BurstDenoiser(BurstNetwork):
    """A burst network that gives the clean mosaic of the reference (``output: raw``), or RGB itself (``output: rgb``).

    A subclass implements :meth:`predict`. With ``output: raw`` it serves as the first half of
    :class:`jddb_plugin.archs.denoise_then_demosaic_arch.DenoiseThenDemosaic`; alone it still fulfils the contract of
    :class:`BurstNetwork`: its mosaic is demosaicked bilinearly.

    Frames are not expected to be aligned.

    Args:
        output: 'raw' or 'rgb'.
    """

    aligned_input = False

    def __init__(self, output: str = 'raw') -> None:
        super().__init__()
        check_choice(output, ('raw', 'rgb'), 'network_g.output')
        self.output = output

    def predict(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """The network's own result: packed raw [T, 4, h, w], or linear camera RGB [T, 3, 2h, 2w]."""
        raise NotImplementedError

    def denoise(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Clean packed raw [T, 4, h, w] of the reference of tiles [T, N, 8, h, w].

        Raises:
            OptionError: the network was built for RGB.
        """
        if self.output != 'raw':
            raise OptionError(f"{type(self).__name__} was built with output: {self.output} and gives no mosaic; set output: raw.")
        return self.predict(tiles, ref_idx)

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Linear camera RGB [T, 3, 2h, 2w] of the reference of tiles [T, N, 8, h, w]."""
        result = self.predict(tiles, ref_idx)
        return demosaic_bilinear(result) if self.output == 'raw' else result

    def training_output(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """What the losses on raw get: by default the result of :meth:`predict`."""
        return self.predict(tiles, ref_idx)

    def forward(self, lq: Tensor, *, ref_idx: Optional[int] = None) -> Tensor:
        """Restore ``lq`` [B, N, 8, H, W] as one tile; the reference is the middle frame by default.

        Returns:
            linear camera RGB [B, 3, 2H, 2W]; while training with ``output: raw`` what :meth:`training_output` gives, for
            losses such as RawLoss that compare mosaics.
        """
        ref_idx = lq.shape[1] // 2 if ref_idx is None else ref_idx
        if self.training and self.output == 'raw':
            return self.training_output(lq, ref_idx)
        return self.restore(lq, ref_idx)
