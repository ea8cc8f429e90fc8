"""A run: both arms of some stimuli, their scores, and the folder that says how they came about."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info

from napari_neuraldiffuser.core import evaluation
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import fingerprint, json_object, make_folder, write_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.pictures import read_picture
from napari_neuraldiffuser.core.base.progress import Cancelled, Events
from napari_neuraldiffuser.core.base.recipe import Recipe, guidance_of
from napari_neuraldiffuser.core.diffusion.pipeline import check_fit
from napari_neuraldiffuser.core.engine import scripts
from napari_neuraldiffuser.core.engine.arms import Arm, ArmRun, Shown, shown_start
from napari_neuraldiffuser.core.engine.cache import keep_newest, keep_newest_folders, partial_runs
from napari_neuraldiffuser.core.engine.decoder import Decoded
from napari_neuraldiffuser.core.evaluation.differences import between
from napari_neuraldiffuser.core.evaluation.metric import main_figures
from napari_neuraldiffuser.core.evaluation.ruin import clipped, harm, ruined
from napari_neuraldiffuser.core.job import ceiling
from napari_neuraldiffuser.core.job.controls import Baselines, mean_image
from napari_neuraldiffuser.core.job.images import write_png
from napari_neuraldiffuser.core.job.pictures import SeenPictures
from napari_neuraldiffuser.core.job.scores import ceiling_scores, score, score_controls
from napari_neuraldiffuser.core.networks.kernels.ops import backend_info
from napari_neuraldiffuser.core.networks.machine import device_name
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.outputs.anatomy import write_shown
from napari_neuraldiffuser.core.outputs.description import versions
from napari_neuraldiffuser.core.params import EvaluationParams

PROVENANCE = "provenance.json"
KEPT_CEILINGS, KEPT_MEANS, KEPT_PARTIAL = 200, 20, 20
"""Files of each kind, and runs stopped early, that stay in the cache; complete runs all do."""


def run(recipe: Recipe, decoded: Decoded, cache: Path, events: Events, preview_every: int) -> dict[str, Any]:
    """Reconstruct the recipe's stimuli; a cancelled run is kept as far as it came.

    Raises
    ------
    Cancelled
        With what would have been returned, `complete` being False.
    """
    _check(recipe)
    rows, models = decoded.rows(recipe.stimulus_ids), decoded.models
    for name in recipe.arms:
        check_fit(rows, models, recipe.settings.diffusion, guidance_of(name, recipe.settings.guidance))
    seen = decoded.inputs.subject.stimuli[np.array(recipe.stimulus_ids)]
    kept = Kept(recipe, decoded, seen, shown_start(recipe, rows, models, events))
    shown = Shown(recipe, events, preview_every, kept.start, recipe.arms)
    events.event("begin", _begin(kept, shown))
    _tell_ceiling(kept, cache, events)
    _tell_controls(kept, cache, events)
    arm_run: ArmRun | None = None
    try:
        for name in recipe.arms:
            events.check()
            arm_run = ArmRun(name, recipe, rows, models, shown, cache / "arms")
            arm = arm_run.make()
            arm_run = None
            kept.arms.append(arm)
            shown.end_arm()
            kept.scores[name], chance = _scores(kept, arm, events)
            # a finished arm is shown, and after the last one the run is complete, whenever the user asks to stop
            events.closing().event("arm", {**_shown_arm(arm, kept.scores[name]), "chance": chance})
    except Cancelled as stop:
        _rescue(kept, arm_run, events.closing())
        if not kept.arms:
            raise
        raise Cancelled(_keep_partial(kept, cache / "runs")) from stop
    return keep(kept, cache / "runs", complete=True)


@dataclass
class Kept:
    """What a run has so far."""

    recipe: Recipe
    decoded: Decoded
    seen: np.ndarray
    start: np.ndarray
    arms: list[Arm] = field(default_factory=list)
    scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())


def _check(recipe: Recipe) -> None:
    if len(set(recipe.stimulus_ids)) != len(recipe.stimulus_ids):
        raise UserError(f"stimuli must be distinct, got {list(recipe.stimulus_ids)}. Name each one once.")
    if not recipe.arms or len(set(recipe.arms)) != len(recipe.arms):
        raise UserError(f"arms must be distinct and not empty, got {list(recipe.arms)}. Choose one or both.")


def _begin(kept: Kept, shown: Shown) -> dict[str, Any]:
    recipe = kept.recipe
    return {
        "stimulus_ids": list(recipe.stimulus_ids),
        "arms": list(recipe.arms),
        "repeats": recipe.settings.diffusion.repeats,
        "n_steps": shown.per_arm,
        "seen": kept.seen,
        "start": kept.start,
    }


def _rescue(kept: Kept, arm_run: ArmRun | None, events: Events) -> None:
    """Keep the arm that was under way, and show it where it has every stimulus; show one that lacks its scores."""
    if kept.arms and kept.arms[-1].name not in kept.scores:
        events.event("arm", _shown_arm(kept.arms[-1], []))
    arm = arm_run.rescue() if arm_run is not None else None
    if arm is None:
        return
    kept.arms.append(arm)
    if len(arm.result.stimulus_ids) == len(kept.recipe.stimulus_ids):
        events.event("arm", {**_shown_arm(arm, []), "complete": False})


def _shown_arm(arm: Arm, scores: list[dict[str, Any]]) -> dict[str, Any]:
    losses = arm.result.losses.tolist()
    return {"arm": arm.name, "images": arm.result.images, "losses": losses, "scores": scores, "cached": arm.cached}


def _scores(kept: Kept, arm: Arm, events: Events) -> tuple[list[dict[str, Any]], dict[str, float]]:
    return score_rows(arm, kept.seen, kept.decoded.models, kept.recipe.settings.evaluation, events, arm.name)


def score_rows(
    arm: Arm, seen: np.ndarray, models: Models, params: EvaluationParams, events: Events, title: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """One row per image, without scores that mean nothing for so few images; and the chance level of each score."""
    scores = score(arm.result.images, seen, models, params, lambda k, n, what: events.told(k, n, f"{title}, scoring"))
    return defined_rows(arm.name, scores, arm.result.stimulus_ids), scores.chance


def defined_rows(
    name: str, scores: evaluation.Scores, stimulus_ids: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """Rows of `scores_table` without the values that are not defined."""
    rows = evaluation.scores_table({name: scores}, stimulus_ids).to_dict("records")
    return [{key: value for key, value in row.items() if value == value} for row in rows]


def _tell_ceiling(kept: Kept, cache: Path, events: Events) -> None:
    """Show the ceiling of each stimulus' scores, from the cache where it is there."""
    models, params, ids = kept.decoded.models, kept.recipe.settings.evaluation, kept.recipe.stimulus_ids
    path = make_folder(cache / "ceilings") / f"{ceiling.made_from(kept.seen, models, params)}.json"
    known = json_object(path)
    if known is None:
        scores = ceiling_scores(kept.seen, models, params, lambda k, n, what: events.told(k, n, "ceiling of scores"))
        known = {"rows": [{**row, "stim": ids.index(row["stim"])} for row in defined_rows("ceiling", scores, ids)]}
        write_json(path, known)
        keep_newest(path.parent, KEPT_CEILINGS)
    events.event("ceiling", {"rows": [{**row, "stim": ids[row["stim"]]} for row in known["rows"]]})


