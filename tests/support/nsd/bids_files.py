"""A small BIDS data set with fMRIPrep's derivatives whose BOLD is made from betas that are known."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import compute_regressor

SHAPE, AFFINE = (5, 4, 3), np.diag([3.0, 3.0, 4.0, 1.0])
MEAN = 9000.0


@dataclass
class Scanned:
    """Folders, the mask, and the betas (n_trials, n_voxels) of each (session, run) in percent of the mean."""

    raw: Path
    fmriprep: Path
    mask: np.ndarray
    betas: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def file(self, session: str, run: str, end: str, derived: bool = True) -> Path:
        """A file of a run."""
        return folder_of(self, session, derived) / (stem(session, run) + end)

    def edit_events(self, session: str, run: str, change) -> None:
        """Write the events of a run anew as `change(table)`, a table of texts."""
        path = self.file(session, run, "events.tsv", derived=False)
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        change(table).to_csv(path, sep="\t", index=False)


def folder_of(scanned: Scanned, session: str, derived: bool) -> Path:
    root = scanned.fmriprep if derived else scanned.raw
    return root / "sub-01" / (f"ses-{session}" if session else "") / "func"


def stem(session: str, run: str) -> str:
    return "sub-01_" + (f"ses-{session}_" if session else "") + "task-look_" + (f"run-{run}_" if run else "")


def write_bids(
    folder: Path,
    runs=(("a", "1"), ("a", "2"), ("b", "1")),
    *,
    n_trials: int = 12,
    tr: float = 1.5,
    start: float = 0.75,
    noise: float = 0.0,
    hrf: str = "spm",
    seed: int = 0,
) -> Scanned:
    """Write the data set; every run shows stimuli s00 ... s08, of which s00 to s02 come twice as often."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:4, :3, 1:] = True
    mask[1, 0, 1] = False
    made = Scanned(folder, folder / "derivatives" / "fmriprep", mask)
    for session, run in runs:
        _write_run(made, session, run, n_trials, tr, start, noise, hrf, rng)
    (folder / "dataset_description.json").write_text('{"Name": "small", "BIDSVersion": "1.10.0"}')
    return made


def _write_run(made, session, run, n_trials, tr, start, noise, hrf, rng):
    events = events_table(n_trials, rng)
    n_volumes = int((events.onset.iloc[-1] + 24) / tr)
    frames = start + tr * np.arange(n_volumes)
    confounds = confounds_table(n_volumes, rng)
    n_voxels = int(made.mask.sum())
    betas = rng.normal(1.0, 1.0, (n_trials, n_voxels))
    fine = np.arange(0, 45, 0.1)
    peak = compute_regressor(np.array([[0.0], [2.0], [1.0]]), hrf, fine)[0].max()
    columns = [compute_regressor(np.array([[o], [2.0], [1.0]]), hrf, frames)[0][:, 0] / peak for o in events.onset]
    percent = np.array(columns).T @ betas + confounds[["trans_x", "a_comp_cor_00"]].to_numpy() @ rng.normal(
        0, 0.5, (2, n_voxels)
    )
    percent += 0.7 * np.cos(np.pi * (np.arange(n_volumes)[:, None] + 0.5) / n_volumes) + noise * rng.standard_normal(
        percent.shape
    )
    # the mean of each voxel is MEAN exactly, as percent refer to it
    bold = np.zeros((*SHAPE, n_volumes), dtype=np.float32)
    bold[made.mask] = (MEAN * (1 + (percent - percent.mean(axis=0)) / 100)).T
    made.betas[session, run] = betas
    folder_of(made, session, True).mkdir(parents=True, exist_ok=True)
    folder_of(made, session, False).mkdir(parents=True, exist_ok=True)
    save(made.file(session, run, "space-T1w_desc-preproc_bold.nii.gz"), bold, tr)
    about = {"RepetitionTime": tr, "StartTime": start, "SkullStripped": False}
    made.file(session, run, "space-T1w_desc-preproc_bold.json").write_text(json.dumps(about))
    save(made.file(session, run, "space-T1w_desc-brain_mask.nii.gz"), made.mask.astype(np.uint8))
    confounds.to_csv(made.file(session, run, "desc-confounds_timeseries.tsv"), sep="\t", index=False, na_rep="n/a")
    events.to_csv(made.file(session, run, "events.tsv", derived=False), sep="\t", index=False, na_rep="n/a")


def save(path: Path, values: np.ndarray, tr: float = 0.0, affine: np.ndarray = AFFINE) -> None:
    """A NIfTI in mm, and in s where there is a TR."""
    image = nib.Nifti1Image(values, affine)
    if tr:
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = tr
    nib.save(image, path)


def events_table(n_trials: int, rng) -> pd.DataFrame:
    """Trials 5 to 7 s apart."""
    labels = [f"s{k:02d}.png" for k in (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8)]
    onset = 6.0 + np.cumsum(rng.uniform(5, 7, n_trials))
    shown = [labels[k % len(labels)] for k in range(n_trials)]
    return pd.DataFrame({"onset": onset.round(3), "duration": 2.0, "trial_type": "picture", "stim_file": shown})


def confounds_table(n: int, rng) -> pd.DataFrame:
    """Six motion parameters, three components, and a displacement that is unknown in the first volume."""
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    table = pd.DataFrame({name: np.cumsum(rng.normal(0, 0.05, n)) for name in names})
    for k in range(3):
        table[f"a_comp_cor_{k:02d}"] = rng.standard_normal(n)
    table["framewise_displacement"] = np.concatenate([[np.nan], rng.uniform(0.05, 0.2, n - 1)])
    return table
