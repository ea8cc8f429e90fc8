"""Tables of the guidance study, as markdown and as JSON, and whether its goals were reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.guidance_cells import SCORES, Result

GUIDED_OVER_UNGUIDED = ("pixcorr", "ssim", "edges")
GUIDED_OVER_START = ("edges", "twoway_demo")
CLEAR, SEEDS = 3.0, 4
"""Standard errors that a difference must exceed, and on how many of the fresh seeds."""


@dataclass(frozen=True)
class Gain:
    """Mean paired difference with its standard error over stimuli."""

    mean: float
    se: float

    @classmethod
    def of(cls, results: Sequence[Result], others: Sequence[Result], score: str) -> "Gain":
        """Of the stimuli of all cases together."""
        pairs = zip(results, others, strict=True)
        d = np.concatenate([a.scores[score] - b.scores[score] for a, b in pairs])
        d = d[np.isfinite(d)]
        if len(d) < 2:
            return cls(np.nan, np.nan)
        return cls(float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d))))

    @property
    def errors(self) -> float:
        """The difference in standard errors."""
        return self.mean / self.se if self.se > 0 else 0.0 if self.mean == 0 else np.inf * np.sign(self.mean)

    def __str__(self) -> str:
        """ "+.043 (4.5)"; nothing where there is none."""
        return "" if np.isnan(self.mean) else f"{short(self.mean, '+')} ({self.errors:.1f})"


def short(value: float, sign: str = "") -> str:
    """ ".562" or "+.043"; "-" where there is no value."""
    return "-" if np.isnan(value) else f"{value:{sign}.3f}".replace("0.", ".", 1)


def mean(results: Sequence[Result], score: str) -> float:
    values = np.concatenate([r.scores[score] for r in results])
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


Rows = Mapping[str, Sequence[Result]]
"""Name of an arm to its result of each case."""


def markdown(rows: Rows, baseline: Mapping[str, str]) -> list[str]:
    """One row per arm: means, and the gain over the arm that `baseline` names for it, in standard errors."""
    heads = ["arm", "s an image", *SCORES.values(), "failed"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, results in rows.items():
        other = rows.get(baseline.get(name, ""))
        cells = [f"{short(mean(results, m))} {'' if other is None else Gain.of(results, other, m)}" for m in SCORES]
        ends = f"{sum(r.failed for r in results)}"
        lines.append(f"| {name} | {seconds(results):.2f} | {' | '.join(c.strip() for c in cells)} | {ends} |")
    return lines


def against(rows: Rows, names: Sequence[str], reference: str) -> list[str]:
    """One row per arm: its time over that of the reference, and its gain over it."""
    scores = ("pixcorr", "ssim", "edges", "twoway_edges", "twoway_demo")
    heads = [f"arm − {reference}", "time", *(SCORES[score] for score in scores)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    whole = seconds(rows[reference])
    for name in names:
        gains = [str(Gain.of(rows[name], rows[reference], score)) for score in scores]
        lines.append(f"| {name} | {seconds(rows[name]) / whole:.2f} | {' | '.join(gains)} |")
    return lines


def seconds(results: Sequence[Result]) -> float:
    """Mean processor seconds of a picture."""
    return float(np.mean([r.seconds for r in results]))


def by_seed(rows: Rows, seeds: Sequence[int], pairs: Sequence[tuple[str, str, Sequence[str]]]) -> list[str]:
    """One row per pair of arms and score, with the gain of every seed."""
    heads = ["first − second", "score", *(f"seed {seed}" for seed in seeds), "all"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for first, second, scores in pairs:
        for score in scores:
            gains = [Gain.of([a], [b], score) for a, b in zip(rows[first], rows[second], strict=True)]
            whole = Gain.of(rows[first], rows[second], score)
            lines.append(f"| {first} − {second} | {SCORES[score]} | {' | '.join(map(str, [*gains, whole]))} |")
    return lines


def reached(rows: Rows, guided: str, unguided: str, start: str) -> dict[str, Any]:
    """On how many cases guidance is clearly better than none, and than the decoded start."""

    def clear(other: str, scores: Sequence[str]) -> list[bool]:
        cases = zip(rows[guided], rows[other], strict=True)
        return [all(Gain.of([a], [b], score).errors > CLEAR for score in scores) for a, b in cases]

    over_none, over_start = clear(unguided, GUIDED_OVER_UNGUIDED), clear(start, GUIDED_OVER_START)
    return {
        "over unguided": sum(over_none),
        "over the decoded start": sum(over_start),
        "of": len(over_none),
        "reached": sum(a and b for a, b in zip(over_none, over_start, strict=True)) >= SEEDS,
    }


def as_json(rows: Rows, seeds: Sequence[int], baseline: Mapping[str, str]) -> dict[str, Any]:
    """Means, seconds and gains of every arm, in all and by seed."""
    found = {}
    for name, results in rows.items():
        other = rows.get(baseline.get(name, ""))
        about: dict[str, Any] = {
            "seconds": seconds(results),
            "failed": sum(r.failed for r in results),
            "scores": {m: _plain(mean(results, m)) for m in SCORES},
        }
        if other is not None:
            about["over"] = baseline[name]
            about["gain"] = {m: vars(Gain.of(results, other, m)) for m in SCORES}
            about["gain by seed"] = {
                str(seed): {m: vars(Gain.of([a], [b], m)) for m in SCORES}
                for seed, a, b in zip(seeds, results, other, strict=True)
            }
        found[name] = about
    return found


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
