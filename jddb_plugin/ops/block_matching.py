"""Differentiable progressive block matching (section 3.2 of the paper).

Convention:
    Coordinates are (y, x) in feature pixels, tiles are named by their top left corner, and an offset points
    from a tile of the reference frame to its match in another frame. A search compares one reference tile with
    M candidates; the candidates of a window are numbered row by row, from the top left.

Matching is progressive in two ways: each frame is searched with a stride, then with stride 1 around the best
match; and frames are searched outward from the reference, the center of each search being the last match in that
direction.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from jddb_plugin.checks import OptionError, ShapeError, check_choice, check_ndim
from jddb_plugin.ops.patch_distance import extract_patches, patch_distances


@dataclass(frozen=True)
class SearchWindow:
    """The candidates of the two searches, relative to their center.

    Attributes:
        radius: largest displacement of the first search in feature pixels, the paper's maximal search range.
        stride: step of the first search; the second one covers as many feature pixels around its match, with step 1.
        kind: 'symmetric' is the paper's: -radius .. radius, then -stride .. stride. 'released' is what the
            released code does: upper ends are excluded, and so is a candidate that touches the frame's last
            row or column.
    """

    radius: int = 6
    stride: int = 2
    kind: str = 'symmetric'

    def __post_init__(self) -> None:
        check_choice(self.kind, ('symmetric', 'released'), 'window')
        if self.radius < 0 or self.stride < 1:
            raise OptionError(f'search window: radius must be >= 0 and stride >= 1, got {self.radius}, {self.stride}.')

    @property
    def coarse(self) -> tuple[int, int, int]:
        """(first, last, step) of the strided search along one axis."""
        if self.kind == 'released':
            last = (2 * self.radius - 1) // self.stride * self.stride - self.radius
            return -self.radius, max(last, 0), self.stride
        last = self.radius // self.stride * self.stride
        return -last, last, self.stride

    @property
    def fine(self) -> tuple[int, int, int]:
        """(first, last, step) of the search around the strided match along one axis."""
        return -self.stride, self.stride - (self.kind == 'released'), 1

    @property
    def margin(self) -> int:
        """Rows and columns at the frame's end that candidates must not touch."""
        return int(self.kind == 'released')

    def max_displacement(self, frames: int, ref_idx: int) -> int:
        """How far, in feature pixels, a match in one of so many frames can lie from its tile: searches add up outward."""
        steps = max(ref_idx, frames - 1 - ref_idx)
        return steps * sum(max(-axis[0], axis[1]) for axis in (self.coarse, self.fine)) + self.margin


class Search(NamedTuple):
    """What one search of each tile in each frame saw. F = N - 1 frames, the reference left out.

    Attributes:
        center: [B, T, F, 2], int64, where the window was centerd.
        distance: [B, T, F, M], eq. (1), 0 for invalid candidates.
        valid: [B, T, F, M], bool, candidates that lie inside the frame.
        weight: [B, T, F, M], eq. (2), 0 for invalid candidates; None in hard matching.
    """

    center: Tensor
    distance: Tensor
    valid: Tensor
    weight: Optional[Tensor]

    def at(self, index: Any) -> Search:
        """The same for a part of the leading dimensions."""
        weight = None if self.weight is None else self.weight[index]
        return Search(self.center[index], self.distance[index], self.valid[index], weight)


class Match(NamedTuple):
    """Result of :func:`match_tiles`.

    Attributes:
        offset: [B, T, N, 2], int64, the best match of every frame; 0 for the reference.
        coarse, fine: the strided search and the one around its match.
    """

    offset: Tensor
    coarse: Search
    fine: Search

    def tiles(self, part: slice) -> Match:
        """The match of some of its tiles."""
        index = (slice(None), part)
        return Match(self.offset[index], self.coarse.at(index), self.fine.at(index))


def _steps(axis: tuple[int, int, int], device: torch.device) -> Tensor:
    """[M, 2] displacements of a square window, row by row."""
    first, last, step = axis
    line = torch.arange(first, last + 1, step, device=device)
    return torch.stack(torch.meshgrid(line, line, indexing='ij'), dim=-1).flatten(0, 1)


def _is_valid(center: Tensor, steps: Tensor, size: tuple[int, int], frame_size: tuple[int, int],
              margin: int) -> Tensor:
    """[S, M]: candidates inside the frame; the center if there is none."""
    corner = center[:, None] + steps
    last = torch.tensor([frame_size[0] - size[0] - margin, frame_size[1] - size[1] - margin], device=center.device)
    inside = ((corner >= 0) & (corner <= last)).all(dim=-1)
    at_center = (steps == 0).all(dim=-1)
    return inside | (~inside.any(dim=-1, keepdim=True) & at_center)


