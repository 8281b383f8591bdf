"""The refined stage as one writes it first, made of the modules of ours: an oracle."""
import torch
import torch.nn.functional as F
import torchvision


def double(x):
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


def gru_step(cell, state, x):
    both = torch.cat((state, x), dim=1)
    z, r = torch.sigmoid(cell.update(both)), torch.sigmoid(cell.reset(both))
    q = torch.tanh(cell.candidate(torch.cat((r * state, x), dim=1)))
    return (1 - z) * state + z * q


def deform(layer, x, feat):
    first, second, mask = layer.conv_offset(feat).chunk(3, dim=1)
    offset = torch.cat((first, second), dim=1)
    return torchvision.ops.deform_conv2d(x, offset, layer.weight, layer.bias, padding=1, mask=torch.sigmoid(mask))


def pyramid(align, frames):
    half = align.down2(frames)
    return frames, half, align.down3(half)


def align_frame(align, frame, reference):
    """One frame [T, C, H, W], from the coarsest level to the finest."""
    offset = aligned = None
    levels = zip((align.level3, align.level2, align.level1), pyramid(align, frame)[::-1], pyramid(align, reference)[::-1])
    for level, own, other in levels:
        found = align.act(level.offset1(torch.cat((own, other), dim=1)))
        if offset is not None:
            found = align.act(level.offset2(torch.cat((found, 2 * double(offset)), dim=1)))
        offset = align.act(level.offset3(found))
        moved = deform(level.dcn, own, offset)
        aligned = moved if aligned is None else level.join(torch.cat((moved, double(align.act(aligned))), dim=1))
    return aligned


def restore(stage, tiles, ref_idx):
    """Tiles [T, N, 8, h, w] by the modules of a ``RefinedStage``."""
    features = [stage.extract(frame) for frame in tiles.unbind(1)]
    aligned = [align_frame(stage.align, frame, features[ref_idx]) for frame in features]
    states = []
    for order in (range(ref_idx + 1), range(len(aligned) - 1, ref_idx - 1, -1)):
        state = torch.zeros_like(aligned[0])
        for t in order:
            state = gru_step(stage.fuse.cell, state, aligned[t])
        states.append(state)
    return stage.reconstruct(stage.fuse.join(torch.cat(states, dim=1)))
