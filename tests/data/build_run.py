"""What the tests of builds share."""
import json

import cv2
import lmdb
import numpy as np

from jddb_plugin.data import lmdb_reader
from jddb_plugin.data.build import build
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.source_clips import find_clips
from jddb_plugin.data.verify import verify as in_a_worker

METADATA = CameraMetadata('grbg', 12, (64.0,) * 4, (4095.0,) * 4, (2.0, 1.0, 1.5),
                          ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
                          noise_shot=(0.001,) * 4, noise_read=(0.01,) * 4, source='test')


def contents(path):
    """All that is in an LMDB folder: values by key, and the text files."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        values = dict(transaction.cursor())
    return values, {p.name: p.read_text() for p in path.iterdir() if p.suffix != '.mdb'}


def verify(path):
    try:
        return in_a_worker(path, workers=0)
    finally:
        lmdb_reader.close(path)


def source_of(path, **kwargs):
    return FrameSource(str(path), {'type': 'lmdb'}, 'test', **kwargs)


def write_raw(path, mosaic, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as file:
        np.savez(file, mosaic=mosaic, fields=json.dumps(fields))


def noise(shape, bits, seed=0):
    return np.random.default_rng(seed).integers(0, 2 ** bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*('MJPG' if path.suffix == '.avi' else 'mp4v')), 25, (64, 48))
    assert video.isOpened()
    for index in range(frames):
        video.write(np.full((48, 64, 3), (0, 0, 10 * index), np.uint8))
    video.release()


def run_build(source, output, **kwargs):
    build(find_clips(source), str(output), **kwargs)
