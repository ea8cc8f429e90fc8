"""GLMsingle's outputs by hand, as its Python and MATLAB versions save them, beside a NIfTI of the same betas."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

SHAPE, RUNS, CONDITIONS = (6, 5, 7), 4, 9
AFFINE = np.array([[-2.0, 0, 0, 12], [0, 2.5, 0, -30], [0, 0, 3.0, 4], [0, 0, 0, 1]])
TYPED = "TYPED_FITHRF_GLMDENOISE_RR"


@dataclass
class Outputs:
    """The folder, the betas (X, Y, Z, trial), the 0-based condition of each trial, and its session."""

    folder: Path
    betas: np.ndarray
    order: np.ndarray
    sessions: np.ndarray
    mask: np.ndarray

    @property
    def mask_file(self) -> Path:
        return self.folder / "mask.nii.gz"


def make(folder: Path, seed: int = 0) -> Outputs:
    """Design matrices of four runs (time x conditions), two sessions; two conditions are shown more often."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    order, per_run, designs = [], [], []
    for _ in range(RUNS):
        trials = rng.permutation([*range(CONDITIONS), 3, 5])
        design = np.zeros((60, CONDITIONS))
        design[5 * np.arange(len(trials)), trials] = 1
        designs.append(design)
        order += trials.tolist()
        per_run.append(len(trials))
    sessions = np.repeat([1, 1, 2, 2], per_run)
    betas = rng.normal(size=(*SHAPE, len(order))).astype(np.float32)
    betas[0, 0, 0] = np.nan  # a voxel without signal: divided by a mean of 0
    mask = rng.uniform(size=SHAPE) < 0.4
    mask[0, 0, 0] = True
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), folder / "mask.nii.gz")
    nib.save(nib.Nifti1Image(betas, AFFINE), folder / "betas.nii.gz")
    python_design(folder / "DESIGNINFO.npy", designs, order, per_run)
    return Outputs(folder, betas, np.array(order), sessions, mask)


def python_design(path: Path, designs: list[np.ndarray], order: list[int], per_run: list[int]) -> None:
    info = {
        "design": designs,
        "stimdur": 3.0,
        "tr": 1.6,
        "params": {
            "wantlibrary": 1,
            "fracs": np.linspace(1, 0.05, 20),
            "sessionindicator": np.array([[1, 1, 2, 2]]),
            "extra_regressors": [False],
            "xvalscheme": np.arange(RUNS),
        },
        "designSINGLE": [np.zeros((60, len(order))) for _ in designs],
        "stimorder": [np.int64(k) for k in order],
        "numtrialrun": per_run,
        "condcounts": [np.int64(order.count(k)) for k in range(CONDITIONS)],
        "condinruns": [np.int64(RUNS)] * CONDITIONS,
        "endbuffers": [np.float64(8.0)] * RUNS,
    }
    np.save(path, info, allow_pickle=True)


def results(betas: np.ndarray) -> dict:
    """What stands in the dictionary of type D besides the betas."""
    space = betas.shape[:3]
    return {
        "HRFindex": np.zeros(space, dtype=np.int64),
        "glmbadness": np.zeros((*space, 11), dtype=np.float32),
        "pcvoxels": np.zeros(space, dtype=bool),
        "pcnum": np.int64(4),
        "xvaltrend": np.zeros(11),
        "noisepool": None,
        "pcregressors": [np.zeros((60, 11), dtype=np.float32)] * RUNS,
        "betasmd": betas,
        "R2": np.zeros(space, dtype=np.float32),
        "scaleoffset": np.array([]),
        "meanvol": np.ones(space, dtype=np.float32),
    }


def write(outputs: Outputs, kind: str, betas: np.ndarray | None = None) -> Path:
    """Type D as `npy`, `hdf5`, `packed` (HDF5 that was compressed afterwards) or `mat` (MATLAB 7.3)."""
    betas = outputs.betas if betas is None else betas
    path = outputs.folder / f"{TYPED}.{'hdf5' if kind == 'packed' else kind}"
    if kind == "npy":
        np.save(path, results(betas))
        return path
    with h5py.File(path, "w") as file:
        if kind == "mat":
            options = {"compression": "gzip", "chunks": (7, 2, 3, 4)} if min(betas.shape) > 4 else {}
            file.create_dataset("modelmd", data=betas.transpose(3, 2, 1, 0), **options)
            return path
        for name, value in results(betas).items():
            value = np.array(value) if isinstance(value, list) else value
            packed = {"compression": "gzip"} if kind == "packed" and name == "betasmd" else {}
            file.create_dataset(name, data=h5py.Empty("f") if value is None else value, **packed)
    return path


def matlab_design(outputs: Outputs) -> None:
    """DESIGNINFO.mat in the place of Python's: conditions and sessions from 1, columns as rows."""
    (outputs.folder / "DESIGNINFO.npy").unlink()
    per_run = np.full((RUNS, 1), len(outputs.order) / RUNS)
    with h5py.File(outputs.folder / "DESIGNINFO.mat", "w") as file:
        file["stimorder"] = outputs.order[:, None] + 1.0
        file["numtrialrun"] = per_run
        file["opt/sessionindicator"] = np.array([[1.0], [1], [2], [2]])
