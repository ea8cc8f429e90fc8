"""The trust sheet: what is compared, in which order, and the key "trust" of the summary that keeps it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.base.files import read_json, write_json
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding import worth as worth_module
from napari_neuraldiffuser.core.evaluation.chance import mismatch
from napari_neuraldiffuser.core.evaluation.controls import MEAN, START
from napari_neuraldiffuser.core.evaluation.trust import directions, nearest, rows, select, sources, words
from napari_neuraldiffuser.core.job.controls import MEAN_OF
from napari_neuraldiffuser.core.job.pictures import ArmPictures, SeenPictures
from napari_neuraldiffuser.core.job.trust import decoded, diffused
from napari_neuraldiffuser.core.job.trust.features import Nearness, agreement, compare
from napari_neuraldiffuser.core.job.trust.parts import TrustParts
from napari_neuraldiffuser.core.job.trust.scoring import scored
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, Targets, rows_of

CONSTANT = {"repeat_pixcorr": 1.0, "repeat_ssim": 1.0, "repeat_edges": 1.0, "repeat_features": 1.0}
IDENTIFIED, CHANCE = "repeat_identification", 0.5
"""What one picture for every stimulus and repeat scores between repeats: perfect agreement, and identification by
guessing."""
DECODING = ("target", "r2", "r2_se", "r2_ceiling", "r2_over_ceiling", "two_way", "two_way_se", "two_way_p", "n_test")


def write_trust(parts: TrustParts, progress: Progress) -> dict[str, Any]:
    """Add the trust sheet to the summary, under "trust"; takes an older one out where none is asked for."""
    summary = read_json(parts.places.summary)
    summary.pop("trust", None)
    trust = {} if parts.settings.evaluation.trust == "none" else sheet(parts, progress)
    if trust:
        summary["trust"] = trust
    write_json(parts.places.summary, summary)
    return trust


def sheet(parts: TrustParts, progress: Progress) -> dict[str, Any]:
    """Everything that the sheet says, as plain values."""
    left_out: list[str] = []
    more: tuple[list[dict[str, Any]], dict[str, Any]] = ([], {})
    with parts.training() as training:
        known = None if training is None else compare(parts, training, progress)
        if parts.settings.evaluation.trust == "full":
            more = _full(parts, training, left_out, progress)
    if known is None:
        left_out.append("the best training image and nearness to it, as no training image has targets of these layers")
    trust: dict[str, Any] = {
        "level": parts.settings.evaluation.trust,
        "n": len(parts.stimulus_ids),
        "repeats": parts.repeats,
        "rows": _in_order([*_baselines(parts, known, progress), *more[0]]),
        "single": _of_arms(*(select.first(parts.arms[arm]) for arm in ("guided", "unguided"))),
        "best": _best(parts, known, left_out, progress),
        "nearness": _nearness(parts, known, left_out),
        "consistency": _consistency(parts),
        "decoding": _decoding(parts),
        "directions": _directions(parts, left_out, progress),
        "retrieved": [] if known is None else known.retrieved.tolist(),
        **more[1],
        "left_out": left_out,
    }
    named = [row["name"] for row in trust["rows"]]
    trust["sources"] = {name: sources.SOURCES[name].text.format(n=MEAN_OF) for name in named}
    trust["paragraph"] = words.paragraph(trust)
    return trust


def _full(
    parts: TrustParts, training: Targets | None, left_out: list[str], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows that take diffusion, and figures that take new fits."""
    found = diffused.diffused_rows(parts, training, left_out, progress)
    if training is None:
        left_out.append("the bottleneck and kinds of images, as there are no training targets")
        return found, {}
    return found, decoded.judge(parts, training, left_out, progress)


