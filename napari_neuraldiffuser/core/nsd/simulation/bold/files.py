"""Writing the simulated scans as a BIDS data set with fMRIPrep's derivatives, each file complete or absent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

from napari_neuraldiffuser.core.base.files import (
    Place,
    atomic_path,
    file_digest,
    fingerprint,
    make_folder,
    read_json,
    write_json,
)
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.bold.write import write_betas, write_mask, write_table
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.nsd.simulation.atlas import LABEL_TABLES
from napari_neuraldiffuser.core.nsd.simulation.bold import signal, trials
from napari_neuraldiffuser.core.nsd.simulation.brain import Brain
from napari_neuraldiffuser.core.nsd.simulation.claim import claim
from napari_neuraldiffuser.core.nsd.simulation.files import write_volume
from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes
from napari_neuraldiffuser.core.params import BoldSimulationParams

TASK, SPACE = "scenes", "T1w"
VERSION = "1.10.0"
MARKER = "stimuli/simulation.json"
WRITTEN = ("sub-*", "stimuli", "derivatives", "README", "dataset_description.json", "*_events.json")
"""What the simulator writes into the data set's folder."""
README = """Simulated scans: one person sees drawn scenes in a scanner.

Nothing here is measured. `stimuli` has the pictures and their captions, `sub-*/ses-*/func` what was shown when,
`derivatives/fmriprep` the BOLD as fMRIPrep would leave it, `derivatives/rois` regions on its grid, `derivatives/truth`
the responses that the BOLD was made from: true single-trial betas, for comparison with estimated ones.
"""


class BidsPlaces:
    """Paths of one simulated subject in the data set."""

    def __init__(self, root: Path, number: int) -> None:
        self.root, self.label = Path(root), f"sub-{number:02d}"

    stimuli = Place("stimuli")
    captions = Place("stimuli/captions.json")
    fmriprep = Place("derivatives/fmriprep")
    anatomy = Place("derivatives/fmriprep/{label}/anat/{label}_desc-preproc_T1w.nii.gz")
    regions = Place("derivatives/rois/{label}")
    truth = Place("derivatives/truth/{label}/{label}_desc-true_betas.nii.gz")
    truth_mask = Place("derivatives/truth/{label}/{label}_desc-true_mask.nii.gz")
    truth_trials = Place("derivatives/truth/{label}/{label}_desc-true_trials.tsv")
    marker = Place("derivatives/truth/{label}/{label}_simulation.json")
    """Written last: a subject without it is incomplete."""

    def place(self, pattern: str) -> Path:
        """Path of this subject."""
        return self.root / pattern.format(label=self.label)

    def run(self, one: trials.ScanRun, end: str, root: str = "derivatives/fmriprep") -> Path:
        """A file of a run."""
        session = f"ses-{one.session:02d}"
        name = f"{self.label}_{session}_task-{TASK}_run-{one.run:02d}_{end}"
        return self.root / root / self.label / session / "func" / name


def write_bold_subjects(
    folder: str | Path, params: BoldSimulationParams | None = None, progress: Progress | None = None
) -> list[Path]:
    """Write `params.n_subjects` subjects, sub-01 onwards, and return the marker file of each.

    What is there already, complete and of the same parameters, is kept.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    NSDError
        If there are too few trials for the test images, or the folder holds data that is not simulated.
    """
    params, report = params or BoldSimulationParams(), progress or silent
    root, runs = make_folder(folder), trials.make_runs(params)
    _write_common(root, runs, params, report)
    return [_write_subject(BidsPlaces(root, k), runs, params, report) for k in range(1, params.n_subjects + 1)]


def code_digest() -> str:
    """Digest of the code that decides the bytes."""
    return fingerprint([simulate.code_digest(), *(file_digest(str(one.__file__)) for one in (signal, trials))])


def _write_common(root: Path, runs: list[trials.ScanRun], params: BoldSimulationParams, report: Progress) -> None:
    """Descriptions, pictures and captions: what all subjects share."""
    claim(root, MARKER, WRITTEN)
    write_json(root / "dataset_description.json", {"Name": "Simulated scans", "BIDSVersion": VERSION})
    maker = {"GeneratedBy": [{"Name": "napari-neuraldiffuser simulate --bold"}], "DatasetType": "derivative"}
    for name in ("fmriprep", "rois", "truth"):
        path = root / "derivatives" / name / "dataset_description.json"
        write_json(path, {"Name": f"Simulated scans: {name}", "BIDSVersion": VERSION, **maker})
    with atomic_path(root / "README") as temporary:
        temporary.write_text(README, encoding="utf-8")
    write_json(root / f"task-{TASK}_events.json", EVENT_COLUMNS)
    places = BidsPlaces(root, 1)
    recipe = fingerprint([params.to_dict(), code_digest()])
    marker = root / MARKER
    if marker.is_file() and read_json(marker).get("recipe") == recipe:
        return
    ids = sorted({int(one) for run in runs for one in run.trials["image"]})
    for done, one in enumerate(ids, 1):
        with atomic_path(places.stimuli / trials.label_of(one)) as temporary:
            Image.fromarray(picture(one, params)).save(temporary, "PNG")
        if done % 100 == 0 or done == len(ids):
            report(done, len(ids), "images drawn")
    texts = {trials.label_of(one): scenes.captions(simulate.scene_of(params.seed, one), 5) for one in ids}
    write_json(places.captions, texts)
    write_json(marker, {"recipe": recipe, "n_images": len(ids)})


