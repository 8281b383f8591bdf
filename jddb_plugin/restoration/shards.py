"""A batch of bursts in parts, one for each job of an array (``--shard K/N``), and the summary of all parts.

The bursts of a part depend on the inputs and N alone. A part skips pictures that exist, so that it can be repeated, and writes a
record to ``OUT/shards``; ``python -m jddb_plugin.restoration.shards OUT`` summarizes them.
"""
from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TypeVar

from jddb_plugin.checks import DataError, OptionError, one_line, one_line_errors
from jddb_plugin.files import atomic_write

Item = TypeVar('Item')
FOLDER = 'shards'
_NAME = re.compile(r'(\d+)-of-(\d+)\.json')


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of ``K/N``.

        Raises:
            OptionError: it is not of that form, or K is not in 1 .. N.
        """
        match = re.fullmatch(r'([0-9]{1,6})/([0-9]{1,6})', text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise OptionError(f"--shard: expected K/N with K from 1 to N, e.g. 3/100, got '{text}'.")
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Its share: every ``count``-th item. All shares together are all items, each once."""
        return list(items[self.number - 1::self.count])

    def report(self, output: Path, done: int, failed: Mapping[str, str]) -> str:
        """Write the record of the part, and return it as a line.

        Args:
            output: folder of the pictures.
            done: bursts whose picture exists.
            failed: errors by the burst's name.

        Raises:
            DataError: it cannot be written.
        """
        path = output / FOLDER / f'{self.number:05d}-of-{self.count:05d}.json'
        try:
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                file.write_text(json.dumps({'done': done, 'failed': dict(failed)}, indent=1), encoding='utf-8')
        except OSError as error:
            raise DataError(f'{path}: cannot be written ({error.strerror or error}).') from error
        return f'shard {self.number}/{self.count}: {done} of {done + len(failed)} bursts are restored, {len(failed)} failed'


def summarize(output: Path) -> tuple[str, bool]:
    """Summary of all parts of a batch.

    Returns:
        Lines of text: totals, missing parts, and every burst that failed; and whether all bursts are restored.

    Raises:
        DataError: there are no parts, parts of several divisions, or a damaged one.
    """
    parts = {}
    for path in sorted((output / FOLDER).glob('*-of-*.json')):
        match = _NAME.fullmatch(path.name)
        if match:
            parts[int(match[1]), int(match[2])] = path
    counts = {count for _, count in parts}
    if not parts:
        raise DataError(f'{output}: holds no records of parts; expected {FOLDER}/*.json, written by --shard.')
    if len(counts) > 1:
        raise DataError(f'{output / FOLDER}: holds records of several divisions (into {", ".join(map(str, sorted(counts)))}); '
                        'remove the outdated ones.')
    count, = counts
    done, failed = 0, {}
    for path in parts.values():
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            done += content['done']
            failed.update(content['failed'])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f'{path}: is not the record of a part ({error}); repeat that part.') from error
    missing = [number for number in range(1, count + 1) if (number, count) not in parts]
    lines = [f'{count - len(missing)} of {count} shards are finished: {done} bursts are restored, {len(failed)} failed']
    if missing:
        lines.append(f'not finished: --array={_ranges(missing)}')
    lines += [one_line(f'{name}: {error}') for name, error in sorted(failed.items())]
    return '\n'.join(lines), not missing and not failed


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 -> 1-3,7, as Slurm's --array takes it."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ','.join(str(first) if first == last else f'{first}-{last}' for first, last in found)


@one_line_errors
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Print the summary; exit status 1 if a burst or a part is missing."""
    parser = argparse.ArgumentParser(prog='python -m jddb_plugin.restoration.shards',
                                     description='What became of a batch that was restored by --shard K/N.')
    parser.add_argument('output', type=Path, metavar='OUT', help='folder of the pictures')
    text, complete = summarize(parser.parse_args(arguments).output)
    sys.stdout.write(f'{text}\n')
    return int(not complete)


if __name__ == '__main__':
    sys.exit(main())
