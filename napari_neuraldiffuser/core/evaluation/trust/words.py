"""The paragraph that ends a trust sheet: sentences by rules from its figures, each from a test at two standard errors.

Every rule can say three things: higher, lower, or no clear difference.  `evaluation.differences.CLEAR` says when a
difference is clear, here as everywhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from napari_neuraldiffuser.core.evaluation.controls import START
from napari_neuraldiffuser.core.evaluation.differences import ERRORS, LEAST, Difference
from napari_neuraldiffuser.core.evaluation.metric import label as metric_label
from napari_neuraldiffuser.core.evaluation.metric import lower_is_better, main_figures
from napari_neuraldiffuser.core.evaluation.trust import sources


@dataclass(frozen=True)
class Verdict:
    """Scores, by their labels, that are clearly higher, clearly lower, and neither."""

    higher: list[str] = field(default_factory=list)
    lower: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, differences: Mapping[str, Any]) -> "Verdict":
        """Of differences by metric: the main figures that compare with seen pictures and are better when higher."""
        names = [m for m in main_figures(list(differences)) if not m.startswith("repeat_")]
        names = [m for m in names if not lower_is_better(m)]
        known = {m: d for m in names if (d := Difference.of_summary(differences[m])).mean is not None}
        signs = {m: (1 if (d.mean or 0) > 0 else -1) if d.clear else 0 for m, d in known.items()}
        higher, lower, neither = ([metric_label(m) for m, s in signs.items() if s == sign] for sign in (1, -1, 0))
        return cls(higher, lower, neither)

    @property
    def empty(self) -> bool:
        return not (self.higher or self.lower or self.open)


def paragraph(trust: Mapping[str, Any]) -> str:
    """What a run shows beyond its baselines, and what it does not.

    Parameters
    ----------
    trust : mapping
        "n", "repeats", "rows", and what else of "single", "best", "nearness", "consistency", "decoding", "directions",
        "bottleneck" and "clusters" was computed; "left_out" has sentences on what was not.
    """
    rules: Sequence[Callable[[Mapping[str, Any]], Iterable[str]]] = (
        _opening,
        _against_baselines,
        _ceiling,
        _near_and_far,
        _one_of_several,
        _consistency,
        _decoding,
        _bottleneck,
        _clusters,
        _directions,
        _in_sum,
    )
    return " ".join(sentence for rule in rules for sentence in rule(trust))


def listed(names: Sequence[str], word: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return " ".join(filter(None, [", ".join(names[:-1]), word if len(names) > 1 else "", *names[-1:]]))


def counted(n: int, one: str, many: str = "") -> str:
    """ "1 stimulus", "2 stimuli"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def compared(verdict: Verdict) -> str:
    """ "higher in A, lower in B, no clear difference in C"; "higher in every score" where all are."""
    told = (("higher", verdict.higher), ("lower", verdict.lower), ("no clear difference", verdict.open))
    found = [(how, names) for how, names in told if names]
    if len(found) == 1 and len(found[0][1]) > 1:
        return f"{found[0][0]} in {'any' if verdict.open else 'every'} score"
    return ", ".join(f"{how} in {listed(names)}" for how, names in found)


def _opening(trust: Mapping[str, Any]) -> Iterable[str]:
    n, repeats = int(trust["n"]), int(trust["repeats"])
    yield (
        f"This is of {counted(n, 'test stimulus', 'test stimuli')} with {counted(repeats, 'repeat')} each; a "
        f"difference counts where it is more than {ERRORS} standard errors from 0, over at least {LEAST} stimuli."
    )
    if every := _scores(trust):
        yield f"The scores are {listed(every)}." if len(every) > 1 else f"The score is {every[0]}."
    if n < LEAST:
        yield f"With fewer than {LEAST} stimuli none counts: this run shows nothing yet."


def _scores(trust: Mapping[str, Any]) -> list[str]:
    """Labels of all scores by which the run is compared."""
    verdicts = [Verdict.of(row["paired"]) for row in sources.baselines(dict(trust))]
    return list(dict.fromkeys(m for v in verdicts for m in (*v.higher, *v.lower, *v.open)))


