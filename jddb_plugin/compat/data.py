"""Reading of images in basicsr 1.4.2."""
from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np

from jddb_plugin.checks import DataError


def patch_imfrombytes(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Decode all bit depths right, and say so when there is no image."""

    @functools.wraps(decode)
    def imfrombytes(content: bytes, flag: str = 'color', float32: bool = False) -> Any:
        """utils/img_util.py:131 divides by 255 whatever the bit depth, and fails obscurely for what is no image."""
        image = decode(content, flag, False) if content else None
        if image is None:
            raise DataError(f'a frame of {len(content or b"")} bytes is not a readable image.')
        if not float32:
            return image
        scale = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
        return image.astype(np.float32) / np.float32(scale)

    return imfrombytes


def patch_lmdb(backend: Any) -> None:
    """utils/file_client.py:125: a key that is not there comes back as None, and an open one cannot go to a worker."""
    get = backend.get

    def get_or_raise(self: Any, filepath: Any, client_key: str) -> bytes:
        value = get(self, filepath, client_key)
        if value is None:
            raise DataError(f"{self.db_paths}: holds no key '{filepath}'; does its meta information belong to it?")
        return value

    backend.get = get_or_raise
    backend.__getstate__ = lambda self: {'db_paths': self.db_paths, 'client_keys': list(self._client)}
    backend.__setstate__ = lambda self, state: self.__init__(**state)
