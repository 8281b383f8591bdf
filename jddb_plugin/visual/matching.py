"""A picture of what coarse alignment saw and did."""
from __future__ import annotations

from typing import Any, Optional, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from jddb_plugin.checks import check_ndim
from jddb_plugin.ops.bayer import half_size_rgb
from jddb_plugin.ops.tiling import TileGrid, make_grid

_GAP = 6
_TITLE = 22
_SHORTEST_ARROW = 3  # pixels of the panel
_HEADINGS = ('frame', 'offset of each tile', 'cost over the window of each tile', 'difference before', 'difference after')


@torch.no_grad()
def draw_matching(burst: Tensor, coarse: Any, *, ref_idx: Optional[int] = None, tile: int = 64, overlap: int = 4,
                  panel_width: int = 360) -> np.ndarray:
    """Draw the matching of a burst: one row per frame other than the reference, five panels each.

    * The frame as it is.
    * The offset of each tile: an arrow from its place in the reference to its match, colored by direction.
    * The cost of each tile over the window of its first search, drawn where the tile lies, each scaled for itself:
      dark is a good match, the red dot the best, black what lies outside the frame.
    * The mean absolute difference to the reference, before and after alignment, on one scale.

    Args:
        burst: [N, C, H, W] in [0, 1]: RGB, or packed raw with or without its noise map.
        coarse: a :class:`jddb_plugin.archs.dpbm_arch.DPBM`, e.g. ``net.coarse``. It is used in evaluation mode.
        ref_idx: index of the reference; the middle frame by default.
        tile, overlap: of the tiles that are matched, in pixels of ``burst``.
        panel_width: width of a panel in pixels.

    Returns:
        RGB uint8; the titles give the median offset in pixels of ``burst``, and the mean differences.

    Raises:
        ShapeError: ``burst`` has another number of dimensions or too few channels, or is smaller than a tile.
    """
    check_ndim(burst, 'N C H W', 'burst')
    training = coarse.training
    coarse.eval()
    ref_idx = len(burst) // 2 if ref_idx is None else ref_idx
    grid = make_grid(*burst.shape[-2:], tile=tile, overlap=overlap, multiple=coarse.scale)
    match = coarse.match(grid.pad(burst[None]), grid.positions(burst.device)[None], grid.size, ref_idx)
    aligned = coarse(burst[None], ref_idx, tile=tile, overlap=overlap)[0]
    coarse.train(training)

    pixels = burst[:, :coarse.match_channels]
    before, after = ((frames - pixels[ref_idx]).abs().mean(dim=1).cpu().numpy()
                     for frames in (pixels, aligned[:, :coarse.match_channels]))
    brightest = max(float(np.quantile(before, 0.995)), 1e-6)
    size = (panel_width, round(panel_width * burst.shape[-2] / burst.shape[-1]))
    pictures = [_resize(picture, size) for picture in _pictures(pixels)]
    rows = [_row([np.zeros((0, panel_width, 3), np.uint8)] * len(_HEADINGS), _HEADINGS)]
    for k, t in enumerate(t for t in range(len(burst)) if t != ref_idx):
        offsets = match.offset[0, :, t].cpu().numpy() * coarse.scale
        distance, valid = (field[0, :, k].cpu().numpy() for field in (match.coarse.distance, match.coarse.valid))
        panels = [pictures[t], _arrows(pictures[ref_idx], grid, offsets), _costs(size, grid, distance, valid),
                  _heat(before[t], brightest, size), _heat(after[t], brightest, size)]
        y, x = np.median(offsets, axis=0)
        rows.append(_row(panels, [f'frame {t}, reference {ref_idx}', f'median {y:+.0f} down, {x:+.0f} right', '',
                                  f'mean {before[t].mean():.4f}', f'mean {after[t].mean():.4f}']))
    return np.concatenate(rows)


def draw_offsets(reference: np.ndarray, grid: TileGrid, offsets: np.ndarray, ref_idx: int, names: Sequence[str], *,
                 panel_width: int = 480, columns: int = 3) -> np.ndarray:
    """Draw where the tiles of the reference were found: one panel per other frame, as the second one of :func:`draw_matching`.

    Args:
        reference: RGB uint8 picture of the reference, of any size.
        grid: the tiles.
        offsets: [T, N, 2], in pixels of the packed raw.
        ref_idx: index of the reference.
        names: of the frames.
        panel_width, columns: width of a panel in pixels, and how many stand side by side.

    Returns:
        RGB uint8.
    """
    size = (panel_width, max(1, round(panel_width * grid.frame[0] / grid.frame[1])))
    picture = _resize(reference, size)
    panels, titles = [], []
    for t, name in enumerate(names):
        if t != ref_idx:
            y, x = np.median(offsets[:, t], axis=0)
            panels.append(_arrows(picture, grid, offsets[:, t]))
            titles.append(f'{name[:28]}: median {round(y, 1) + 0.0:+.1f} down, {round(x, 1) + 0.0:+.1f} right')
    columns = min(columns, len(panels))
    while len(panels) % columns:
        panels.append(np.full_like(panels[0], 255))
        titles.append('')
    return np.concatenate([_row(panels[k:k + columns], titles[k:k + columns]) for k in range(0, len(panels), columns)])


