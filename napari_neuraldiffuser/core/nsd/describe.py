"""What a source holds, for front ends that let the user choose: read without betas and without torch."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import SeenImages
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Source, challenge_subjects
from napari_neuraldiffuser.core.nsd import BrainSource, Rois, Subject, open_source
from napari_neuraldiffuser.core.nsd.selection import chosen_sessions
from napari_neuraldiffuser.core.params import SPACES, BetasParams


def describe(source: Source, events: Events) -> dict[str, Any]:
    """Subjects, sessions, regions with their numbers of voxels, test stimuli and grid of a source."""
    events.told(0, 0, "looking at the files")
    subject = _open(source)
    trials = trials_used(subject, subject.params)
    sessions = [one for one in dict.fromkeys(trials["session"].tolist()) if one != subject.further_session]
    train_ids, test_ids = stimuli_used(subject, subject.params)
    names = subject.roi_names()
    families = {}
    for k, name in enumerate(names):
        events.told(k, len(names), "reading regions")
        families[name] = region_sizes(subject.rois(name))
    affine = None if subject.affine is None else np.asarray(subject.affine, dtype=float)
    return {
        "subjects": subjects(source),
        "sessions": sessions,
        "trials": len(trials),
        "families": families,
        "test_ids": test_ids,
        "n_train": len(train_ids),
        "space": subject.space,
        "shape": [int(n) for n in subject.shape],
        "affine": None if affine is None else affine.tolist(),
        "voxel_sizes_mm": [] if affine is None else [float(np.linalg.norm(column)) for column in affine[:3, :3].T],
        "notes": _notes(subject, sessions),
    }


def _open(source: Source) -> BrainSource:
    """The subject in the first of `SPACES` whose betas are on disk."""
    for space in SPACES:
        subject = open_source(source, BetasParams(space=space))
        if not isinstance(subject, Subject) or subject.layout.beta_folder.is_dir():
            return subject
    return open_source(source)


def trials_used(subject: BrainSource, params: BetasParams) -> pd.DataFrame:
    """The trials of the sessions that betas of `params` are read from: chosen, and on disk."""
    trials = subject.trials
    chosen = set(chosen_sessions(params.sessions, [str(session) for session in subject.sessions()]))
    return trials[trials["session"].astype(str).isin({*chosen, subject.further_session} - {""})]


def stimuli_used(subject: BrainSource, params: BetasParams) -> tuple[list[int], list[int]]:
    """Training and test stimuli of those trials, sorted."""
    trials = trials_used(subject, params)
    shared = trials["shared"].astype(bool)
    test = {int(s) for s in trials[shared]["stimulus_id"]}
    train = {int(s) for s in trials[~shared]["stimulus_id"]}
    # averaged, an image with one test trial is a test image
    return sorted(train - test if params.average_repeats else train), sorted(test)


def _notes(subject: BrainSource, sessions: Sequence[int | str]) -> list[str]:
    known = {*sessions, subject.further_session}
    absent = [k for k in dict.fromkeys(subject.trials["session"].tolist()) if k not in known]
    told = [f"sessions without betas on disk: {', '.join(map(str, absent))}"] if absent else []
    return [*told, f"test set {subject.stimuli.test_set}"] if subject.further_session else told


def subjects(source: Source) -> list[str]:
    """The subjects of an NSD folder or of the challenge; of own scans the one name."""
    if source.own:
        return [source.subject]
    if found := challenge_subjects(source.nsd_dir):
        return found
    folder = Path(source.nsd_dir) / "nsddata/ppdata"
    return sorted(path.name for path in folder.glob("subj*") if path.is_dir())


def region_sizes(rois: Rois) -> dict[str, int]:
    """Number of voxels of every region by name; a region may have none."""
    numbers, counts = np.unique(rois.labels, return_counts=True)
    sizes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    regions: dict[str, int] = {}
    for label, name in rois.names.items():
        if label > 0:
            regions[name] = regions.get(name, 0) + int(sizes.get(label, 0))
    return regions


def thumbnails(source: Source, ids: Sequence[int], size: int, events: Events) -> dict[str, Any]:
    """Seen images (n, size, size, 3) uint8 and their first captions."""
    from PIL import Image

    stimuli = open_source(source).stimuli
    images = np.empty((len(ids), size, size, 3), np.uint8)
    for k, stimulus in enumerate(ids):
        events.told(k, len(ids), "reading stimuli")
        picture = Image.fromarray(stimuli[int(stimulus)])
        images[k] = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))
    return {"images": images, "captions": captions(stimuli, ids)}


def captions(stimuli: SeenImages, ids: Sequence[int]) -> list[str]:
    """First caption of every stimulus, empty where there is none."""
    return [_first_caption(stimuli, int(stimulus)) for stimulus in ids]


def _first_caption(stimuli: SeenImages, stimulus_id: int) -> str:
    with suppress(UserError):
        return (stimuli.captions(stimulus_id) or [""])[0]
    return ""
