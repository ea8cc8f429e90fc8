"""Anatomy, regions, seen images and starting points beside a run's results, so that a viewer needs no NSD tree."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.gifti.gifti import GiftiLabel

from napari_neuraldiffuser.core.base.contracts import StimulusIds
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path, write_json
from napari_neuraldiffuser.core.base.names import FROM_SCANS, Derivatives, remove_stale, sidecar, stem
from napari_neuraldiffuser.core.base.registry import HEMISPHERES

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

    from napari_neuraldiffuser.core.nsd import BrainSource, Rois

UNREGIONED = "background"
COMPRESSION = 6
LARGEST_BRAIN = 2.2e6
"""In mm³: hardly a brain is larger, and a head with its neck is 3.5 to 5 million."""


def write_anatomy(subject: "BrainSource", places: Derivatives) -> list[str]:
    """Write the anatomy and every ROI family, with label tables, to the subject's `anat` folder, and no others stay.

    Parameters
    ----------
    subject : BrainSource
    places : Derivatives

    Returns
    -------
    list of str
        Notes on families that cannot be read: they are left out, as nothing that was computed needs them.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    notes, kept = [], set()
    anatomy = subject.anatomy()
    if anatomy is not None:
        _write_if_new(places.anatomy, volume_bytes(anatomy))
        kept.add(places.anatomy.name)
    for name in subject.roi_names():
        try:
            rois = subject.rois(name)
        except UserError as error:
            notes.append(f"ROI {name} is not among the written regions: {error}")
            continue
        kept |= {path.name for path in _write_family(rois, places)}
    remove_stale(places, kept, FROM_SCANS)
    return notes


def _write_family(rois: "Rois", places: Derivatives) -> list[Path]:
    """One family as a label volume with its table, or as the labels of both hemispheres."""
    if places.on_surface:
        surfaces = places.surface_regions(rois.name)
        write_surface_regions(rois, surfaces)
        return surfaces
    volume = places.regions(rois.name)
    write_regions(rois, volume)
    return [volume, _table(volume)]


def write_surface_regions(rois: "Rois", paths: Sequence[Path]) -> None:
    """Write one family as GIfTI labels of each hemisphere (`.label.gii`), which have the names, and sidecars."""
    from napari_neuraldiffuser.core.nsd.reading.surfaces import gifti

    names = {0: UNREGIONED, **{k: name for k, name in rois.names.items() if k > 0}}
    for labels, path, hemi in zip(np.maximum(rois.labels, 0), paths, HEMISPHERES.values(), strict=True):
        image = gifti(labels[None], hemi, "NIFTI_INTENT_LABEL", np.int32)
        for key, name in names.items():
            label = GiftiLabel(key=key, red=0, green=0, blue=0, alpha=float(key > 0))
            label.label = name  # type: ignore[attr-defined]  # nibabel sets it from outside, too
            image.labeltable.labels.append(label)
        _write_if_new(path, image.to_xml())
        about = sidecar(path)
        if not about.is_file():
            write_json(about, {"Family": rois.name})


def write_regions(rois: "Rois", path: Path) -> None:
    """Write one family as a label volume (`.nii.gz`), a BIDS label table (`.tsv`) and a sidecar with its name."""
    labels = np.maximum(rois.labels, 0)
    image = nib.Nifti1Image(labels.astype(np.min_scalar_type(int(labels.max(initial=0)))), rois.affine)
    image.header.set_intent("label")
    image.header.set_xyzt_units("mm")
    _write_if_new(path, volume_bytes(image))
    rows = [(0, UNREGIONED), *((k, name) for k, name in rois.names.items() if k > 0)]
    table = "index\tname\n" + "".join(f"{k}\t{name}\n" for k, name in rows)
    _write_if_new(_table(path), table.encode())
    about = sidecar(path)
    if not about.is_file():
        write_json(about, {"Family": rois.name})


def _table(volume: Path) -> Path:
    """The label table of a volume of regions."""
    return volume.with_name(f"{stem(volume.name)}.tsv")


def looks_stripped(path: Path) -> bool:
    """Whether a T1 has nothing but a brain, which BIDS wants to be told and no source says.

    Told by its voxels that are not zero: no more of them than a brain takes, and none at the border of the volume.
    """
    image = nib.Nifti1Image.from_filename(path)
    there = np.nan_to_num(np.asanyarray(image.dataobj)) != 0
    volume = there.sum() * abs(np.linalg.det(image.affine[:3, :3]))
    border = any(face.any() for axis in range(3) for face in (there.take(0, axis), there.take(-1, axis)))
    return bool(volume < LARGEST_BRAIN and not border)


def write_shown(places: Derivatives, stimulus_ids: StimulusIds, seen: np.ndarray, start: np.ndarray) -> None:
    """Write what reconstructions are compared with.

    Parameters
    ----------
    places : Derivatives
    stimulus_ids : sequence of int, (n,)
    seen, start : ndarray (n, H, W, 3) uint8
        Seen images; decoded starting points.
    """
    for what, images in (("seen", seen), ("start", start)):
        for stimulus, image in zip(stimulus_ids, images, strict=True):
            _write_if_new(places.shown(int(stimulus), what), png_bytes(image))


def volume_bytes(image: "SpatialImage") -> bytes:
    """A NIfTI image as the bytes of a `.nii.gz`: equal images give equal bytes.  A unit that is not said is mm."""
    written = nib.Nifti1Image.from_image(image)
    if written.header.get_xyzt_units()[0] == "unknown":
        written = nib.Nifti1Image(written.dataobj, written.affine, written.header)
        written.header.set_xyzt_units("mm")
    return gzip.compress(written.to_bytes(), COMPRESSION, mtime=0)


def png_bytes(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="png", optimize=True)
    return stream.getvalue()


def _write_if_new(path: Path, content: bytes) -> None:
    """Atomically, and not at all where the file has that content: a resumed run touches nothing."""
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
