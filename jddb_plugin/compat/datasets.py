"""Data sets are built once: those that were built to be checked are handed to the pipeline.

The toolbox's pipelines (train.py:35 and 57, test.py:28) build every data set themselves, after they have moved an older
experiment of the same name away. What is wrong with a data set should be known before, so the command line builds it first.
"""
from __future__ import annotations

import functools
from typing import Any, Callable

_checked: dict[tuple[str, str], Any] = {}


def keep(phase: str, name: str, dataset: Any) -> None:
    """Hand ``dataset`` to the next :func:`build_dataset` of this phase and name."""
    _checked[phase, name] = dataset


def forget() -> None:
    """Drop what no pipeline has asked for."""
    _checked.clear()


def patch_build_dataset(build: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """The toolbox's ``build_dataset``, which takes what was kept."""

    @functools.wraps(build)
    def build_dataset(dataset_opt: dict[str, Any]) -> Any:
        dataset = _checked.pop((str(dataset_opt.get('phase')), str(dataset_opt.get('name'))), None)
        if dataset is None:
            return build(dataset_opt)
        from basicsr.utils import get_root_logger
        dataset.opt = dataset_opt  # loaders and models read it
        get_root_logger().info(f"Dataset [{type(dataset).__name__}] - {dataset_opt['name']} is built.")
        return dataset

    return build_dataset