def _in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows from knowing nothing to knowing everything."""
    places = list(sources.SOURCES)
    return sorted(found, key=lambda row: places.index(row["name"]))


# baselines


def _baselines(parts: TrustParts, known: Nearness | None, progress: Progress) -> list[dict[str, Any]]:
    guided = parts.arms["guided"]
    values = {name: parts.values(name) for name in (MEAN, START, sources.UNGUIDED)}
    others = mismatch(len(parts.stimulus_ids), 1)
    if others is not None:
        pictures = ArmPictures(parts.places, parts.stimulus_ids, 1, "guided")
        values[sources.OTHER] = scored(parts, Reordered(pictures, others[:, 0]), progress)
    if known is not None:
        values[sources.RETRIEVAL] = scored(parts, SeenPictures(parts.stimuli, known.retrieved), progress)
    return [rows.row(name, guided, values[name]) for name in sources.SOURCES if values.get(name)]


class Reordered:
    """Pictures of which item i is item `order[i]` of others."""

    def __init__(self, pictures: Pictures, order: Sequence[int] | np.ndarray) -> None:
        self.pictures, self.order = pictures, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self.pictures[(int(self.order[key[0]]), *key[1:])]
        return self.pictures[int(self.order[key])]


# one of several repeats


def _of_arms(guided: rows.Values, unguided: rows.Values) -> dict[str, Any]:
    return {
        "guided": rows.figures(guided),
        "unguided": rows.figures(unguided),
        "paired": rows.paired(guided, unguided),
    }


def _best(parts: TrustParts, known: Nearness | None, left_out: list[str], progress: Progress) -> dict[str, Any]:
    if parts.repeats < 2:
        left_out.append("the best of several repeats, as there is one")
        return {}
    if known is None:
        return {}
    choice = {arm: select.choose(values) for arm, values in agreement(parts, known, progress).items()}
    picked = {arm: select.chosen(parts.arms[arm], repeat) for arm, repeat in choice.items()}
    gain = rows.paired(picked["guided"], parts.arms["guided"])
    return {**_of_arms(picked["guided"], picked["unguided"]), "gain": gain, "selector": select.SELECTOR}


# by nearness to the training images


def _nearness(parts: TrustParts, known: Nearness | None, left_out: list[str]) -> dict[str, Any]:
    if known is None:
        return {}
    if known.nearest is None:
        left_out.append("nearness to the training images, as the seen images have no true targets")
        return {}
    found = nearest.thirds(known.nearest)
    guided = [rows.at_rows(parts.arms["guided"], k) for k in found]
    unguided = [rows.at_rows(parts.arms["unguided"], k) for k in found]
    told = [
        {
            "name": name,
            "n": len(k),
            "similarity": [float(known.nearest[k].min()), float(known.nearest[k].max())],
            **_of_arms(guided[i], unguided[i]),
        }
        for i, (name, k) in enumerate(zip(nearest.THIRDS, found, strict=False))
    ]
    whole = len(found) == len(nearest.THIRDS)
    return {"parts": told, "far_minus_near": rows.far_minus_near(guided[0], guided[-1]) if whole else {}}


# between repeats, and of the decoding


def _consistency(parts: TrustParts) -> dict[str, Any]:
    found = {}
    for metric, constant in {**CONSTANT, IDENTIFIED: CHANCE}.items():
        own = {arm: {metric: values[metric]} for arm, values in parts.arms.items() if metric in values}
        if len(own) < len(parts.arms):
            continue
        about = _of_arms(own["guided"], own["unguided"])
        found[metric] = {name: values.get(metric, {}) for name, values in about.items()} | {"constant": constant}
        if metric == IDENTIFIED:
            above = rows.paired(own["guided"], {metric: np.full_like(own["guided"][metric], CHANCE)})
            found[metric]["above"] = above[metric]
    return found


def _decoding(parts: TrustParts) -> list[dict[str, Any]]:
    if parts.worth is None or not parts.worth.is_file():
        return []
    table = worth_module.read(parts.worth)
    return [{name: _plain(row[name]) for name in DECODING} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value


def _directions(parts: TrustParts, left_out: list[str], progress: Progress) -> list[dict[str, Any]]:
    if parts.targets is None or not parts.targets.is_file():
        left_out.append("directions of decoded and true targets, as there are no true ones")
        return []
    found = []
    with TargetFile(parts.embeddings) as ours, TargetFile(parts.targets) as true:
        names = [name for name in ours if name in set(true)]
        for k, name in enumerate(names):
            progress(k, len(names), "directions of targets")
            both = (directions.gram_of(_patterns(one, name, parts.stimulus_ids)) for one in (ours, true))
            found.append({"target": name, **directions.compared(*both)})
        progress(len(names), len(names), "directions of targets")
    return found


def _patterns(targets: TargetFile, name: str, stimulus_ids: Any) -> np.ndarray:
    data = targets[name]
    places = rows_of(targets.stimulus_ids, stimulus_ids)
    return np.stack([np.asarray(data[row], np.float32).ravel() for row in places])
