"""Reconstructions and seen images in, scores out: per repeat, per arm, and paired between arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.evaluation import alignment, metrics
from napari_neuraldiffuser.core.evaluation.alignment import self_test
from napari_neuraldiffuser.core.evaluation.chance import levels, mismatch
from napari_neuraldiffuser.core.evaluation.metric import CUSTOM, Metric, encoder_word, lower_is_better
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.scoring import Encoder, Scoring, chosen_metrics, costs, open_networks
from napari_neuraldiffuser.core.evaluation.stack import Stack
from napari_neuraldiffuser.core.evaluation.work import Work
from napari_neuraldiffuser.core.params import EvaluationParams

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Scores:
    """Scores of one arm.

    Attributes
    ----------
    values : dict of metric name -> array (n, repeats)
        NaN where a score has no value.  A `repeat_*` value is the mean agreement of that repeat with the
        other repeats of its stimulus.
    protocol : dict
        Everything that a figure depends on: numbers of images and repeats, sizes, definitions.
    chance : dict of metric name -> float
        Level of each score without information on the stimulus; a metric that has none is absent.
    alignment : dict of features -> dict
        The test of the pairing, see `alignment.self_test`; empty with a few stimuli.
    """

    values: dict[str, np.ndarray]
    protocol: dict[str, Any]
    chance: dict[str, float] = field(default_factory=dict)
    alignment: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def undefined(self) -> dict[str, int]:
        """How many values of each metric are undefined (a constant image, a single repeat)."""
        return {name: int(np.isnan(v).sum()) for name, v in self.values.items() if np.isnan(v).any()}

    def per_stimulus(self, metric: str) -> np.ndarray:
        """Mean over the repeats of each stimulus, (n,); NaN where no repeat has a value."""
        return metrics.nanmean_rows(self.values[metric])


def evaluate(
    images: Pictures,
    seen: Pictures,
    encoder: Encoder | Mapping[str, Encoder] | None = None,
    params: EvaluationParams | None = None,
    progress: Progress | None = None,
    with_chance: bool = True,
    device: "str | torch.device" = "cpu",
) -> Scores:
    """Score the reconstructions of one arm against the seen images.

    Every repeat is scored on its own; repeats are never averaged into one image, which would raise PixCorr.
    Protocol of MindEye2 (Scotti et al. 2024), see `core/evaluation/metrics.py`.

    Parameters
    ----------
    images : uint8 array (n, repeats, H, W, 3), or Pictures
        Reconstructions; (n, H, W, 3) is read as one repeat.  Pictures are read one stimulus at a time.
    seen : uint8 array (n, H', W', 3), or Pictures
        Seen images, in the same order; their size may differ.
    encoder : callable or mapping of name to callable, optional
        uint8 images (m, H, W, 3) -> features (m, d), for two-way identification and feature agreement, by the name
        of the network.  A bare callable is called "custom".  Feature agreement between repeats uses the first.
    params : EvaluationParams
    progress : callable, optional
        Called as progress(done, total, what).
    with_chance : bool
        Whether chance levels and the test of the pairing are computed, too; without, every picture is read in its turn.
    device : str or torch.device
        Where the scoring networks of `params.metric_weights` run.

    Returns
    -------
    Scores

    Raises
    ------
    MetricError
        If the arrays are not uint8 images or do not match.
    MetricWeightsError
        If metrics need weights that are not in `params.metric_weights`, or are not what they should be.
    """
    params = params or EvaluationParams()
    recon, truth = _checked(images, seen)
    encoders = _named(encoder)
    chosen = chosen_metrics(params, bool(encoders))
    others = mismatch(len(recon), recon.repeats) if with_chance else None
    networks = open_networks(chosen, params.metric_weights, device)
    work = Work(progress or silent, costs(recon, chosen, list(encoders), list(networks), others))
    job = Scoring(recon, truth, others, params, work)
    job.pictures({name: metric for name, metric in chosen.items() if metric.of in ("stimulus", "edges")})
    for name, encode in encoders.items():
        job.encoder(name, encode, _of_encoder(chosen, name, first=name == next(iter(encoders))))
    for name, network in networks.items():
        job.network(name, network, {column: metric for column, metric in chosen.items() if metric.network == name})
    files = {name: network.file for name, network in networks.items()}
    protocol = _protocol(recon, truth, _definitions(chosen, encoders, files, params.size), params.size)
    if networks:
        protocol["networks"] = {name: {"file": one.file, "sha256": one.digest} for name, one in networks.items()}
    guessed = levels(job.columns, job.guesses, len(truth)) if len(truth) > 1 and with_chance else {}
    tests = {name: test for name, r in job.matrices.items() if (test := self_test(r))} if with_chance else {}
    return Scores(job.values, protocol, guessed, tests)


def _checked(images: Pictures, seen: Pictures) -> tuple[Stack, Stack]:
    if len(images) != len(seen):
        raise MetricError(
            f"images must have one entry per seen image, got {len(images)} for {len(seen)}. "
            "Select seen images by the stimulus ids of the reconstructions."
        )
    return Stack.of("images", images, 5), Stack.of("seen", seen, 4)


def _named(encoder: Encoder | Mapping[str, Encoder] | None) -> dict[str, Encoder]:
    if encoder is None:
        return {}
    named = dict(encoder) if isinstance(encoder, Mapping) else {CUSTOM: encoder}
    words = {encoder_word(name): name for name in named}
    if len(words) < len(named):
        raise MetricError(f"encoders must differ in letters and digits of their names, got {list(named)}. Rename one.")
    return named


def _of_encoder(chosen: Mapping[str, Metric], encoder: str, first: bool) -> dict[str, Metric]:
    """Column -> metric of one encoder's features; what has one column for all is of the first."""
    of_features = {name: metric for name, metric in chosen.items() if metric.of == "features"}
    word = encoder_word(encoder)
    return {m.column.format(encoder=word) or name: m for name, m in of_features.items() if first or m.column}


