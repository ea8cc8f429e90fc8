"""Gathers what one run found into the report's data."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.diffusion.pipeline import decode_start
from napari_neuraldiffuser.core.job.images import read_arm
from napari_neuraldiffuser.core.job.resume import Stages
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.kernels.ops import backend_info
from napari_neuraldiffuser.core.outputs.anatomy import write_anatomy, write_shown
from napari_neuraldiffuser.core.outputs.description import versions
from napari_neuraldiffuser.core.outputs.names import Derivatives
from napari_neuraldiffuser.core.outputs.report.page import ReportData, write_report
from napari_neuraldiffuser.core.outputs.report.slices import contribution_slices
from napari_neuraldiffuser.core.params import Settings

OUTLINED = "prf-visualrois"


@dataclass
class PageParts:
    """What the page of one subject is made from.

    Attributes
    ----------
    subject : nsd.Subject or nsd.OwnScans
        Asked for stimuli, captions, anatomy and regions.
    models : Models
    places : Derivatives
        Where the reconstructions lie, and the page and its pictures go.
    decoded : Embeddings
        Of the stimuli that are shown.
    summary, scores : dict, DataFrame
        `evaluation.summarise`, `evaluation.scores_table`.
    contribution : DataFrame
        `contribution.ContributionMaps.table`.
    volumes : dict of target to nibabel image
    accuracy : dict of target to cross-validated R²
    settings : Settings
    facts : dict
        `page_facts`: what was computed from what.
    notes : list of str
    command : str
    failed : list of int
        Stimuli that were left out.
    """

    subject: Any
    models: Any
    places: Derivatives
    decoded: Embeddings
    summary: dict[str, Any]
    scores: pd.DataFrame
    contribution: pd.DataFrame
    volumes: dict[str, Any]
    accuracy: dict[str, float]
    settings: Settings
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    command: str = ""
    failed: list[int] = field(default_factory=list)


def write_page(parts: PageParts, stages: Stages, progress: Any) -> ReportData:
    """Write `sub-01.html`, and the anatomy and images beside the results; returns what the page shows."""
    ids, stimuli = parts.decoded.stimulus_ids, parts.subject.stimuli
    seen, start = stimuli[ids], decode_start(parts.decoded, parts.models)
    notes = [*parts.notes, *write_anatomy(parts.subject, parts.places)]
    write_shown(parts.places, ids, seen, start)
    repeats = parts.settings.diffusion.repeats
    data = ReportData(
        subject=parts.places.label,
        summary=parts.summary,
        scores=parts.scores,
        stimulus_ids=ids,
        seen=seen,
        start=start,
        recon={arm: read_arm(parts.places, ids, repeats, arm) for arm in ARMS},
        captions=[(stimuli.captions(int(s)) or [None])[0] for s in ids],
        contribution=parts.contribution,
        slices=slice_pictures(parts, stages, progress),
        accuracy=parts.accuracy,
        parameters={"run": parts.facts, **parts.settings.to_dict()},
        versions={**versions(), "kernel backend": backend_info()["backend"]},
        command=parts.command,
        notes=notes,
        failed=parts.failed,
    )
    progress(0, 1, "page")
    write_report(parts.places.page, data)
    progress(1, 1, "page")
    return data


def slice_pictures(parts: PageParts, stages: Stages, progress: Any) -> dict[str, bytes]:
    """One PNG of brain slices per target, drawn again only when the maps, the anatomy or the outlines changed."""
    paths = {target: parts.places.slices(target) for target in parts.volumes}
    anatomy = parts.subject.anatomy()
    outlines = parts.subject.rois(OUTLINED) if OUTLINED in parts.subject.roi_names() else None
    # rounded: a sum in another order does not count as another map
    made_from = [_digest(volume.get_fdata(), volume.affine, 7) for volume in parts.volumes.values()]
    made_from.append(None if anatomy is None else _digest(anatomy.get_fdata(), anatomy.affine, 3))
    made_from.append(None if outlines is None else _digest(outlines.labels, outlines.affine, 0))

    def work() -> None:
        for k, (target, volume) in enumerate(parts.volumes.items()):
            progress(k, len(paths), "slices")
            with atomic_path(paths[target]) as temporary:
                temporary.write_bytes(contribution_slices(volume, anatomy, outlines))
        progress(len(paths), len(paths), "slices")

    stages.run("slices", made_from, paths.values(), work)
    return {target: path.read_bytes() for target, path in paths.items()}


def _digest(values: np.ndarray, affine: np.ndarray, decimals: int) -> str:
    rounded = np.round(values, decimals) + 0.0  # no -0
    return hashlib.sha256(rounded.astype(np.float32).tobytes() + np.asarray(affine).tobytes()).hexdigest()


def page_facts(subject: str, models: Any, counted: dict[str, Any]) -> dict[str, Any]:
    """What was computed from what, as the page shows it."""
    return {
        "subject": subject,
        "models": models.name,
        "model digest": models.digest[:16],
        "device": str(models.device),
        **counted,
    }
