"""Betas as one HDF5 file, so that reading and preparing them is done once for all that needs them."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.errors import NSDError

FORMAT = 1
ARRAYS = ("data", "stimulus_ids", "shared", "repeats")
GEOMETRY = ("voxels", "affine")


def save_betas(betas: Betas, path: str | Path) -> None:
    """Write everything of `betas` to `path`, atomically; `load_betas` gives the same bits back."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name in (*ARRAYS, *GEOMETRY):
            if getattr(betas, name) is not None:
                file[name] = getattr(betas, name)
        about = {"space": betas.space, "shape": betas.shape, "notes": betas.notes, "dropped": betas.dropped}
        # a dataset, as an attribute holds at most 64 KB
        file["about"] = json.dumps({**about, "stimulus_names": betas.stimulus_names}, default=int)
        file.attrs["betas_format"] = FORMAT


def load_betas(path: str | Path) -> Betas:
    """Read a file of `save_betas`.

    Raises
    ------
    NSDError
        If it is missing, damaged, or no such file.
    """
    with _opened(path) as file:
        about = _about(file, path)
        arrays = {name: file[name][...] for name in (*ARRAYS, *GEOMETRY) if name in file}
        shape = None if about["shape"] is None else tuple(about["shape"])
        return Betas(**arrays, **{**about, "shape": shape})


def betas_facts(path: str | Path, n_stimuli: int | None = None) -> dict[str, Any]:
    """Numbers of stimuli and voxels, trials per test stimulus (of the first `n_stimuli`), notes; no data are read."""
    with _opened(path) as file:
        about, shared = _about(file, path), file["shared"][...]
        repeats = file["repeats"][...][shared][:n_stimuli]
        return {
            "n_train": int(np.count_nonzero(~shared)),
            "n_test": len(repeats),
            "trials_per_test_image": float(np.mean(repeats)) if len(repeats) else 0.0,
            "n_voxels": int(file["data"].shape[1]),
            "notes": [*about["notes"], *dropped_notes(about["dropped"])],
        }


def dropped_notes(dropped: dict[str, int]) -> list[str]:
    """A sentence for every reason for which voxels were dropped."""
    return [f"{n} voxels dropped: {why} in at least one session." for why, n in dropped.items() if n]


def _opened(path: str | Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise NSDError(f"{path} must be a file of prepared betas, got: {error}. Prepare them again.") from error


def _about(file: h5py.File, path: str | Path) -> dict[str, Any]:
    if file.attrs.get("betas_format") != FORMAT:
        raise NSDError(
            f"{path} must be prepared betas of format {FORMAT}, got {file.attrs.get('betas_format')}. "
            "Prepare them again with LoadNSDBetas or PrepareBetas."
        )
    return json.loads(file["about"].asstr()[()])