def _definitions(
    chosen: Mapping[str, Metric], encoders: Mapping[str, Encoder], files: Mapping[str, str], size: int
) -> dict[str, str]:
    """Column -> definition; the columns that every encoder has come last."""
    here = {name: metric for name, metric in chosen.items() if encoders or metric.of != "features"}
    first = next(iter(encoders), "")
    texts = {name: m.text(size, files.get(m.network, first)) for name, m in here.items() if not m.column}
    several = [metric for metric in here.values() if metric.column]
    return texts | {m.column.format(encoder=encoder_word(e)): m.text(size, e) for e in encoders for m in several}


def _protocol(images: Stack, seen: Stack, definitions: dict[str, str], size: int) -> dict[str, Any]:
    return {
        "n_test_images": len(seen),
        "repeats": images.repeats,
        "scored": "every repeat on its own; mean over repeats per stimulus, then mean and SE over stimuli",
        "resolution": {
            "compared_at": size,
            "reconstruction": images.size,
            "seen": seen.size,
            "resize": "bilinear, antialiased, each image from its own size",
        },
        "metrics": definitions,
    }


def summarise(arms: Mapping[str, Scores]) -> dict[str, Any]:
    """Means over stimuli per arm, and guided minus unguided paired by stimulus.

    Parameters
    ----------
    arms : mapping of arm name to Scores
        "guided" and "unguided" from the same seeds are compared; other arms are only summarised.

    Returns
    -------
    dict
        The content of ``desc-summary_scores.json``: {"protocol", "arms", "paired"}.  "se" is the standard
        error over stimuli, "n" the stimuli that have a value, "chance" the score without information on the stimulus
        (see `core.evaluation.chance`), "worse" the share of stimuli whose score is worse, "alignment" the test of the
        pairing by arm (see `core.evaluation.alignment`).

    Raises
    ------
    MetricError
        Without arms, or with arms of different stimuli or repeats.
    """
    if not arms:
        raise MetricError("arms must have at least one arm, got none.")
    shapes = {name: next(iter(scores.values.values())).shape for name, scores in arms.items()}
    if len(set(shapes.values())) > 1:
        raise MetricError(f"arms must have the same stimuli and repeats, got {shapes}. Score the same subset of both.")
    protocol = dict(next(iter(arms.values())).protocol)
    protocol["undefined"] = {name: scores.undefined for name, scores in arms.items()}
    summaries = {
        name: {m: {**mean_of(s.per_stimulus(m)), "chance": s.chance.get(m)} for m in s.values}
        for name, s in arms.items()
    }
    tests = {name: s.alignment for name, s in arms.items() if s.alignment}
    if tests:
        protocol["alignment"] = alignment.DEFINITION
    return {"protocol": protocol, "arms": summaries, "paired": _paired(arms), "alignment": tests}


def _paired(arms: Mapping[str, Scores]) -> dict[str, dict[str, float | None]]:
    if not {"guided", "unguided"} <= set(arms):
        return {}
    guided, unguided = arms["guided"], arms["unguided"]
    differences = {m: guided.per_stimulus(m) - unguided.per_stimulus(m) for m in guided.values if m in unguided.values}
    return {name: difference_of(d, lower_is_better(name)) for name, d in differences.items()}


def difference_of(d: np.ndarray, lower: bool = False) -> dict[str, float | None]:
    """`mean_of` paired differences (n,), and the share of them that are for the worse as "worse".

    Parameters
    ----------
    d : array (n,)
    lower : bool
        Whether a lower score is better.
    """
    known = d[np.isfinite(d)]
    return {**mean_of(known), "worse": float(((known > 0) if lower else (known < 0)).mean()) if known.size else None}


def mean_of(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean, standard error and count of the defined values (method.md eq. 49); None (JSON null) where undefined."""
    values = values[np.isfinite(values)]
    n = len(values)
    mean = float(values.mean()) if n else None
    return {"mean": mean, "se": float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None, "n": n}


def scores_table(
    arms: Mapping[str, Scores],
    stimulus_ids: Sequence[int] | Sequence[str] | np.ndarray,
    labels: Sequence[str] = (),
) -> pd.DataFrame:
    """Long table of every score: stim, stimulus where labelled, rep (from 1), arm, then one per metric.

    Parameters
    ----------
    arms : mapping of arm name to Scores
    stimulus_ids : sequence (n,)
        Name or 0-based 73k id of each stimulus.
    labels : sequence of str (n,), optional
        Own scans' label of each.
    """
    tables = []
    for arm, scores in arms.items():
        n, repeats = next(iter(scores.values.values())).shape
        if len(stimulus_ids) != n:
            raise MetricError(f"stimulus_ids must have one id per stimulus ({n}), got {len(stimulus_ids)}.")
        named = {"stimulus": np.repeat(np.asarray(labels, dtype=object), repeats)} if len(labels) else {}
        repeat = np.tile(np.arange(1, repeats + 1), n)
        index = {"stim": np.repeat(np.asarray(stimulus_ids), repeats), **named, "rep": repeat}
        columns = {name: values.ravel() for name, values in scores.values.items()}
        tables.append(pd.DataFrame({**index, "arm": arm, **columns}))
    return pd.concat(tables, ignore_index=True).sort_values(["stim", "rep"], kind="stable", ignore_index=True)
