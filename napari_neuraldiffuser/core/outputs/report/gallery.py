"""The pictures of a subject's page: within the page while it stays small, else the files beside it.

A page is one file that can be sent on.  With a thousand stimuli it would be hundreds of megabytes: then it names the
pictures that lie in the subject's folder anyway, and the browser reads them when they are scrolled to.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.names import SHOWN, Derivatives
from napari_neuraldiffuser.core.base.registry import METRICS
from napari_neuraldiffuser.core.evaluation.controls import START
from napari_neuraldiffuser.core.evaluation.metric import label, of_column
from napari_neuraldiffuser.core.outputs.report.parts import data_uri

if TYPE_CHECKING:
    from napari_neuraldiffuser.core.outputs.report.page import ReportData

LARGEST = 20_000_000
"""Bytes of pictures within a page."""
FIRST, SURELY = 4, 1.5
"""After so many stimuli all are judged by these; the factor is for stimuli whose pictures are smaller."""
FORMATS = ("PNG", "WEBP")
"""Of pictures within a page, the first that keeps them below LARGEST."""
UNDER_IMAGES = ("pixcorr", "ssim", "twoway_features")
"""Metrics whose scores stand under a stimulus's images."""

Sources = dict[str, list[str]]
"""Arm, or one of SHOWN, to the `src` of its pictures."""


def gallery(data: "ReportData", metrics: list[str], page: Path) -> dict[str, Any]:
    """Rows of the gallery, and how its pictures are shown; arguments as of `page.page_values`.

    Returns
    -------
    dict
        "rows"; "beside": whether pictures are files beside the page; "shape": height and width of each.
    """
    sources, places = next(filter(None, (_inline(data, kind) for kind in FORMATS)), None), data.places
    beside = sources is None and places is not None
    if sources is None and places is not None:
        sources = [_linked(data, i, places, page.parent) for i in range(len(data.stimulus_ids))]
    means = data.scores.groupby(["stim", "arm"])[metrics].mean()
    return {
        "rows": [
            _row(data, i, source, _means(means, data, i))
            for i, source in enumerate(sources or _encoded(data, FORMATS[-1]))
        ],
        "beside": beside,
        "shape": data.start[0].shape[:2],
    }


def _inline(data: "ReportData", kind: str) -> list[Sources] | None:
    """Pictures as data; None once they are too large, or the first are so large that all will be.

    Encoding takes tens of milliseconds a picture: minutes for those that fit into a page.
    """
    found, size = [], 0
    for source in _encoded(data, kind):
        found.append(source)
        size += sum(len(uri) for uris in source.values() for uri in uris)
        expected = size / len(found) * len(data.stimulus_ids)
        if size > LARGEST or (len(found) == FIRST and expected > SURELY * LARGEST):
            return None
    return found


def _encoded(data: "ReportData", kind: str) -> Iterator[Sources]:
    for i in range(len(data.stimulus_ids)):
        shown = {"seen": data.seen[i], "start": data.start[i]}
        yield {what: [data_uri(picture, kind=kind)] for what, picture in shown.items()} | {
            arm: [data_uri(picture, kind=kind) for picture in images[i]] for arm, images in data.recon.items()
        }


def _linked(data: "ReportData", i: int, places: Derivatives, folder: Path) -> Sources:
    """Paths of pictures from the page's folder."""
    stimulus, repeats = int(data.stimulus_ids[i]), range(1, data.repeats + 1)

    def link(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    shown = {what: [link(places.shown(stimulus, what))] for what in SHOWN}
    return shown | {arm: [link(places.image(stimulus, k, arm)) for k in repeats] for arm in data.recon}


def _means(means: pd.DataFrame, data: "ReportData", i: int) -> dict[str, pd.Series]:
    """Mean scores of a stimulus by arm, and those of its decoded start."""
    stimulus = data.stimulus_ids[i]
    return {arm: means.loc[stimulus, arm] for arm in (*data.recon, START) if (stimulus, arm) in means.index}


def _row(data: "ReportData", i: int, sources: Sources, means: dict[str, pd.Series]) -> dict[str, Any]:
    """Images and scores of one stimulus."""
    stim = data.stimulus_ids[i]
    arms = [{"name": arm, "images": sources[arm], "text": _score_text(means.get(arm))} for arm in data.recon]
    return {
        "stim": stim,
        "name": f"{data.labels[i]} ({stim})" if data.labels else str(stim),
        "caption": data.captions[i],
        "seen": sources["seen"][0],
        "start": sources["start"][0],
        "start_text": _score_text(means.get(START)),
        "arms": arms,
        "sort": _sort_keys(means),
    }


def _score_text(means: pd.Series | None) -> str:
    if means is None:
        return ""
    shown = [METRICS[name] for name in UNDER_IMAGES if name in METRICS]
    columns = [column for column in means.index if of_column(column)[0] in shown]
    return ", ".join(f"{label(c)} {means[c]:.2f}" if np.isfinite(means[c]) else f"{label(c)} n/a" for c in columns)


def _sort_keys(means: dict[str, pd.Series]) -> dict[str, str]:
    if "guided" not in means:
        return {}
    keys = {m: f"{value:.5f}" for m, value in means["guided"].items()}
    if "unguided" in means and "pixcorr" in keys:
        keys["gain"] = f"{means['guided'].pixcorr - means['unguided'].pixcorr:.5f}"
    return {name: value for name, value in keys.items() if value != "nan"}
