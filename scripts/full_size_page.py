"""The page of many stimuli, from drawn pictures and random scores."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from napari_neuraldiffuser.core import evaluation
from napari_neuraldiffuser.core.base.names import SHOWN, Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.job.images import write_png
from napari_neuraldiffuser.core.job.pictures import ArmPictures, ShownPictures
from napari_neuraldiffuser.core.outputs.report.page import ReportData, write_report

POOL = 40
"""So many pictures are drawn; the files of others are links to them."""


def many_stimuli(folder: Path, n: int, repeats: int, side: int) -> dict[str, Any]:
    """Write a page of `n` stimuli and say how large it is."""
    places, ids = Derivatives(folder, "subj01"), np.arange(n)
    _write_pictures(places, ids, repeats, side)
    rng = np.random.default_rng(0)
    names = ("pixcorr", "ssim", "edges", "twoway_edges", "repeat_pixcorr", "repeat_ssim", "repeat_edges")
    arms = {
        arm: evaluation.Scores({name: rng.random((n, repeats)) for name in names}, {"metrics": {}}, {}) for arm in ARMS
    }
    data = ReportData(
        subject=places.label,
        summary=evaluation.summarise(arms),
        scores=evaluation.scores_table(arms, ids),
        stimulus_ids=ids,
        seen=ShownPictures(places, ids, "seen"),
        start=ShownPictures(places, ids, "start"),
        recon={arm: ArmPictures(places, ids, repeats, arm) for arm in ARMS},
        captions=[f"drawn picture {k}" for k in ids],
        contribution=_shares(rng),
        slices={},
        accuracy={"z": 0.4, "c": 0.1},
        parameters={"run": {"stimuli": n}},
        versions={},
        places=places,
    )
    write_report(places.page, data)
    return {"stimuli": n, "repeats": repeats, "px": side, "page MB": round(places.page.stat().st_size / 1e6, 2)}


def _write_pictures(places: Derivatives, ids: np.ndarray, repeats: int, side: int) -> None:
    rng, drawn = np.random.default_rng(0), []
    paths = [places.shown(k, what) for k in ids for what in SHOWN]
    paths += [places.image(k, repeat, arm) for k in ids for arm in ARMS for repeat in range(1, repeats + 1)]
    for k, path in enumerate(paths):
        path.unlink(missing_ok=True)
        if k < POOL:
            write_png(path, _drawn(rng, side))
            drawn.append(path)
        else:
            os.link(drawn[k % POOL], path)


def _drawn(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise whose detail falls with its size as a photograph's does: its files are as large."""
    total = np.zeros((side, side, 3))
    for cells in (4, 8, 16, 32, 64, 128, 256):
        blocks = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC)) / cells
    return np.uint8((total - total.min()) / np.ptp(total) * 255)


def _shares(rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        {"roi": roi, "target": target, "share": rng.random(), "se": 0.01, "n_voxels": 9, "kind": "product-measure"}
        for target in ("z", "c")
        for roi in ("V1", "V2", "outside")
    ]
    return pd.DataFrame(rows).assign(family="prf-visualrois")
