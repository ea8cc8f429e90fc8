"""How scores are computed: pictures one stimulus at a time, features of encoders, and scoring networks by the batch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_neuraldiffuser.core.base.registry import METRICS, NETWORK_METRICS
from napari_neuraldiffuser.core.evaluation import identification
from napari_neuraldiffuser.core.evaluation.chance import mixed, mixed_repeats, unknown
from napari_neuraldiffuser.core.evaluation.metric import Metric, Stimulus
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.stack import Stack
from napari_neuraldiffuser.core.evaluation.work import Work
from napari_neuraldiffuser.core.params import EvaluationParams

if TYPE_CHECKING:
    import torch

    from napari_neuraldiffuser.core.evaluation.networks.backbones import Opened

Encoder = Callable[[np.ndarray], np.ndarray]
COST = {"alexnet": 3.0, "inception": 8.0, "clip": 40.0, "efficientnet": 3.0, "swav": 5.0}
"""Time of a picture, in that of a picture whose PixCorr, SSIM and edges are scored, on one processor; 1 of others."""
PICTURES, MIXED = "pictures", "pictures of other stimuli"
EDGES, PIXELS = "edges (HOG)", "pixels (32 px)"
"""What the pairing is tested by beside features of networks; pixels where edges are not scored."""
THUMBNAIL = 32


def chosen_metrics(params: EvaluationParams, encoded: bool) -> dict[str, Metric]:
    """The metrics that are computed, in the order of the registry.

    Raises
    ------
    MetricError
        If all need an image encoder and none is there, or one needs weights and none are named.
    """
    named = set(params.metrics)
    if params.metric_weights and not named & set(NETWORK_METRICS):
        named |= set(NETWORK_METRICS)
    chosen = {name: METRICS[name] for name in METRICS if name in named}
    if not encoded and all(metric.of == "features" for metric in chosen.values()):
        raise MetricError(f"metrics must have one that needs no image encoder, got {list(chosen)}. Add pixcorr.")
    if wanting := [name for name, metric in chosen.items() if metric.network and not params.metric_weights]:
        raise MetricError(
            f"metric_weights must name the folder of the networks' weights for metrics {', '.join(wanting)}, got none. "
            "Give it, or leave them out."
        )
    return chosen


def open_networks(chosen: Mapping[str, Metric], folder: str, device: "str | torch.device") -> dict[str, "Opened"]:
    """The scoring networks that metrics need, with their weights; MetricWeightsError where one cannot be had."""
    wanted = list(dict.fromkeys(metric.network for metric in chosen.values() if metric.network))
    if not wanted:
        return {}
    from napari_neuraldiffuser.core.evaluation.networks.backbones import BACKBONES

    return {name: BACKBONES[name].open(folder, device) for name in wanted}


def costs(
    images: Stack,
    chosen: Mapping[str, Metric],
    encoders: Sequence[str],
    networks: Sequence[str],
    others: np.ndarray | None,
) -> dict[str, float]:
    """Part of the job -> what it costs, in the order in which they are done."""
    n = len(images)
    pictures = float(n * (1 + images.repeats))
    found = {PICTURES: pictures}
    if others is not None and any(metric.of == "stimulus" for metric in unknown(chosen).values()):
        found[MIXED] = float(n * (1 + others.shape[1]))
    found |= {_features(name): pictures for name in encoders}
    return found | {_features(name): pictures * COST[name] for name in networks}


def _features(name: str) -> str:
    return f"{name} features"


class Scoring:
    """Scores of one arm, part by part.

    Parameters
    ----------
    images, seen : Stack
        Of n stimuli each.
    others : int array (n, repeats'), optional
        Whose picture stands for a stimulus's where they are mixed up; no chance levels without.
    params : EvaluationParams
    work : Work

    Attributes
    ----------
    values, guesses : dict of column to array
        Scores (n, repeats), and those with the stimuli mixed up, of the columns whose chance is not known.
    columns : dict of column to Metric
    matrices : dict of features to correlations (repeats, n, n)
        What the pairing is tested by.
    """

    def __init__(
        self, images: Stack, seen: Stack, others: np.ndarray | None, params: EvaluationParams, work: Work
    ) -> None:
        self.images, self.seen, self.others, self.params, self.work = images, seen, others, params, work
        self.values: dict[str, np.ndarray] = {}
        self.guesses: dict[str, np.ndarray] = {}
        self.columns: dict[str, Metric] = {}
        self.matrices: dict[str, identification.Matrices] = {}

    def pictures(self, chosen: Mapping[str, Metric]) -> None:
        """The scores that need no encoder."""
        self.columns |= chosen
        self.values |= {name: np.empty(0) for name in chosen}  # their order is that of the registry
        single, of_edges = ({k: m for k, m in chosen.items() if m.of == of} for of in ("stimulus", "edges"))
        shown = EDGES if of_edges else PIXELS
        self.values |= self._of_stimuli(single, PICTURES, self.images.__getitem__, shown)
        rows = self.values.pop(shown)
        if of_edges:
            self._of_features(of_edges, rows[:, 1:], rows[:, :1], EDGES)
        else:
            self.matrices[PIXELS] = identification.matrices(rows[:, 1:], rows[:, :1])
        if self.others is not None and (guessed := unknown(single)):
            self.guesses |= self._of_stimuli(guessed, MIXED, mixed_repeats(self.images, self.others))

    def encoder(self, name: str, encode: Encoder, wanted: Mapping[str, Metric]) -> None:
        """The scores of an encoder's features."""
        if wanted:
            self.columns |= wanted
            n = len(self.seen)
            total = n * (1 + self.images.repeats)
            told = partial(self._encoded, name, total)
            features = _encode(self.images, encode, self.params.batch_size, told)
            seen = _encode(self.seen, encode, self.params.batch_size, lambda done: told(total - n + done))
            self._of_features(wanted, features, seen, name)

    def network(self, name: str, network: "Opened", wanted: Mapping[str, Metric]) -> None:
        """The scores of a scoring network."""
        told = partial(self._encoded, name, len(self.seen) * (1 + self.images.repeats))
        size = self.params.batch_size
        for layer, r in identification.network_matrices(self.images, self.seen, network, size, told).items():
            of_layer = {column: metric for column, metric in wanted.items() if metric.layer == layer}
            self.columns |= of_layer
            self._of_matrices(of_layer, r, f"{name} {layer}".strip())

    def _encoded(self, name: str, total: int, done: int) -> None:
        self.work.told(_features(name), done, total)

    def _of_stimuli(
        self, chosen: Mapping[str, Metric], part: str, repeats_of: Callable[[int], np.ndarray], shown: str = ""
    ) -> dict[str, np.ndarray]:
        """Stimulus by stimulus, so that memory holds one at full size; features (n, 1 + repeats, d) of all, `shown`."""
        n, rows = len(self.seen), dict[str, list[np.ndarray]]()
        kept = np.empty(0, np.float32)
        for i in range(n):
            self.work.told(part, i, n)
            one = Stimulus(self.seen[i][0], repeats_of(i), self.params.size)
            for name, metric in chosen.items():
                rows.setdefault(name, []).append(metric.compute(one))
            if shown:
                features = one.edges if shown == EDGES else one.thumbnails(THUMBNAIL)
                kept = kept if kept.size else np.empty((n, *features.shape), np.float32)
                kept[i] = features
        self.work.told(part, n, n)
        found = {name: np.stack(values) for name, values in rows.items()}
        return {**found, shown: kept} if shown else found

    def _of_features(self, chosen: Mapping[str, Metric], features: np.ndarray, seen: np.ndarray, name: str) -> None:
        """Of features (n, repeats, d), and those (n, 1, d) of the seen images."""
        whole = {column: metric for column, metric in chosen.items() if not metric.matrix}
        self.values |= {column: metric.compute(features, seen) for column, metric in whole.items()}
        if self.others is not None and (guessed := unknown(whole)):
            other = mixed(features, self.others)
            self.guesses |= {column: metric.compute(other, seen) for column, metric in guessed.items()}
        by_matrix = {column: metric for column, metric in chosen.items() if metric.matrix}
        if by_matrix:
            self._of_matrices(by_matrix, identification.matrices(features, seen), name)

    def _of_matrices(self, chosen: Mapping[str, Metric], r: identification.Matrices, name: str) -> None:
        self.matrices[name] = r
        self.values |= {column: metric.compute(r) for column, metric in chosen.items()}
        if self.others is not None and (guessed := unknown(chosen)):
            other = identification.paired_with(r, self.others)
            self.guesses |= {column: metric.compute(other) for column, metric in guessed.items()}


def _encode(images: Stack, encode: Encoder, batch_size: int, told: Callable[[int], None]) -> np.ndarray:
    """Features (n, repeats, d) float32 of pictures, of which a batch is in memory at once."""
    features, total, done = np.empty(0, np.float32), len(images) * images.repeats, 0
    for batch in images.batches(batch_size):
        rows = np.asarray(encode(batch))
        if len(rows) != len(batch):
            raise MetricError(f"encoder must return one row per image, got {len(rows)} for {len(batch)} images.")
        rows = np.reshape(rows, (len(rows), -1))
        features = features if done else np.empty((total, rows.shape[1]), np.float32)
        features[done : done + len(batch)] = rows
        done += len(batch)
        told(done)
    return features.reshape(len(images), images.repeats, -1)
