"""Export of the refined stage: coarsely aligned tiles in, RGB out.

Matching, cutting of tiles and merging depend on the frames' content and size and stay in Python; so does the noise map.
:func:`jddb_plugin.archs.tiled.process_tiles` runs an exported stage on whole frames.

Formats, by the file's suffix:
    .onnx  ONNX, read by onnxruntime and others.
    .pt2   a program of ``torch.export``, read by ``torch.export.load``. Made on and for the CPU.
"""
from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.archs.jddb_arch import RefinedStage, TwoStageJDDB
from jddb_plugin.archs.pixel_align import DeformConvPack
from jddb_plugin.checks import DataError, ExportError, OptionError, check_choice, optional_package
from jddb_plugin.files import atomic_write

#: Version of ONNX's operators; DeformConv is there from 19 on.
OPSET = 20
#: Largest difference to the network that an export may have.
TOLERANCE = 1e-4
#: Oldest torch whose exporters are known to take the network; those of 2.4 do not.
LEAST_TORCH = (2, 8)
#: Forms of the deformable convolution in the file, and the backend that is traced for each.
FORMS = {'grid_sample': 'grid_sample', 'deform_conv': 'torchvision'}
SUFFIXES = ('.onnx', '.pt2')
#: Smallest side of a tile.
_SMALLEST = 2 * SCALE


class Exported(NamedTuple):
    """Result of the check of an exported stage.

    Attributes:
        difference: largest absolute difference to the network.
        offset_size: mean absolute offset of the deformable convolutions in the check, in px; 0 where there are none. Where it
            is 0 the check says nothing about them.
        shapes: of the tiles in the check.
    """

    difference: float
    offset_size: float
    shapes: list[tuple[int, ...]]


class _Stage(nn.Module):
    """The refined stage with a fixed reference, as it is exported."""

    def __init__(self, stage: RefinedStage, ref_idx: int, form: str) -> None:
        super().__init__()
        self.stage = copy.deepcopy(stage).cpu().float().eval().requires_grad_(False)
        for layer in self.stage.modules():
            if isinstance(layer, DeformConvPack):
                layer.backend = FORMS[form]
        self.ref_idx = ref_idx

    def forward(self, tiles: Tensor) -> Tensor:
        return self.stage(tiles, self.ref_idx).restored


def export_refined(net: TwoStageJDDB, path: str, *, frames: int = 5, size: tuple[int, int] = (72, 72),
                   ref_idx: Optional[int] = None, form: str = 'grid_sample', open_size: bool = False) -> Exported:
    """Write the refined stage of ``net``, and check the file against it on the CPU.

    Input ``tiles`` [B, N, 8, H, W] float32 (raw and noise map of coarsely aligned tiles), output ``rgb`` [B, 3, 2H, 2W]. B is
    open; N, the reference, and H and W unless ``open_size``, are fixed.

    Args:
        net: whose parameters are exported.
        path: to write, .onnx or .pt2. It is replaced when the check has passed, and kept if not.
        frames: N.
        size: H and W, of a tile with its overlaps, in packed px; multiples of 4.
        ref_idx: reference frame; the middle one if None.
        form: 'grid_sample', which any runtime has, or 'deform_conv' for one operator per deformable convolution.
        open_size: leave H and W open, as multiples of 4 from 8 on; ``size`` is only the check's. Takes longer.

    Raises:
        OptionError: an argument has a value that cannot be used.
        DataError: a package is missing, or the file cannot be written.
        ExportError: the exporter or the runtime fails, or the difference is above :data:`TOLERANCE`.
    """
    ref_idx = _check_arguments(net, path, frames, size, ref_idx, form)
    partial = path
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with atomic_write(path, keep_suffix=True) as file:  # the suffix says which format it is
            partial = str(file)
            write_refined(net, partial, frames=frames, size=size, ref_idx=ref_idx, form=form, open_size=open_size)
            shapes = [(1, frames, 8, *size), (3, frames, 8, *size)]
            if open_size:
                shapes.append((2, frames, 8, size[0] + SCALE, size[1] + 3 * SCALE))
            result = compare_refined(net, partial, shapes, ref_idx=ref_idx)
            if not result.difference <= TOLERANCE:
                raise ExportError(f'{path}: not written; what was exported differs from the network by {result.difference:.1e}, '
                                  f'more than {TOLERANCE:.0e}. Try another version of torch or of the runtime.')
    except (DataError, ExportError) as error:
        raise type(error)(str(error).replace(partial, path)) from error
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror or error}).') from error
    return result


