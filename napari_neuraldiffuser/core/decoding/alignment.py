"""Spread of decoded targets: how far it is from that of real ones, and the gain that matches it (method.md eq. 13, 53).

Whatever is fitted to squared errors varies less than what it predicts.  That is the best guess of each value, and a
poor latent, caption or set of features: networks that were trained on real ones see a grey picture in it.  `measure`
takes predictions of training stimuli that the fit did not see, for every kind of decoder; `apply` is all that `predict`
calls.  No gain lowers the squared error, so the form is chosen by how alike decoded and real values are distributed,
and only for a target whose left-out predictions tell stimuli apart.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from napari_neuraldiffuser.core.base.registry import ALIGN_FORMS
from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.params import DecodingParams

FORMS = ALIGN_FORMS
"""No gain; one gain for the target; the geometric mean of both gains; a gain per column."""

COLUMN_SHARE = {"group": 0.0, "shrunk": 0.5, "column": 1.0}
LARGEST_GAIN = 1000.0
"""A column decoded with less than 1/1000 of its true spread carries nothing: it becomes the training mean."""

PER_COLUMN = ("decoded_mean", "decoded_sd", "mean", "sd")
ROWS, COLUMNS = 512, 4096
"""Left-out stimuli and columns that the choice of the form is made on."""

CHANCE_SE = 2.0
"""Standard errors by which left-out stimuli must be told apart better than by chance for a target to be scaled."""
COLUMNS_AT_ONCE, ROWS_AT_ONCE = 4096, 16


@dataclass(frozen=True)
class Alignment:
    """What spread a target is decoded with, and what is done about it.

    Attributes
    ----------
    form : str
        One of `FORMS`, chosen on training data or asked for.
    decoded_mean, decoded_sd : ndarray (T,) float64
        Of predictions for training stimuli that were left out of the fit.
    mean, sd : ndarray (T,) float64
        Of the training targets.
    distance : tuple of float
        Energy distance between left-out predictions and training targets with each of `FORMS`, over the mean distance
        of two training targets (method.md eq. 54); NaN of a constant target.
    identified : float
        Share of pairs of left-out stimuli that the prediction tells apart; .5 is chance.
    """

    form: str
    decoded_mean: np.ndarray
    decoded_sd: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    distance: tuple[float, ...] = (np.nan,) * len(FORMS)
    identified: float = np.nan

    def moved(self, by: np.ndarray) -> Self:
        """The same of values to which `by` (T,) is added."""
        return replace(self, decoded_mean=self.decoded_mean + by, mean=self.mean + by)

    @property
    def gain(self) -> float:
        """The factor that gives all columns together the spread of the training targets, 0 where none would."""
        # columns that carry nothing have none
        return float(_gains("group", self.decoded_sd, self.sd).max(initial=0.0))

    def said(self, name: str) -> str:
        """In words, such as "spread of g02 multiplied by 2.1, per column"."""
        if self.form == "none":
            return f"spread of {name} left as decoded"
        how = {"group": "by one factor", "shrunk": "per column, halfway to one factor", "column": "per column"}
        return f"spread of {name} multiplied by {self.gain:.2f}, {how[self.form]}"


@dataclass(frozen=True)
class Moments:
    """What is known of all training stimuli where only some are left out: (T,) float64 each.

    `decoded_mean` is the mean of left-out predictions, `mean` and `sd` those of the training targets.
    """

    decoded_mean: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def measure(
    decoded: np.ndarray, targets: np.ndarray, form: str = "auto", known: Moments | None = None, seed: int = 0
) -> Alignment:
    """Statistics of one target's left-out predictions, and the form of its alignment.

    Parameters
    ----------
    decoded : ndarray (m, T)
        Predictions for training stimuli that were left out of the fit; several hundred are enough.
    targets : ndarray (m, T)
        True targets of the same stimuli.
    form : str
        One of `FORMS`, or "auto": the one of the smallest energy distance, "none" where no stimuli are told apart.
    known : Moments, optional
        Of all training stimuli, where `targets` are of some of them; taken of `decoded` and `targets` where None.
    seed : int
        Of the rows and columns that the distance is of.

    Raises
    ------
    DecodingError
        If there are fewer than 2 stimuli, or both differ in shape.
    """
    if decoded.shape != targets.shape or decoded.ndim != 2 or len(decoded) < 2:
        raise DecodingError(
            f"left-out predictions must have at least 2 rows and the shape of their targets, got {decoded.shape} for "
            f"{targets.shape}. Leave more training stimuli out."
        )
    decoded_mean, decoded_sd = _moments(decoded)
    mean, sd = (known.mean, known.sd) if known else _moments(targets)
    stats = Alignment(form, known.decoded_mean if known else decoded_mean, decoded_sd, mean, sd)
    distance, identified, better = _judge(decoded, targets, stats, seed)
    if form == "auto":
        form = FORMS[int(np.argmin(distance))] if better and np.isfinite(distance).all() else "none"
    return replace(stats, form=form, distance=distance, identified=identified)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # numpy's standard deviation takes a copy in float64, here of some columns at a time
    parts = [values[:, start : start + COLUMNS_AT_ONCE] for start in range(0, values.shape[1], COLUMNS_AT_ONCE)]
    mean, sd = ([getattr(part, of)(0, dtype=np.float64) for part in parts] for of in ("mean", "std"))
    return np.concatenate(mean), np.concatenate(sd)


def _judge(
    decoded: np.ndarray, targets: np.ndarray, stats: Alignment, seed: int
) -> tuple[tuple[float, ...], float, bool]:
    """Distance of every form, share of pairs told apart, and whether that is better than chance."""
    rng = np.random.default_rng(seed)
    rows, columns = (
        np.sort(rng.choice(size, min(size, most), replace=False))
        for size, most in zip(decoded.shape, (ROWS, COLUMNS), strict=True)
    )
    some = np.ix_(rows, columns)
    y, guess = targets[some].astype(np.float64), decoded[some].astype(np.float64)
    of_columns = replace(stats, **{field: getattr(stats, field)[columns] for field in PER_COLUMN})
    y, guess = y - of_columns.mean, guess - of_columns.mean
    if len(rows) < 3 or not y.std(0).any():
        return (np.nan,) * len(FORMS), np.nan, False
    distance = tuple(energy_distance(_centred(guess, form, of_columns), y) for form in FORMS)
    told = told_apart(guess, y)
    return distance, float(told.mean()), bool(told.mean() - 0.5 > CHANCE_SE * told.std(ddof=1) / np.sqrt(len(told)))


def _centred(guess: np.ndarray, form: str, stats: Alignment) -> np.ndarray:
    """Aligned deviations from the training mean of predictions that are deviations from it."""
    if form == "none":
        return guess
    return (guess - (stats.decoded_mean - stats.mean)) * _gains(form, stats.decoded_sd, stats.sd)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """2 E|x−y| − E|x−x'| − E|y−y'| over E|y−y'| for x, y (m, T) of the same stimuli (method.md eq. 54).

    All three are means over pairs of different stimuli, so that how near a prediction is to its own target does not
    count.  0 for equal distributions (Székely and Rizzo 2013), and below it by chance.
    """
    within_x, within_y, between = (_mean_distance(a, b) for a, b in ((x, x), (y, y), (x, y)))
    return (2 * between - within_x - within_y) / within_y


def _mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    np.fill_diagonal(squares, 0.0)
    return float(np.sqrt(np.maximum(squares, 0.0)).sum() / (len(a) * (len(a) - 1)))


def told_apart(decoded: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For every stimulus j, share of i ≠ j with ⟨y_i, ŷ_j⟩ < ⟨y_j, ŷ_j⟩ by correlation, for (m, T) each: (m,)."""
    a, b = (_unit(values) for values in (decoded, targets))
    agreement = b @ a.T
    own = agreement.diagonal()
    return ((agreement < own).sum(0) + 0.5 * ((agreement == own).sum(0) - 1)) / (len(a) - 1)


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(norm > 0, norm, 1.0)


