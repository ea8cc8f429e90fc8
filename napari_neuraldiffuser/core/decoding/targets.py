"""Reading target embeddings for the rows of some betas: matched by stimulus, streamed in blocks of rows."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from napari_neuraldiffuser.core.base.registry import TARGETS
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.networks.embeddings import Targets

BYTES_AT_ONCE = 64 * 2**20
ROWS_SUMMED = 16
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


def chosen_names(present: tuple[str, ...], names: Sequence[str] | None) -> dict[str, int]:
    """Targets to fit, and the place of each among all: what is drawn for one does not depend on what else is fitted.

    Raises
    ------
    DecodingError
        If one of `names` is not present.
    """
    unknown = sorted(set(names or ()) - set(present))
    if unknown or (names is not None and not len(names)):
        raise DecodingError(f"targets to fit must be among {present}, got {unknown or 'none'}.")
    return {name: k for k, name in enumerate(present) if names is None or name in names}


def target_shape(targets: Targets, name: str) -> tuple[int, ...]:
    """Shape of one stimulus' target, such as (4, 64, 64) for z."""
    return tuple(int(size) for size in targets[name].shape[1:])


def blocks(targets: Targets, name: str, rows: Rows, dtype: npt.DTypeLike) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (positions in betas order (b,), values (b, T) of `dtype`), reading contiguous stored rows.

    Memory is about `BYTES_AT_ONCE` whatever the size of the file; stored rows that no beta needs are skipped
    where a whole block is free of them.
    """
    for positions, stored in stored_blocks(targets, name, rows, np.dtype(dtype).itemsize):
        yield positions, converted(stored, dtype)


def stored_blocks(
    targets: Targets | Mapping[str, Any], name: str, rows: Rows, itemsize: int = 4
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `blocks`, in the type that the values have on disk, so many that they take `BYTES_AT_ONCE` at `itemsize`."""
    source = mapped(targets[name])
    columns = int(np.prod(source.shape[1:]))
    step = max(16, BYTES_AT_ONCE // (columns * itemsize))
    start = 0
    while start < len(rows.stored):
        first = int(rows.stored[start])
        stop = int(np.searchsorted(rows.stored, first + step))
        chunk = np.asarray(source[first : int(rows.stored[stop - 1]) + 1])
        yield rows.order[start:stop], _take(chunk.reshape(len(chunk), columns), rows.stored[start:stop] - first)
        start = stop


def mapped(source: Any) -> Any:
    """A dataset that lies in one piece in its file as an array over the file; h5py would copy it through a buffer."""
    if not isinstance(source, h5py.Dataset) or source.chunks or source.external or source.is_virtual:
        return source
    offset, plain = source.id.get_offset(), source.dtype.kind == "f" and source.dtype.isnative
    if offset is None or not plain or source.file.driver != "sec2" or source.file.mode != "r":
        return source
    if not _still_there(source.file):
        return source  # h5py goes on reading the file that was opened, and not the one that took its place
    # copied on write: nothing can reach the file, and torch takes it without a warning
    return np.memmap(source.file.filename, source.dtype, "c", offset, source.shape)


def _still_there(file: h5py.File) -> bool:
    """Whether the file of that name is the one that was opened."""
    try:
        return os.path.samestat(os.fstat(file.id.get_vfd_handle()), os.stat(file.filename))
    except OSError:
        return False


def converted(stored: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Values in `dtype`; half precision by torch, which takes a twentieth of numpy's time."""
    if stored.dtype != np.float16 or np.dtype(dtype) == np.float16:
        # what half precision cannot hold is infinite, which who keeps it looks for
        with np.errstate(over="ignore"):
            return stored.astype(dtype, copy=False)
    import torch

    out = np.empty(stored.shape, dtype)
    torch.from_numpy(out).copy_(torch.from_numpy(np.ascontiguousarray(stored)))
    return out


def _take(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    whole = len(wanted) == len(values) and wanted[-1] == len(wanted) - 1 and wanted[0] == 0
    return values if whole and (np.diff(wanted) == 1).all() else values[wanted]


def gather(targets: Targets, name: str, rows: Rows, dtype: npt.DTypeLike) -> np.ndarray:
    """One target for all rows, (n, T) in betas order; for a group that fits in memory."""
    out = np.empty((len(rows.order), int(np.prod(target_shape(targets, name)))), dtype)
    for positions, values in blocks(targets, name, rows, dtype):
        out[positions] = values
    return out


def _column_sums(values: np.ndarray) -> np.ndarray:
    """Sums (T,) float64 over rows: short ones in the values' own type, which is exact to its rounding."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), ROWS_SUMMED):
        total += values[start : start + ROWS_SUMMED].sum(0)
    return total


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
        total += _column_sums(values)
        chosen[positions] = values[:, columns]
    if not np.isfinite(total).all():
        raise DecodingError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract the targets again.")
    return total / len(rows.order), chosen
