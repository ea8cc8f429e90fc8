"""A tiny NSD tree written by hand, independent of the package's simulator: odd shape, oblong, two sessions
of 750."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import scipy.io

SHAPE = (7, 6, 5)
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
AFFINE[:3, 3] = [-5.4, -4.5, -3.6]
VERSION = "betas_fithrf_GLMdenoise_RR"
N = 750


@dataclass
class Tree:
    """The tree's folder and what was put into it; `raw[session]` is int16 (X, Y, Z, 750) as MATLAB holds
    it."""

    root: Path
    raw: dict[int, np.ndarray]
    mask: np.ndarray
    ids: np.ndarray
    shared: np.ndarray

    @property
    def betas(self) -> Path:
        return self.root / "nsddata_betas/ppdata/subj02/func1pt8mm" / VERSION

    @property
    def roi(self) -> Path:
        return self.root / "nsddata/ppdata/subj02/func1pt8mm/roi"


def volume(path: Path, values: np.ndarray, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def hdf5(path: Path, raw: np.ndarray, **options) -> None:
    """Write (X, Y, Z, trial) the way MATLAB does: h5py shows the axes reversed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=np.ascontiguousarray(raw.transpose(3, 2, 1, 0)), **options)


def make_tree(root: Path, sessions=(1, 2)) -> Tree:
    """subj02, design of 10 images shown over and over: numbers 1 and 1000, the last that is shared, and 1001..1008."""
    rng = np.random.default_rng(7)
    subjectim = np.arange(1, 80001).reshape(8, 10000) % 73000 + 1
    order = np.tile(np.array([1, 1000, *range(1001, 1009)]), 3000)
    rng.shuffle(order)
    design = root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design.parent.mkdir(parents=True)
    scipy.io.savemat(
        design,
        {
            "masterordering": order[None].astype(float),
            "subjectim": subjectim.astype(float),
            "sharedix": subjectim[:1, :1000].astype(float),
        },
    )
    mask = rng.uniform(size=SHAPE) < 0.3
    raw = {}
    for session in sessions:
        raw[session] = rng.integers(-3000, 3000, (*SHAPE, N)).astype(np.int16)
        hdf5(
            root / f"nsddata_betas/ppdata/subj02/func1pt8mm/{VERSION}/betas_session{session:02d}.hdf5",
            raw[session],
            chunks=(N, 1, 1, 1),
        )
    tree = Tree(root, raw, mask, subjectim[1, order - 1] - 1, order <= 1000)
    volume(tree.roi / "nsdgeneral.nii.gz", mask.astype(np.int16))
    return tree


def expected(tree: Tree, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The whole preparation in float64, straight from the definition: (images, voxels), ids."""
    mask = tree.mask if mask is None else mask
    parts, ids = [], []
    for session, raw in sorted(tree.raw.items()):
        values = raw[mask].T / 300.0
        parts.append((values - values.mean(0)) / values.std(0))
        ids.append(tree.ids[(session - 1) * N : session * N])
    trials, ids = np.concatenate(parts), np.concatenate(ids)
    unique = np.unique(ids)
    return np.array([trials[ids == one].mean(0) for one in unique]), unique
