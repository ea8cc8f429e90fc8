"""Reconstructions and seen images in, scores out: per repeat, per arm, and paired between arms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.base.registry import METRICS
from napari_neuraldiffuser.core.evaluation import metrics
from napari_neuraldiffuser.core.evaluation.chance import levels, mismatch, mixed, mixed_repeats, unknown
from napari_neuraldiffuser.core.evaluation.metric import CUSTOM, Metric, Stimulus, encoder_word
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.stack import Stack
from napari_neuraldiffuser.core.params import EvaluationParams

Encoder = Callable[[np.ndarray], np.ndarray]


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
    """

    values: dict[str, np.ndarray]
    protocol: dict[str, Any]
    chance: dict[str, float] = field(default_factory=dict)

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
        Whether chance levels are computed, too; without, every picture is read in its turn.

    Returns
    -------
    Scores

    Raises
    ------
    MetricError
        If the arrays are not uint8 images or do not match.
    """
    params = params or EvaluationParams()
    recon, truth = _checked(images, seen)
    encoders = _named(encoder)
    report = progress or silent
    chosen = {name: METRICS[name] for name in METRICS if name in params.metrics}
    if not encoders and all(metric.of == "features" for metric in chosen.values()):
        raise MetricError(f"metrics must have one that needs no image encoder, got {list(chosen)}. Add pixcorr.")
    others = mismatch(len(recon), recon.repeats) if with_chance else None
    values, guesses = _image_scores(recon.__getitem__, truth, chosen, params.size, report), {}
    if others is not None:
        guesses = _image_scores(mixed_repeats(recon, others), truth, unknown(chosen), params.size, report)
    columns = {name: metric for name, metric in chosen.items() if metric.of != "features"}
    for name, encode in encoders.items():
        wanted = _of_encoder(chosen, name, first=name == next(iter(encoders)))
        if wanted:
            told = partial(_tell_encoded, report, f"{name} features", len(recon) * (recon.repeats + 1))
            features = (
                _encode(recon, encode, params.batch_size, told),
                _encode(truth, encode, params.batch_size, partial(told, before=len(recon) * recon.repeats)),
            )
            values |= _feature_scores(wanted, *features)
            if others is not None:
                guesses |= _feature_scores(unknown(wanted), mixed(features[0], others), features[1])
            columns |= wanted
    protocol = _protocol(recon, truth, _definitions(chosen, encoders, params.size), params)
    return Scores(values, protocol, levels(columns, guesses) if len(truth) > 1 and with_chance else {})


def _tell_encoded(report: Progress, what: str, total: int, done: int, before: int = 0) -> None:
    report(before + done, total, what)


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


def _feature_scores(columns: Mapping[str, Metric], recon: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    return {column: metric.compute(recon, seen) for column, metric in columns.items()}


def _image_scores(
    repeats_of: Callable[[int], np.ndarray],
    seen: Stack,
    chosen: Mapping[str, Metric],
    size: int,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """The scores that need no encoder, stimulus by stimulus so that memory holds one stimulus at 425 px."""
    n = len(seen)
    single, of_edges = ({k: m for k, m in chosen.items() if m.of == of} for of in ("stimulus", "edges"))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in single}
    edges = np.empty(0, np.float32)
    for i in range(n):
        progress(i, n, "scoring")
        one = Stimulus(seen[i][0], repeats_of(i), size)
        for name, metric in single.items():
            rows[name].append(metric.compute(one))
        if of_edges:
            edges = edges if edges.size else np.empty((n, *one.edges.shape), one.edges.dtype)
            edges[i] = one.edges
    progress(n, n, "scoring")
    values = {name: np.stack(found) for name, found in rows.items()}
    return values | {name: m.compute(edges[:, 1:], edges[:, :1]) for name, m in of_edges.items()}


def _encode(images: Stack, encode: Encoder, batch_size: int, told: Callable[[int], None]) -> np.ndarray:
    """Features (n, repeats, d) float32 of pictures, of which a batch is in memory at once."""
    features, total = np.empty(0, np.float32), len(images) * images.repeats
    pictures, done = images.flat(), 0
    while batch := list(islice(pictures, batch_size)):
        rows = np.asarray(encode(np.stack(batch)))
        if len(rows) != len(batch):
            raise MetricError(f"encoder must return one row per image, got {len(rows)} for {len(batch)} images.")
        rows = np.reshape(rows, (len(rows), -1))
        features = features if done else np.empty((total, rows.shape[1]), np.float32)
        features[done : done + len(batch)] = rows
        done += len(batch)
        told(done)
    return features.reshape(len(images), images.repeats, -1)


def _definitions(chosen: Mapping[str, Metric], encoders: Mapping[str, Encoder], size: int) -> dict[str, str]:
    """Column -> definition; the columns that every encoder has come last."""
    here = {name: metric for name, metric in chosen.items() if encoders or metric.of != "features"}
    first = next(iter(encoders), "")
    texts = {name: m.text(size, first) for name, m in here.items() if not m.column}
    several = [metric for metric in here.values() if metric.column]
    return texts | {m.column.format(encoder=encoder_word(e)): m.text(size, e) for e in encoders for m in several}


def _protocol(images: Stack, seen: Stack, definitions: dict[str, str], params: EvaluationParams) -> dict[str, Any]:
    return {
        "n_test_images": len(seen),
        "repeats": images.repeats,
        "scored": "every repeat on its own; mean over repeats per stimulus, then mean and SE over stimuli",
        "resolution": {
            "compared_at": params.size,
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
        (see `core.evaluation.chance`), "worse" the share of stimuli whose score fell.

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
    return {"protocol": protocol, "arms": summaries, "paired": _paired(arms)}


def _paired(arms: Mapping[str, Scores]) -> dict[str, dict[str, float | None]]:
    if not {"guided", "unguided"} <= set(arms):
        return {}
    guided, unguided = arms["guided"], arms["unguided"]
    differences = {m: guided.per_stimulus(m) - unguided.per_stimulus(m) for m in guided.values if m in unguided.values}
    return {name: difference_of(d) for name, d in differences.items()}


def difference_of(d: np.ndarray) -> dict[str, float | None]:
    """`mean_of` paired differences (n,), and the share of them that are below 0 as "worse"."""
    known = d[np.isfinite(d)]
    return {**mean_of(known), "worse": float((known < 0).mean()) if known.size else None}


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
