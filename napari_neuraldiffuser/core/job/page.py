"""The page of one subject: from the files of the other stages to `sub-01.html`, and what lies beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.fields import that_matter
from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.base.names import Derivatives, entity
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.base.registry import HEMISPHERES
from napari_neuraldiffuser.core.diffusion.pipeline import start_images
from napari_neuraldiffuser.core.job.map_pictures import map_pictures
from napari_neuraldiffuser.core.job.pictures import ArmPictures, ShownPictures
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.networks.chosen import foreign_strength
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, spread_of
from napari_neuraldiffuser.core.networks.kernels.ops import backend_info
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.outputs.anatomy import write_anatomy, write_shown
from napari_neuraldiffuser.core.outputs.description import versions
from napari_neuraldiffuser.core.outputs.report.page import ReportData, write_report
from napari_neuraldiffuser.core.outputs.report.profile import save_profile
from napari_neuraldiffuser.core.outputs.report.slices import SliceStyle, unit_of
from napari_neuraldiffuser.core.outputs.undefined import undefined
from napari_neuraldiffuser.core.params import Settings

SHOWN_AT_ONCE = 8
OUR_TABLES = {"sep": "\t", "na_values": "n/a", "keep_default_na": False}
COUNTED = {
    # of `nsd.betas_facts` -> in words
    "n_train": "training images",
    "n_test": "test images",
    "trials_per_test_image": "trials per test image",
    "n_voxels": "voxels",
}


@dataclass(frozen=True)
class PageParts:
    """What the page of one subject is made from: files of the other stages, and facts that are in none.

    Attributes
    ----------
    embeddings, decoder, scores, summary, table, worth, regions : Path
        Decoded embeddings; the decoder; scores and their summary; shares of regions; what decoded values are worth;
        what single regions decode, None or absent where that was not asked.
    maps : sequence of Path
        One contribution map per target.
    settings : Settings
    stimulus_ids, failed : sequence of int
        Stimuli that are shown; those without a reconstruction.
    counts : mapping
        Numbers of `nsd.betas_facts` or `Inputs.counts`.
    notes : sequence of str
        What was left out while betas and stimuli were read.
    command : str
        What the user typed.
    """

    embeddings: Path
    decoder: Path
    scores: Path
    summary: Path
    table: Path
    worth: Path
    regions: Path | None
    maps: Sequence[Path]
    settings: Settings
    stimulus_ids: StimulusIds
    failed: Sequence[int]
    counts: Mapping[str, Any]
    notes: Sequence[str] = ()
    command: str = ""

    def volumes(self) -> dict[str, nibabel.Nifti1Image]:
        """Contribution maps by target."""
        return {str(entity(path.name, "target")): nibabel.Nifti1Image.from_filename(path) for path in self.maps}

    def surfaces(self) -> dict[str, np.ndarray]:
        """Contribution maps (2, vertices) by target."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for path in self.maps:
            target, hemi = (str(entity(path.name, key)) for key in ("target", "hemi"))
            found.setdefault(target, {})[hemi] = nibabel.GiftiImage.from_filename(path).darrays[0].data
        return {target: np.stack([both[hemi] for hemi in HEMISPHERES.values()]) for target, both in found.items()}


