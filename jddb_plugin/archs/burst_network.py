"""The contract of a burst network: what the training model, the tiled inference and the loaders ask of it."""
from __future__ import annotations

from typing import Any, Mapping, Optional

import torch
from torch import Tensor, nn

from jddb_plugin.archs.dpbm_arch import DPBM
from jddb_plugin.checks import ShapeError, check_ndim
from jddb_plugin.options import check_call


class BurstNetwork(nn.Module):
    """Base class of networks that turn a burst of packed raw into linear camera RGB.

    A subclass implements :meth:`restore`, which sees tiles, and states what it needs of them. Where tiles lie, how large
    they are, how frames are aligned and which frame is the reference is the caller's choice.

    Attributes:
        upscale: pixels of the result per pixel of the packed raw.
        multiple: heights and widths of tiles must be multiples of it.
        context: pixels of the packed raw around a pixel that its result depends on; None if it is not bounded.
        num_frame: the number of frames that the network is made for; None if it takes any.
        least_frames: the fewest frames that it can restore.
        suits_bf16: whether convolutions in bfloat16 change its pictures by less than anybody can see.
        aligned_input: whether :meth:`restore` expects frames that were moved onto the reference.
        coarse: block matching that was trained with the network (:class:`jddb_plugin.archs.dpbm_arch.DPBM`), or None.
    """

    upscale: int = 2
    multiple: int = 1
    context: Optional[int] = None
    num_frame: Optional[int] = None
    least_frames: int = 1
    suits_bf16: bool = False
    aligned_input: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.coarse: Optional[DPBM] = None

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Restore tiles.

        Args:
            tiles: [T, N, 8, h, w], packed noisy raw (R Gr Gb B, in [0, 1]) and its noise map (standard deviation).
            ref_idx: index of the reference among the N frames.

        Returns:
            linear camera RGB [T, 3, 2h, 2w] of the reference frame.
        """
        raise NotImplementedError(f'{type(self).__name__} does not implement restore().')

    def check_tiles(self, tiles: Tensor, ref_idx: int) -> None:
        """Check the arguments of :meth:`restore`.

        Raises:
            ShapeError: not [T, N, 8, h, w], h or w is not a multiple of ``multiple``, a wrong number of frames, or no such frame.
        """
        check_ndim(tiles, 'T N C h w', 'tiles')
        count, channels, height, width = tiles.shape[1:]
        if channels != 8:
            raise ShapeError(f'tiles: expected 8 planes (packed raw and its noise map), got {list(tiles.shape)}.')
        if height % self.multiple or width % self.multiple:
            raise ShapeError(f'tiles: {type(self).__name__} needs heights and widths that are multiples of {self.multiple}, '
                             f'got {height} x {width}.')
        if self.num_frame is not None and count != self.num_frame:
            raise ShapeError(f'tiles: {type(self).__name__} needs {self.num_frame} frames, got {count}.')
        if not 0 <= ref_idx < count:
            raise ShapeError(f'ref_idx: expected 0 .. {count - 1} for {count} frames, got {ref_idx}.')

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network, with any options. By default: whether its keys are those without options."""
        try:
            return cls().state_dict().keys() == state.keys()
        except TypeError:  # it has no defaults
            return False

    @classmethod
    def name_of(cls, state: Mapping[str, Tensor]) -> str:
        """What messages call the network of a state dict that is of this class."""
        return cls.__name__

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Arguments of the network that the shapes of its state dict show; ``where`` names the file in errors.

        Raises:
            CheckpointError: a tensor is missing, or has a shape that no such network has.
        """
        return {}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], options: Mapping[str, Any],
                   where: str) -> tuple[BurstNetwork, Mapping[str, Tensor]]:
        """(the network with these options, what it is to load of the state dict)."""
        check_call(cls, options, where)
        return cls(**options), state

    def coarse_parameters(self) -> list[nn.Parameter]:
        """Parameters of a coarse alignment that learns at a rate of its own; none by default."""
        return []

    def compile_restoration(self) -> None:
        """Run :meth:`restore` through torch.compile from now on."""
        self.restore = torch.compile(self.restore)  # type: ignore[method-assign]  # of this one network

    def facts(self) -> dict[str, str]:
        """What a report says about the network."""
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return {'Type': type(self).__name__, 'Parameters': f'{parameters:,}'}

    def forward(self, lq: Tensor, *, ref_idx: Optional[int] = None) -> Tensor:
        """Restore ``lq`` [B, N, 8, H, W] as one tile, as it is aligned; the reference is the middle frame by default."""
        return self.restore(lq, lq.shape[1] // 2 if ref_idx is None else ref_idx)