def _check_arguments(net: TwoStageJDDB, path: str, frames: int, size: tuple[int, int], ref_idx: Optional[int], form: str) -> int:
    """Index of the reference.

    Raises:
        OptionError: an argument cannot be used.
    """
    if Path(path).suffix not in SUFFIXES:
        raise OptionError(f'{path}: expected a name that ends in {" or ".join(SUFFIXES)}.')
    check_choice(form, FORMS, 'form')
    if any(side < _SMALLEST or side % SCALE for side in size):
        raise OptionError(f'{path}: sides of a tile must be multiples of {SCALE} from {_SMALLEST} on, got {size[0]} x {size[1]}.')
    if ref_idx is None:
        ref_idx = frames // 2
    if not 0 <= ref_idx < frames:
        raise OptionError(f'{path}: the reference must lie in a burst of {frames} frames, at 0 .. {frames - 1}; got {ref_idx}.')
    return ref_idx


def write_refined(net: TwoStageJDDB, path: str, *, frames: int, size: tuple[int, int], ref_idx: int, form: str,
                  open_size: bool) -> None:
    """Write the refined stage without a check, see :func:`export_refined`."""
    onnx = Path(path).suffix == '.onnx'
    if onnx:
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            optional_package(name, path)
    example = torch.zeros(2, frames, 8, *size)  # torch.export takes a batch of 1 for a constant
    dimensions = {0: torch.export.Dim('batch', min=1)}
    if open_size:
        for axis, name in ((3, 'quarter_height'), (4, 'quarter_width')):
            dimensions[axis] = SCALE * torch.export.Dim(name, min=_SMALLEST // SCALE)
    with _quiet():
        try:
            program = torch.export.export(_Stage(net.refine, ref_idx, form), (example,), dynamic_shapes=(dimensions,))
            _forget_paths(program.graph_module)
            if onnx:
                written = torch.onnx.export(program, (example,), dynamo=True, opset_version=OPSET, input_names=['tiles'],
                                            output_names=['rgb'], verbose=False)
                if written is None:
                    raise RuntimeError('the exporter returned no program')
                written.model.metadata_props['ref_idx'] = str(ref_idx)
                written.save(path, external_data=False)
            else:
                torch.export.save(program, path)
        except OSError:
            raise
        except Exception as error:  # the exporters raise many types
            older = '' if is_new_enough() else '; torch {}.{} and later can'.format(*LEAST_TORCH)
            message = f'{path}: torch {torch.__version__} cannot export the network ({_first_line(error)}){older}.'
            raise ExportError(message) from error


def is_new_enough() -> bool:
    """Whether this torch is one that exports the network."""
    return tuple(int(part) for part in torch.__version__.split('.')[:2]) >= LEAST_TORCH


def _forget_paths(program: torch.fx.GraphModule) -> None:
    """Remove the source paths of this computer from the program."""
    for module in program.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop('stack_trace', None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log and the warnings of the exporters."""
    log = logging.getLogger('torch.onnx')
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        log.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_refined(path: str) -> Callable[[Tensor], Tensor]:
    """An exported stage as a function on the CPU: tiles [B, N, 8, H, W] float32 -> RGB [B, 3, 2H, 2W].

    Raises:
        DataError: a package is missing.
        ExportError: the file cannot be read or run.
    """
    if Path(path).suffix == '.onnx':
        runtime = optional_package('onnxruntime', path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = runtime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        except Exception as error:  # its errors have no common base
            raise ExportError(f'{path}: onnxruntime {runtime.__version__} cannot run it ({_first_line(error)}); it supports '
                              'DeformConv on a CPU from 1.25 on; --form grid_sample does not need it.') from error
        return lambda tiles: torch.from_numpy(session.run(None, {'tiles': np.ascontiguousarray(tiles.numpy())})[0])
    import torchvision  # noqa: F401  (registers its operators)
    try:
        return torch.export.load(path).module()
    except Exception as error:  # the same
        raise ExportError(f'{path}: torch {torch.__version__} cannot run it ({_first_line(error)}).') from error


def compare_refined(net: TwoStageJDDB, path: str, shapes: Sequence[tuple[int, ...]], *, ref_idx: int) -> Exported:
    """Run an exported stage and the network's on random tiles of these ``shapes`` [B, N, 8, H, W], on the CPU."""
    run = open_refined(path)
    generator = torch.Generator().manual_seed(0)
    difference, offsets = 0.0, []
    with torch.no_grad():
        for shape in shapes:
            tiles = torch.rand(shape, generator=generator)
            expected, _, offset_size = net.refine(tiles, ref_idx)
            found = run(tiles)
            if found.shape != expected.shape:
                raise ExportError(f'{path}: tiles {list(shape)} give {list(found.shape)}, expected {list(expected.shape)}.')
            difference = max(difference, float(torch.nan_to_num((found - expected).abs(), nan=torch.inf).max()))
            offsets.append(offset_size)
    sizes = torch.cat(offsets)
    return Exported(difference, float(sizes.mean()) if len(sizes) else 0.0, [tuple(shape) for shape in shapes])