def _best(distance: Tensor, valid: Tensor, steps: Tensor) -> Tensor:
    """[S] index of the smallest distance; of equal ones, the candidate nearest to the center."""
    # A NaN would win or lose every comparison by accident; as infinity it can only lose.
    distance = distance.detach().nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(~valid, torch.inf)
    squares = steps.square().sum(dim=-1)
    rank = (squares * len(steps) + torch.arange(len(steps), device=steps.device)).expand_as(distance)
    losers = (distance != distance.amin(dim=-1, keepdim=True)) | ~valid
    return rank.masked_fill(losers, torch.iinfo(rank.dtype).max).argmin(dim=-1)


def normalize_distances(raw: Tensor, valid: Tensor) -> Tensor:
    """Eq. (1): divide the distances of a search by their L2 norm over its valid candidates.

    Examples:
        >>> normalize_distances(torch.tensor([3.0, 4.0, 9.0]), torch.tensor([True, True, False])).tolist()
        [0.6000000238418579, 0.800000011920929, 0.0]
    """
    raw = raw.masked_fill(~valid, 0)
    norm = torch.linalg.vector_norm(raw, dim=-1, keepdim=True)
    return raw / norm.clamp(min=torch.finfo(raw.dtype).tiny)


def soft_weights(distance: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Eq. (2): softmax of -distance / temperature over the valid candidates.

    Examples:
        >>> soft_weights(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([True, True, False]), 0.01).tolist()
        [0.5, 0.5, 0.0]
    """
    return torch.softmax((-distance / temperature).masked_fill(~valid, -torch.inf), dim=-1)


def match_entropy(search: Search) -> Tensor:
    """Mean entropy of the weights of a soft search: 0 where they are one-hot, 1 where all candidates weigh the same.

    Searches with one candidate, which have no choice, do not count.

    Examples:
        >>> quarter = torch.full((1, 1, 1, 4), 0.25)
        >>> search = Search(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 4), quarter > 0, quarter)
        >>> match_entropy(search).item()
        1.0
    """
    count = search.valid.sum(dim=-1)
    entropy = torch.special.entr(search.weight).sum(dim=-1) / count.clamp(min=2).log()
    several = count > 1
    return (entropy * several).sum() / several.sum().clamp(min=1)


def _check(features: Tensor, positions: Tensor, size: tuple[int, int], ref_idx: int) -> None:
    check_ndim(features, 'B N C H W', 'features')
    if positions.ndim != 3 or positions.shape[0] != features.shape[0] or positions.shape[2] != 2:
        raise ShapeError(f'positions: expected [{features.shape[0]}, T, 2], got {list(positions.shape)}.')
    if not 0 <= ref_idx < features.shape[1]:
        raise OptionError(f'ref_idx: expected 0 .. {features.shape[1] - 1} for {features.shape[1]} frames, got {ref_idx}.')
    height, width = features.shape[-2:]
    if size[0] > height or size[1] > width:
        raise ShapeError(f'a tile of {size[0]} x {size[1]} feature px does not fit into a frame of {height} x {width}.')


def match_tiles(features: Tensor, positions: Tensor, size: tuple[int, int], *, ref_idx: int, window: SearchWindow,
                temperature: Optional[float] = None) -> Match:
    """Find each tile of the reference frame in all other frames.

    Args:
        features: [B, N, C, h, w] floating point; computed in float32 at least, also under autocast.
        positions: [B, T, 2], int64, corners of the tiles in the reference frame; tiles must lie inside it.
        size: height and width of a tile.
        ref_idx: index of the reference frame.
        window: the candidates.
        temperature: T of eq. (2) for soft, differentiable matching; None for hard matching (no weights).

    Returns:
        A :class:`Match`; gradients flow into ``features`` through its distances and weights.

    Raises:
        ShapeError, OptionError: a shape or the reference index does not fit.

    Reference:
        Section 3.2, eqs. (1) and (2).

    Examples:
        >>> frame = torch.rand(1, 1, 3, 32, 32)
        >>> burst = torch.cat((frame, frame.roll((2, 4), dims=(-2, -1))), dim=1)  # moves down by 2 and right by 4
        >>> corner = torch.tensor([[[12, 12]]])
        >>> match_tiles(burst, corner, (8, 8), ref_idx=0, window=SearchWindow(radius=4)).offset.tolist()
        [[[[0, 0], [2, 4]]]]
    """
    _check(features, positions, size, ref_idx)
    batch, num_frames = features.shape[:2]
    tiles = positions.shape[1]
    with torch.autocast(features.device.type, enabled=False):
        frames, sample = _flatten(features, tiles)
        corner = positions.reshape(-1, 2)
        reference = extract_patches(frames, sample * num_frames + ref_idx, corner, size)
        found: dict[int, _Found] = {}
        for distance in range(1, max(ref_idx, num_frames - 1 - ref_idx) + 1):
            targets = [t for t in (ref_idx - distance, ref_idx + distance) if 0 <= t < num_frames]
            # Both directions are searched at once; each starts where it last found its match.
            inner = [t + (1 if t < ref_idx else -1) for t in targets]
            center = torch.cat([found[i].corner if i != ref_idx else corner for i in inner])
            index = torch.cat([sample * num_frames + t for t in targets])
            tile = reference.repeat(len(targets), 1, 1, 1)
            center, coarse = _search(frames, index, tile, center, window.coarse, window.margin, temperature)
            center, fine = _search(frames, index, tile, center, window.fine, window.margin, temperature)
            for k, target in enumerate(targets):
                part = slice(k * len(corner), (k + 1) * len(corner))
                found[target] = _Found(center[part], coarse.at(part), fine.at(part))
    where = [found[t].corner if t != ref_idx else corner for t in range(num_frames)]
    offset = torch.stack(where, dim=1) - corner[:, None]
    ordered = [found[t] for t in sorted(found)]
    lead = (batch, tiles)
    return Match(offset.unflatten(0, lead), _stack([frame.coarse for frame in ordered], lead, offset.device),
                 _stack([frame.fine for frame in ordered], lead, offset.device))


class _Found(NamedTuple):
    """Where the tiles were found in one frame, corners [B * T, 2], and the two searches, flat over tiles."""

    corner: Tensor
    coarse: Search
    fine: Search


def _stack(searches: list[Search], lead: tuple[int, int], device: torch.device) -> Search:
    """Searches of all frames but the reference, in their order; a burst of one frame has none."""
    if not searches:
        none = torch.zeros(*lead, 0, 0, device=device)
        return Search(torch.zeros(*lead, 0, 2, dtype=torch.int64, device=device), none, none.bool(), None)

    def stacked(fields: list[Tensor]) -> Tensor:
        return torch.stack(fields, dim=1).unflatten(0, lead)

    weights = [search.weight for search in searches if search.weight is not None]
    return Search(stacked([search.center for search in searches]), stacked([search.distance for search in searches]),
                  stacked([search.valid for search in searches]), stacked(weights) if weights else None)


def _flatten(features: Tensor, tiles: int) -> tuple[Tensor, Tensor]:
    """Frames [B * N, h, w, C] in at least float32, and the sample index [B * T] of every tile."""
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    sample = torch.arange(features.shape[0], device=features.device).repeat_interleave(tiles)
    return features.flatten(0, 1).permute(0, 2, 3, 1).contiguous(), sample


def _search(frames: Tensor, index: Tensor, reference: Tensor, center: Tensor, axis: tuple[int, int, int],
            margin: int, temperature: Optional[float]) -> tuple[Tensor, Search]:
    """One search of every tile; returns the corners of the matches and the search, flat over tiles."""
    steps = _steps(axis, center.device)
    valid = _is_valid(center, steps, (reference.shape[1], reference.shape[2]),
                      (frames.shape[1], frames.shape[2]), margin)
    raw = patch_distances(frames, index, center, reference, axis)
    best = _best(raw, valid, steps)
    distance = normalize_distances(raw, valid)
    weight = None if temperature is None else soft_weights(distance, valid, temperature)
    return center + steps[best], Search(center, distance, valid, weight)


def distances_along(features: Tensor, positions: Tensor, size: tuple[int, int], match: Match, *, ref_idx: int,
                    window: SearchWindow) -> tuple[Tensor, Tensor]:
    """Distances of other features for the candidates of ``match``.

    Eq. (6) compares the distances of learned features with those of the clean burst, candidate by candidate.

    Args:
        features: [B, N, C', h, w] of the same frame size as those that were matched.
        positions, size, ref_idx, window: as given to :func:`match_tiles`.
        match: its result.

    Returns:
        Eq. (1) for the coarse and the fine search, each [B, T, F, M], 0 for invalid candidates.

    Examples:
        >>> burst, corner, window = torch.rand(1, 3, 2, 16, 16), torch.tensor([[[4, 4]]]), SearchWindow(radius=2, stride=1)
        >>> match = match_tiles(burst, corner, (4, 4), ref_idx=1, window=window)
        >>> strided, fine = distances_along(burst, corner, (4, 4), match, ref_idx=1, window=window)
        >>> torch.equal(strided, match.coarse.distance)
        True
    """
    _check(features, positions, size, ref_idx)
    batch, num_frames = features.shape[:2]
    tiles = positions.shape[1]
    with torch.autocast(features.device.type, enabled=False):
        frames, sample = _flatten(features, tiles)
        reference = extract_patches(frames, sample * num_frames + ref_idx, positions.reshape(-1, 2), size)
        others = torch.tensor([t for t in range(num_frames) if t != ref_idx], device=sample.device)
        index = (sample[:, None] * num_frames + others).flatten()
        tile = reference.repeat_interleave(num_frames - 1, dim=0)
        result = []
        for search, axis in ((match.coarse, window.coarse), (match.fine, window.fine)):
            raw = patch_distances(frames, index, search.center.reshape(-1, 2), tile, axis)
            result.append(normalize_distances(raw.view_as(search.valid), search.valid))
    return result[0], result[1]
