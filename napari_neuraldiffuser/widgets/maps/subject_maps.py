"""Contribution maps, regions and ROI table of one subject in memory, and what they say at a place in mm.

Needs neither Qt nor napari, so that a thread can read them.  Places are (R, A, S) in mm, as nibabel has them.
"""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import TARGETS
from napari_neuraldiffuser.core.nsd.reading import volumes
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.outputs.report.slices import unit_of
from napari_neuraldiffuser.widgets.files.layer_info import reversed_axes
from napari_neuraldiffuser.widgets.files.outputs import OutputFolderError, SubjectOutputs, region_names
from napari_neuraldiffuser.widgets.files.reader import ReadError, volume_layer
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

USED = "voxels that the decoder uses"
OUTSIDE = "outside "
"""Begins the name of the row with a family's remaining voxels."""
NAMES = {"z": "z, image latent", "c": "c, text embedding"}
SIGNS = ("positive", "negative", "both")


@dataclass(frozen=True)
class Volume:
    """One volume as its file has it, for values, and as napari shows it."""

    values: np.ndarray
    """(X, Y, Z), in the file's own order of axes."""
    affine: np.ndarray
    """(4, 4), of the file: index to (R, A, S) in mm."""
    shown: np.ndarray
    """(Z, Y, X), along the world's axes; another grid than the file's only where that is oblique."""
    placing: dict[str, Any]
    """affine (4, 4) from shown index to (S, A, R) in mm, units and axis_labels of a layer, metadata."""

    @cached_property
    def _to_index(self) -> np.ndarray:
        return np.linalg.inv(self.affine)

    @cached_property
    def _to_shown(self) -> np.ndarray:
        return np.linalg.inv(self.placing["affine"])

    def indices(self, places: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Nearest file index (n, 3) of each place (n, 3), and whether it is inside (n,)."""
        nearest = np.rint(apply_affine(self._to_index, np.atleast_2d(places))).astype(int)
        return nearest, ((nearest >= 0) & (nearest < self.values.shape)).all(axis=1)

    def index(self, place: npt.ArrayLike) -> tuple[int, int, int] | None:
        """File index of the voxel at a place, None outside the volume."""
        (nearest,), (inside,) = self.indices(place)
        i, j, k = nearest.tolist()
        return (i, j, k) if inside else None

    def centre(self, index: Sequence[int]) -> np.ndarray:
        """Give the place of a voxel's centre."""
        return apply_affine(self.affine, index)

    def shown_index(self, place: npt.ArrayLike) -> np.ndarray:
        """Nearest index (z, y, x) of what is shown; may lie outside."""
        return np.rint(apply_affine(self._to_shown, np.asarray(place)[::-1])).astype(int)


@dataclass(frozen=True)
class Family:
    """One family of regions: label volume, and label to name."""

    name: str
    volume: Volume
    names: dict[int, str]

    def label(self, roi: str) -> int | None:
        """Number of a region; 0 for what is outside all of them, None where it has none."""
        if roi.startswith(OUTSIDE):
            return 0
        return next((k for k, name in self.names.items() if name == roi and k > 0), None)

    def labels_at(self, places: npt.ArrayLike) -> np.ndarray:
        """Label of each place (n, 3), 0 outside the volume."""
        indices, inside = self.volume.indices(places)
        labels = np.zeros(len(indices), dtype=int)
        labels[inside] = self.volume.values[tuple(indices[inside].T)]
        return labels

    def at(self, place: npt.ArrayLike) -> str:
        """Name of the region at a place, or nothing."""
        label = int(self.labels_at(place)[0])
        return self.names.get(label, f"label {label}") if label > 0 else ""

    @cached_property
    def _slices(self) -> tuple[np.ndarray, ...]:
        """Of every shown axis: which labels (rows) occur in which slice (columns)."""
        shown = self.volume.shown
        places = np.nonzero(shown > 0)
        labels = shown[places]
        occurring = tuple(np.zeros((max(self.names, default=0) + 1, n), dtype=bool) for n in shown.shape)
        known = labels < len(occurring[0])
        for present, index in zip(occurring, places, strict=True):
            present[labels[known], index[known]] = True
        return occurring

    def in_slice(self, axis: int, place: npt.ArrayLike) -> set[str]:
        """Regions with a voxel in the slice across shown axis 0 (S), 1 (A) or 2 (R) through a place."""
        i = int(self.volume.shown_index(place)[axis])
        present = self._slices[axis]
        if not 0 <= i < present.shape[1]:
            return set()
        return {self.names[k] for k in np.flatnonzero(present[:, i]).tolist() if k in self.names and k > 0}


@dataclass(frozen=True)
class Row:
    """One row of the ROI table; shares and errors are those of the TSV."""

    family: str
    roi: str
    target: str
    share: float
    se: float
    n_voxels: int
    kind: str = ""
    """Of the share, such as "product-measure"; nothing where the table does not say."""
    p: float | None = None
    """By permutation, adjusted for the false discovery rate over regions; None where it was not tested."""

    @property
    def outside(self) -> bool:
        """Whether it stands for the voxels of no region."""
        return self.roi.startswith(OUTSIDE)


@dataclass(frozen=True)
class SubjectMaps:
    """What one subject's output folder holds: target to map and file, family to regions, table, and remarks."""

    label: str
    maps: dict[str, Volume]
    paths: dict[str, Path]
    families: dict[str, Family]
    rows: list[Row]
    notes: list[str]

    @property
    def unit(self) -> str:
        """What the shares are fractions of, as the table says."""
        return unit_of(self.rows[0].kind if self.rows else "")

    @cached_property
    def used(self) -> Family | None:
        """The voxels that the decoder uses, as a family of one region: all others have no share, not a share of 0."""
        first = next(iter(self.maps.values()), None)
        if first is None:
            return None
        alike = [volume for volume in self.maps.values() if volume.shown.shape == first.shown.shape]
        values, shown = (
            np.any([getattr(one, name) != 0 for one in alike], axis=0).astype(np.int32) for name in ("values", "shown")
        )
        return Family(USED, Volume(values, first.affine, shown, first.placing), {1: USED})

    def peak(self, target: str, family: Family, roi: str, sign: str) -> np.ndarray | None:
        """Centre of the region's voxel that adds most (positive), removes most (negative), or either (both).

        None where the region has no voxel with a share.
        """
        label = family.label(roi)
        volume = self.maps[target]
        indices = np.argwhere(volume.values != 0)
        if label is None or not len(indices):
            return None
        places = apply_affine(volume.affine, indices)
        own = family.labels_at(places) == label
        if not own.any():
            return None
        shares = volume.values[tuple(indices[own].T)]
        ranked = {"positive": shares, "negative": -shares, "both": np.abs(shares)}[sign]
        return places[own][int(ranked.argmax())]


def read_subject(outputs: SubjectOutputs, progress: Progress) -> SubjectMaps:
    """Read every map, region and the table of one subject.

    Raises
    ------
    ReadError, OutputFolderError
        Where a map or the table is damaged; a damaged region volume becomes a note.
    """
    targets = sorted(outputs.maps, key=lambda t: TARGETS.index(t) if t in TARGETS else len(TARGETS))
    total = len(targets) + len(outputs.regions)
    maps: dict[str, Volume] = {}
    families: dict[str, Family] = {}
    notes: list[str] = []
    for target in targets:
        progress(len(maps), total, "reading maps")
        maps[target] = read_map(outputs.maps[target])
    for name, path in outputs.regions.items():
        progress(len(maps) + len(families), total, "reading regions")
        try:
            families[name] = read_family(name, path)
        except (ReadError, OutputFolderError) as error:
            notes.append(str(error))
    rows = read_rows(outputs.table) if outputs.table else []
    return SubjectMaps(outputs.label, maps, dict(outputs.maps), families, rows, notes)


def read_map(path: str | Path) -> Volume:
    """One contribution map; what is not a number becomes 0, which is no contribution."""
    values, affine = _read(volumes.read_volume, path)
    return make_volume(np.nan_to_num(np.asarray(values, dtype=np.float32)), affine, path)


def _read(
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]], path: str | Path
) -> tuple[np.ndarray, np.ndarray]:
    """Values and affine of a volume; ReadError for what is none."""
    try:
        return read(Path(path), "file")
    except NSDError as error:
        raise ReadError(str(error)) from error


