"""Coarse alignment in front of any video network of the toolbox.

Paper: section 3.2 and table 4, "w/ CA": what large shifts need first is block matching; a network that expects small
motion follows. Here that network is one of the toolbox's, by its registry name.
"""
from __future__ import annotations

import inspect
from typing import Any, Mapping, Optional

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.dpbm_arch import DPBM, SCALE, middle_frame
from jddb_plugin.archs.tiled import process_tiles
from jddb_plugin.checks import OptionError, ShapeError, check_choice, check_ndim
from jddb_plugin.ops.bayer import demosaic_bilinear, half_size_rgb
from jddb_plugin.ops.tiling import make_grid
from jddb_plugin.options import check_call, registered

#: Burst length of the toolbox's networks that have no ``num_frame``; they restore the middle.
_FRAMES = {'TOFlow': 7, 'DUF': 7}

_HELP = ('CoarseAligned feeds one tensor of coarsely aligned tiles [tiles, N, C, height, width] and expects the restored '
         "reference [tiles, K, s height, s width], or all frames [tiles, N, K, s height, s width], of which it keeps the "
         'reference; see docs/coarse_aligned.md for what is supported, and why.')


@ARCH_REGISTRY.register()
class CoarseAligned(nn.Module):
    """A video network that sees coarsely aligned frames, tile by tile.

    Each tile of the reference frame is found in the other frames; the network restores the aligned tiles, and the
    results are merged with their overlaps blended. A checkpoint of the bare network can be loaded as it is.

    Recurrent networks (BasicVSR, IconVSR) work as sliding-window networks: they run over the aligned burst of one
    reference frame, and only its output is kept. Their own mode, all frames of a long clip in one pass, is not
    possible behind an alignment onto one frame: a hidden state lives in the geometry of its frame, and a tile of
    aligned frames belongs to the geometry of one reference.

    Args:
        network: ``type`` and arguments of a registered network.
        align: options of :class:`DPBM`: match_channels (3 for RGB, 4 for packed raw), features, radius, stride,
            temperature, ...
        network_input: what the network gets of the aligned tiles. 'aligned': the tiles as they are. For packed raw
            with or without noise map and a network that wants RGB: 'half_size_rgb' (R, mean of the greens, B), or
            'demosaiced' (bilinear, twice the size); both drop the noise map.
        tile, overlap: side of a tile, and context on each side of it, in pixels of the frames; multiples of 4.
        tile_batch: tiles that are restored at once in evaluation; in training all are.
    """

    def __init__(self, network: Mapping[str, Any], align: Optional[Mapping[str, Any]] = None,
                 network_input: str = 'aligned', tile: int = 64, overlap: int = 4, tile_batch: int = 8) -> None:
        super().__init__()
        check_choice(network_input, ('aligned', 'half_size_rgb', 'demosaiced'), 'network_g.network_input')
        if tile_batch < 1:
            raise OptionError(f'network_g.tile_batch: must be at least 1, got {tile_batch}.')
        align = dict(align or {})
        check_call(DPBM, align, 'network_g.align')
        self.coarse = DPBM(**align)
        if network_input != 'aligned' and self.coarse.match_channels != 4:
            raise OptionError(f"network_g.network_input: '{network_input}' is made of packed raw, but align.match_channels is "
                              f'{self.coarse.match_channels}; set it to 4, or use network_input: aligned.')
        self.network, self.network_name, self.num_frame = _build(network)
        self.ref_idx = _FRAMES[self.network_name] // 2 if self.network_name in _FRAMES else getattr(
            self.network, 'center_frame_idx', None)
        make_grid(tile, tile, tile=tile, overlap=overlap, multiple=SCALE)  # refuses what does not fit the scale
        self.tile, self.overlap = tile, overlap
        self.network_input = network_input
        self.tile_batch = tile_batch

    def forward(self, lq: Tensor) -> Tensor:
        """Restore the reference frame.

        Args:
            lq: [B, N, C, H, W], RGB, or packed raw with or without its noise map; any size that holds a tile.

        Returns:
            [B, K, s H, s W] with the network's channels K and scale s.

        Raises:
            ShapeError: wrong number of frames or channels, a frame smaller than a tile, or a network that cannot
                work on aligned tiles.
        """
        check_ndim(lq, 'B N C H W', 'lq')
        if self.num_frame not in (None, lq.shape[1]):
            raise ShapeError(f'lq: {self.network_name} takes bursts of {self.num_frame} frames, got {list(lq.shape)}; set '
                             'num_frame of the data sets (and of the network, where it has one).')
        grid = make_grid(*lq.shape[-2:], tile=self.tile, overlap=self.overlap, multiple=SCALE)
        tile_batch = len(grid) * len(lq) if self.training else self.tile_batch
        return process_tiles(lq, grid, self._restore, coarse=self.coarse, tile_batch=tile_batch,
                          ref_idx=middle_frame(lq, self.ref_idx))

    def _restore(self, tiles: Tensor) -> Tensor:
        """Tiles [t, N, C, h, w] -> the restored reference [t, K, s h, s w]."""
        ref_idx = middle_frame(tiles, self.ref_idx)
        tiles = self._convert(tiles).contiguous()  # the toolbox's networks call view
        try:
            result = self.network(tiles)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise ShapeError(f'{self.network_name} failed on aligned tiles {list(tiles.shape)}: {error} ' + _HELP) from error
        if isinstance(result, Tensor) and result.ndim == 5 and result.shape[1] == tiles.shape[1]:
            result = result[:, ref_idx]
        if not isinstance(result, Tensor) or result.ndim != 4:
            shape = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ShapeError(f'{self.network_name} made {shape} of aligned tiles {list(tiles.shape)}. ' + _HELP)
        return result

    def _convert(self, tiles: Tensor) -> Tensor:
        if self.network_input == 'aligned':
            return tiles
        convert = half_size_rgb if self.network_input == 'half_size_rgb' else demosaic_bilinear
        return convert(tiles[:, :, :4].flatten(0, 1)).unflatten(0, tiles.shape[:2])

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Rename the keys of a checkpoint of the bare network, so that it fits; leave any other as it is."""
        own = self.network.state_dict()
        if not state or not own or not all(key in own for key in state):
            return state
        coarse = {f'coarse.{key}': value for key, value in self.coarse.state_dict().items()}
        return {**coarse, **{f'network.{key}': value for key, value in state.items()}}


def _build(options: Mapping[str, Any]) -> tuple[nn.Module, str, Optional[int]]:
    """The network, its name, and the number of frames it takes if that is fixed."""
    network, arguments = registered(ARCH_REGISTRY, options, 'network_g.network')
    check_call(network, arguments, 'network_g.network')
    parameter = inspect.signature(network).parameters.get('num_frame')
    num_frame = _FRAMES.get(options['type']) if parameter is None else arguments.get('num_frame', parameter.default)
    return network(**arguments), options['type'], num_frame
