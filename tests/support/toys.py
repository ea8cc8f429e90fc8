"""A decoder, a guidance rule, an attribution method and a metric that are registered for the length of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from napari_neuraldiffuser.core.attribution.maps import Part, collect, roi_masks
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.registry import ATTRIBUTION_METHODS, DECODERS, GUIDANCE_RULES, METRICS, Registry
from napari_neuraldiffuser.core.decoding import TargetFit, store
from napari_neuraldiffuser.core.diffusion.rules import Rule
from napari_neuraldiffuser.core.evaluation import Metric
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import DecodingParams


@contextmanager
def registered(registry: Registry, name: str, entry: Any) -> Iterator[None]:
    """`entry` in a registry, and out of it again."""
    registry.register(name, entry)
    try:
        yield
    finally:
        registry.remove(name)


class MeanDecoder:
    """Predicts the training mean of every target, whatever the betas."""

    def __init__(self, params: DecodingParams | None = None) -> None:
        self.params = params or DecodingParams(decoder="mean")
        self.accuracy: dict[str, TargetFit] = {}
        self.attrs: dict[str, Any] = {}

    @property
    def names(self):
        return tuple(self.accuracy)

    def fit(self, train, targets, progress=None, names=None):
        for name in names or targets:
            values = targets[name][...]
            self.accuracy[name] = TargetFit(
                1.0, (1.0,), (0.0,), values.shape[1:], values.reshape(len(values), -1).mean(0)
            )
        return self

    def check(self, betas):
        pass

    def predict(self, betas, align=None, progress=None):
        n = len(betas.data)
        out = {name: np.tile(f.mean, (n, 1)).reshape(n, *f.shape).astype("f4") for name, f in self.accuracy.items()}
        return Embeddings(out.pop("z"), out.pop("c"), out, betas.stimulus_ids)

    def arrays(self):
        return [fit.mean for fit in self.accuracy.values()]

    def save(self, path):
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            store.create_group(file, "mean", self)

    @classmethod
    def load(cls, path):
        with store.opened(path) as file:
            decoder = cls(store.read_params(file["decoder"]))
            decoder.accuracy = store.read_fits(file["decoder"])
        return decoder

    def close(self):
        pass


def even_split(decoder, betas, rois, targets, params, progress):
    """Every voxel has the same share."""
    groups, (m, p) = roi_masks(rois, betas), betas.data.shape
    part = Part(np.full(p, 1 / p), groups.sums(np.full((m, p), 1 / p)), np.ones(m), 1.0)
    return collect(dict.fromkeys(decoder.names, part), groups, betas, params, "even-split")


def no_pull(prediction, pull, step, params):
    """Judges and does nothing."""
    return prediction


BRIGHTNESS = Metric(
    "Brightness", "Mean brightness at {size} px.", lambda one: one.pictures[1:].mean(axis=(1, 2, 3)), card=7
)
TOYS = {
    "decoder": (DECODERS, "mean", MeanDecoder),
    "rule": (GUIDANCE_RULES, "no-pull", Rule(no_pull)),
    "method": (ATTRIBUTION_METHODS, "even", even_split),
    "metrics": (METRICS, "brightness", BRIGHTNESS),
}
"""Field of params -> registry, name and entry."""
