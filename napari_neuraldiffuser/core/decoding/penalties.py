"""Choice of ridge penalties by leaving stimuli out: one for a target, for each block of it, or for each column.

With V = UᵀY, training residuals at penalty α are U D V plus what is outside U, D = α(S + αI)⁻¹, and a left-out stimulus
has (I - H_GG)⁻¹ times its own (method.md eq. 11).  What costs is the product with U for every penalty.  The energy of
training residuals per column, Σ_k D_k² V_kj², costs next to nothing, for U is orthonormal.  So

- pooled over many columns, the exact energy of training residuals is multiplied by the ratio of left-out to training
  energy of some random sums of the columns (`SKETCHED`); the error is far below that of taking some columns;
- per column, up to `EXACT_STIMULI` stimuli (and where repeats are left out together) everything is exact; beyond, the
  ratio is that of a target of noise, Σ_i w_i q_i / Σ_i q_i with w = (1 - h)⁻² and q_i = Σ_k D_k² U_ik²: generalised
  cross-validation, with the leverages as they are.  It is off by the chance correlation of w with a column's
  residuals: at 1,500 stimuli by 3e-4 of R² in the median and 2e-3 at most, and what it chooses loses 6e-7.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_neuraldiffuser.core.decoding.solver import LeaveOut, Spectrum

if TYPE_CHECKING:
    import torch

SKETCHED = 2**19
"""Numbers in the random sums of columns, n times as many sums; with no more columns than that, all are taken."""
EXACT_STIMULI = 1000
COLUMNS_AT_ONCE = 8192


class Scores:
    """Energy of left-out residuals of centred targets at every penalty.

    Parameters
    ----------
    spectrum : Spectrum
        Products run in the type of its `u`.
    leaves : list of LeaveOut
        One for each penalty.
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, spectrum: Spectrum, leaves: list[LeaveOut], device: str = "cpu") -> None:
        import torch

        self.full, self.dtype, self.device = spectrum.full, spectrum.u.dtype, device
        self.u = torch.from_numpy(spectrum.u).to(device)
        # over the largest: small penalties would vanish in single precision
        shrinks = np.stack([left.alpha / (spectrum.s + left.alpha) for left in leaves])
        scales = shrinks.max(1) if self.full else np.ones(len(leaves))
        self.shrinks = self._on_device(shrinks / scales[:, None])
        self.blocks = [
            [(torch.from_numpy(rows).to(device), self._on_device(inverse * scale)) for rows, inverse in left.blocks]
            for left, scale in zip(leaves, scales, strict=True)
        ]
        self.exact = len(spectrum.u) <= EXACT_STIMULI or any(len(left.blocks) > 1 for left in leaves)
        self.exact |= any(rows.shape[1] > 1 for left in leaves for rows, _ in left.blocks)

    def _on_device(self, values: np.ndarray) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, self.dtype)).to(self.device)

    def pooled(self, y: np.ndarray, seed: int = 0) -> np.ndarray:
        """Energy (penalties,) float64 of all columns of y (n, t) together."""
        import torch

        inside, outside = self._rotated(self._on_device(y))
        n_sums = -(-SKETCHED // len(y))
        if y.shape[1] <= n_sums:
            return np.array([_energy(self._left_out(inside, outside, k)) for k in range(len(self.shrinks))])
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (y.shape[1], n_sums))
        sums = self._on_device(signs)
        few, few_outside = inside @ sums, None if outside is None else outside @ sums
        power = inside.square().sum(1, dtype=torch.float64)
        rest = 0.0 if outside is None else _energy(outside)
        out = []
        for k, shrink in enumerate(self.shrinks):
            trained = float(shrink.double().square() @ power) + rest
            residuals = self._residuals(few, few_outside, k)
            out.append(trained * _energy(self._undone(residuals, k)) / _energy(residuals))
        return np.array(out)

    def columns(self, y: np.ndarray) -> np.ndarray:
        """Energy (penalties, t) float64 of every column of y (n, t)."""
        import torch

        inside, outside = self._rotated(self._on_device(y))
        if self.exact:
            left = [self._left_out(inside, outside, k).square().sum(0) for k in range(len(self.shrinks))]
            return torch.stack(left).double().cpu().numpy()
        trained = self.shrinks.square() @ inside.square_()
        if outside is not None:
            trained += outside.square().sum(0)
        return trained.double().cpu().numpy() * self._noise_ratios()[:, None]

    def _noise_ratios(self) -> np.ndarray:
        """Left-out over training energy (penalties,) of a target of independent noise."""
        import torch

        squares = self.u.square()
        trained = (squares @ self.shrinks.square().T).double()  # (n, penalties)
        if not self.full:
            trained += (1.0 - 1.0 / len(squares) - squares.sum(1).double())[:, None]
        weights = torch.empty_like(trained)
        for k, ((rows, inverse),) in enumerate(self.blocks):
            weights[rows[:, 0], k] = inverse[:, 0, 0].double().square()
        return ((weights * trained).sum(0) / trained.sum(0)).cpu().numpy()

    def _rotated(self, y: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor | None"]:
        inside = self.u.T @ y
        return inside, None if self.full else y - self.u @ inside

    def _residuals(self, inside: "torch.Tensor", outside: "torch.Tensor | None", k: int) -> "torch.Tensor":
        residuals = self.u @ (self.shrinks[k][:, None] * inside)
        return residuals if outside is None else residuals.add_(outside)

    def _left_out(self, inside: "torch.Tensor", outside: "torch.Tensor | None", k: int) -> "torch.Tensor":
        return self._undone(self._residuals(inside, outside, k), k)

    def _undone(self, residuals: "torch.Tensor", k: int) -> "torch.Tensor":
        """Residuals of left-out stimuli from training residuals (n, t)."""
        import torch

        out = torch.empty_like(residuals)
        for rows, inverse in self.blocks[k]:
            alone = rows.shape[1] == 1
            out[rows] = inverse * residuals[rows] if alone else inverse @ residuals[rows]
        return out


def _energy(values: "torch.Tensor") -> float:
    """Sum of squares, rows in the values' own type and their sum in float64."""
    return float(values.square().sum(1).double().sum())


@dataclass(frozen=True)
class Penalties:
    """Penalties chosen for columns of one target.

    Attributes
    ----------
    r2 : ndarray (penalties,)
        R² of each, pooled over all columns (method.md eq. 12).
    chosen : ndarray (T,) int
        The one that each column has.
    chosen_r2 : float
        R² with these, pooled over all columns.
    """

    r2: np.ndarray
    chosen: np.ndarray
    chosen_r2: float


def choose(energies: np.ndarray, totals: np.ndarray, largest: int, blocks: int | None = None) -> Penalties:
    """The penalty with the least left-out energy for each column, or for each of `blocks` equal runs of columns.

    Parameters
    ----------
    energies : ndarray (penalties, T)
        Of left-out residuals.
    totals : ndarray (T,)
        Energy of the centred targets.
    largest : int
        The largest penalty, which columns without any energy have.
    blocks : int or None
        None for each column.
    """
    size = len(totals)
    pools = energies.reshape(len(energies), blocks or size, -1).sum(2)
    chosen = np.argmin(pools, 0)
    chosen[totals.reshape(blocks or size, -1).sum(1) == 0] = largest
    chosen = np.repeat(chosen, size // (blocks or size))
    total = totals.sum()
    return Penalties(
        1.0 - energies.sum(1) / total, chosen, float(1.0 - energies[chosen, np.arange(size)].sum() / total)
    )


def panels(size: int) -> Iterator[slice]:
    """Runs of `COLUMNS_AT_ONCE` columns."""
    return (slice(start, min(start + COLUMNS_AT_ONCE, size)) for start in range(0, size, COLUMNS_AT_ONCE))
