"""Contribution maps and the report of one subject, through the same functions as the command line's."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.base.files import fingerprint, read_json, write_json
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.engine.cache import keep_newest_folders, stamp
from napari_neuraldiffuser.core.engine.decoder import Decoded, Decoding, close
from napari_neuraldiffuser.core.engine.warm import region_files
from napari_neuraldiffuser.core.job.run import ALGORITHM_VERSION, Job, map_families, run_subject
from napari_neuraldiffuser.core.outputs.anatomy import write_anatomy
from napari_neuraldiffuser.core.outputs.names import Derivatives

DONE = "contribution.json"
"""Written last: maps without it are incomplete."""
KEPT_MAPS = 12
"""Folders of maps that stay in the cache."""


def contribution(decoding: Decoding, recipe: Recipe, events: Events) -> dict[str, Any]:
    """Product-measure maps of all test stimuli, and the anatomy they are shown on."""
    decoded = decoding.decode(recipe, events)
    inputs = decoded.inputs
    families = map_families(inputs.subject)
    regions = [*region_files(inputs.subject, recipe.source), anatomy_file(inputs.subject, recipe.source)]
    # a loaded decoder does not say which targets the maps are of
    targets = [inputs.stimuli_stamp, decoded.models.digest, recipe.settings.features]
    made_from = [decoded.path.stem, *targets, stamp(regions), recipe.settings.contribution]
    folder = decoding.cache / "contributions" / fingerprint([ALGORITHM_VERSION, *made_from, families])
    places = Derivatives(folder, recipe.source.subject, str(inputs.train.space))
    if not (folder / DONE).is_file():
        found = _compute(decoding, recipe, decoded, events)
        found.save(places.folder, places.label)
        notes = write_anatomy(inputs.subject, places)
        write_json(folder / DONE, {"kind": found.kind, "totals": found.totals, "notes": notes})
        keep_newest_folders(folder.parent.iterdir(), DONE, KEPT_MAPS)
    (folder / DONE).touch()
    return {"folder": str(places.folder), **read_json(folder / DONE)}


def anatomy_file(subject: Any, source: Source) -> str | Path:
    """The anatomy that is written beside the maps."""
    return source.anatomy if source.own else subject.layout.anatomy


def _compute(decoding: Decoding, recipe: Recipe, decoded: Decoded, events: Events) -> attribution.ContributionMaps:
    inputs, models = decoded.inputs, decoded.models
    families = [inputs.subject.rois(name) for name in map_families(inputs.subject)]
    decoder = decoding.decoder(recipe, inputs, models, events)
    try:
        with decoding.targets(recipe, inputs, models, inputs.test.stimulus_ids, events) as targets:
            return attribution.map(decoder, inputs.test, families, targets, recipe.settings.contribution, events.told)
    finally:
        close(decoder)


def report(recipe: Recipe, out_dir: Path, n_stimuli: int | None, events: Events) -> dict[str, Any]:
    """Every stage of one subject and its page; stages that are complete are not run again."""
    job = Job(
        nsd_dir=Path(recipe.source.nsd_dir),
        out_dir=out_dir,
        subject=recipe.source.subject,
        settings=recipe.settings,
        models=recipe.models,
        guide=recipe.guide or None,
        device=recipe.device,
        n_stimuli=n_stimuli or None,
        source=recipe.source,
    )
    result = run_subject(job, events.told)
    summary, failed = read_json(result.summary), [int(s) for s in result.failed]
    return {"page": str(result.page), "summary": summary, "failed": failed, "out_dir": str(out_dir)}
