"""Rows of the tables, and the trainings and tests that they need."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from jddb_plugin.checks import OptionError, check_choice, nearest
from jddb_plugin.config import shipped_options

#: Option files that come with the project.
OPTIONS = shipped_options()


@dataclass(frozen=True)
class System:
    """A row.

    Attributes:
        key: its name in commands and files.
        heading: its name in the paper.
        parts: keys of its trainings: one, or those of a denoiser and a demosaicker, which are joined for the test.
        align: how a test aligns the frames of a network that aligns by itself: 'none', 'tiles' or 'smooth'.
    """

    key: str
    heading: str
    parts: tuple[str, ...]
    align: str = 'none'


_ALL = (
    System('kpn_dmn', 'KPN+DMN', ('kpn', 'dmn')),
    System('edvr_dmn', 'EDVR+DMN', ('edvr_raw', 'dmn')),
    System('rvidenet_dmn', 'RViDeNet+DMN', ('rvidenet_raw', 'dmn')),
    System('edvr', 'EDVR*', ('edvr',)),
    System('rvidenet', 'RViDeNet*', ('rvidenet',)),
    System('gcp_net', 'GCP-Net', ('gcp_net',)),
    System('two_stage', 'Two-stage', ('two_stage',)),
    System('wo_align', 'w/o Align', ('wo_align',)),
    System('w_ca', 'w/ CA', ('w_ca',)),
    System('w_ra', 'w/ RA', ('w_ra',)),
    System('wo_e2e', 'w/o E2E', ('wo_e2e',)),
    System('edvr_coarse', 'EDVR*, tested behind block matching', ('edvr',), 'tiles'),
    System('edvr_aligned', 'EDVR*, trained and tested behind it', ('edvr_aligned',), 'smooth'),
    System('basicvsr', 'BasicVSR', ('basicvsr',)),
    System('basicvsr_coarse', 'BasicVSR, tested behind block matching', ('basicvsr',), 'tiles'),
    System('basicvsr_aligned', 'BasicVSR, trained and tested behind it', ('basicvsr_aligned',), 'smooth'),
)
SYSTEMS = {system.key: system for system in _ALL}
#: Rows of each table in the paper's order. The last row of table 4 is the two-stage network itself.
ROWS = {
    1: ('kpn_dmn', 'edvr_dmn', 'rvidenet_dmn', 'edvr', 'rvidenet', 'gcp_net', 'two_stage'),
    2: ('edvr', 'rvidenet', 'gcp_net', 'two_stage'),
    3: ('edvr', 'rvidenet', 'gcp_net', 'two_stage', 'kpn_dmn', 'edvr_dmn', 'rvidenet_dmn'),
    4: ('wo_align', 'w_ca', 'w_ra', 'wo_e2e', 'two_stage'),
}
#: Rows of the study of coarse alignment in front of the toolbox's networks.
MIXED = ('edvr', 'edvr_coarse', 'edvr_aligned', 'basicvsr', 'basicvsr_coarse', 'basicvsr_aligned')
#: Evaluation files of each table below options/test/tables, and of the pictures of figure 5.
TESTS = {1: ('reds4_low', 'reds4_high'), 2: ('videezy4k',), 4: ('reds4_high',), 5: ('sc_burst',)}


@dataclass(frozen=True)
class Study:
    """Trainings and tests that belong together and are comparable.

    Attributes:
        name: begins the names of its experiments and results.
        train: folder of one training file for each part.
        tests: test files.
        rows: keys of its systems.
        score: frames that count by default, 'all' or 'center': those with real neighbors on both sides.
        timed: the length of its trainings is given in CPU seconds, from which their iterations follow.
        seconds: these, for trainings that are not planned yet.
        start: for some parts, another whose weights they start from, as far as these fit.
    """

    name: str
    train: Path
    tests: tuple[Path, ...]
    rows: tuple[str, ...]
    score: str = 'all'
    timed: bool = False
    seconds: Optional[float] = None
    start: tuple[tuple[str, str], ...] = ()

    def start_of(self, part: str) -> Optional[str]:
        """The part that ``part`` starts from."""
        return dict(self.start).get(part)

    def systems(self, keys: Optional[Sequence[str]] = None) -> list[System]:
        """Rows by their keys, in the study's order; all of them for None.

        Raises:
            OptionError: a key is no row of this study.
        """
        for key in keys or ():
            if key not in self.rows:
                raise OptionError(f"--systems: '{key}' is no row of this study; {nearest(key, self.rows)}")
        return [SYSTEMS[key] for key in self.rows if keys is None or key in keys]


def make_study(name: str, *, tables: Sequence[int] = (1, 2, 4), seconds: Optional[float] = None) -> Study:
    """One of the studies.

    * 'tables': the paper's recipe and tests, for the rows of its tables;
    * 'small': all rows of table 1 at a quarter of the width, on photographs, the same CPU time for each;
    * 'claims': the variants of table 4 on large shifts, all from one start that was trained without motion;
    * 'mixing': the toolbox's EDVR and BasicVSR with and without block matching in front, in tests alone and in training too, each
      from a start of its own that was trained without motion.
    """
    check_choice(name, ('tables', 'small', 'claims', 'mixing'), '--study')
    train, test = OPTIONS / 'train' / 'tables', OPTIONS / 'test' / 'tables'
    if not train.is_dir():
        raise OptionError(f'{train}: no such folder; the option files of the tables are in a clone of the project.')
    if name == 'tables':
        tests = dict.fromkeys(test / f'{stem}.yml' for table in tables for stem in TESTS.get(table, ()))
        rows = dict.fromkeys(key for table in tables for key in ROWS.get(table, ROWS[1]))
        return Study(name, train, tuple(tests), tuple(rows))
    if name == 'small':
        return Study(name, train / name, (test / 'small.yml',), ROWS[1], 'center', True, seconds)
    if name == 'mixing':
        start = tuple((key, f'start_{key.split("_")[0]}') for key in MIXED if not key.endswith('_coarse'))
        return Study(name, train / name, (test / 'mixing.yml',), MIXED, 'center', True, seconds, start)
    start = tuple((part, 'start') for part in ROWS[4])
    return Study(name, train / name, (test / 'claims.yml',), ROWS[4], 'center', True, seconds, start)