def _pictures(pixels: Tensor) -> np.ndarray:
    """[N, 3 or 4, H, W] -> [N, H, W, 3] uint8 that can be looked at; raw is balanced, brightened and gamma coded."""
    if pixels.shape[1] == 4:
        pixels = half_size_rgb(pixels)
        gains = 1 / pixels.mean(dim=(0, 2, 3), keepdim=True).clamp(min=1e-6)
        # Clipped samples stay white: no channel gets brighter than the least amplified one can.
        pixels = (pixels * gains).clamp(max=gains.min())
        white = torch.quantile(pixels.flatten()[::max(1, pixels.numel() // 100000)], 0.995)
        pixels = (pixels / white).clamp(0, 1) ** (1 / 2.2)
    return (pixels[:, :3].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)


def _heat(difference: np.ndarray, brightest: float, size: tuple[int, int]) -> np.ndarray:
    """Difference image [H, W] as colors, from black to bright yellow."""
    gray = (np.clip(_resize(difference, size) / brightest, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _direction_color(y: float, x: float) -> tuple[int, int, int]:
    hue = (np.degrees(np.arctan2(y, x)) % 360) / 2
    color = cv2.cvtColor(np.array([[[hue, 255, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    red, green, blue = color.tolist()
    return red, green, blue


def _arrows(picture: np.ndarray, grid: TileGrid, offsets: np.ndarray) -> np.ndarray:
    """The dimmed reference with one arrow per tile, a dot of its color where it is too short, white where nothing moved.

    Offsets [T, 2] are in pixels of the frame.
    """
    canvas = (picture * 0.45).astype(np.uint8)
    scale = picture.shape[1] / grid.frame[1]
    corners = grid.positions(torch.device('cpu')).numpy()
    for corner, (y, x) in zip(corners, offsets):
        tail = corner + np.array(grid.size) / 2 - np.array([grid.padding[2], grid.padding[0]])
        start = tuple(int(v) for v in np.round(tail[::-1] * scale))
        end = tuple(int(v) for v in np.round((tail + (y, x))[::-1] * scale))
        if np.hypot(y, x) * scale < _SHORTEST_ARROW:
            color = (255, 255, 255) if np.hypot(y, x) < 0.5 else _direction_color(y, x)
            cv2.circle(canvas, start, 2, color, -1, cv2.LINE_AA)
        else:
            cv2.arrowedLine(canvas, start, end, _direction_color(y, x), 1, cv2.LINE_AA, tipLength=0.3)
    return canvas


def _costs(size: tuple[int, int], grid: TileGrid, distance: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The window of each tile [T, M] in a cell of its own, in the tiles' order."""
    rows, cols = len(grid.rows), len(grid.cols)
    lines, columns = (np.linspace(0, side, count + 1).round().astype(int) for side, count in zip(size[::-1], (rows, cols)))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    side = round(distance.shape[1] ** 0.5)
    for tile, (cost, inside) in enumerate(zip(distance, valid)):
        row, col = divmod(tile, cols)
        top, bottom, left, right = lines[row], lines[row + 1] - 1, columns[col], columns[col + 1] - 1
        if bottom <= top or right <= left:
            continue
        low, high = cost[inside].min(), cost[inside].max()
        gray = ((cost - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8).reshape(side, side)
        cell = cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        cell[~inside.reshape(side, side)] = 0
        canvas[top:bottom, left:right] = cv2.resize(cell, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
        y, x = divmod(int(np.where(inside, cost, np.inf).argmin()), side)
        dot = (left + int((x + 0.5) / side * (right - left)), top + int((y + 0.5) / side * (bottom - top)))
        cv2.circle(canvas, dot, 2, (255, 60, 40), -1, cv2.LINE_AA)
    return canvas


def _row(panels: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Panels side by side under their titles, on white."""
    parts = []
    for panel, title in zip(panels, titles):
        head = np.full((_TITLE, panel.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (3, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        column = np.concatenate((head, panel))
        parts += [column, np.full((len(column), _GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)
