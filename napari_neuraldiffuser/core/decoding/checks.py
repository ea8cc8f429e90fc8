"""What decoders of every kind check: that a result fits into memory before it is begun, and is numbers in the end."""

from collections.abc import Mapping

import numpy as np

from napari_neuraldiffuser.core.base.memory import check_fits
from napari_neuraldiffuser.core.decoding.decoder import DecodingError, TargetFit
from napari_neuraldiffuser.core.decoding.store import REMEDY

FLOAT, DOUBLE = 4, 8


def check_room_to_fit(data: np.ndarray) -> None:
    """Raise MemoryNeeded unless betas (n, p) can be centred and decomposed.

    The mean-free copy in float64 and that in the betas' own type; or the Gram matrix of the smaller side with LAPACK's
    copy, eigenvectors and workspace.
    """
    (n, p), itemsize = data.shape, data.itemsize
    centring = (DOUBLE + itemsize) * n * p
    solving = itemsize * n * p + 5 * DOUBLE * min(n, p) ** 2
    remedy = "Take fewer sessions, a smaller ROI, or a machine with more memory."
    check_fits(max(centring, solving), f"the decomposition of {n} x {p} betas", remedy)


def check_room_to_predict(m: int, fits: Mapping[str, TargetFit]) -> None:
    """Raise MemoryNeeded unless all targets of `m` stimuli, and the largest one while it is aligned, fit."""
    sizes = [fit.mean.size for fit in fits.values()]
    remedy = "Decode fewer at once (--n-stimuli, betas.subset) or fewer layers, or take a machine with more memory."
    check_fits(FLOAT * m * (sum(sizes) + 2 * max(sizes)), f"{m} decoded stimuli of {sum(sizes)} numbers", remedy)


def finite(name: str, values: np.ndarray) -> np.ndarray:
    """Decoded values of one target as float32.

    Raises
    ------
    DecodingError
        If one is not finite there.
    """
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise DecodingError(
            f"decoder must predict finite {name}, got NaN or infinity. Check that these betas have the scale of those "
            f"of training. {REMEDY}"
        )
    return values