def _tell_controls(kept: Kept, cache: Path, events: Events) -> None:
    """Show the scores of pictures that take no diffusion; the mean training image is from the cache."""
    decoded, ids = kept.decoded, kept.recipe.stimulus_ids
    stimuli, train = decoded.inputs.subject.stimuli, decoded.inputs.train.stimulus_ids
    path = make_folder(cache / "means") / f"{fingerprint([decoded.inputs.stimuli, list(map(int, train))])}.png"
    if not path.is_file():
        write_png(path, mean_image(stimuli, train, events.told))
        keep_newest(path.parent, KEPT_MEANS)
    baselines, seen = Baselines(decoded.path, train, read_picture(path)), SeenPictures(stimuli, ids)
    found = score_controls(baselines, seen, decoded.models, kept.recipe.settings.evaluation, events.told)
    events.event("controls", {"rows": [row for name, one in found.items() for row in defined_rows(name, one, ids)]})


def _ruined(kept: Kept) -> dict[str, str]:
    """Stimulus -> why guidance ruined its images; empty unless both arms are whole."""
    arms = {arm.name: arm for arm in kept.arms if arm.complete and arm.name in kept.scores}
    if len(arms) < 2:
        return {}
    guided, unguided = arms["guided"].result, arms["unguided"].result
    found = {}
    for k, stimulus in enumerate(map(int, guided.stimulus_ids)):
        of_guided, of_unguided = (
            [row for row in kept.scores[name] if row["stim"] == stimulus] for name in ("guided", "unguided")
        )
        finite, latents = bool(guided.finite[k]), (guided.latents[k], unguided.latents[k])
        found[str(stimulus)] = ruined(guided.images[k], unguided.images[k], of_guided, of_unguided, finite, latents)
    return {stimulus: why for stimulus, why in found.items() if why}


def _harm(kept: Kept) -> str:
    """Why guidance harms the run as a whole, or nothing; as for single images, of whole arms alone."""
    arms = {arm.name: arm for arm in kept.arms if arm.complete and arm.name in kept.scores}
    if len(arms) < 2:
        return ""
    rows = kept.scores["unguided"], kept.scores["guided"]
    columns = {name for row in rows[1] for name in row}
    paired = {name: between(*rows, name, same_noise=True) for name in main_figures(sorted(columns))}
    guided, unguided = arms["guided"].result, arms["unguided"].result
    shares = clipped(guided.images), clipped(unguided.images)
    return harm(paired, shares, (guided.latents, unguided.latents))


