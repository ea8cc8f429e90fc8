"""One cell of the guidance study: settings, the pictures they give of one case, and their scores, kept on disk."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.guidance_subjects import Case
from napari_neuraldiffuser.core import evaluation, reconstruct
from napari_neuraldiffuser.core.base.files import atomic_path, fingerprint, json_object, write_json
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION
from napari_neuraldiffuser.core.diffusion import start as start_module
from napari_neuraldiffuser.core.diffusion.pipeline import decode_start
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import DiffusionParams, EvaluationParams, GuidanceParams

SCORES = {
    # as cells keep them -> column
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "edges": "edges",
    "twoway_edges": "two-way, edges",
    "twoway_demo": "two-way, features",
    "repeat_pixcorr": "repeats, PixCorr",
    "repeat_edges": "repeats, edges",
}
METRICS = ("pixcorr", "ssim", "edges", "twoway_edges", "twoway_features", "repeat_pixcorr", "repeat_edges")
ONCE = ("start", "mean")
"""Controls that take no diffusion: the decoded start, and the mean training image."""
CONTROLS = (*ONCE, "unguided", "shuffled g", "true g", "true z")
KEPT = 12
"""Stimuli of which a cell keeps its pictures."""
AT_ONCE = 16
"""Pictures that are denoised together."""
OF = {f.name: cls for cls in (DiffusionParams, GuidanceParams) for f in fields(cls)}


@dataclass(frozen=True)
class Cell:
    """Settings of one cell: fields of the diffusion and guidance parameters, how it is decoded, and what is changed.

    `control` is one of `CONTROLS`, or nothing for the settings as they are.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    decoder: str = "ridge"
    control: str = ""

    def params(self) -> tuple[DiffusionParams, GuidanceParams]:
        of = {
            cls: {name: value for name, value in self.settings.items() if OF[name] is cls}
            for cls in (DiffusionParams, GuidanceParams)
        }
        diffusion = DiffusionParams(**of[DiffusionParams])
        guidance = GuidanceParams(**of[GuidanceParams])
        if self.control == "unguided":
            guidance = GuidanceParams(guidance_scale=0.0)
        repeats = 1 if self.control in ONCE else diffusion.repeats
        return diffusion.but(repeats=repeats, batch_size=AT_ONCE), guidance

    def as_control(self, control: str) -> "Cell":
        return replace(self, control=control)

    def key(self, case: Case) -> str:
        """Differs when the result does."""
        params = () if self.control in ONCE else self.params()
        return fingerprint([case.facts, self.decoder, self.control, [p.to_dict() for p in params], ALGORITHM_VERSION])


@dataclass(frozen=True)
class Result:
    """Scores of a cell of one case.

    Attributes
    ----------
    scores : dict of str to array (n,)
        Mean over the repeats of each stimulus.
    seconds : float
        Processor seconds per picture.
    failed : int
        Stimuli of which a latent overflowed.
    pictures : Path
        Of the first stimuli, (KEPT, repeats, H, W, 3) uint8.
    """

    scores: dict[str, np.ndarray]
    seconds: float
    failed: int
    pictures: Path


def measure(cell: Cell, case: Case) -> Result:
    """The result of a cell, computed where it is not there yet."""
    place = case.folder / "cells" / cell.key(case)
    told, pictures = json_object(place.with_suffix(".json")), place.with_suffix(".npz")
    if told is None or not pictures.is_file():
        told = _computed(cell, case, pictures)
        write_json(place.with_suffix(".json"), told)
    scores = {name: np.array(values, float) for name, values in told["scores"].items()}
    return Result(scores, told["seconds"], told["failed"], pictures)


def _computed(cell: Cell, case: Case, pictures: Path) -> dict[str, Any]:
    decoded = embeddings_of(cell, case)
    start_module._KEPT.clear()  # an inverted start takes its time in every arm
    start = time.process_time()
    images, finite = images_of(cell, case, decoded)
    seconds = (time.process_time() - start) / (images.shape[0] * images.shape[1])
    with atomic_path(pictures) as temporary:
        np.savez_compressed(temporary, images=images[:KEPT])
    return {
        "settings": dict(cell.settings),
        "decoder": cell.decoder,
        "control": cell.control,
        "seed": case.seed,
        "which": case.which,
        "seconds": seconds,
        "failed": int((~finite).sum()),
        "scores": {name: values.tolist() for name, values in scores_of(images, case).items()},
    }


def embeddings_of(cell: Cell, case: Case) -> Embeddings:
    """What a cell starts from and is guided by."""
    decoded = case.decoded(cell.decoder)
    if cell.control == "shuffled g":
        g = {layer: np.roll(values, 1, axis=0) for layer, values in decoded.g.items()}
        return replace(decoded, g=g)
    if cell.control == "true g":
        return replace(decoded, g=case.true().g)
    return replace(decoded, z=case.true().z) if cell.control == "true z" else decoded


def images_of(cell: Cell, case: Case, decoded: Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, repeats, H, W, 3) uint8, and of which stimuli they are finite, (n,)."""
    whole = np.ones(len(decoded), bool)
    if cell.control == "mean":
        return np.repeat(case.mean_image[None, None], len(decoded), axis=0), whole
    if cell.control == "start":
        return decode_start(decoded.z, case.models)[:, None], whole
    made = reconstruct(decoded, case.models, *cell.params())
    return made.images, made.finite


def scores_of(images: np.ndarray, case: Case) -> dict[str, np.ndarray]:
    """Scores of every stimulus, (n,) each, the mean over its repeats; NaN where there is none."""
    params = EvaluationParams(metrics=METRICS)
    encoder = {"demo": case.models.image_features}
    found = evaluation.evaluate(images, case.seen, encoder, params, with_chance=False)
    return {name: found.per_stimulus(name) for name in SCORES}