def _against_baselines(trust: Mapping[str, Any]) -> Iterable[str]:
    for row in reversed(sources.baselines(dict(trust))):
        verdict = Verdict.of(row["paired"])
        if verdict.empty:
            continue
        name = sources.label(row["name"])
        of = "" if row["n"] == trust["n"] else f" (of {counted(row['n'], 'stimulus', 'stimuli')})"
        yield f"Guided pictures against {name}{of}: {compared(verdict)}."
        if row["name"] == START and not verdict.higher:
            yield "So guidance does not beat the decoded start in any score."
        elif row["name"] == START and verdict.lower:
            yield f"So guidance beats the decoded start in {listed(verdict.higher)} alone."


def _ceiling(trust: Mapping[str, Any]) -> Iterable[str]:
    for row in trust.get("rows", ()):
        if row["name"] != sources.ORACLE:
            continue
        verdict, n = Verdict.of(row["paired"]), counted(row["n"], "stimulus", "stimuli")
        if verdict.lower:
            yield (
                f"With true targets the same generator scores higher in {listed(verdict.lower)} ({n}): there the "
                "decoder, and not the generator, is what is short."
            )
        rest = [*verdict.higher, *verdict.open]
        if rest:
            yield f"In {listed(rest)} true targets score no higher ({n}): there a better decoder would not help."


def _near_and_far(trust: Mapping[str, Any]) -> Iterable[str]:
    told = trust.get("nearness")
    if not told or not told.get("far_minus_near"):
        return
    verdict = Verdict.of(told["far_minus_near"])
    if verdict.lower:
        yield (
            f"Stimuli unlike every training image score lower than those most like one in {listed(verdict.lower)}: "
            "part of these is likeness to the training images."
        )
    if verdict.higher:
        yield f"Stimuli unlike every training image score higher in {listed(verdict.higher)}."
    if verdict.open:
        yield f"Whether a training image was like the seen one makes no clear difference in {listed(verdict.open)}."
    gain = Verdict.of(told["parts"][-1].get("paired", {}))
    if not gain.empty:
        yield f"On the third of stimuli least like a training image, guided against unguided: {compared(gain)}."


def _one_of_several(trust: Mapping[str, Any]) -> Iterable[str]:
    if trust.get("single"):
        verdict = Verdict.of(trust["single"]["paired"])
        if not verdict.empty:
            yield f"The first repeat alone, guided against unguided: {compared(verdict)}."
    if trust.get("best"):
        verdict = Verdict.of(trust["best"]["gain"])
        if not verdict.empty:
            yield (
                f"The guided repeat of {trust['repeats']} that is chosen from fMRI alone against their mean: "
                f"{compared(verdict)}."
            )


def _consistency(trust: Mapping[str, Any]) -> Iterable[str]:
    told = {name: about for name, about in trust.get("consistency", {}).items() if about.get("above")}
    for name, about in told.items():
        above = Difference.of_summary(about["above"])
        if above.mean is None:
            continue
        of, constant = metric_label(name), about["constant"]
        if not above.clear:
            yield f"{of} is not clearly different from that of a constant picture ({constant:g})."
        elif above.mean > 0:
            yield f"{of} is above that of a constant picture ({constant:g}): repeats agree on their own stimulus."
        else:
            yield f"{of} is below that of a constant picture ({constant:g}): repeats do not agree on their stimulus."


