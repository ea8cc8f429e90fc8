"""Scores of the arms' images against the seen images: files in, files out."""

from typing import Any

from napari_neuraldiffuser.core import evaluation
from napari_neuraldiffuser.core.base.contracts import Pictures, SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path, write_json
from napari_neuraldiffuser.core.base.names import Derivatives, labels_by_number
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation.levels import CEILING_TEXT, levels
from napari_neuraldiffuser.core.job import ceiling
from napari_neuraldiffuser.core.job.pictures import ArmPictures, SeenPictures, spooled
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.outputs.description import model_name
from napari_neuraldiffuser.core.params import EvaluationParams, Settings


def score_arms(
    places: Derivatives,
    stimuli: SeenImages,
    models: Models,
    stimulus_ids: StimulusIds,
    settings: Settings,
    progress: Progress,
) -> None:
    """Score the images of both arms in `places.recon`, and write the table and the summary.

    Parameters
    ----------
    places : Derivatives
    stimuli : SeenImages
        `stimuli[ids]` gives the seen images (n, H, W, 3) uint8.
    models : Models
        Its image encoder does the two-way identification.
    stimulus_ids : sequence of int, (n,)
    settings : Settings
        Its evaluation parameters and number of repeats are used.
    progress : callable

    Raises
    ------
    UserError
        If there is none.
    """
    if not len(stimulus_ids):
        raise UserError("at least one stimulus must be reconstructed, got none. Lower guidance_scale or cfg_scale.")
    repeats, seen = settings.diffusion.repeats, SeenPictures(stimuli, stimulus_ids)
    arms = {
        arm: score(ArmPictures(places, stimulus_ids, repeats, arm), seen, models, settings.evaluation, progress)
        for arm in ARMS
    }
    with atomic_path(places.scores) as temporary:
        labels = stimuli.labels(stimulus_ids)
        table = evaluation.scores_table(arms, stimulus_ids, labels)
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
    named = {"stimuli": labels_by_number(stimulus_ids, labels)} if labels else {}
    summary = evaluation.summarise(arms)
    summary["protocol"]["ceiling"] = _ceiling(places, seen, models, settings.evaluation, progress)
    write_json(places.summary, {**summary, **named})


def _ceiling(
    places: Derivatives, seen: Pictures, models: Models, params: EvaluationParams, progress: Progress
) -> dict[str, Any]:
    """Ceiling of every score; taken from the summary that is there, where it is of the same."""
    key = ceiling.made_from(seen, models, params)
    known = ceiling.known_ceiling(places, key)
    if known is None:
        known = levels(ceiling_scores(seen, models, params, progress))
    return {"definition": CEILING_TEXT, "levels": known, "made_from": key}


def ceiling_scores(seen: Pictures, models: Models, params: EvaluationParams, progress: Progress) -> evaluation.Scores:
    """Scores of the seen images (H, W, 3) uint8 after their way through the autoencoder; none of repeats."""
    with spooled(ceiling.round_trip(seen, models, progress)) as pictures:
        return score(pictures, seen, models, params, progress, with_chance=False)


def score(
    images: Pictures,
    seen: Pictures,
    models: Models,
    params: EvaluationParams,
    progress: Progress,
    with_chance: bool = True,
) -> evaluation.Scores:
    """Scores of one arm's images (repeats, H, W, 3) uint8 of each stimulus against the seen ones (H, W, 3) uint8.

    The encoder has the name of what holds it: of the guide, else of the models; "demo" is the bundled one.
    """
    encoder = {model_name(models.guide or models.name): models.image_features}
    return evaluation.evaluate(images, seen, encoder, params, progress, with_chance)
