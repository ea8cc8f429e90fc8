"""Reading target embeddings for the rows of some betas: matched by stimulus, streamed in blocks of rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_neuraldiffuser.core.base.registry import TARGETS
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.networks.embeddings import Targets

BYTES_AT_ONCE = 64 * 2**20
CONSTANT = 1e-3
"""A target that varies by less than this share of its size is constant but for its half precision's rounding."""


def is_constant(varying: float, mean: np.ndarray, n: int) -> bool:
    """Whether `n` targets do not vary, by the energy of their deviations from `mean` (T,): nothing is to be learned."""
    return varying <= CONSTANT**2 * n * float(np.square(mean, dtype=np.float64).sum())


@dataclass(frozen=True)
class Rows:
    """Stored row of a target file for each row of betas: `stored` (n,) sorted, `order` (n,) betas' rows."""

    order: np.ndarray
    stored: np.ndarray


def match_rows(stored_ids: np.ndarray, wanted_ids: np.ndarray) -> Rows:
    """Find `wanted_ids` (n,), in betas order with repeats allowed, among the `stored_ids` of a target file.

    Raises
    ------
    DecodingError
        If a stimulus is missing; the first one is named.
    """
    stored_ids, wanted_ids = np.asarray(stored_ids), np.asarray(wanted_ids)
    sorter = np.argsort(stored_ids, kind="stable")
    ranks = np.searchsorted(stored_ids, wanted_ids, sorter=sorter)
    present = ranks < len(sorter)
    present[present] = stored_ids[sorter[ranks[present]]] == wanted_ids[present]
    if not present.all():
        missing = wanted_ids[~present]
        raise DecodingError(
            f"targets must have every stimulus of the betas, got none for stimulus {missing[0]} "
            f"({len(missing)} of {len(wanted_ids)} missing). Extract the targets of these stimuli, or take "
            "betas.subset() of those the targets have."
        )
    rows = sorter[ranks]
    order = np.argsort(rows, kind="stable")
    return Rows(order, rows[order])


def target_names(targets: Targets) -> tuple[str, ...]:
    """The targets that a target file or Embeddings has, in the project's order.

    Raises
    ------
    DecodingError
        If it has none of them.
    """
    present = set(targets)
    names = tuple(name for name in TARGETS if name in present)
    if not names:
        raise DecodingError(f"targets must have some of {TARGETS}, got {sorted(map(str, present))}.")
    return names


def target_shape(targets: Targets, name: str) -> tuple[int, ...]:
    """Shape of one stimulus' target, such as (4, 64, 64) for z."""
    return tuple(int(size) for size in targets[name].shape[1:])


def blocks(targets: Targets, name: str, rows: Rows, dtype: npt.DTypeLike) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (positions in betas order (b,), values (b, T) of `dtype`), reading contiguous stored rows.

    Memory is about `BYTES_AT_ONCE` whatever the size of the file; stored rows that no beta needs are skipped
    where a whole block is free of them.
    """
    source = targets[name]
    columns = int(np.prod(source.shape[1:]))
    step = max(16, BYTES_AT_ONCE // (columns * np.dtype(dtype).itemsize))
    start = 0
    while start < len(rows.stored):
        first = int(rows.stored[start])
        stop = int(np.searchsorted(rows.stored, first + step))
        chunk = np.asarray(source[first : int(rows.stored[stop - 1]) + 1])
        values = chunk.reshape(len(chunk), columns).astype(dtype, copy=False)
        yield rows.order[start:stop], _take(values, rows.stored[start:stop] - first)
        start = stop


def _take(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    whole = len(wanted) == len(values) and wanted[-1] == len(wanted) - 1 and wanted[0] == 0
    return values if whole and (np.diff(wanted) == 1).all() else values[wanted]


def gather(targets: Targets, name: str, rows: Rows, dtype: npt.DTypeLike) -> np.ndarray:
    """One target for all rows, (n, T) in betas order; for a group that fits in memory."""
    out = np.empty((len(rows.order), int(np.prod(target_shape(targets, name)))), dtype)
    for positions, values in blocks(targets, name, rows, dtype):
        out[positions] = values
    return out


def summary(
    targets: Targets, name: str, rows: Rows, dtype: npt.DTypeLike, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (T,) float64 of one target over the rows, and chosen `columns` (n, t) of it, in one pass.

    Raises
    ------
    DecodingError
        If a value is not finite.
    """
    total = np.zeros(int(np.prod(target_shape(targets, name))))
    chosen = np.empty((len(rows.order), len(columns)), dtype)
    for positions, values in blocks(targets, name, rows, dtype):
        total += values.sum(0, dtype=np.float64)
        chosen[positions] = values[:, columns]
    if not np.isfinite(total).all():
        raise DecodingError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract the targets again.")
    return total / len(rows.order), chosen
