"""Differences of scores: mean, standard error and number, when one is called clear, and two runs compared by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.evaluation.metric import of_column

LEAST, ERRORS = 5, 2
CLEAR = f"at least {LEAST} stimuli and more than {ERRORS} standard errors from 0"
"""When a difference is set in bold, everywhere: an error over two or three stimuli is itself hardly known.  Of a group
it is over subjects."""

Rows = Sequence[Mapping[str, Any]]
"""Rows of `scores_table`: "stim", "rep", "arm" and a column per metric; what has no value may be absent or NaN."""


@dataclass(frozen=True)
class Difference:
    """A mean difference.

    Attributes
    ----------
    mean, se : float or None
        None where there is no value, or one alone.
    n : int or None
        Of what the error is over; None in files that do not say.
    of : str
        "stimuli", "repeats" or "subjects".
    """

    mean: float | None = None
    se: float | None = None
    n: int | None = 0
    of: str = "stimuli"

    @classmethod
    def of_summary(cls, values: Mapping[str, Any], of: str = "stimuli") -> "Difference":
        """A difference of `desc-summary_scores.json`."""
        return cls(values.get("mean"), values.get("se"), values.get("n"), of)

    @property
    def clear(self) -> bool:
        """Whether it is set in bold (`CLEAR`); of repeats it never is, as they are of the same scan."""
        if self.mean is None or self.se is None or self.n is None or self.of == "repeats":
            return False
        return self.n >= LEAST and abs(self.mean) > ERRORS * self.se

    def __str__(self) -> str:
        """ "+0.040 ± 0.010 (n = 8)"; "n/a" where there is none."""
        if self.mean is None:
            return "n/a"
        error = "" if self.se is None else f" ± {self.se:.3f}"
        return f"{self.mean:+.3f}{error}" + ("" if self.n is None else f" (n = {self.n})")


def between(first: Rows, second: Rows, metric: str, same_noise: bool) -> Difference:
    """Score of `second` minus that of `first`.

    Parameters
    ----------
    first, second : rows of one arm each
    metric : str
        Its column.
    same_noise : bool
        Whether repeats of the same number started from the same noise, and so are paired.

    Returns
    -------
    Difference
        Over the stimuli that both have, each the mean of its repeats; over repeats where that is one stimulus.  None
        of a metric that compares stimuli, where the two have others.
    """
    one, other = _values(first, metric), _values(second, metric)
    shared = sorted(one.keys() & other.keys())
    known, _ = of_column(metric)
    if not shared or (known is not None and known.of != "stimulus" and one.keys() != other.keys()):
        return Difference()
    if len(shared) > 1:
        return mean_difference([_average(other[s]) - _average(one[s]) for s in shared], "stimuli")
    return _of_repeats(one[shared[0]], other[shared[0]], same_noise)


def means(first: Rows, second: Rows, metric: str) -> tuple[float | None, float | None]:
    """Mean score of each over the stimuli that both have; None where there are none."""
    one, other = _values(first, metric), _values(second, metric)
    shared = sorted(one.keys() & other.keys())
    if not shared:
        return None, None
    return float(np.mean([_average(one[s]) for s in shared])), float(np.mean([_average(other[s]) for s in shared]))


def _values(rows: Rows, metric: str) -> dict[Any, dict[int, float]]:
    """Stimulus -> repeat -> value."""
    found: dict[Any, dict[int, float]] = {}
    for row in rows:
        value = row.get(metric)
        if value is not None and np.isfinite(value):
            found.setdefault(row["stim"], {})[int(row["rep"])] = float(value)
    return found


def _average(of_repeat: Mapping[int, float]) -> float:
    return float(np.mean(list(of_repeat.values())))


def _of_repeats(one: dict[int, float], other: dict[int, float], same_noise: bool) -> Difference:
    paired = sorted(one.keys() & other.keys())
    if same_noise and paired:
        return mean_difference([other[rep] - one[rep] for rep in paired], "repeats")
    samples = [list(values.values()) for values in (one, other)]
    errors = [np.var(values, ddof=1) / len(values) for values in samples if len(values) > 1]
    se = float(np.sqrt(sum(errors))) if len(errors) == 2 else None
    return Difference(_average(other) - _average(one), se, min(map(len, samples)), "repeats")


def mean_difference(values: Sequence[float], of: str = "stimuli") -> Difference:
    """Of differences (n,) that are paired already; n is at least 1."""
    n = len(values)
    se = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    return Difference(float(np.mean(values)), se, n, of)
