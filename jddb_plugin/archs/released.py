"""Names of the authors' released checkpoint, translated to this network's.

The release consists of two bare state dicts, one of the main network and one of the downsampler.
"""
from __future__ import annotations

import re
from typing import Iterable, Mapping

from torch import Tensor

from jddb_plugin.checks import CheckpointError

_ATTENTION = (
    (r'square_conv', 'residuals.0.0'), (r'extract_conv', 'residuals.0.2'),
    (r'res_block1\.simple_block', 'residuals.1'), (r'res_block2\.simple_block', 'residuals.2'),
    (r'down', 'squeeze'), (r'up', 'excite'), (r'spatial_att', 'spatial'),
)
_UNET = {
    'feature_up': 'up_input', 'conv_block_s1.simple_block': 'encode1.0', 'acse_block_s1': 'encode1.1', 'pool1': 'down1',
    'conv_block_s2.simple_block': 'encode2.0', 'acse_block_s2': 'encode2.1', 'pool2': 'down2',
    'conv_block_s3.simple_block': 'middle.0', 'acse_block_s3': 'middle.1', 'conv_block_s3_2.simple_block': 'middle.2',
    'up1': 'up2', 'conv_block_s4.simple_block': 'decode2.0', 'acse_block_s4': 'decode2.1', 'up2': 'up1',
    'conv_block_s5.simple_block': 'output',
}


def _rules() -> list[tuple[str, str]]:
    rules = [(r'feature_extract\.simple_block', 'refine.extract.0')]
    rules += [(rf'feature_extract_acse{i}', f'refine.extract.{i}') for i in range(1, 5)]
    for level in (2, 3):
        for index, position in ((1, 0), (2, 2)):
            rules.append((rf'pcd_align\.fea_L{level}_conv{index}', f'refine.align.down{level}.{position}'))
    for level in (1, 2, 3):
        prefix = rf'pcd_align\.pcd_align\.L{level}_'
        names = {1: 'offset1', 2: 'offset3'} if level == 3 else {1: 'offset1', 2: 'offset2', 3: 'offset3'}
        rules += [(rf'{prefix}offset_conv{i}_1', f'refine.align.level{level}.{name}') for i, name in names.items()]
        rules.append((rf'{prefix}dcnpack_1\.conv_offset_mask', f'refine.align.level{level}.dcn.conv_offset'))
        rules.append((rf'{prefix}dcnpack_1', f'refine.align.level{level}.dcn'))
        rules.append((rf'{prefix}fea_conv_1', f'refine.align.level{level}.join'))
    gates = (('z', 'update'), ('r', 'reset'), ('q', 'candidate'))
    rules += [(rf'ConvBGRU\.forward_net\.conv{old}', f'refine.fuse.cell.{new}') for old, new in gates]
    rules.append((r'ConvBGRU\.conv_1x1', 'refine.fuse.join'))
    rules += [(re.escape(old), f'refine.reconstruct.{new}') for old, new in _UNET.items()]
    return rules


_MAIN_RULES = [(re.compile(f'{old}(?=\\.)'), new) for old, new in _rules()]
_ATTENTION_RULES = [(re.compile(f'{old}(?=\\.)'), new) for old, new in _ATTENTION]
_DOWNSAMPLER_RULE = re.compile(r'simple_block\.(?=[01346]\.)')


def _translate_main(key: str) -> str:
    for old, new in _MAIN_RULES:
        match = old.match(key)
        if match is None:
            continue
        rest = key[match.end() + 1:]
        for part, name in _ATTENTION_RULES if '_acse' in match.group() or 'acse_block' in match.group() else ():
            inner = part.match(rest)
            if inner:
                return f'{new}.{name}.{rest[inner.end() + 1:]}'
        return f'{new}.{rest}'
    raise CheckpointError(f"'{key}' is not a key of the released main network.")


def released_name(key: str) -> str:
    """Roughly where a key of this network lies in the release, for messages: the released prefix of its part."""
    for pattern, prefix in _MAIN_RULES:
        if key.startswith(prefix + '.'):
            return pattern.pattern.replace('(?=\\.)', '').replace('\\', '') + '.*'
    return "the downsampler's " + key.replace('coarse.downsample', 'simple_block')


def is_released(keys: Iterable[str]) -> bool:
    """Whether keys are those of one of the two released files, without their ``module.`` prefix."""
    keys = list(keys)
    own = ('feature_extract.simple_block.', 'pcd_align.pcd_align.', 'ConvBGRU.')  # EDVR has a pcd_align, too
    return any(key.startswith(own) for key in keys) or bool(keys) and all(_DOWNSAMPLER_RULE.match(key) for key in keys)


def convert_released(main: Mapping[str, Tensor], downsampler: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the two released state dicts into one of :class:`TwoStageJDDB`.

    Keys may carry a ``module.`` prefix. The result holds the tensors as they are; whether all are there and of
    the right shape shows when it is loaded strictly.

    Raises:
        CheckpointError: a key that the released networks do not have.
    """
    result = {}
    for key, value in main.items():
        result[_translate_main(re.sub(r'^module\.', '', key))] = value
    for key, value in downsampler.items():
        name, count = _DOWNSAMPLER_RULE.subn('coarse.downsample.', re.sub(r'^module\.', '', key))
        if count != 1:
            raise CheckpointError(f"'{key}' is not a key of the released downsampler.")
        result[name] = value
    return result
