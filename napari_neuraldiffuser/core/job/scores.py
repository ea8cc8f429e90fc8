"""Scores of the arms' images against the seen images: files in, files out."""

from typing import Any

from napari_neuraldiffuser.core import evaluation
from napari_neuraldiffuser.core.base.contracts import Pictures, SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path, write_json
from napari_neuraldiffuser.core.base.names import Derivatives, labels_by_number
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation import alignment
from napari_neuraldiffuser.core.evaluation.controls import CONTROLS, summarise_controls
from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.levels import CEILING_TEXT, levels
from napari_neuraldiffuser.core.evaluation.ruin import RUN_RULE, Watched, harm
from napari_neuraldiffuser.core.evaluation.work import as_stage, nth
from napari_neuraldiffuser.core.job import ceiling
from napari_neuraldiffuser.core.job.controls import MEAN_OF, Baselines, control_pictures
from napari_neuraldiffuser.core.job.images import latents_told
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
    baselines: Baselines | None = None,
) -> None:
    """Score the images of both arms in `places.recon`, and write the table and the summary.

    Where the images' sidecar is there, what it tells of their latents is looked at, too.

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
    baselines : Baselines, optional
        What the controls are made from: the decoded start and the mean training image; no controls without.

    Raises
    ------
    UserError
        If there is none.
    """
    if not len(stimulus_ids):
        raise UserError("at least one stimulus must be reconstructed, got none. Lower guidance_scale or cfg_scale.")
    repeats, seen = settings.diffusion.repeats, SeenPictures(stimuli, stimulus_ids)
    pictures = {arm: Watched(ArmPictures(places, stimulus_ids, repeats, arm)) for arm in ARMS}
    parts = {arm: nth(progress, k, len(pictures)) for k, arm in enumerate(pictures)}
    arms = {arm: score(own, seen, models, settings.evaluation, parts[arm]) for arm, own in pictures.items()}
    controls = {} if baselines is None else score_controls(baselines, seen, models, settings.evaluation, progress)
    with atomic_path(places.scores) as temporary:
        labels = stimuli.labels(stimulus_ids)
        table = evaluation.scores_table({**arms, **controls}, stimulus_ids, labels)
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
    named = {"stimuli": labels_by_number(stimulus_ids, labels)} if labels else {}
    summary = evaluation.summarise(arms)
    paired = {name: Difference.of_summary(values) for name, values in summary["paired"].items()}
    guided, unguided = (latents_told(places.recon_sidecar, arm, stimulus_ids) for arm in ("guided", "unguided"))
    told = harm(paired, (pictures["guided"].share, pictures["unguided"].share), (guided, unguided))
    summary["protocol"]["warnings"] = RUN_RULE
    if stimuli.test_set:
        summary["protocol"]["test_set"] = stimuli.test_set
    summary["warnings"] = [*([told] if told else []), *alignment.warnings(summary["alignment"])]
    if controls:
        summary["protocol"]["controls"] = {name: CONTROLS[name][1].format(n=MEAN_OF) for name in controls}
    summary["protocol"]["ceiling"] = _ceiling(places, seen, models, settings.evaluation, progress)
    write_json(places.summary, {**summary, "controls": summarise_controls(controls, arms["guided"]), **named})


def score_controls(
    baselines: Baselines, seen: SeenPictures, models: Models, params: EvaluationParams, progress: Progress
) -> dict[str, evaluation.Scores]:
    """Scores of every control by its name; none between repeats, which controls have not."""
    metrics = tuple(name for name in params.metrics if not name.startswith("repeat_"))
    if not metrics:
        return {}
    with control_pictures(baselines, seen, models, progress) as pictures:
        own = params.but(metrics=metrics)
        told = {name: nth(as_stage(progress, "controls"), k, len(pictures)) for k, name in enumerate(pictures)}
        return {name: score(p, seen, models, own, told[name], with_chance=False) for name, p in pictures.items()}


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
        return score(pictures, seen, models, params, as_stage(progress, "ceiling"), with_chance=False)


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
    return evaluation.evaluate(images, seen, encoder, params, progress, with_chance, models.device)