def _gains(form: str, decoded_sd: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Factor of every column (T,); together they restore the total variance (method.md eq. 53)."""
    usable = (decoded_sd * LARGEST_GAIN > sd) & (sd > 0)
    s, sigma = decoded_sd[usable], sd[usable]
    gains = np.zeros(len(sd))
    if s.size:
        group = np.sqrt(np.square(sigma).sum() / np.square(s).sum())
        mixed = (sigma / s) ** COLUMN_SHARE[form] * group ** (1 - COLUMN_SHARE[form])
        gains[usable] = mixed * np.sqrt(np.square(sigma).sum() / np.square(mixed * s).sum())
    return gains


def apply(values: np.ndarray, how: str, stats: Alignment | None) -> np.ndarray:
    """Decoded values (m, T) with the spread of training targets, g (ŷ − m) + μ per column (method.md eq. 13).

    m and g are of left-out predictions, in the form that was chosen, where `how` is "train"; m and s of `values`
    themselves, per column as in the published code, where it is "test"; "none" returns `values`.

    Raises
    ------
    DecodingError
        For "test" with fewer than 2 stimuli, or if the decoder measured no spread.
    """
    if how == "none":
        return values
    if stats is None:
        raise DecodingError(f"align must be none for a decoder without measured spread, got {how}. Fit it again.")
    if how == "train" and stats.form == "none":
        return values
    if how == "train":
        return _scaled(values, stats.decoded_mean, _gains(stats.form, stats.decoded_sd, stats.sd), stats.mean)
    if len(values) < 2:
        raise DecodingError(
            f"align='test' must have at least 2 stimuli to take statistics of, got {len(values)}. Use align='train'."
        )
    mean, sd = _moments(values)
    return _scaled(values, mean, _gains("column", sd, stats.sd), stats.mean)


def how(name: str, params: DecodingParams, align: str) -> str:
    """`align` for a target that the params have aligned, else "none"."""
    return align if name in params.align_targets else "none"


def attrs(
    accuracy: Mapping[str, Any], params: DecodingParams, align: str, drawn: Collection[str] = ()
) -> dict[str, str]:
    """What an embeddings file says of the spread of each target: `align`, and `spread` in words, a line for each.

    Targets that a prior has `drawn` have its spread, and no alignment.
    """
    said = {name: _said(name, fit.alignment, how(name, params, align)) for name, fit in accuracy.items()}
    said |= {name: f"spread of {name} as the prior draws it" for name in drawn}
    return {"align": align, "spread": "\n".join(said.values())}


def _said(name: str, stats: Alignment | None, align: str) -> str:
    if align == "none" or stats is None:
        return f"spread of {name} left as decoded"
    return f"spread of {name} that of training, per column" if align == "test" else stats.said(name)


def _scaled(values: np.ndarray, mean: np.ndarray, gains: np.ndarray, to: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    for start in range(0, len(values), ROWS_AT_ONCE):
        # in float64, of some rows at a time
        out[start : start + ROWS_AT_ONCE] = (values[start : start + ROWS_AT_ONCE] - mean) * gains + to
    return out