def _decoding(trust: Mapping[str, Any]) -> Iterable[str]:
    known = [row for row in trust.get("decoding", ()) if row.get("r2") is not None and row.get("r2_se") is not None]
    if not known:
        return
    above = [row["target"] for row in known if row["r2"] > ERRORS * row["r2_se"]]
    below = [row["target"] for row in known if row["r2"] < -ERRORS * row["r2_se"]]
    neither = [row["target"] for row in known if row["target"] not in (*above, *below)]
    if above:
        yield f"Decoding explains a share of the variance above 0 of {listed(above)}."
    if below:
        yield f"It explains less than the training mean does of {listed(below)}."
    if neither:
        yield f"It does not clearly explain any of {listed(neither, 'or')}."
    shares = [row["r2_over_ceiling"] for row in known if row.get("r2_over_ceiling") is not None]
    if shares:
        most, least = max(shares), min(shares)
        between = f"{most:.0%}" if len(shares) == 1 else f"{least:.0%} to {most:.0%}"
        yield f"That is {between} of what this decoder would explain of betas without trial noise."
    else:
        yield "How much trial noise leaves to explain is not known, as single trials were not read or shown once."


def _bottleneck(trust: Mapping[str, Any]) -> Iterable[str]:
    curve = trust.get("bottleneck")
    if not curve or not curve.get("enough"):
        return
    for found in dict.fromkeys(curve["enough"].values()):
        of = listed([target for target, least in curve["enough"].items() if least == found])
        if found is None:
            most = counted(curve["numbers"][-1], "number")
            yield f"From {most} of the voxels, the most that was tried, {of} decode clearly worse than from all."
        else:
            yield f"From {counted(found, 'number')} of the voxels {of} decode not clearly worse than from all."


def _clusters(trust: Mapping[str, Any]) -> Iterable[str]:
    told = trust.get("clusters")
    if not told:
        return
    rows = {row["target"]: Difference.of_summary(row["inside_minus_outside"]) for row in told["targets"]}
    rows = {target: d for target, d in rows.items() if d.mean is not None}
    lower = [t for t, d in rows.items() if d.clear and (d.mean or 0) < 0]
    higher = [t for t, d in rows.items() if d.clear and (d.mean or 0) > 0]
    neither = [t for t in rows if t not in (*lower, *higher)]
    if lower:
        yield (
            f"Images of a kind that was left out of training are decoded worse than where as many others were, in "
            f"{listed(lower)}: there the decoder leans on kinds that it has seen."
        )
    if higher:
        yield f"Images of a kind that was left out of training are decoded better in {listed(higher)}."
    if neither:
        yield f"Leaving a kind of images out of training makes no clear difference in {listed(neither)}."


def _directions(trust: Mapping[str, Any]) -> Iterable[str]:
    found: dict[str, list[str]] = {"fewer": [], "more": [], "as many": []}
    for row in trust.get("directions", ()):
        if row.get("ratio") is None or row.get("se") is None:
            continue
        away = row["ratio"] - 1
        clear = row["n"] >= LEAST and abs(away) > ERRORS * row["se"]
        found[("fewer" if away < 0 else "more") if clear else "as many"].append(row["target"])
    if found["fewer"]:
        yield f"Decoded targets vary in fewer directions than true ones in {listed(found['fewer'])}."
    if found["more"]:
        yield f"Decoded targets vary in more directions than true ones in {listed(found['more'])}, as noise does."
    if found["as many"]:
        yield f"There is no clear difference in directions in {listed(found['as many'])}."


def _in_sum(trust: Mapping[str, Any]) -> Iterable[str]:
    verdicts = {row["name"]: Verdict.of(row["paired"]) for row in sources.baselines(dict(trust))}
    verdicts = {name: verdict for name, verdict in verdicts.items() if not verdict.empty}
    if not verdicts:
        yield "Nothing was compared with any baseline, so this sheet says nothing about what the pictures show."
        return
    every = _scores(trust)
    beyond = [m for m in every if all(m in v.higher for v in verdicts.values())]
    names = [sources.label(name) for name in verdicts]
    if beyond:
        yield f"In sum, this run shows more than {listed(names)} in {listed(beyond)}."
    else:
        yield f"In sum, there is no score in which this run shows more than each of these: {listed(names)}."
    for m in (m for m in every if m not in beyond):
        short = [sources.label(name) for name, v in verdicts.items() if m not in v.higher]
        yield f"It does not show more than {listed(short, 'or')} in {m}."
    if trust.get("left_out"):
        yield f"Not compared: {'; '.join(trust['left_out'])}."