def make_volume(values: np.ndarray, affine: np.ndarray, path: str | Path) -> Volume:
    """A Volume of values (X, Y, Z) whose shown half is a view of them where the grid is not oblique."""
    image = nib.Nifti1Image(values, affine)
    if np.issubdtype(values.dtype, np.integer):
        image.header.set_intent("label")
    shown, keywords, _ = volume_layer(image, path)
    placing = {key: keywords[key] for key in ("affine", "units", "axis_labels", "metadata")}
    return Volume(values, np.asarray(affine), shown, placing)


def read_family(name: str, path: Path) -> Family:
    """One family from its label volume and the table of names beside it."""
    labels, affine = _read(volumes.read_labels, path)
    labels = np.maximum(labels, 0)
    names = region_names(path) or {int(k): f"label {k}" for k in np.unique(labels) if k > 0}
    family = Family(name, make_volume(labels, affine, path), names)
    _ = family._slices  # made here, in the reader's thread
    return family


def family_of_layer(layer: "napari.layers.Layer") -> Family | None:
    """The family that a Labels layer of our readers shows; None for any other layer."""
    about = layer.metadata.get(KEY) or {}
    columns = getattr(layer, "features", {})
    if about.get("kind") != "roi" or "roi" not in columns or "index" not in columns or layer.ndim != 3:
        return None
    placed = np.asarray(layer.affine.affine_matrix)
    shown = np.asarray(layer.data)
    names = {int(k): str(n) for k, n in zip(columns["index"], columns["roi"], strict=True) if int(k) > 0 and n}
    placing = {"affine": placed, "units": layer.units, "axis_labels": layer.axis_labels, "metadata": {}}
    volume = Volume(shown.transpose(), reversed_axes(placed), shown, placing)
    return Family(str(about.get("family") or layer.name), volume, names)


def target_name(target: str) -> str:
    """A target as a list shows it."""
    number = target.removeprefix("g")
    return NAMES.get(target) or (f"{target}, guidance layer {int(number)}" if number.isdigit() else target)


def plain(family: str) -> str:
    """A family's name as file names have it."""
    return re.sub(r"[^0-9A-Za-z]", "", family)


def read_rows(table: Path) -> list[Row]:
    """Rows of `sub-XX_contribution.tsv`.

    Raises
    ------
    OutputFolderError
        If the table lacks a column or holds something that is not a number.
    """
    try:
        with open(table, newline="", encoding="utf-8") as stream:
            return [_row(values) for values in csv.DictReader(stream, delimiter="\t")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputFolderError(
            f"{table} must have the columns roi, target, share and se, got a row without a usable {error}. "
            "Run the contribution step again."
        ) from error


def _row(values: dict[str, str]) -> Row:
    share, se = (np.nan if values[key] == "n/a" else float(values[key]) for key in ("share", "se"))
    family, n = values.get("family") or "", int(values.get("n_voxels") or 0)
    p = None if values.get("p_fdr", "n/a") in ("n/a", "") else float(values["p_fdr"])
    return Row(family, values["roi"], values["target"], share, se, n, values.get("kind") or "", p)
