"""Decoder files: what those of every kind have in common, so that they are opened, joined and looked into by any.

One HDF5 file per decoder with a group `decoder`: attributes `kind`, `format` and `params`, a group `fits/<target>` for
everything that belongs to one target, and beside it what all targets share.  Training targets that a kind keeps lie
outside this group, as in an embeddings file.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5, open_hdf5
from napari_neuraldiffuser.core.base.registry import DECODERS
from napari_neuraldiffuser.core.decoding import kept
from napari_neuraldiffuser.core.decoding.alignment import FORMS, PER_COLUMN, Alignment
from napari_neuraldiffuser.core.decoding.compact import said as reduced
from napari_neuraldiffuser.core.decoding.decoder import Decoder, DecodingError, TargetFit
from napari_neuraldiffuser.core.networks.embeddings import dataset_name
from napari_neuraldiffuser.core.networks.words import ATTRIBUTE
from napari_neuraldiffuser.core.params import TARGETS, DecodingParams, ParamError

FORMAT = 3
REMEDY = "Fit the decoder again and save it."
AXES = ("penalty", "epoch")
SHARED = "tensors"
"""Group of weights that all targets of a decoder share; one of other targets has others."""
FIRST_KIND = "ridge"
"""The kind of a file that does not say its kind."""


def new(params: DecodingParams | None = None) -> Decoder:
    """The decoder of the kind `params.decoder`, not fitted yet."""
    params = params or DecodingParams()
    return DECODERS[params.decoder](params)


def load(path: str | Path) -> Decoder:
    """Open a decoder file of any kind.

    Raises
    ------
    DecodingError
        If the file is missing, damaged, or a decoder of a kind or format that is not known.
    """
    with opened(path) as file:
        kind = str(file["decoder"].attrs.get("kind", FIRST_KIND))
    if kind not in DECODERS:
        raise DecodingError(f"{path} must be a decoder of a kind among {list(DECODERS)}, got {kind!r}. Fit one anew.")
    return DECODERS[kind].load(path)


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """A decoder file for reading; DecodingError if it is none or something is missing in it."""
    try:
        with open_hdf5(path, "a decoder file", DecodingError) as file:
            _check_format(file["decoder"].attrs.get("format"), path)
            yield file
    except UserError:
        raise
    # what h5py and json say of a thing of another kind under a known name
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodingError(f"{path} must be a decoder file, got: {said(error)}. {REMEDY}") from error


def _check_format(got: object, path: str | Path) -> None:
    """Raise DecodingError for a file that another version wrote."""
    if got == FORMAT:
        return
    newer = isinstance(got, (int, np.integer)) and got > FORMAT
    remedy = "Update napari-neuraldiffuser, or fit the decoder again." if newer else REMEDY
    named = "none" if got is None else f"{got}, of {'a newer' if newer else 'an earlier'} version"
    raise DecodingError(f"{path} must be a decoder file of format {FORMAT}, got {named}. {remedy}")


def read_array(group: h5py.Group, name: str, *shape: int | None, finite: bool = True) -> np.ndarray:
    """Numbers of a dataset in a decoder file.

    Parameters
    ----------
    group : h5py.Group
    name : str
    shape : int or None
        Size of every axis, None where any will do.
    finite : bool
        Whether NaN and infinity are refused.

    Raises
    ------
    DecodingError
        If it has other sizes, no numbers, or some that are not finite.
    """
    values = np.asarray(group[name][...])
    fits = values.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, values.shape, strict=True))
    if not fits or values.dtype.kind not in "fiu":
        sizes = " x ".join("any" if size is None else str(size) for size in shape)
        raise DecodingError(
            f"{group.file.filename} must have {sizes} numbers in {group.name}/{name}, got {values.dtype} of shape "
            f"{values.shape}. {REMEDY}"
        )
    # a sum is not finite where an addend is not, and takes no memory
    if finite and not np.isfinite(values.sum(dtype=np.float64)):
        raise DecodingError(
            f"{group.file.filename} must have finite numbers in {group.name}/{name}, got NaN or infinity. {REMEDY}"
        )
    return values


def create_group(file: h5py.File, kind: str, decoder: Decoder) -> h5py.Group:
    """The group `decoder` of a fitted decoder's new file, with its attributes and fits."""
    group = file.create_group("decoder")
    group.attrs.update(kind=kind, format=FORMAT, params=json.dumps(decoder.params.to_dict()))
    for name, fit in decoder.accuracy.items():
        out = group.create_group(f"fits/{name}")
        out["tried"], out["r2"], out["mean"] = fit.tried, fit.r2, fit.mean
        out.attrs.update(chosen=fit.chosen, axis=fit.axis, shape=fit.shape)
        if fit.penalties is not None:
            out["penalties"] = fit.penalties
            out.attrs["penalties_r2"] = fit.penalties_r2
        if fit.alignment is not None:
            _write_alignment(out.create_group("alignment"), fit.alignment)
    return group


def read_params(group: h5py.Group) -> DecodingParams:
    """The params that `create_group` wrote."""
    try:
        return DecodingParams.from_dict(json.loads(group.attrs["params"]))
    except ParamError as error:
        raise DecodingError(
            f"{group.file.filename} must have parameters that this version knows, got a file whose {error} {REMEDY}"
        ) from error


def read_fits(group: h5py.Group) -> dict[str, TargetFit]:
    """The fits that `create_group` wrote, in the project's order."""
    return {name: _read_fit(group["fits"][name]) for name in TARGETS if name in group["fits"]}


