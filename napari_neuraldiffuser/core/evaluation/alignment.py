"""Whether the pairing of reconstructions with seen images is the right one: other pairings of the same pictures.

Seen images or betas that are shifted by one trial give pictures and scores that look like any others, only worse.
The test asks whether reconstructions agree with other stimuli's seen images as well as with their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.evaluation.identification import Matrices

LEAST = 5
"""With fewer stimuli other pairings are too few to tell anything."""
MIXED, SEED = 5, 0
"""Random pairings beside the shifted ones."""
SHOWN = 3
"""Shifts, on either side, that are recorded."""
FAR = 6
"""A shifted pairing this many standard deviations beyond the other ones is the right one, and not the luckiest."""
DEFINITION = (
    "Mean correlation of features of reconstructions with those of the seen images as paired; with the seen images "
    f"shifted by s places in the order of the table, as a ring, for the best s and up to {SHOWN} either way; and with "
    f"{MIXED} random pairings in which none has its own."
)


def self_test(r: Matrices) -> dict[str, Any]:
    """Agreement as paired and with other pairings, from r_ij = corr(seen_i, recon_j) (repeats, n, n).

    Returns
    -------
    dict
        "paired"; "shifted", by shift, where shift s pairs reconstruction j with seen image j + s; "best_shift" and
        "at_best" of all shifts but 0; "mixed"; "spread", the standard deviation over all shifts but 0 and the best.
        Empty below `LEAST` stimuli and where the pairing has no value.
    """
    n = r.shape[1]
    if n < LEAST:
        return {}
    mean = _nanmean(r.astype(np.float64), 0)
    j = np.arange(n)
    by_shift = np.array([_nanmean(mean[(j + s) % n, j], 0) for s in range(n)])
    if not np.isfinite(by_shift[0]):
        return {}
    others = np.where(np.isfinite(by_shift), by_shift, -np.inf)[1:]
    best = 1 + int(np.argmax(others))
    rest = by_shift[[s for s in range(1, n) if s != best and np.isfinite(by_shift[s])]]
    shifts = sorted({s for k in range(1, SHOWN + 1) for s in (k, n - k) if s < n})
    return {
        "paired": float(by_shift[0]),
        "shifted": {str(s if s <= n // 2 else s - n): _number(by_shift[s]) for s in shifts},
        "best_shift": best if best <= n // 2 else best - n,
        "at_best": _number(by_shift[best]),
        "mixed": [_number(_nanmean(mean[derangement, j], 0)) for derangement in derangements(n)],
        "spread": float(rest.std()) if len(rest) > 1 else None,
        "beyond": float(rest.mean()) if len(rest) else None,
    }


def derangements(n: int) -> list[np.ndarray]:
    """`MIXED` random pairings of n in which none has its own; the same ones for every n."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(MIXED):
        ring = rng.permutation(n)
        paired = np.empty(n, int)
        paired[ring] = np.roll(ring, 1)
        found.append(paired)
    return found


def doubted(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence where no kind of features finds the pairing better than every other one; else nothing."""
    known = {name: test for name, test in tests.items() if test}
    if not known or any(_holds(test) for test in known.values()):
        return ""
    for name, test in known.items():
        if _stands_out(test):
            s = test["best_shift"]
            places = f"{abs(s)} {'places' if abs(s) > 1 else 'place'} {'after' if s > 0 else 'before'}"
            return (
                "Reconstructions are probably paired with the wrong stimuli: they agree best with the seen image "
                f"{places} their own ({name}: {test['at_best']:.3f}, as paired {test['paired']:.3f}); check the order "
                "of trials, betas and pictures."
            )
    name, test = next(iter(known.items()))
    return (
        "A shifted or random pairing agrees as well as the given one "
        f"({name}: {_best(test):.3f}, as paired {test['paired']:.3f}): these reconstructions do not tell which image "
        "was seen, or are paired with the wrong ones."
    )


def warnings(arms: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """A sentence for every arm whose pairing is `doubted`; once where they are all the same."""
    told = {arm: text for arm, tests in arms.items() if (text := doubted(tests))}
    return [f"{arm}: {text}" if len(arms) > 1 else text for arm, text in told.items()]


def _holds(test: Mapping[str, Any]) -> bool:
    return bool(test["paired"] > _best(test))


def _best(test: Mapping[str, Any]) -> float:
    found: Sequence[float | None] = [test["at_best"], *test["mixed"]]
    return max(value for value in found if value is not None)


def _stands_out(test: Mapping[str, Any]) -> bool:
    if None in (test["spread"], test["at_best"]):
        return False
    return bool(test["at_best"] > test["beyond"] + FAR * test["spread"])


def _number(value: float | np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the defined values along an axis; NaN where none is."""
    defined = np.isfinite(values)
    total, n = np.where(defined, values, 0).sum(axis), defined.sum(axis)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
