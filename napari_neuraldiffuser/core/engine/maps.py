"""Contribution maps and the report of one subject, through the same functions as the command line's."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import file_versions, read_json, write_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.engine.cache import keep_newest_folders
from napari_neuraldiffuser.core.engine.decoder import Decoding
from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.job.page import warnings_of
from napari_neuraldiffuser.core.job.run import Given, run_subject
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.outputs.anatomy import write_anatomy

DONE = "contribution.json"
"""Written last: maps without it are incomplete."""
KEPT_MAPS = 12
"""Folders of maps that stay in the cache."""


def contribution(decoding: Decoding, recipe: Recipe, events: Events) -> dict[str, Any]:
    """Contribution maps of all test stimuli, and the anatomy they are shown on."""
    decoded = decoding.decode(recipe, events)
    inputs, source = decoded.inputs, recipe.source
    files = [*inputs.subject.region_files(), inputs.subject.anatomy_file or ""]
    regions = [inputs.subject.mapped_families(), file_versions(files)]
    key = decoding.origin(inputs, decoded.models).maps(decoded.path.stem, recipe.settings, regions)
    folder = decoding.cache / "contributions" / key
    places = Derivatives(folder, source.subject, str(inputs.train.space))
    if not (folder / DONE).is_file():
        decoder = decoding.decoder(recipe, inputs, decoded.models, events)
        targets = decoding.targets(recipe, inputs, decoded.models, inputs.test.stimulus_ids, events)
        params = recipe.settings.contribution
        maps = stages.contribution(decoder, inputs.test, inputs.subject, targets, places, params, events.told)
        notes = write_anatomy(inputs.subject, places)
        write_json(folder / DONE, {"kind": maps.kind, "totals": maps.totals, "notes": notes})
        keep_newest_folders(folder.parent.iterdir(), DONE, KEPT_MAPS)
    (folder / DONE).touch()
    return {"folder": str(places.folder), **read_json(folder / DONE)}


def report(decoding: Decoding, recipe: Recipe, out_dir: Path, n_stimuli: int | None, events: Events) -> dict[str, Any]:
    """Every stage of one subject and its page, with the decoder that is fitted; what is complete is not run again."""
    job = Job.of(recipe, out_dir, n_stimuli or None)
    inputs, models = decoding.warm.inputs(recipe, events), decoding.warm.models(recipe, events)
    given = Given(inputs, models, lambda: decoding.decoder(recipe, inputs, models, events))
    result = run_subject(job, events.told, given)
    page, summary = str(result.page), read_json(result.summary)
    warnings = warnings_of(job.settings, models, summary)
    found = {"page": page, "summary": summary, "failed": result.failed, "out_dir": str(out_dir)}
    return found | {"warnings": warnings}
