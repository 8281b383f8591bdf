"""Measure on this machine: block matching, a restored burst, and a training.

    jddb bench --device cuda --json bench.json

Inputs are random, so only speed and memory say something. On a GPU the sizes are those of the targets (a UHD burst of five
frames, the paper's training batch), elsewhere small ones; --size chooses. More detailed benchmarks lie in scripts/benchmark/.
"""
from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from jddb_plugin.checks import DataError

#: What a GPU should reach at size uhd, by (measurement, key).
TARGETS = {
    ('block matching', 'seconds'): 0.015,
    ('restored burst, bf16', 'seconds'): 0.6,
    ('training, bf16', 'seconds'): 0.06,
    ('training, bf16', 'peak_memory_gb'): 12.0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Device, size and output."""
    parser.add_argument('--device', default='auto', help='auto (default), cpu, cuda, cuda:1, ...')
    parser.add_argument('--size', choices=('small', 'uhd'), help='of the inputs (default: uhd on a GPU, else small)')
    parser.add_argument('--only', choices=('matching', 'restore', 'train'), help='one of the measurements')
    parser.add_argument('--repeats', type=int, default=3, metavar='N', help='calls of which the median counts (default: 3)')
    parser.add_argument('--json', metavar='FILE', help='also write the numbers, - for standard output in place of the table')


def table(results: list[dict[str, Any]], *, with_targets: bool) -> str:
    """One line for each number, with its target where there is one."""
    lines = [f'{"measurement":28} {"number":>22} {"value":>10} {"target":>8}']
    for result in results:
        for key, value in result.items():
            if isinstance(value, float):
                target = TARGETS.get((result['name'], key)) if with_targets else None
                lines.append(f'{result["name"]:28} {key:>22} {value:>10.4g} {"" if target is None else target:>8}')
    return '\n'.join(lines) + '\n'


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit status."""
    from jddb_plugin.cli.measure import measure
    from jddb_plugin.restoration.restorer import choose_device
    from jddb_plugin.runtime.machine import machine
    about = machine(choose_device(args.device))
    size = args.size or ('uhd' if about['device'].startswith('cuda') else 'small')
    results = measure(about['device'], size, only=args.only, repeats=max(1, args.repeats))
    text = json.dumps({**about, 'size': size, 'results': results}, indent=1) + '\n'
    if args.json == '-':
        sys.stdout.write(text)
        return 0
    sys.stdout.write(', '.join(f'{key} {value}' for key, value in about.items()) + f', size {size}\n')
    sys.stdout.write(table(results, with_targets=size == 'uhd' and about['device'].startswith('cuda')))
    if args.json is not None:
        try:
            with open(args.json, 'w', encoding='utf-8') as file:
                file.write(text)
        except OSError as error:
            raise DataError(f'{args.json}: cannot be written ({error.strerror}).') from error
    return 0
