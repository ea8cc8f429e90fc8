"""Writing the simulated experiment and brain in NSD's file formats, each file complete or absent."""

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.design import N_STIMULI, TRIALS_PER_SESSION
from napari_neuraldiffuser.core.nsd.reading.sessions import INT16_SCALE
from napari_neuraldiffuser.core.nsd.simulation.atlas import LABEL_TABLES
from napari_neuraldiffuser.core.nsd.simulation.brain import Brain
from napari_neuraldiffuser.core.nsd.simulation.experiment import Experiment

TRIALS_PER_RUN = (63, 62) * 6
RESPONSE_COLUMNS = (
    "SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "TIME", "ISOLD", "ISCORRECT", "RT", "CHANGEMIND",
    "MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT", "TOTAL1", "TOTAL2", "BUTTON", "MISSINGDATA",
)  # fmt: skip


def write_design(path: Path, experiment: Experiment) -> None:
    """nsd_expdesign.mat, 1-based, with MATLAB's row vectors."""
    images = experiment.subjectim[0, experiment.masterordering - 1].reshape(-1, TRIALS_PER_SESSION)
    distinct = [len(np.unique(images[: k + 1])) for k in range(len(images))]
    repeated = [images[: k + 1].size - n for k, n in enumerate(distinct)]
    content = {
        "masterordering": experiment.masterordering[None].astype(np.float64),
        "subjectim": experiment.subjectim.astype(np.float64),
        "sharedix": experiment.sharedix[None].astype(np.float64),
        "basiccnt": np.array([distinct, repeated, np.add(distinct, repeated)], dtype=np.float64),
    }
    with atomic_path(path) as temporary:
        scipy.io.savemat(temporary, content, do_compression=True)


def write_stim_info(path: Path, experiment: Experiment) -> None:
    """nsd_stim_info_merged.csv; a simulated image's cocoId is its 73k id plus one."""
    ids = np.arange(N_STIMULI)
    columns = {
        "cocoId": ids + 1,
        "cocoSplit": "train2017",
        "cropBox": "(0, 0, 0, 0)",
        "loss": 0.0,
        "nsdId": ids,
        "flagged": False,
        "BOLD5000": False,
        "shared1000": np.isin(ids, experiment.sharedix - 1),
    }
    shown = [np.isin(ids, row - 1) for row in experiment.subjectim]
    columns |= {f"subject{k}": seen.astype(int) for k, seen in enumerate(shown, 1)}
    order = np.argsort(experiment.masterordering, kind="stable").reshape(-1, 3) + 1
    for k, row in enumerate(experiment.subjectim, 1):
        for repeat in range(3):
            trial = np.zeros(N_STIMULI, dtype=int)
            trial[row - 1] = order[:, repeat]
            columns[f"subject{k}_rep{repeat}"] = trial
    with atomic_path(path) as temporary:
        pd.DataFrame(columns).to_csv(temporary)


def write_stimuli(path: Path, images: Iterator[tuple[int, np.ndarray]], size: int) -> None:
    """nsd_stimuli.hdf5: all 73,000 rows, of which only the given (0-based id, uint8 (size, size, 3)) take space."""
    with creating_hdf5(path) as file:
        bricks = file.create_dataset(
            "imgBrick",
            (N_STIMULI, size, size, 3),
            np.uint8,
            chunks=(1, size, size, 3),
            compression="gzip",
            compression_opts=1,
            shuffle=False,
        )
        for one, image in images:
            bricks[one] = image


