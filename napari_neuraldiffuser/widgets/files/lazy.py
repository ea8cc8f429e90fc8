"""Large 4D files, one volume at a time (dask comes with napari)."""

from collections.abc import Callable
from typing import Any

import numpy as np


def lazy_volumes(read: Callable[[int], np.ndarray], n: int, like: np.ndarray) -> Any:
    """A dask array (n, Z, Y, X) whose chunk `t` is `read(t)`.

    Parameters
    ----------
    read : callable
        Volume number to array (Z, Y, X).
    n : int
        Number of volumes.
    like : ndarray (Z, Y, X)
        Has the shape and dtype of every volume.
    """
    import dask.array as da

    def block(block_info: dict | None = None) -> np.ndarray:
        return read(block_info[None]["chunk-location"][0])[None]

    chunks = ((1,) * n, *((size,) for size in like.shape))
    return da.map_blocks(block, chunks=chunks, dtype=like.dtype, meta=np.empty((0,) * 4, like.dtype))
