"""Equal shares of CPU time: how many iterations of a training fit into so many seconds."""
from __future__ import annotations

import copy
import time
from typing import Any

from basicsr.data import build_dataset
from basicsr.models import build_model
from torch.utils.data import DataLoader

from jddb_plugin.checks import OptionError
from jddb_plugin.compat.options import check_options

#: Iterations that are timed, after one that is not.
_TIMED = 3


def seconds_per_iteration(options: dict[str, Any]) -> float:
    """CPU seconds of one iteration, data included, measured on this machine; of the fastest of a few."""
    opt = check_options(copy.deepcopy(options), is_train=True)
    opt.update(is_train=True, dist=False, rank=0, world_size=1, num_gpu=0 if opt['num_gpu'] == 'auto' else opt['num_gpu'])
    opt['path'] = {**opt['path'], 'pretrain_network_g': None}
    section = {**opt['datasets']['train'], 'phase': 'train', 'scale': 1}
    loader = iter(DataLoader(build_dataset(section), batch_size=section['batch_size_per_gpu'], shuffle=True))
    model = build_model(opt)
    found = []
    for iteration in range(1, _TIMED + 2):
        began = time.process_time()
        model.feed_data(next(loader))
        model.optimize_parameters(iteration)
        found.append(time.process_time() - began)
    return min(found[1:])


def iterations_in(options: dict[str, Any], seconds: float) -> int:
    """Iterations that take so many CPU seconds.

    Raises:
        OptionError: not even ten.
    """
    each = seconds_per_iteration(options)
    iterations = int(seconds / each)
    if iterations < 10:
        raise OptionError(f"{options['name']}: one iteration takes {each:.2f} s, so {seconds:.0f} s are not enough; give more "
                          'seconds, or narrower networks.')
    return iterations