EVENT_COLUMNS = {
    "trial_type": {"Description": "What was shown", "Levels": {"scene": "a picture", "blank": "nothing"}},
    "stim_file": {"Description": "Picture, below stimuli"},
    "test": {"Description": "1 for pictures that are held out of training"},
}


def picture(image: int, params: BoldSimulationParams) -> np.ndarray:
    """uint8 (H, W, 3) of an image."""
    return scenes.render(simulate.scene_of(params.seed, image), params.image_size)


def _write_subject(
    places: BidsPlaces, runs: list[trials.ScanRun], params: BoldSimulationParams, report: Progress
) -> Path:
    number = int(places.label.removeprefix("sub-"))
    recipe = fingerprint({"params": params.but(n_subjects=1).to_dict(), "subject": number, "code": code_digest()})
    if places.marker.is_file() and read_json(places.marker).get("recipe") == recipe:
        return places.marker
    places.marker.unlink(missing_ok=True)
    shown = np.concatenate([run.trials["image"].to_numpy() for run in runs])
    pictures: Callable[[np.ndarray], np.ndarray] = lambda ids: np.stack([picture(int(one), params) for one in ids])  # noqa: E731
    subject = simulate.respond(number, shown, pictures, params, report)
    _write_brain(places, subject.brain)
    betas = [signal.true_betas(subject, runs, params, session) for session in range(1, params.n_sessions + 1)]
    _write_truth(places, subject, runs, np.concatenate(betas))
    for k, run in enumerate(runs):
        own = betas[run.session - 1]
        first = sum(len(one.trials) for one in runs[:k] if one.session == run.session)
        _write_run(places, subject, run, own[first : first + len(run.trials)], params)
        report(k + 1, len(runs), "runs scanned")
    write_json(places.marker, {"recipe": recipe, "params": params.to_dict(), "subject": places.label})
    return places.marker


def _write_run(
    places: BidsPlaces, subject: Any, run: trials.ScanRun, betas: np.ndarray, params: BoldSimulationParams
) -> None:
    rng = np.random.default_rng([params.seed, 22, subject.number, run.session, run.run])
    nuisance = signal.make_nuisance(run.n_volumes, params, rng)
    percent = signal.measure(subject, run, betas, nuisance, params, rng)
    shade = _shade(subject.brain)
    stored = np.clip(np.round(shade * (1 + percent / 100)), 0, 32767).astype(np.int16)
    volume = np.zeros((*subject.brain.shape, run.n_volumes), dtype=np.int16)
    volume[tuple(subject.brain.voxels.T)] = stored.T
    image = nib.Nifti1Image(volume, subject.brain.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = params.tr
    bold = places.run(run, f"space-{SPACE}_desc-preproc_bold.nii.gz")
    with atomic_path(bold) as temporary:
        nib.save(image, temporary)
    about = {"RepetitionTime": params.tr, "StartTime": params.tr / 2, "SkullStripped": True, "TaskName": TASK}
    write_json(bold.with_name(bold.name.replace(".nii.gz", ".json")), about)
    write_mask(
        places.run(run, f"space-{SPACE}_desc-brain_mask.nii.gz"),
        subject.brain.volume(1, np.uint8) > 0,
        subject.brain.affine,
    )
    write_table(places.run(run, "events.tsv", root=""), run.events.drop(columns="image"))
    confounds = places.run(run, "desc-confounds_timeseries.tsv")
    write_table(confounds, signal.confounds_table(nuisance, rng))
    components = [f"a_comp_cor_{k:02d}" for k in range(signal.N_PHYSIOLOGY)]
    write_json(
        confounds.with_suffix(".json"), {name: {"Method": "aCompCor", "Mask": "combined"} for name in components}
    )


def _shade(brain: Brain) -> np.ndarray:
    """(n_grey,) mean signal, brighter where the anatomy is."""
    values = brain.anatomy[tuple(brain.voxels.T)]
    return (signal.BASELINE * (0.6 + 0.6 * values / values.max())).astype(np.float32)


def _write_brain(places: BidsPlaces, brain: Brain) -> None:
    """Anatomy, and regions with their names."""
    write_volume(places.anatomy, brain.anatomy, brain.affine)
    for family, names in LABEL_TABLES.items():
        stem = f"{places.label}_space-{SPACE}_seg-{family.replace('-', '')}_dseg"
        labels = np.maximum(brain.labels(family), 0).astype(np.int16)
        write_volume(places.regions / f"{stem}.nii.gz", labels, brain.affine)
        table = pd.DataFrame({"index": range(len(names) + 1), "name": ["background", *names]})
        write_table(places.regions / f"{stem}.tsv", table)


def _write_truth(places: BidsPlaces, subject: Any, runs: list[trials.ScanRun], betas: np.ndarray) -> None:
    """True betas of the voxels that respond, with their mask and the table of trials."""
    rows = np.sort(subject.people.rows)
    brain = subject.brain
    mask = np.zeros(brain.shape, dtype=bool)
    mask[tuple(brain.voxels[rows].T)] = True
    write_mask(places.truth_mask, mask, brain.affine)
    # voxels of the brain are in the order of the mask's own
    write_betas(places.truth, iter(betas[:, rows]), len(betas), mask, brain.affine)
    tables = [
        run.trials.assign(session=f"{run.session:02d}", run=f"{run.run:02d}", stimulus=run.trials["stim_file"])
        for run in runs
    ]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "trial", np.arange(len(table)))
    write_table(places.truth_trials, table[["trial", "stimulus", "session", "run", "test", "onset", "duration"]])