def write_page(
    parts: PageParts,
    subject: nsd.BrainSource,
    models: Models,
    places: Derivatives,
    records: Records,
    progress: Progress,
) -> list[str]:
    """Write `places.page`, and anatomy, regions, seen images and slices beside the results.

    The images of both arms lie in `places.recon`.

    Returns
    -------
    list of str
        `parts.notes`, and what is not defined.
    """
    ids, stimuli = np.asarray(parts.stimulus_ids), subject.stimuli
    told = [*parts.notes, *decoding.read_notes(parts.decoder)]
    notes = [*told, *write_anatomy(subject, places)]
    settings, summary = parts.settings, read_json(parts.summary)
    _write_shown(parts.embeddings, ids, stimuli, (models, settings), places, progress)
    shares = pd.read_csv(parts.table, **OUR_TABLES)
    accuracy = {target: fit.best_r2 for target, fit in decoding.read_accuracy(parts.decoder).items()}
    captions = [next(iter(stimuli.captions(int(s))), None) for s in ids]
    without = undefined(summary, shares, accuracy, captioned=not ids.size or any(captions))
    warnings = warnings_of(settings, models, summary)
    maps = map_pictures(parts, _unit(shares), subject, places, records, progress)
    data = ReportData(
        subject=places.label,
        summary=summary,
        scores=pd.read_csv(parts.scores, converters={"stimulus": str}, **OUR_TABLES),
        stimulus_ids=ids,
        seen=ShownPictures(places, ids, "seen"),
        start=ShownPictures(places, ids, "start"),
        recon={arm: ArmPictures(places, ids, settings.diffusion.repeats, arm) for arm in ARMS},
        labels=stimuli.labels(ids),
        captions=captions,
        contribution=shares,
        slices=maps.slices,
        views=maps.views,
        noise_ceiling=nsd.ceiling_text(
            parts.counts["noise_ceiling"], parts.counts["n_voxels"], parts.counts["trials_per_test_image"]
        ),
        accuracy=accuracy,
        decoder=settings.decoding.decoder,
        worth=pd.read_csv(parts.worth, **OUR_TABLES),
        regions=_regions(parts.regions),
        spread=spread_of(parts.embeddings),
        undefined=without,
        warnings=warnings,
        parameters={
            "run": _run_facts(subject, models, parts.counts),
            **{stage: that_matter(params) for stage, params in vars(settings).items()},
        },
        versions={**versions(), "kernel backend": backend_info()["backend"]},
        command=parts.command,
        notes=[*notes, *maps.notes],
        failed=list(parts.failed),
        places=places,
    )
    save_profile(shares, places.profile)
    progress(0, 1, "page")
    write_report(places.page, data)
    progress(1, 1, "page")
    # what must not be overlooked comes last: the console ends with it
    return [*told, *without, *warnings]


def warnings_of(settings: Settings, models: Models, summary: Mapping[str, Any]) -> list[str]:
    """A sentence on a strength that is of other models, and those of a run's summary on harm by guidance."""
    foreign = foreign_strength(settings.guidance, models.name, models.guide or None)
    return [*filter(None, [foreign]), *summary.get("warnings", ())]


def _regions(path: Path | None) -> pd.DataFrame:
    return pd.read_csv(path, **OUR_TABLES) if path is not None and path.is_file() else pd.DataFrame()


def _write_shown(
    embeddings: Path,
    ids: np.ndarray,
    stimuli: SeenImages,
    made_by: tuple[Models, Settings],
    places: Derivatives,
    progress: Progress,
) -> None:
    """Write seen images and starting points, some stimuli at a time."""
    models, settings = made_by
    layers = settings.guidance.layers if settings.diffusion.start == "inverted" else ()
    with TargetFile(embeddings) as decoded:
        for first in range(0, len(ids), SHOWN_AT_ONCE):
            progress(first, len(ids), "seen images and starting points")
            part = slice(first, first + SHOWN_AT_ONCE)
            rows = decoded.rows(ids[part], layers)
            start = start_images(rows, models, settings.diffusion, settings.guidance)
            write_shown(places, ids[part], stimuli[ids[part]], start)
    progress(len(ids), len(ids), "seen images and starting points")


def _run_facts(subject: nsd.BrainSource, models: Models, counts: Mapping[str, Any]) -> dict[str, Any]:
    """What was computed from what."""
    return {
        "subject": subject.name,
        **({"test set": subject.stimuli.test_set} if subject.stimuli.test_set else {}),
        "models": models.name,
        "model digest": models.digest[:16],
        "device": str(models.device),
        **{words: counts[name] for name, words in COUNTED.items()},
    }


def _unit(shares: pd.DataFrame) -> str:
    """What the shares of a table of regions are fractions of."""
    return unit_of(str(shares["kind"].iloc[0])) if len(shares) else SliceStyle.label