def write_responses(path: Path, experiment: Experiment, number: int, rng: np.random.Generator) -> None:
    """responses.tsv of a subject who presses a button in every trial and is right four times out of five."""
    n = experiment.n_trials
    within = np.arange(n) % TRIALS_PER_SESSION
    starts = np.concatenate([[0], np.cumsum(TRIALS_PER_RUN)])
    run = np.searchsorted(starts, within, side="right")
    image = experiment.masterordering[:n]
    old = (pd.Series(image).groupby(image).cumcount() > 0).to_numpy().astype(int)
    old_now = (pd.Series(image).groupby([image, np.arange(n) // TRIALS_PER_SESSION]).cumcount() > 0).to_numpy()
    correct = (rng.uniform(size=n) < 0.8).astype(int)
    table = pd.DataFrame(0, index=range(n), columns=list(RESPONSE_COLUMNS)).astype(object)
    table["SUBJECT"], table["SESSION"], table["RUN"] = number, np.arange(n) // TRIALS_PER_SESSION + 1, run
    table["TRIAL"], table["73KID"] = within - starts[run - 1] + 1, experiment.shown(number) + 1
    table["10KID"], table["TIME"], table["ISOLD"] = image, within * 4 / 86400, old
    table["ISCORRECT"], table["RT"] = correct, np.round(rng.normal(1100, 200, n), 1)
    table["ISOLDCURRENT"], table["ISCORRECTCURRENT"] = old_now.astype(int), correct
    table["BUTTON"] = np.where(correct == 1, old, 1 - old) + 1
    table[["MEMORYRECENT", "MEMORYFIRST"]] = "NaN"
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)


def write_volume(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """One NIfTI volume in mm."""
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def write_brain(layout: Layout, brain: Brain, ncsnr: np.ndarray, n_sessions: int) -> None:
    """Anatomy, masks, noise ceilings and ROI volumes with their label tables; `ncsnr` per grey voxel."""
    affine = brain.affine
    inside = brain.volume(1, np.int16)
    write_volume(layout.anatomy, brain.anatomy, affine)
    write_volume(layout.volumes / "brainmask.nii.gz", inside, affine)
    write_volume(layout.ncsnr, brain.volume(ncsnr, np.float32), affine)
    for session in range(1, n_sessions + 1):
        write_volume(layout.valid_session(session), inside, affine)
    for family, names in LABEL_TABLES.items():
        for prefix in ("", "lh.", "rh."):
            # NSD stores some label volumes as float64; the readers must cope with both
            labels = brain.labels(family, prefix.rstrip(".")).astype(np.float64 if prefix else np.int16)
            write_volume(layout.roi_folder / f"{prefix}{family}.nii.gz", labels, affine)
        write_label_table(layout.label_tables(family)[0], names)


def write_label_table(path: Path, names: tuple[str, ...]) -> None:
    """NAME.mgz.ctab as NSD writes it: number and name, a space between, a stray tab here and there."""
    rows = ["0 Unknown", *(f"{k} {name}" + ("\t" if k % 2 == 0 else "") for k, name in enumerate(names, 1))]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_session(
    path: Path, brain: Brain, betas: Callable[[slice], np.ndarray], block: int, n_trials: int = TRIALS_PER_SESSION
) -> None:
    """betas_sessionNN.hdf5 as NSD's: (750, Z, Y, X) int16, one chunk per voxel, uncompressed.

    Only the chunks of grey voxels are written; the others take no space and read as 0, as outside NSD's brain mask.

    Parameters
    ----------
    path : Path
    brain : Brain
    betas : callable
        betas(slice of grey voxels) -> (750, n) float32 percent signal change.
    block : int
        Voxels asked for at once.
    n_trials : int
        Of a further session another number than 750.
    """
    with creating_hdf5(path) as file:
        shape = (n_trials, *brain.shape[::-1])
        dataset = file.create_dataset("betas", shape, "<i2", chunks=(n_trials, 1, 1, 1))
        for start in range(0, len(brain.voxels), block):
            part = slice(start, min(start + block, len(brain.voxels)))
            values = np.clip(np.round(betas(part) * INT16_SCALE), -32768, 32767).astype("<i2").T.copy()
            for (x, y, z), series in zip(brain.voxels[part].tolist(), values, strict=True):
                dataset.id.write_direct_chunk((0, z, y, x), series)
