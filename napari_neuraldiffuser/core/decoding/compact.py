"""A linear decoder reduced to the leading directions of what it predicts, for one scan at a time.

Mixtures of training betas with random weights are predicted; an orthonormal basis Q of these predictions spans nearly
all that the decoder predicts (randomised range finder, Halko et al. 2011).  With P = W Qᵀ its predictions are x P Q,
and the singular vectors of X P say which directions matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.decoding.decoder import LinearDecoder
from napari_neuraldiffuser.core.decoding.products import EVERY, TargetMatrix
from napari_neuraldiffuser.core.decoding.targets import Rows

EXTRA = 8
"""Random mixtures beyond an eighth more than the directions that are kept."""
STIMULI_COMPARED = 64


@dataclass(frozen=True)
class Compact:
    """Leading directions of a target: deviations from the training mean are (x projection) basis.

    Attributes
    ----------
    projection : ndarray (p, k)
    basis : ndarray (k, T) float16
        Orthogonal, of rms 1.
    error : float
        Root mean square of what is lost over that of the exact deviations, on training stimuli.
    """

    projection: np.ndarray
    basis: np.ndarray
    error: float

    def deviations(self, x: np.ndarray, device: str = "cpu") -> np.ndarray:
        """Prediction minus training mean (m, T) for centred betas x (m, p)."""
        return self._products(device).weighted([(x @ self.projection, EVERY)])

    def pull_back(self, q: np.ndarray, device: str = "cpu") -> np.ndarray:
        """W q (m, p) for every row of q (m, T)."""
        return (self.projection @ self._products(device).times([(q, EVERY)])[0]).T

    def _products(self, device: str) -> TargetMatrix:
        k, size = self.basis.shape
        order = np.arange(k)
        return TargetMatrix({"_": self.basis}, "_", Rows(order, order), np.zeros(size), self.projection.dtype, device)


def said(rank: int, errors: Mapping[str, float]) -> str:
    """How many directions are kept, and how far each target is from the exact decoder, in words."""
    off = ", ".join(f"{100 * error:.1f} % in {name}" for name, error in errors.items())
    return f"{rank} directions of each target, off by {off} (rms, of training stimuli)"


def compact(decoder: LinearDecoder, name: str, x: np.ndarray, rank: int, seed: int = 0) -> Compact:
    """Reduce one target of a decoder.

    Parameters
    ----------
    decoder : LinearDecoder
    name : str
    x : ndarray (n, p)
        Centred training betas.
    rank : int
        Directions that are kept; fewer if there are no more.
    """
    rng, n, size = np.random.default_rng(seed), len(x), decoder.accuracy[name].mean.size
    width = min(rank + rank // 8 + EXTRA, n, size)
    mixtures = (rng.standard_normal((width, n)) / np.sqrt(n)).astype(x.dtype) @ x
    some = x[np.sort(rng.choice(n, min(n, STIMULI_COMPARED), replace=False))]
    predicted = decoder.deviations(name, decoder.similarity(np.concatenate([mixtures, some])))
    exact = predicted[width:]
    basis = np.linalg.qr(predicted[:width].T)[0].T
    projection = decoder.pull_back(name, basis).T
    # right singular vectors of x P: directions in the order of their energy
    turn = np.linalg.svd((x @ projection).astype(np.float64), full_matrices=False)[2][:rank].T.astype(x.dtype)
    scale = np.sqrt(size)
    kept = Compact(projection @ turn / scale, (turn.T @ basis * scale).astype(np.float16), np.nan)
    lost, whole = np.linalg.norm(kept.deviations(some) - exact), np.linalg.norm(exact)
    return Compact(kept.projection, kept.basis, float(lost / whole) if whole else 0.0)