def _keep_partial(kept: Kept, runs: Path) -> dict[str, Any]:
    """Keep a run that was stopped early; the oldest of those make room."""
    result = keep(kept, runs, complete=False)
    keep_newest_folders(partial_runs(runs, PROVENANCE), PROVENANCE, KEPT_PARTIAL)
    return result


def keep(kept: Kept, runs: Path, complete: bool) -> dict[str, Any]:
    """Write a run's folder: images, and what they were made from."""
    folder = _new_folder(runs, kept)
    places = Derivatives(folder, kept.recipe.source.subject, str(kept.decoded.inputs.train.space))
    images = [row for arm in kept.arms for row in _write_arm(arm, places)]
    write_shown(places, kept.recipe.stimulus_ids, kept.seen, kept.start)
    provenance = {
        **_about(kept),
        "images": images,
        "arms": {arm.name: _about_arm(arm) for arm in kept.arms},
        "scores": [row for arm in kept.arms for row in kept.scores.get(arm.name, [])],
        "ruined": _ruined(kept),
        "warnings": list(filter(None, [_harm(kept)])),
        "complete": complete,
        "steps_done": {arm.name: arm.steps_done for arm in kept.arms},
    }
    write_json(folder / PROVENANCE, provenance)
    return {
        "folder": str(folder),
        "provenance": provenance,
        "python": scripts.python_script(provenance),
        "nipype": scripts.nipype_script(provenance),
        "complete": complete,
        "scores": provenance["scores"],
        "ruined": provenance["ruined"],
        "warnings": provenance["warnings"],
    }


def _new_folder(runs: Path, kept: Kept) -> Path:
    key = fingerprint([kept.recipe, kept.decoded.fits["decoder_digest"]])[:8]
    name = folder = runs / f"{kept.started:%Y%m%d-%H%M%S}-{key}"
    again = 1
    while folder.exists():
        again += 1
        folder = name.with_name(f"{name.name}-{again}")
    return make_folder(folder)


def _write_arm(arm: Arm, places: Derivatives) -> list[dict[str, Any]]:
    rows = []
    for stimulus, repeats in zip(arm.result.stimulus_ids, arm.result.images, strict=True):
        for repeat, image in enumerate(repeats, 1):
            path = places.image(int(stimulus), repeat, arm.name)
            write_png(path, image)
            about = {"arm": arm.name, "stim": int(stimulus), "rep": repeat, "sha256": pixels_digest(image)}
            rows.append({**about, "file": str(path.relative_to(places.out_dir))})
    return rows


def pixels_digest(image: np.ndarray) -> str:
    """SHA-256 of an image's bytes, (H, W, 3) uint8 row by row; a PNG library's compression does not enter."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def _about(kept: Kept) -> dict[str, Any]:
    """What decided the images; of paths those of the recipe, and a decoder's that the user loaded."""
    decoded, models = kept.decoded, kept.decoded.models
    return {
        "recipe": kept.recipe.to_dict(),
        "started": kept.started.isoformat(timespec="seconds"),
        "versions": versions(),
        "kernel_backend": backend_info()["backend"],
        "models": {"name": models.name, "digest": models.digest},
        "decoder": _about_decoder(kept),
        "betas_digest": decoded.inputs.digest,
        "stimuli_digest": decoded.inputs.stimuli,
        "device": device_name(models.device),
        "torch_threads": torch.get_num_threads(),
        "blas_threads": max((p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"), default=1),
    }


def _about_decoder(kept: Kept) -> dict[str, Any]:
    """The decoder, and the stages that it was fitted with; of one that the user loaded its file decided instead."""
    fits, settings = kept.decoded.fits, kept.recipe.settings
    made_with = {"features": settings.features.to_dict(), "decoding": settings.decoding.to_dict()}
    about = {"digest": fits["decoder_digest"], "loaded": bool(fits["loaded"]), "path": None}
    if not about["loaded"]:
        return about | made_with
    return about | {"path": str(kept.decoded.decoder)} | dict.fromkeys(made_with)


def _about_arm(arm: Arm) -> dict[str, Any]:
    result = arm.result
    return {
        "seconds": round(arm.seconds, 3),
        "cached": arm.cached,
        "complete": arm.complete,
        "failed": [int(s) for s, ok in zip(result.stimulus_ids, result.finite, strict=True) if not ok],
        "losses": {str(s): _finite(rows) for s, rows in zip(result.stimulus_ids, result.losses, strict=True)},
    }


def _finite(rows: np.ndarray) -> list[list[float | None]]:
    """Losses (repeats, steps) for JSON, which has no NaN."""
    return [[float(value) if np.isfinite(value) else None for value in row] for row in rows]
