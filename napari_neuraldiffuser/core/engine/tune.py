"""Guidance strength and schedule for a recipe's models, chosen on its training stimuli."""

from typing import Any

from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.engine.decoder import Decoding
from napari_neuraldiffuser.core.job.tune import TuneJob
from napari_neuraldiffuser.core.job.tune import tune as search
from napari_neuraldiffuser.core.params import TuneParams


def tune(decoding: Decoding, recipe: Recipe, params: TuneParams, events: Events) -> dict[str, Any]:
    """Search, record the choice for these models, and say what it is; a stopped search goes on where it was.

    Returns
    -------
    dict
        "diffusion" and "guidance" changes of the defaults, note, and path of the page.

    Raises
    ------
    UserError
        If there are too few training stimuli.
    Cancelled
        What was scored until then is kept.
    """
    job = TuneJob(
        [recipe.source],
        decoding.cache / "tune",
        recipe.models,
        recipe.guide or None,
        recipe.device,
        recipe.settings,
        params=params,
        command="Tune on the Reconstruct page",
    )
    found = search(job, events.told, decoding.warm.models(recipe, events))
    return {
        "diffusion": found.chosen["diffusion"],
        "guidance": found.chosen["guidance"],
        "note": found.note,
        "page": str(found.page),
    }