def _read_fit(group: h5py.Group) -> TargetFit:
    chosen, shape = float(group.attrs["chosen"]), tuple(int(size) for size in group.attrs["shape"])
    tried = tuple(map(float, read_array(group, "tried", None)))
    # a target without variance has no R²
    r2 = tuple(map(float, read_array(group, "r2", len(tried), finite=False)))
    axis = group.attrs["axis"]
    if not isinstance(axis, str) or axis not in AXES:
        raise DecodingError(
            f"{group.file.filename} must say in {group.name} what was tried among {AXES}, got {axis!r}. {REMEDY}"
        )
    if chosen not in tried:
        raise DecodingError(
            f"{group.file.filename} must have the {axis} of {group.name} among those that were tried, got {chosen}. "
            f"{REMEDY}"
        )
    mean = read_array(group, "mean", int(np.prod(shape)))
    stats = _read_alignment(group["alignment"], mean.size) if "alignment" in group else None
    fit = TargetFit(chosen, tried, r2, shape, mean, axis, stats)
    if "penalties" not in group:
        return fit
    penalties = read_array(group, "penalties", mean.size)
    if not np.isin(penalties, tried).all():
        raise DecodingError(
            f"{group.file.filename} must have the penalties of {group.name} among those tried, got others. {REMEDY}"
        )
    return replace(fit, penalties=penalties, penalties_r2=float(group.attrs["penalties_r2"]))


def _write_alignment(group: h5py.Group, stats: Alignment) -> None:
    for field in (*PER_COLUMN, "distance"):
        group[field] = getattr(stats, field)
    group.attrs.update(form=stats.form, identified=stats.identified)


def _read_alignment(group: h5py.Group, size: int) -> Alignment:
    form = group.attrs["form"]
    if not isinstance(form, str) or form not in FORMS:
        raise DecodingError(
            f"{group.file.filename} must have an alignment among {FORMS} in {group.name}, got {form!r}. {REMEDY}"
        )
    # of a target without variance there is no distance
    distance = tuple(map(float, read_array(group, "distance", len(FORMS), finite=False)))
    columns = {field: read_array(group, field, size) for field in PER_COLUMN}
    return Alignment(form, **columns, distance=distance, identified=float(group.attrs["identified"]))


def read_accuracy(path: str | Path) -> dict[str, TargetFit]:
    """TargetFit of every target of a decoder file, without reading its betas."""
    with opened(path) as file:
        return read_fits(file["decoder"])


def read_notes(path: str | Path) -> list[str]:
    """What a decoder file says of how it was fitted, for the page."""
    with opened(path) as file:
        network, fits = file.attrs.get("network", ""), file["decoder/fits"]
        words = [f"captions: {file.attrs[ATTRIBUTE]}"] if ATTRIBUTE in file.attrs else []
        errors = {n: float(fits[n]["compact"].attrs["error"]) for n in TARGETS if n in fits and "compact" in fits[n]}
        rank = read_params(file["decoder"]).ridge_rank
    notes = [*words, f"network decoder: {network}"] if network else words
    return [*notes, f"reduced decoder: {reduced(rank, errors)}"] if errors else notes


def join_decoders(paths: Sequence[str | Path], path: str | Path) -> None:
    """Write one decoder file from files of decoders that were fitted to different targets of the same betas.

    Raises
    ------
    DecodingError
        If a file is none, two files have the same target, or their betas, kinds or parameters differ.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(opened(part)) for part in paths]
        if len(parts) > 1:
            _check_parts(parts, paths)
        with creating_hdf5(path) as file:
            _join(parts, file)
            kept.moved(file["decoder"], Path(path))


def _check_parts(parts: list[h5py.File], paths: Sequence[str | Path]) -> None:
    names = [name for part in parts for name in part["decoder/fits"]]
    if len(set(names)) != len(names):
        raise DecodingError(f"decoders to join must have different targets, got {names}. Leave one of the files out.")
    first = parts[0]["decoder"]
    if SHARED in first:
        raise DecodingError(
            f"decoders to join must be of a kind that fits every target on its own, got {first.attrs.get('kind')}. Fit "
            "all targets at once."
        )
    for part, where in zip(parts[1:], paths[1:], strict=True):
        other = part["decoder"]
        same = all(first.attrs.get(key) == other.attrs.get(key) for key in ("kind", "params", kept.PLACE))
        # not every kind keeps them
        have = [key for key in ("stimulus_ids", "beta_mean") if key in first or key in other]
        if not same or any(not np.array_equal(first[key], other[key]) for key in have):
            raise DecodingError(f"decoders to join must be of the same betas and parameters, got others in {where}.")


def _join(parts: list[h5py.File], file: h5py.File) -> None:
    """The first part, and the targets and fits of the others; targets in the project's order."""
    first = parts[0]
    file.attrs.update(first.attrs)
    if "stimulus_id" in first:
        file["stimulus_id"] = first["stimulus_id"][...]
    group = file.create_group("decoder")
    group.attrs.update(first["decoder"].attrs)
    for key in first["decoder"]:
        if key != "fits":
            first.copy(f"decoder/{key}", group)
    fits = group.create_group("fits")
    owner = {name: part for part in parts for name in part["decoder/fits"]}
    for name in sorted(owner, key=TARGETS.index):
        part = owner[name]
        if dataset_name(name) in part:
            part.copy(dataset_name(name), file, dataset_name(name))
        part.copy(f"decoder/fits/{name}", fits)
