"""What the systems of the paper's tables share: checks of their input, and networks that denoise before demosaicking."""
from __future__ import annotations

from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import OptionError, ShapeError, check_choice
from jddb_plugin.ops.bayer import demosaic_bilinear


def check_tiles(network: BurstNetwork, tiles: Tensor, ref_idx: int) -> None:
    """Check what a network is asked to restore.

    Args:
        network: gives the number of frames and the multiple.
        tiles: [T, N, 8, h, w].
        ref_idx: frame that is restored.

    Raises:
        ShapeError: the layout, the number of frames, the size or the reference does not fit.
    """
    name = type(network).__name__
    if tiles.ndim != 5 or tiles.shape[2] != 8:
        raise ShapeError(f'{name}: expected tiles [T, N, 8, h, w] (4 raw planes, 4 noise map planes), got {list(tiles.shape)}.')
    count, (height, width) = tiles.shape[1], tiles.shape[-2:]
    if network.num_frame not in (None, count):
        raise ShapeError(f'{name} restores bursts of {network.num_frame} frames, got {count}; set network_g.num_frame and '
                         'num_frame of the data sets to the same number.')
    if height % network.multiple or width % network.multiple:
        raise ShapeError(f'{name}: height and width of a tile must be multiples of {network.multiple} packed px, got '
                         f'{height} x {width}; pad or crop the tile.')
    if not 0 <= ref_idx < count:
        raise ShapeError(f'{name}: the reference must be one of frames 0 .. {count - 1}, got {ref_idx}.')


class BurstDenoiser(BurstNetwork):
    """A burst network that gives the clean mosaic of the reference (``output: raw``), or RGB itself (``output: rgb``).

    A subclass implements :meth:`predict`. With ``output: raw`` it serves as the first half of
    :class:`jddb_plugin.archs.denoise_then_demosaic_arch.DenoiseThenDemosaic`; alone it still fulfils the contract of
    :class:`BurstNetwork`: its mosaic is demosaicked bilinearly.

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

    def training_outputs(self, tiles: Tensor, ref_idx: int) -> dict[str, Tensor]:
        """What losses may ask for: ``restored`` as :meth:`restore` gives it, and ``raw`` as :meth:`denoise` does."""
        result = self.predict(tiles, ref_idx)
        if self.output == 'rgb':
            return {'restored': result}
        return {'restored': demosaic_bilinear(result), 'raw': result}
