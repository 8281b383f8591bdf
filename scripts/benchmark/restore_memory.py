"""Peak memory of the restore command on large frames, beside what --memory allows.

python scripts/benchmark/restore_memory.py [--weights small] [--megapixels 12 24 100] [--memory 1500M 2G 4G] [--json FILE]

For each size a burst of TIFF mosaics, a photograph that moves with noise, is written into a temporary folder. For each
--memory, jddb restore then restores it, whole, in a process of its own, whose peak resident memory the
system reports when it ends. "refused" is a run that said beforehand that the memory is not enough, and how much is.

Without --weights the network is a small TwoStageJDDB (--features) of random weights: the paper's takes hours for 100 megapixels
on a CPU. What a tile takes grows with the features, all else is as with the paper's network. The largest size
needs some 3 GB of disk in the folder of temporary files (TMPDIR). Exit status 1: a run took more than it was given, or failed.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

import torch
from common import machine, megabytes, table, write_json
from noisy_raw import write_burst
from tqdm import tqdm

from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.checks import OptionError, one_line_errors
from jddb_plugin.options import parse_memory

#: Runs a command and prints its exit status, peak resident memory and seconds. A process begins with the peak of the one it
#: was split off from, so a small one stands between this script and the command.
RUNNER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
peak = usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
print(json.dumps([os.waitstatus_to_exitcode(status), peak, time.perf_counter() - start]))
"""


def frame_size(megapixels: float) -> tuple[int, int]:
    """(height, width), even, of about 3 : 4."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5 / 2) * 2
    return round(megapixels * 1e6 / width / 2) * 2, width


def write_network(path: Path, features: int) -> None:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    net = TwoStageJDDB(features, max(1, features // 8), init='passthrough')
    for name, values in net.named_parameters():
        if 'conv_offset.weight' in name:
            torch.nn.init.normal_(values, 0, 0.01)
    torch.save({'params': net.state_dict()}, path)


def run(folder: Path, picture: Path, weights: str, memory: str) -> dict[str, Any]:
    """One restoration."""
    command = [sys.executable, '-m', 'jddb_plugin.restore', str(folder), '-o', str(picture), '--weights', weights,
               '--memory', memory, '--device', 'cpu']
    # -I -S: the small process stays small, whatever the environment would have it import.
    done = subprocess.run([sys.executable, '-I', '-S', '-c', RUNNER, *command], capture_output=True, text=True, check=True)
    status, peak, seconds = json.loads(done.stdout)
    limit = parse_memory(memory)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    if status == 0:
        verdict = 'yes' if peak <= limit else 'NO'
    elif any('not enough memory' in line or '--memory' in line for line in errors):
        verdict = 'refused'
    else:
        verdict = 'FAILED'
    message = errors[-1] if errors else done.stderr[-500:]
    return {'memory': memory, 'limit_bytes': limit, 'peak_bytes': peak, 'seconds': seconds, 'status': status, 'within': verdict,
            'message': message if status else None}


def _network(args: argparse.Namespace) -> str:
    random = f'a network of {args.features} features with random weights'
    return f'weights {args.weights}' if args.weights else random


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Run and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--megapixels', type=float, nargs='+', default=[12, 24, 100])
    parser.add_argument('--memory', nargs='+', default=['1500M', '2G', '4G'], metavar='SIZE')
    parser.add_argument('--frames', type=int, default=5)
    parser.add_argument('--weights', help='name of shipped weights, or a checkpoint (default: a network of random weights)')
    parser.add_argument('--features', type=int, default=8, help="of the network; the paper's has 64")
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    if min(args.megapixels) < 0.1 or args.frames < 2:
        raise OptionError(f'expected --megapixels of at least 0.1 and --frames of at least 2, got {min(args.megapixels)} and '
                          f'{args.frames}.')
    for memory in args.memory:
        parse_memory(memory)
    rows = []
    with tempfile.TemporaryDirectory() as root, tqdm(total=len(args.megapixels) * len(args.memory), unit='run') as bar:
        weights = Path(root) / 'random.pth'
        if args.weights is None:
            write_network(weights, args.features)
        for megapixels in args.megapixels:
            height, width = frame_size(megapixels)
            with tempfile.TemporaryDirectory(dir=root) as folder:
                write_burst(Path(folder) / 'burst', (height, width), args.frames)
                for memory in args.memory:
                    row = run(Path(folder) / 'burst', Path(folder) / 'picture.png', args.weights or str(weights), memory)
                    rows.append({'megapixels': megapixels, 'width': width, 'height': height, **row})
                    bar.update()
    sys.stdout.write(
        f'\nThe restore command, {args.frames} frames, {_network(args)}, whole frames\n\n' + table(
            ['megapixels', 'frame', '--memory', 'that is', 'peak memory', 'seconds', 'within'],
            [[f"{row['megapixels']:g}", f"{row['width']} x {row['height']}", row['memory'], megabytes(row['limit_bytes']),
              megabytes(row['peak_bytes']), f"{row['seconds']:.1f}", row['within']] for row in rows]))
    for row in rows:
        if row['message']:
            sys.stdout.write(f"\n{row['megapixels']:g} megapixels, --memory {row['memory']}: {row['message']}\n")
    about = {'machine': machine(torch.device('cpu')), 'frames': args.frames, 'network': _network(args)}
    write_json(args.json, {**about, 'rows': rows})
    return 0 if all(row['within'] in ('yes', 'refused') for row in rows) else 1


if __name__ == '__main__':
    sys.exit(main())
