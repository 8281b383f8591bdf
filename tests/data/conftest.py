"""Fixtures."""
import dataclasses
import json
import sys
import types

import cv2
import numpy as np
import pytest

from .build_run import METADATA, noise


@pytest.fixture
def raw_reader(monkeypatch):
    """A stand-in that reads .dng files written by write_raw."""
    module = types.ModuleType('jddb_plugin.data.raw_reader')

    def read_raw(path, cfa=None, log_notes=True):
        with np.load(path) as file:
            metadata = dataclasses.replace(METADATA, **json.loads(str(file['fields'])), **({'cfa': cfa} if cfa else {}))
            return types.SimpleNamespace(mosaic=file['mosaic'], metadata=metadata, notes=())

    module.read_raw = read_raw
    module.list_raw_files = lambda folder: sorted(p for p in folder.iterdir() if p.suffix in ('.dng', '.tif', '.mat'))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def bitmaps(tmp_path):
    """Three clips of 40 frames that have to be encoded."""
    for clip in range(3):
        (tmp_path / 'source' / f'clip{clip}').mkdir(parents=True)
        for index in range(40):
            cv2.imwrite(str(tmp_path / 'source' / f'clip{clip}' / f'{index}.bmp'), noise((64, 80, 3), 8, 100 * clip + index))
    return tmp_path / 'source'
