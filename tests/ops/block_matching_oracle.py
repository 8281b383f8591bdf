"""Block matching written as plainly as possible: nested loops over tiles, frames and candidates."""
import math

import torch

from jddb_plugin.ops.block_matching import SearchWindow


def steps(first, last, step):
    return [(dy, dx) for dy in range(first, last + 1, step) for dx in range(first, last + 1, step)]


def search(frame, tile, center, candidates, margin, temperature):
    """One search; returns (best position, distances, weights) with None for invalid candidates."""
    _, height, width = frame.shape
    size_y, size_x = tile.shape[1:]
    raw = []
    for dy, dx in candidates:
        y, x = center[0] + dy, center[1] + dx
        if y < 0 or x < 0 or y + size_y > height - margin or x + size_x > width - margin:
            raw.append(None)
            continue
        total = 0
        for c in range(frame.shape[0]):
            for i in range(size_y):
                for j in range(size_x):
                    total = total + (frame[c, y + i, x + j] - tile[c, i, j]).abs()
        raw.append(total / tile.numel())
    norm = sum(d * d for d in raw if d is not None)
    norm = torch.sqrt(norm) if norm > 0 else torch.tensor(1.0, dtype=frame.dtype)
    distance = [None if d is None else d / norm for d in raw]
    weight = None
    if temperature is not None:
        scores = [None if d is None else torch.exp(-d / temperature) for d in distance]
        total = sum(s for s in scores if s is not None)
        weight = [None if s is None else s / total for s in scores]
    best, best_key = None, (math.inf,)
    for index, ((dy, dx), d) in enumerate(zip(candidates, raw)):
        if d is not None and (d.item(), dy * dy + dx * dx, index) < best_key:
            best, best_key = (center[0] + dy, center[1] + dx), (d.item(), dy * dy + dx * dx, index)
    return best, distance, weight


def match(features, positions, size, ref_idx, window: SearchWindow, temperature):
    """Dict (sample, tile, frame) -> (offset, coarse search, fine search), searches as in :func:`search`."""
    result = {}
    for b in range(features.shape[0]):
        for t, (py, px) in enumerate(positions[b].tolist()):
            tile = features[b, ref_idx, :, py:py + size[0], px:px + size[1]]
            for direction in (-1, 1):
                center = (py, px)
                frame = ref_idx + direction
                while 0 <= frame < features.shape[1]:
                    found = []
                    for axis in (window.coarse, window.fine):
                        candidates = steps(*axis)
                        best, distance, weight = search(features[b, frame], tile, center, candidates, window.margin, temperature)
                        found.append((center, distance, weight))
                        center = best
                    result[b, t, frame] = ((center[0] - py, center[1] - px), *found)
                    frame += direction
    return result
