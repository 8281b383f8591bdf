"""Where the tiles of a frame lie."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import OptionError, check_choice
from jddb_plugin.ops.tiling import TileGrid, cheapest_cover, make_grid

#: Overlap where nothing else is asked for; more than a network's context is never needed.
_OVERLAP = 16
#: No tile or overlap is larger.
_LARGEST = 4096


@dataclass(frozen=True)
class TilingOptions:
    """How frames are divided into tiles. All lengths are in pixels of the packed raw.

    Attributes:
        tile: side of a tile without its overlap. None: tiles that are aligned as a whole have the side of ``patch``; where pixels
            are aligned one by one, tiles are as large as the memory allows, and of the shape that processes the fewest pixels.
        overlap: context on each side of a tile. None: that of ``patch`` for tiles that are aligned as a whole, else 16, or
            the network's context if that is less.
        layout: 'inside' or 'released', see :func:`jddb_plugin.ops.tiling.make_grid`.
        patch: (side, margin) of what is matched where ``tile`` and ``overlap`` are None.
    """

    tile: Optional[int] = None
    overlap: Optional[int] = None
    layout: str = 'inside'
    patch: tuple[int, int] = (64, 4)

    def check(self, multiple: int, where: str = '') -> None:
        """Raise OptionError for a value that cannot be used; ``where`` stands before the names of options."""
        check_choice(self.layout, ('inside', 'released'), f'{where}layout')
        for name, value, least in (('tile', self.tile, multiple), ('overlap', self.overlap, 0)):
            if value is not None and (value % multiple or not least <= value <= _LARGEST):
                raise OptionError(f'{where}{name}: expected a multiple of {multiple} in {least} .. {_LARGEST}, got {value}.')

    def matched(self, size: tuple[int, int], multiple: int) -> tuple[int, int]:
        """(side, margin) of what is matched in frames of a size; a frame smaller than a tile by default is one tile."""
        side, margin = self.patch
        if self.tile is None:
            side = max(multiple, min(side, min(size) // multiple * multiple))
        return (side if self.tile is None else self.tile, margin if self.overlap is None else self.overlap)


def tile_grid(size: tuple[int, int], options: TilingOptions, multiple: int) -> TileGrid:
    """Tiles that are aligned as a whole, in frames of ``size``."""
    tile, overlap = options.matched(size, multiple)
    return make_grid(*size, tile=tile, overlap=overlap, multiple=multiple, layout=options.layout)


def cover_grid(net: BurstNetwork, size: tuple[int, int], options: TilingOptions, pixels: int) -> TileGrid:
    """Tiles of frames that are aligned already, of at most ``pixels`` each if their size is not given."""
    overlap = options.overlap
    if overlap is None:
        overlap = _OVERLAP if net.context is None else min(_OVERLAP, net.context)
        overlap += -overlap % net.multiple
    if options.tile is None:
        return cheapest_cover(*size, pixels=pixels, overlap=overlap, multiple=net.multiple)
    return make_grid(*size, tile=options.tile, overlap=overlap, multiple=net.multiple, layout=options.layout)
