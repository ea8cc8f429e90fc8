"""Gathers what one run found into the report's data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .derivatives import ARMS, versions
from .embeddings import Embeddings
from .files import atomic_path
from .ops import backend_info
from .pipeline import decode_start
from .recon_files import read_arm
from .report import ReportData, write_report
from .shown_files import write_anatomy, write_shown
from .slices import contribution_slices

OUTLINED = "prf-visualrois"


def write_page(
    run: Any, decoder: Any, decoded: Embeddings, summary: dict, table: pd.DataFrame, maps: Any
) -> ReportData:
    """Write `sub-01.html` from what the stages of a `job.Run` left; returns what the page shows."""
    ids = decoded.stimulus_ids
    seen, start = run.subject.stimuli[ids], decode_start(decoded, run.models)
    notes = [*run.notes, *write_anatomy(run.subject, run.places)]
    write_shown(run.places, ids, seen, start)
    repeats = run.job.settings.diffusion.repeats
    data = ReportData(
        subject=run.places.label,
        summary=summary,
        scores=table,
        stimulus_ids=ids,
        seen=seen,
        start=start,
        recon={arm: read_arm(run.places, ids, repeats, arm) for arm in ARMS},
        captions=[(run.subject.stimuli.captions(int(s)) or [None])[0] for s in ids],
        contribution=maps.table,
        slices=slice_pictures(run, maps),
        accuracy={target: fit.best_r2 for target, fit in decoder.accuracy.items()},
        parameters=parameters(run),
        versions={**versions(), "kernel backend": backend_info()["backend"]},
        command=run.job.command,
        notes=notes,
        failed=None,
    )
    run.progress(0, 1, "page")
    write_report(run.places.page, data)
    run.progress(1, 1, "page")
    return data


def slice_pictures(run: Any, maps: Any) -> dict[str, bytes]:
    """One PNG of brain slices per target, drawn again only when the maps changed."""
    paths = {target: run.places.slices(target) for target in maps.volumes}
    run.stages.run("slices", [run.inputs, _shares(maps)], paths.values(), lambda: _draw_slices(run, maps, paths))
    return {target: path.read_bytes() for target, path in paths.items()}


def _shares(maps: Any) -> dict[str, Any]:
    return {target: np.round(shares, 7) for target, shares in maps.voxel_shares.items()}


def _draw_slices(run: Any, maps: Any, paths: dict[str, Path]) -> None:
    anatomy = run.subject.anatomy()
    outlines = run.subject.rois(OUTLINED) if OUTLINED in run.subject.roi_names() else None
    for k, (target, volume) in enumerate(maps.volumes.items()):
        run.progress(k, len(maps.volumes), "slices")
        with atomic_path(paths[target]) as temporary:
            temporary.write_bytes(contribution_slices(volume, anatomy, outlines))
    run.progress(len(maps.volumes), len(maps.volumes), "slices")


def parameters(run: Any) -> dict[str, Any]:
    """What was computed from what, as the page shows it."""
    settings = run.job.settings.to_dict()
    about = {
        "subject": run.job.subject,
        "models": run.models.name,
        "model digest": run.models.digest[:16],
        "device": str(run.models.device),
        "training images": len(run.train.stimulus_ids),
        "test images": len(run.test.stimulus_ids),
        "trials per test image": float(np.mean(run.test.repeats)),
        "voxels": run.train.data.shape[1],
    }
    return {"run": about, **settings}
