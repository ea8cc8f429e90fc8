"""Ridge fitted anew to any set of voxels, by inner products of stimuli: neither weights nor targets are in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.attribution.coordinates import Coordinates
from napari_neuraldiffuser.core.decoding import solver
from napari_neuraldiffuser.core.decoding.penalties import Scores
from napari_neuraldiffuser.core.decoding.ridge import RidgeDecoder

TESTED = 64
"""Leading directions of a target that permuted decoders are judged in."""


@dataclass(frozen=True)
class Fit:
    """One target decoded from one set of voxels: `decoded` coordinates (m, k), and the penalty that was chosen."""

    decoded: np.ndarray
    penalty: float


class Refits:
    """Fits to sets of voxels of a ridge decoder.

    Parameters
    ----------
    decoder : RidgeDecoder
        Lends centred betas (n, p), decomposition, penalties and stimuli.
    x : ndarray (m, p)
        Test betas minus the training mean.
    targets : mapping of str to Coordinates
    """

    def __init__(self, decoder: RidgeDecoder, x: np.ndarray, targets: Mapping[str, Coordinates]) -> None:
        self.decoder, self.x, self.targets = decoder, x, targets
        self.groups = solver.stimulus_groups(decoder.stimulus_ids)
        self.alphas = sorted(decoder.params.alphas)
        self._whole: np.ndarray | None = None

    def fit(self, mask: np.ndarray) -> dict[str, Fit]:
        """Every target from the voxels of a mask (p,), with the penalty that predicts left-out training stimuli best;
        without voxels that vary the mean is decoded."""
        x = self.decoder.x[:, mask]
        if not x.any():
            return {name: Fit(np.zeros_like(y.test), np.inf) for name, y in self.targets.items()}
        spectrum = self._spectrum(mask)
        leaves = [solver.leave_out(spectrum, self.groups, alpha) for alpha in self.alphas]
        scores, cross = Scores(spectrum, leaves, self.decoder.device), self.x[:, mask] @ x.T
        fits = {}
        for name, y in self.targets.items():
            alpha = self.alphas[int(np.argmin(scores.pooled(y.train, self.decoder.params.seed)))]
            fits[name] = Fit(cross @ solver.apply_inverse(spectrum, alpha, y.train), alpha)
        return fits

    def explained(self, name: str, fit: Fit) -> np.ndarray:
        """‖y'‖² - ‖y' - ŷ'‖² of every test stimulus, (m,) float64; over Σ ‖y'‖² their sum is R²."""
        return explained(self.targets[name].test, fit.decoded)

    def _spectrum(self, mask: np.ndarray) -> solver.Spectrum:
        n, p = self.decoder.x.shape
        if mask.all():
            return self.decoder.spectrum
        if mask.sum() <= n:
            return solver.decompose(self.decoder.x[:, mask], self.decoder.device)
        return solver.decompose_gram(self._gram(mask), self.decoder.dtype, self.decoder.device)

    def _gram(self, mask: np.ndarray) -> np.ndarray:
        """Inner products (n, n) float64 over the voxels of a mask; of most voxels as all minus the others."""
        if 2 * mask.sum() < mask.size:
            return solver.gram(self.decoder.x[:, mask])
        if self._whole is None:
            self._whole = solver.gram(self.decoder.x)
        return self._whole - solver.gram(self.decoder.x[:, ~mask])

    def with_rows_dealt(
        self, mask: np.ndarray, penalties: Mapping[str, float], train: np.ndarray, test: np.ndarray
    ) -> dict[str, np.ndarray]:
        """How well decoders of all voxels do when those of `mask` have the responses to other stimuli.

        Parameters
        ----------
        mask : ndarray (p,) bool
        penalties : mapping of str to float
            Per target; they must not depend on how the mask's rows are dealt.
        train, test : ndarray (permutations, n), (permutations, m)
            Orders of its rows.

        Returns
        -------
        dict of str to ndarray (permutations,)
            `agreement` in the `TESTED` leading directions of each target.
        """
        x, x_test = self.decoder.x, self.x
        own, rest = self._gram(mask), self._gram(~mask)
        cross_own = (x_test[:, mask] @ x[:, mask].T).astype(np.float64)
        cross_rest = (x_test[:, ~mask] @ x[:, ~mask].T).astype(np.float64)
        found: dict[str, list[float]] = {name: [] for name in penalties}
        with threadpool_limits(1):
            for rows, places in zip(train, test, strict=True):
                kernel, cross = rest + own[np.ix_(rows, rows)], cross_rest + cross_own[np.ix_(places, rows)]
                for name, energy in self._energies(kernel, cross, penalties).items():
                    found[name].append(energy)
        return {name: np.array(energies) for name, energies in found.items()}

    def _energies(self, kernel: np.ndarray, cross: np.ndarray, penalties: Mapping[str, float]) -> dict[str, float]:
        factors = {alpha: _factor(kernel, alpha) for alpha in set(penalties.values())}
        out = {}
        for name, alpha in penalties.items():
            y = self.targets[name]
            dual = scipy.linalg.cho_solve(factors[alpha], y.train[:, :TESTED].astype(np.float64), check_finite=False)
            out[name] = agreement(y.test[:, :TESTED], cross @ dual)
        return out


def explained(truth: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """2 y·ŷ - ‖ŷ‖² of every row, (m,) float64."""
    return np.einsum("ij,ij->i", 2 * truth - decoded, decoded, dtype=np.float64)


def agreement(truth: np.ndarray, decoded: np.ndarray) -> float:
    """Σ y·ŷ / (Σ ‖ŷ‖²)^½: the square root of what ŷ would explain, were it multiplied by the best number."""
    length = float(np.sqrt(np.square(decoded).sum()))
    return float((truth * decoded).sum() / length) if length else 0.0


def _factor(kernel: np.ndarray, alpha: float) -> tuple[np.ndarray, bool]:
    damped = kernel.copy()
    damped[np.diag_indices(len(damped))] += alpha
    return scipy.linalg.cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
