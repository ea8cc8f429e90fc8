"""What a metric is: its names for tables and pages, its definition, and what it is computed from."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_neuraldiffuser.core.base.registry import METRICS
from napari_neuraldiffuser.core.evaluation import metrics

CUSTOM = "custom"
"""Name of an encoder that has none."""


@dataclass(frozen=True)
class Metric:
    """A score of reconstructions; an entry of `base.registry.METRICS`.

    Attributes
    ----------
    label : str
        Name on tables and pages.
    definition : str
        One sentence, in which {size}, {encoder} and {chance} are filled in.
    compute : callable
        Gives a score per repeat, NaN where there is none, from what `of` says.
    of : str
        "stimulus": compute(Stimulus) -> (repeats,).  "edges": compute(features, seen) -> (n, repeats) of HOG features
        (n, repeats, d) and those of the seen images (n, 1, d).  "features": the same of an image encoder's features;
        left out where there is no encoder.  "network": the same of a layer of a scoring network, always with `matrix`.
    matrix : bool
        Whether `compute` takes the correlations of these features in place of them: r_ij = corr(seen_i, recon_j),
        (repeats, n, n), see `identification`.
    network, layer : str
        Name in `networks.backbones.BACKBONES`, and what is taken from it.
    column : str
        Name with {encoder} in it of the columns of a metric of features that has one for every encoder; others have
        one column, of their name in the registry, and features of the first encoder.  See `encoder_word`.
    chance : float, callable or None
        What guessing scores; of the number of stimuli, where it depends on it.
    lower : bool
        Whether a lower value is better, as of a distance.
    card : int
        Place among the main figures of a page; 0 for a metric that is none of them.
    """

    label: str
    definition: str
    compute: Callable[..., np.ndarray]
    of: str = "stimulus"
    column: str = ""
    chance: float | Callable[[int], float] | None = None
    card: int = 0
    matrix: bool = False
    network: str = ""
    layer: str = ""
    lower: bool = False

    def text(self, size: int, encoder: str) -> str:
        """The definition for images compared at `size` px and an encoder, or weights, of that name."""
        return self.definition.format(size=size, encoder=encoder, chance=self.chance)


class Stimulus:
    """A seen image and the reconstructions of it; each intermediate is made once, when it is first asked for.

    Parameters
    ----------
    seen : uint8 array (H', W', 3)
    repeats : uint8 array (repeats, H, W, 3)
    size : int
        Side at which `pictures` are compared, px.
    """

    def __init__(self, seen: np.ndarray, repeats: np.ndarray, size: int) -> None:
        self.seen, self.repeats, self.size = seen, repeats, size

    @cached_property
    def pictures(self) -> np.ndarray:
        """Seen image and repeats (1 + repeats, size, size, 3) in [0, 1]."""
        return np.concatenate([metrics.resize(part / 255, self.size) for part in (self.seen[None], self.repeats)])

    @cached_property
    def edges(self) -> np.ndarray:
        """HOG features of the seen image and the repeats, (1 + repeats, d)."""
        return np.concatenate([metrics.hog_edges(part) for part in (self.seen[None], self.repeats)])

    def thumbnails(self, side: int) -> np.ndarray:
        """Pixels (1 + repeats, side * side * 3) of the seen image and the repeats, reduced."""
        small = [metrics.resize(part, side) for part in (self.seen[None], self.repeats)]
        return np.concatenate(small).reshape(1 + len(self.repeats), -1)

    @cached_property
    def pixcorr(self) -> tuple[np.ndarray, np.ndarray]:
        """PixCorr of each repeat (repeats,) with the seen image, and with the other repeats."""
        return metrics.with_first_and_between(metrics.pixcorr_matrix(self.pictures))

    @cached_property
    def ssim(self) -> tuple[np.ndarray, np.ndarray]:
        """SSIM of each repeat (repeats,) with the seen image, and with the other repeats."""
        return metrics.with_first_and_between(metrics.ssim_matrix(metrics.grey(self.pictures)))

    @cached_property
    def edge_agreement(self) -> tuple[np.ndarray, np.ndarray]:
        """HOG correlation of each repeat (repeats,) with the seen image, and with the other repeats."""
        return metrics.with_first_and_between(metrics.correlations(self.edges, self.edges))


def lower_is_better(column: str) -> bool:
    """Whether a lower value of a column of scores is better."""
    metric, _ = of_column(column)
    return metric is not None and metric.lower


def encoder_word(name: str) -> str:
    """An encoder's name in that of a column: small letters and digits, and _ for anything else.

    `openai/clip-vit-base-patch32` is `openai_clip_vit_base_patch32`: tables and pages take no other letters.
    """
    return re.sub("[^0-9a-z]+", "_", name.lower()).strip("_") or CUSTOM


def of_column(column: str) -> tuple[Metric | None, str]:
    """The metric that a column of scores is of (None if it is not registered), and the encoder in its name."""
    if column in METRICS:
        return METRICS[column], ""
    for metric in METRICS.values():
        before, several, _ = metric.column.partition("{encoder}")
        if several and column.startswith(before):
            return metric, column.removeprefix(before)
    return None, ""


def label(column: str) -> str:
    """Name of a column of scores on tables and pages."""
    metric, encoder = of_column(column)
    if metric is None:
        return column
    return f"{metric.label} ({encoder})" if encoder else metric.label


def definition(column: str, size: int) -> str:
    """Definition of a column of scores, for images compared at `size` px."""
    metric, encoder = of_column(column)
    return metric.text(size, encoder or "that was used") if metric else column


def main_figures(columns: Sequence[str]) -> list[str]:
    """The columns that a page shows first, in that order."""
    cards = {column: metric.card for column in columns if (metric := of_column(column)[0]) and metric.card}
    return sorted(cards, key=cards.__getitem__)
