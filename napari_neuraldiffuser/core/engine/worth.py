"""What the decoded targets of a recipe are worth, kept on disk under a fingerprint of what it was made from."""

from typing import Any

from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.decoding.worth import read
from napari_neuraldiffuser.core.engine.cache import keep_newest_folders
from napari_neuraldiffuser.core.engine.decoder import Decoding
from napari_neuraldiffuser.core.job.worth import single_trials
from napari_neuraldiffuser.core.job.worth import worth as judge
from napari_neuraldiffuser.core.outputs.report.worth import worth_table

DONE = "worth.tsv"
KEPT = 24
"""Folders that stay in the cache."""


def worth(decoding: Decoding, recipe: Recipe, events: Events) -> dict[str, Any]:
    """Judge the recipe's decoder on all test stimuli, whose true targets are computed where they are not there yet.

    Returns
    -------
    dict
        heads (name and tip of every column), rows (texts), notes, and path of the table.
    """
    decoded = decoding.decode(recipe, events)
    inputs, settings = decoded.inputs, recipe.settings
    key = decoding.origin(inputs, decoded.models).maps(decoded.path.stem, settings, "worth")
    folder = decoding.cache / "worths" / key
    done = folder / DONE
    if not done.is_file():
        decoder = decoding.decoder(recipe, inputs, decoded.models, events)
        targets = decoding.targets(recipe, inputs, decoded.models, inputs.test.stimulus_ids, events)
        events.told(0, 0, "reading single trials")
        trials = single_trials(recipe.source, settings.betas, inputs.test, settings.contribution)
        places = Derivatives(folder, recipe.source.subject, str(inputs.train.space))
        judge(decoder, inputs.test, trials, targets, places, settings.contribution, events.told).save(done)
        keep_newest_folders(folder.parent.iterdir(), DONE, KEPT)
    done.touch()
    shown = worth_table(read(done))
    heads = [{"name": "target", "tip": "z: image latent, c: text embedding, g02 ... g12: guidance layers"}]
    rows = [[row["target"], *(cell.text for cell in row["cells"])] for row in shown["rows"]]
    return {"heads": heads + shown["heads"], "rows": rows, "notes": shown["notes"], "path": str(done)}
