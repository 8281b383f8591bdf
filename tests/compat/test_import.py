"""What an import costs, and that what is put off is there when it is used."""
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.restoration.samples import write_tiffs

from ..small_run import environment

#: CPU seconds from torch and torchvision on, and what is imported then.
COST = '''
import json, os, sys
import torch, torchvision
known = set(sys.modules)
before = os.times()
import jddb_plugin
import basicsr
after = os.times()
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY
names = ['TwoStageJDDB', 'EDVR'], ['RawBurstDataset', 'REDSDataset'], ['OneHotLoss', 'L1Loss'], ['JDDBModel', 'SRModel']
print(json.dumps({
    'seconds': after.user + after.system - before.user - before.system,
    'late': sorted({'scipy', 'setuptools', 'matplotlib', 'skimage', 'tensorboard', 'mmcv'} & sys.modules.keys() - known),
    'registered': all(name in registry for registry, group in zip(
        (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY), names) for name in group)}))
'''


def test_an_import_registers_everything_and_costs_less_than_a_second():
    result = subprocess.run([sys.executable, '-c', COST], env=environment(), capture_output=True, text=True, check=True)
    report = json.loads(result.stdout)
    assert report['registered'] and report['late'] == []
    assert report['seconds'] < 1  # of CPU: 0.2 where this was written


def test_what_was_put_off_works():
    """Against the packages themselves, in functions of the toolbox that call them."""
    import scipy.special
    import scipy.stats
    from basicsr.archs import arch_util
    from basicsr.data import degradations
    from basicsr.metrics import niqe
    kernel = degradations.circular_lowpass_kernel(np.pi / 3, 7)
    assert kernel.shape == (7, 7) and kernel.sum() == pytest.approx(1) and kernel[3, 3] == kernel.max()
    assert degradations.special.j1(0.5) == scipy.special.j1(0.5)
    assert degradations.multivariate_normal.pdf([0.1, 0.2], [0, 0]) == scipy.stats.multivariate_normal.pdf([0.1, 0.2], [0, 0])
    alpha, left, right = niqe.estimate_aggd_param(np.random.default_rng(0).normal(size=10000))
    assert alpha == pytest.approx(2, abs=0.2) and left == pytest.approx(right, abs=0.1)
    image = np.random.default_rng(0).random((9, 9))
    assert np.allclose(niqe.convolve(image, np.ones((3, 3)) / 9, mode='nearest')[4, 4], image[3:6, 3:6].mean())
    assert arch_util.LooseVersion('0.10.0') > arch_util.LooseVersion('0.9.1')


def test_restoring_does_not_load_the_compiler(tmp_path):
    """It takes 1.2 s and 150 MB."""
    burst = write_tiffs(tmp_path / 'burst', size=(96, 112), shift=(8, 8))
    code = '''
import sys
from jddb_plugin.restoration import Restorer, Settings
Restorer('tiny', Settings(device='cpu', memory='4G')).restore(sys.argv[1], sys.argv[2])
assert 'torch._dynamo' not in sys.modules
import torch
from torchvision.ops import roi_align
assert roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2).eq(1).all()
'''
    subprocess.run([sys.executable, '-c', code, burst, tmp_path / 'picture.png'], env=environment(), check=True)


def test_only_the_toolbox_waits_for_its_imports():
    """The import statement is nobody else's business, then and later."""
    code = '''
import builtins
before = builtins.__import__
import jddb_plugin
import basicsr
assert builtins.__import__ is before
from jddb_plugin.compat import deferred
deferred.defer_imports()
from scipy.special import gamma
assert gamma(5) == 24 and type(gamma).__module__ == 'numpy', type(gamma)
deferred.import_at_once()
assert builtins.__import__ is before
'''
    subprocess.run([sys.executable, '-c', code], env=environment(), check=True)
