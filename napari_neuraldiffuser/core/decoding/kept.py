"""Training targets of a saved decoder: copied, in half precision, or referred to where they are."""

import hashlib
import os
from pathlib import Path

import h5py
import numpy as np

from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.targets import Rows, blocks, match_rows, target_shape
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, Targets, dataset_name

ROWS_DIGESTED = 64
PLACE, BESIDE, DIGEST = "targets_path", "targets_beside", "targets_digest"
"""Attributes of the group `decoder`: the absolute path and that from the decoder's folder; of a fit: the digest."""


def digest(targets: Targets, name: str) -> str:
    """SHA-256 of one target's shape, type and stimuli and of 64 rows from the first to the last.

    A file that was extracted again from other images or by other networks differs in all of them; one value that was
    changed by hand between these rows is not found.
    """
    data = targets[name]
    out = hashlib.sha256(f"{data.shape} {data.dtype}".encode())
    out.update(np.ascontiguousarray(targets.stimulus_ids, np.int64).tobytes())
    for row in np.unique(np.linspace(0, len(data) - 1, ROWS_DIGESTED).astype(int)):
        out.update(np.ascontiguousarray(data[row]).tobytes())
    return out.hexdigest()


def copy(file: h5py.File, targets: Targets, rows: Rows, names: tuple[str, ...], half: bool) -> None:
    """Write the targets of every training stimulus once, in the type they have on disk or in half precision.

    Raises
    ------
    DecodingError
        If a value is too large for half precision.
    """
    ids = np.asarray(targets.stimulus_ids)[np.unique(rows.stored)]
    file["stimulus_id"] = ids
    rows = match_rows(targets.stimulus_ids, ids)
    for name in names:
        shape, dtype = target_shape(targets, name), np.dtype(np.float16) if half else targets[name].dtype
        out = file.create_dataset(dataset_name(name), (len(ids), *shape), dtype)
        for positions, values in blocks(targets, name, rows, dtype):
            if half and not np.isfinite(values).all():
                raise DecodingError(
                    f"targets[{name!r}] must be below 65,504 to be kept in half precision, got larger ones. "
                    "Use keep_targets=copy."
                )
            out[positions[0] : positions[-1] + 1] = values.reshape(-1, *shape)


def refer(group: h5py.Group, targets: Targets, names: tuple[str, ...], path: Path) -> None:
    """Write where the targets are into the decoder's group of the file that will be at `path`.

    Raises
    ------
    DecodingError
        If they are in memory.
    """
    if not isinstance(targets, TargetFile):
        raise DecodingError(
            "keep_targets must be copy or half for targets in memory, got refer. Save them, and fit to their file."
        )
    place = targets.path.resolve()
    group.attrs.update({PLACE: str(place), BESIDE: os.path.relpath(place, path.resolve().parent)})
    for name in names:
        group[f"fits/{name}"].attrs[DIGEST] = digest(targets, name)


def opened(group: h5py.Group, path: Path, names: tuple[str, ...]) -> TargetFile:
    """The targets of the decoder file at `path`: in it, or in the file that it refers to if that has not changed.

    Raises
    ------
    DecodingError
        If that file is gone or another one.
    """
    if PLACE not in group.attrs:
        return TargetFile(path)
    places = [path.resolve().parent / str(group.attrs[BESIDE]), Path(str(group.attrs[PLACE]))]
    there = [place for place in places if place.is_file()]
    if not there:
        raise DecodingError(
            f"{path} must have its training targets at {places[-1]}, got no file there. Put it back, or fit again with "
            "keep_targets=copy."
        )
    for place in there:
        targets = TargetFile(place)
        if not (other := _others(targets, group, names)):
            return targets
        targets.close()
    raise DecodingError(
        f"{place} must have the targets {other} that {path} was fitted to, got others. Fit the decoder again."
    )


def _others(targets: TargetFile, group: h5py.Group, names: tuple[str, ...]) -> str:
    """The first target that is not the one of the decoder's group, or nothing."""
    known = set(targets)
    wrong = (n for n in names if n not in known or digest(targets, n) != group[f"fits/{n}"].attrs.get(DIGEST))
    return next(wrong, "")


def moved(group: h5py.Group, path: Path) -> None:
    """Let a copied reference be from the folder of its new file at `path`."""
    if PLACE in group.attrs:
        group.attrs[BESIDE] = os.path.relpath(str(group.attrs[PLACE]), path.resolve().parent)
