"""Rows of the tables, and the trainings and tests that they need."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from jddb_plugin.checks import OptionError, nearest

#: Option files that come with the project.
OPTIONS = Path(__file__).resolve().parents[2] / 'options'


@dataclass(frozen=True)
class System:
    """A row.

    Attributes:
        key: its name in commands and files.
        heading: its name in the paper.
        parts: keys of its trainings: one, or those of a denoiser and a demosaicker, which are joined for the test.
    """

    key: str
    heading: str
    parts: tuple[str, ...]


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
)
SYSTEMS = {system.key: system for system in _ALL}
#: Rows of each table in the paper's order. The last row of table 4 is the two-stage network itself.
ROWS = {
    1: ('kpn_dmn', 'edvr_dmn', 'rvidenet_dmn', 'edvr', 'rvidenet', 'gcp_net', 'two_stage'),
    2: ('edvr', 'rvidenet', 'gcp_net', 'two_stage'),
    3: ('edvr', 'rvidenet', 'gcp_net', 'two_stage', 'kpn_dmn', 'edvr_dmn', 'rvidenet_dmn'),
    4: ('wo_align', 'w_ca', 'w_ra', 'wo_e2e', 'two_stage'),
}
#: Test files of each table below options/test/tables, and of the pictures of figure 5.
TESTS = {1: ('reds4_low', 'reds4_high'), 2: ('videezy4k',), 4: ('reds4_high',), 5: ('sc_burst',)}


@dataclass(frozen=True)
class Study:
    """Trainings and tests that belong together and are comparable.

    Attributes:
        name: begins the names of its experiments and results.
        train: folder of one training file for each part.
        tests: test files.
        overlay: option file merged on top of every training; None for none.
        test_overlay: the same for the tests.
        fraction: of the networks' width that is used.
        seconds: CPU seconds of every training, from which its iterations follow; None leaves them as they are.
        start: for a part, another whose weights it starts from, as far as they fit.
    """

    name: str
    train: Path
    tests: tuple[Path, ...]
    overlay: Optional[Path] = None
    test_overlay: Optional[Path] = None
    fraction: float = 1.0
    seconds: Optional[float] = None
    start: tuple[tuple[str, str], ...] = ()

    def start_of(self, part: str) -> Optional[str]:
        """The part that ``part`` starts from."""
        return dict(self.start).get(part)


def choose(keys: Optional[list[str]], known: tuple[str, ...]) -> list[System]:
    """Systems by their keys, in the order of ``known``; all of them for None.

    Raises:
        OptionError: a key is unknown.
    """
    for key in keys or ():
        if key not in known:
            raise OptionError(f"--systems: '{key}' is no row here; {nearest(key, known)}")
    return [SYSTEMS[key] for key in known if keys is None or key in keys]


def paper_study(tables: list[int]) -> Study:
    """The study of the paper's tables, with the tests that these tables need."""
    names = dict.fromkeys(name for table in tables for name in TESTS.get(table, ()))
    return Study('tables', OPTIONS / 'train' / 'tables', tuple(OPTIONS / 'test' / 'tables' / f'{name}.yml' for name in names))
