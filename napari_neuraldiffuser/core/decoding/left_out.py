"""How training stimuli are predicted without themselves, column by column, for all targets in one pass over them.

Left-out predictions are linear in the centred targets Y (n, T): B Y, where rows G of one stimulus have
B_G = I_G - (I - H_GG)⁻¹ R_G and R = U α(S + αI)⁻¹ Uᵀ plus what is outside U (method.md eq. 11).  Their mean over all
training rows needs one vector, (1ᵀB / n) Y, and is exact.  Their spread needs every row of B: n² products a column,
500 s for 305,920 columns at n = 9,000.  The rows of some stimuli drawn at random cost m n products; the standard
deviation is then off by about 1/√(2m), 2 % for m = 1,024.  With no more rows than that, all are taken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_neuraldiffuser.core.decoding.solver import LeaveOut, Spectrum

ROWS_SAMPLED = 1024
ROWS_AT_ONCE = 64
COLUMNS_AT_ONCE = 4096

Columns = slice | np.ndarray


@dataclass(frozen=True)
class LeftOutMap:
    """What gives left-out predictions at one penalty, as products with centred targets Y (n, T).

    Attributes
    ----------
    mean : ndarray (n,)
        `mean @ Y` is the mean of the left-out predictions over all training rows.
    rows : ndarray (m,)
        Training rows of whole stimuli.
    sample : ndarray (m, n)
        `sample @ Y` are the left-out predictions of `rows`.
    """

    mean: np.ndarray
    rows: np.ndarray
    sample: np.ndarray


@dataclass(frozen=True)
class LeftOutStatistics:
    """Of left-out predictions and of the training targets, both minus the training mean; (T,) float64 each."""

    mean: np.ndarray
    sd: np.ndarray
    target_sd: np.ndarray


def left_out_map(
    spectrum: Spectrum, left: LeaveOut, dtype: npt.DTypeLike = np.float64, most: int = ROWS_SAMPLED, seed: int = 0
) -> LeftOutMap:
    """Left-out predictions at the penalty of `left` of all training rows, or of about `most`, drawn by `seed`.

    Takes 2 `most` n r operations and `most` n numbers of `dtype`.
    """
    n = len(spectrum.u)
    weights = np.empty(n)
    for rows, inverse in left.blocks:
        weights[rows] = inverse.sum(1)
    mean = (1.0 - _residuals(spectrum, left.alpha, weights[None])[0]) / n
    parts = [_left_out_rows(spectrum, left.alpha, *block) for block in _drawn(left, n, most, seed)]
    rows = np.concatenate([rows for rows, _ in parts])
    return LeftOutMap(mean.astype(dtype), rows, np.concatenate([part.astype(dtype) for _, part in parts]))


def _drawn(left: LeaveOut, n: int, most: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The blocks of `left`, or as large a share of the stimuli of each as gives about `most` of the n rows."""
    if n <= most:
        return left.blocks
    rng, out = np.random.default_rng(seed), []
    for rows, inverse in left.blocks:
        keep = np.sort(rng.choice(len(rows), max(1, round(len(rows) * most / n)), replace=False))
        out.append((rows[keep], inverse[keep]))
    return out


def _left_out_rows(
    spectrum: Spectrum, alpha: float, rows: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (g k,) of g stimuli with k rows each, and those of B (g k, n)."""
    g, k = rows.shape
    flat, n = rows.ravel(), len(spectrum.u)
    chosen = np.zeros((g * k, n))
    chosen[np.arange(g * k), flat] = 1.0
    residuals = _residuals(spectrum, alpha, chosen, flat).reshape(g, k, n)
    return flat, chosen - (inverse @ residuals).reshape(g * k, n)


def _residuals(spectrum: Spectrum, alpha: float, left: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """left R, (m, n) for left (m, n), or for rows (m,) of the identity: residuals of centred targets are R Y.

    Written as in `solver`, so that nothing cancels for small α.
    """
    shrink = alpha / (spectrum.s + alpha)
    inside = left @ spectrum.u if rows is None else spectrum.u[rows]
    if spectrum.full:
        return (inside * shrink) @ spectrum.u.T
    return left - (inside * (1.0 - shrink)) @ spectrum.u.T


def left_out_statistics(
    maps: Sequence[tuple[LeftOutMap, Columns]], blocks: Iterable[tuple[np.ndarray, np.ndarray]], size: int
) -> LeftOutStatistics:
    """Statistics of the left-out predictions of every column, in one pass over the targets.

    Parameters
    ----------
    maps : sequence of (LeftOutMap, columns)
        A map for each penalty, and the columns (indices or a slice) that have it; each column in one.
    blocks : iterable of (positions (b,), values (b, T))
        Training rows and their targets minus the training mean, each row once, as `targets.blocks` gives them.
    size : int
        T.

    Returns
    -------
    LeftOutStatistics
        Columns that no map has are NaN.
    """
    accumulated = [_Accumulated(part, columns, size) for part, columns in maps]
    squares, n = np.zeros(size), 0
    for positions, values in blocks:
        for part in accumulated:
            part.add(positions, values)
        for start in range(0, len(values), ROWS_AT_ONCE):
            rows = values[start : start + ROWS_AT_ONCE]
            squares += np.einsum("ij,ij->j", rows, rows)
        n += len(positions)
    mean, sd = np.full(size, np.nan), np.full(size, np.nan)
    for part in accumulated:
        mean[part.columns] = part.mean
        sd[part.columns] = part.sd()
    return LeftOutStatistics(mean, sd, np.sqrt(squares / n))


class _Accumulated:
    """Products of one map with its columns, summed over blocks of rows."""

    def __init__(self, left_out: LeftOutMap, columns: Columns, size: int) -> None:
        width = len(np.empty(size, np.bool_)[columns])
        self.map, self.columns = left_out, columns
        self.mean = np.zeros(width)
        self.sample = np.zeros((len(left_out.rows), width), left_out.sample.dtype)

    def add(self, positions: np.ndarray, values: np.ndarray) -> None:
        import torch

        values = np.ascontiguousarray(values[:, self.columns], self.sample.dtype)
        weights = np.ascontiguousarray(self.map.sample[:, positions])
        # adds to the sum in place, which numpy cannot
        torch.from_numpy(self.sample).addmm_(torch.from_numpy(weights), torch.from_numpy(values))
        self.mean += self.map.mean[positions] @ values

    def sd(self) -> np.ndarray:
        """Standard deviation of the sampled predictions about the mean of all."""
        out = np.empty(len(self.mean))
        for start in range(0, len(out), COLUMNS_AT_ONCE):
            part = slice(start, start + COLUMNS_AT_ONCE)
            out[part] = np.sqrt(np.square(self.sample[:, part] - self.mean[part]).mean(0))
        return out
