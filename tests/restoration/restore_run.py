"""What the tests of the restore command share."""
import cv2
import numpy as np

from jddb_plugin.restore import main
from tests.restoration.samples import (
    ARGUMENTS,
    scenes,
)


def run_restore(*arguments, weights):
    return main([*map(str, arguments), '--weights', str(weights), *ARGUMENTS])


def error_line(capfd):
    """What a failing command told: one line."""
    stderr = capfd.readouterr().err
    assert stderr.startswith('error: ') and stderr.count('\n') == 1, stderr
    return stderr


def write_pngs(folder):
    folder.mkdir(parents=True)
    for index, rgb in enumerate(scenes(7, (40, 48))):
        cv2.imwrite(str(folder / f'{index}.png'), (255 * rgb[..., ::-1]).astype(np.uint8))
    return folder
