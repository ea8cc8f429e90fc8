"""One HDF5 file per decoder: an embeddings file of the training targets with a group `decoder` in it."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.decoding.align import Alignment
from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.decoding.geometry import Geometry
from napari_neuraldiffuser.core.decoding.solver import Spectrum
from napari_neuraldiffuser.core.decoding.targets import Rows, blocks
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, dataset_name
from napari_neuraldiffuser.core.params import TARGETS, DecodingParams

FORMAT = 1


def save(decoder: Any, path: str | Path) -> None:
    """Write a fitted RidgeDecoder to `path`, atomically.  DecodingError if it is not fitted."""
    if not decoder.accuracy:
        raise DecodingError("decoder must be fitted to be saved, got an unfitted one. Call fit() first.")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(decoder.attrs)
        _save_targets(file, decoder)
        group = file.create_group("decoder")
        group.attrs.update(format=FORMAT, params=json.dumps(decoder.params.to_dict()))
        _save_betas(group, decoder)
        _save_fits(group, decoder)


def _save_targets(file: h5py.File, decoder: Any) -> None:
    """The targets of every training stimulus once, in the type they have on disk."""
    stored = np.unique(decoder.rows.stored)
    file["stimulus_id"] = np.asarray(decoder.targets.stimulus_ids)[stored]
    rows = Rows(np.arange(len(stored)), stored)
    for name in decoder.names:
        source = decoder.targets[name]
        out = file.create_dataset(dataset_name(name), (len(stored), *source.shape[1:]), source.dtype)
        for positions, values in blocks(decoder.targets, name, rows, source.dtype):
            out[positions[0] : positions[-1] + 1] = values.reshape(-1, *source.shape[1:])


def _save_betas(group: h5py.Group, decoder: Any) -> None:
    group["betas"], group["beta_mean"] = decoder.x, decoder.beta_mean
    group["stimulus_ids"] = decoder.stimulus_ids
    group["u"], group["s"] = decoder.spectrum.u, decoder.spectrum.s
    # betas without geometry have None here, which is left out
    for field, value in vars(decoder.geometry).items():
        if value is not None:
            group[f"geometry/{field}"] = value


def _save_fits(group: h5py.Group, decoder: Any) -> None:
    for name, fit in decoder.accuracy.items():
        out = group.create_group(f"fits/{name}")
        out["alphas"], out["r2"], out["mean"] = fit.alphas, fit.r2, fit.mean
        out.attrs.update(alpha=fit.alpha, shape=fit.shape)
    if "z" in decoder.names:
        for field, values in vars(decoder.alignment).items():
            group[f"alignment/{field}"] = values


def load(cls: type, path: str | Path) -> Any:
    """Open a decoder file; `cls` is RidgeDecoder.

    Raises
    ------
    DecodingError
        If the file is missing, damaged, or not a decoder of this format.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(cls, file, path)
    except (OSError, KeyError) as error:
        raise DecodingError(
            f"{path} must be a decoder file, got: {error}. Fit the decoder again and save it."
        ) from error


def _read(cls: type, file: h5py.File, path: str | Path) -> Any:
    from napari_neuraldiffuser.core.decoding.ridge import TargetFit

    group = file["decoder"]
    if group.attrs["format"] != FORMAT:
        raise DecodingError(f"{path} must have format {FORMAT}, got {group.attrs['format']}. Fit the decoder again.")
    decoder = cls(DecodingParams.from_dict(json.loads(group.attrs["params"])))
    decoder.x, decoder.beta_mean = group["betas"][...], group["beta_mean"][...]
    decoder.stimulus_ids = group["stimulus_ids"][...]
    decoder.spectrum = Spectrum(group["u"][...], group["s"][...])
    decoder.geometry = _read_geometry(group["geometry"])
    decoder.use_targets(TargetFile(path))
    # a decoder of some targets has those alone in its file
    decoder.accuracy = {name: _read_fit(TargetFit, group[f"fits/{name}"]) for name in decoder.targets}
    if "alignment" in group:
        decoder.alignment = Alignment(**{field: values[...] for field, values in group["alignment"].items()})
    return decoder


def _read_geometry(group: h5py.Group) -> Geometry:
    n_voxels, space = int(group["n_voxels"][()]), group["space"].asstr()[()]
    if "voxels" not in group:
        return Geometry(n_voxels, space)
    shape = tuple(int(size) for size in group["shape"][...])
    return Geometry(n_voxels, space, group["voxels"][...], group["affine"][...], shape)


def _read_fit(cls: type, group: h5py.Group) -> Any:
    alphas, r2 = (tuple(float(v) for v in group[key][...]) for key in ("alphas", "r2"))
    shape = tuple(int(size) for size in group.attrs["shape"])
    return cls(float(group.attrs["alpha"]), alphas, r2, shape, group["mean"][...])


def join_decoders(paths: Sequence[str | Path], path: str | Path) -> None:
    """Write one decoder file from files of decoders that were fitted to different targets of the same betas.

    Raises
    ------
    DecodingError
        If a file is none, two files have the same target, or their betas or parameters differ.
    """
    try:
        with ExitStack() as stack:
            parts = [stack.enter_context(h5py.File(part, "r")) for part in paths]
            _check_parts(parts, paths)
            with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
                _join(parts, file)
    except (OSError, KeyError) as error:
        raise DecodingError(f"decoders to join must be decoder files, got: {error}. Fit them again.") from error


def _check_parts(parts: list[h5py.File], paths: Sequence[str | Path]) -> None:
    names = [name for part in parts for name in part["decoder/fits"]]
    if len(set(names)) != len(names):
        raise DecodingError(f"decoders to join must have different targets, got {names}. Leave one of the files out.")
    first = parts[0]["decoder"]
    for part, where in zip(parts[1:], paths[1:], strict=True):
        other = part["decoder"]
        same_params = first.attrs["params"] == other.attrs["params"]
        if not same_params or any(not np.array_equal(first[key], other[key]) for key in ("stimulus_ids", "beta_mean")):
            raise DecodingError(f"decoders to join must be of the same betas and parameters, got others in {where}.")


def _join(parts: list[h5py.File], file: h5py.File) -> None:
    """The first part, and the targets, fits and alignment of the others; targets in the project's order."""
    first = parts[0]
    file.attrs.update(first.attrs)
    file["stimulus_id"] = first["stimulus_id"][...]
    group = file.create_group("decoder")
    group.attrs.update(first["decoder"].attrs)
    for key in first["decoder"]:
        if key not in ("fits", "alignment"):
            first.copy(f"decoder/{key}", group)
    fits = group.create_group("fits")
    owner = {name: part for part in parts for name in part["decoder/fits"]}
    for name in sorted(owner, key=TARGETS.index):
        part = owner[name]
        part.copy(dataset_name(name), file, dataset_name(name))
        part.copy(f"decoder/fits/{name}", fits)
        if name == "z":
            part.copy("decoder/alignment", group)


def read_accuracy(path: str | Path) -> dict[str, Any]:
    """TargetFit of every target of a decoder file, without reading its betas."""
    from napari_neuraldiffuser.core.decoding.ridge import TargetFit

    try:
        with h5py.File(path, "r") as file:
            fits = file["decoder/fits"]
            return {name: _read_fit(TargetFit, fits[name]) for name in TARGETS if name in fits}
    except (OSError, KeyError) as error:
        raise DecodingError(f"{path} must be a decoder file, got: {error}. Fit the decoder again.") from error
