"""A strip: one stimulus at several guidance strengths, all from the same noise."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled, Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.diffusion.pipeline import check_fit
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.engine.arms import Arm, ArmRun, Shown, shown_start
from napari_neuraldiffuser.core.engine.decoder import Decoded
from napari_neuraldiffuser.core.engine.runs import score_rows
from napari_neuraldiffuser.core.evaluation.ruin import ruined

MOST = 12
"""Strengths of one strip."""


def strip(recipe: Recipe, strengths: Sequence[float], decoded: Decoded, cache: Path, events: Events) -> dict[str, Any]:
    """Reconstruct the recipe's first stimulus at every strength; 0, which the others are compared with, is added.

    An arm that an earlier run or strip made is taken from the cache.

    Parameters
    ----------
    strengths : sequence of float
        Values of `GuidanceParams.guidance_scale`.

    Returns
    -------
    dict
        "strengths": one {"kappa", "scores", "cached", "ruined"} each, from the weakest to the strongest.

    Raises
    ------
    UserError
        If a strength cannot be, or no step would be guided.
    Cancelled
        With the strengths that are complete.
    """
    kappas = _checked(recipe, strengths)
    recipe = recipe.but(stimulus_ids=recipe.stimulus_ids[:1])
    rows, models = decoded.rows(recipe.stimulus_ids), decoded.models
    check_fit(rows, models, recipe.settings.diffusion, recipe.settings.guidance.but(guidance_scale=max(kappas)))
    seen = decoded.inputs.subject.stimuli[np.array(recipe.stimulus_ids)]
    start = shown_start(recipe, rows, models, events)
    titles = [f"κ {kappa:g}" for kappa in kappas]
    shown = Shown(recipe, events, 0, start, titles)
    events.event("begin", {"stimulus": recipe.stimulus_ids[0], "kappas": kappas, "seen": seen[0], "start": start[0]})
    done: list[dict[str, Any]] = []
    first: tuple[Arm, list[dict[str, Any]]] | None = None
    try:
        for kappa, title in zip(kappas, titles, strict=True):
            own = recipe.with_stage("guidance", recipe.settings.guidance.but(guidance_scale=kappa))
            arm = ArmRun("guided" if kappa else "unguided", own, rows, models, shown, cache / "arms").make()
            shown.end_arm()
            scores, _ = score_rows(arm, seen, models, recipe.settings.evaluation, events, title)
            first = first or (arm, scores)
            about = {"kappa": kappa, "scores": scores, "cached": arm.cached, "ruined": _ruined(arm, scores, first)}
            done.append(about)
            events.closing().event("strength", {**about, "images": arm.result.images[0]})
    except Cancelled as stop:
        raise Cancelled({"strengths": done}) from stop
    return {"strengths": done}


def _ruined(arm: Arm, scores: list[dict[str, Any]], first: tuple[Arm, list[dict[str, Any]]]) -> str:
    unguided, unguided_scores = first
    images = arm.result.images[0], unguided.result.images[0]
    latents = arm.result.latents[0], unguided.result.latents[0]
    return ruined(*images, scores, unguided_scores, bool(arm.result.finite[0]), latents)


def _checked(recipe: Recipe, strengths: Sequence[float]) -> list[float]:
    kappas = sorted({0.0, *map(float, strengths)})
    if not 2 <= len(kappas) <= MOST or not all(math.isfinite(kappa) and kappa >= 0 for kappa in kappas):
        raise UserError(
            f"strengths must be 1 to {MOST - 1} different numbers above 0, got {list(strengths)}. Choose others."
        )
    if not recipe.stimulus_ids:
        raise UserError("a strip must have a stimulus, got none. Choose one.")
    guidance = recipe.settings.guidance.but(guidance_scale=kappas[-1])
    if n_guided_steps(recipe.settings.diffusion.executed_steps, guidance) == 0:
        raise UserError(
            f"guidance_strength must guide at least one of {recipe.settings.diffusion.executed_steps} steps, got "
            f"{guidance.guidance_strength}. Raise η or the number of steps."
        )
    return kappas
