"""ROI volumes and their label tables."""

from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.registry import HEMISPHERES
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.label_tables import parse_label_table
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, check_grid, read_labels


@dataclass
class Rois:
    """One family of regions, such as prf-visualrois.

    Attributes
    ----------
    name : str
        The family.
    labels : (X, Y, Z) int, or (2, vertices) on a surface
        -1 not cortex (of this hemisphere), 0 unlabelled cortex, 1..N regions.
    names : dict of int to str
        Name of each label above 0.
    affine : (4, 4) float or None
        Voxel to millimetres; None on a surface.
    """

    name: str
    labels: np.ndarray
    names: dict[int, str]
    affine: np.ndarray | None

    def of(self, betas: Responses) -> dict[str, np.ndarray]:
        """Which voxels of `betas` are in each region, (n_voxels,) bool by name.

        Raises
        ------
        NSDError
            If the volume has another shape or affine than the betas, or the betas have no geometry.
        """
        if betas.voxels is None or betas.shape is None:
            raise NSDError(f"betas must have voxel positions to apply {self.name}, got betas without geometry.")
        check_grid(f"ROI {self.name}", (self.labels.shape, self.affine), (betas.shape, betas.affine))
        here = self.labels[tuple(betas.voxels.T)]
        labels: dict[str, list[int]] = {}
        for label, name in self.names.items():
            if label > 0:
                labels.setdefault(name, []).append(label)
        return {name: np.isin(here, several) for name, several in labels.items()}


def available(layout: Layout) -> list[str]:
    """ROI families on disk, with hemisphere prefixes and suffix removed."""
    names = {path.name.removesuffix(".nii.gz") for path in layout.roi_folder.glob("*.nii.gz")}
    return sorted({name.removeprefix("lh.").removeprefix("rh.") for name in names})


def read_rois(layout: Layout, name: str) -> Rois:
    """Read NAME.nii.gz, or lh.NAME and rh.NAME merged, with the label table.

    Raises
    ------
    NSDError
        If there is no such family (the message lists those there are) or its labels are not whole numbers.
    """
    labels, affine = _merged(layout, name)
    table = next((parse_label_table(p) for p in layout.label_tables(name) if p.is_file()), {})
    return Rois(name, labels, label_names(name, labels, table), affine)


def read_sides(layout: Layout) -> np.ndarray | None:
    """Place in `HEMISPHERES` of every voxel (X, Y, Z), -1 where it is not known; None where no family has a volume of
    each hemisphere.

    NSD's lh. and rh. volumes are -1 where there is no cortex of that hemisphere.

    Raises
    ------
    NSDError
        If the two are of different grids.
    """
    for name in available(layout):
        files = [layout.roi_folder / f"{side}.{name}.nii.gz" for side in HEMISPHERES]
        if all(path.is_file() for path in files):
            (left, grid), (right, other) = map(read_labels, files)
            check_grid(str(files[1]), (right.shape, other), (left.shape, grid), files[1])
            known = np.stack([left >= 0, right >= 0])
            return np.where(known.sum(0) == 1, known.argmax(0), -1)
    return None


def _merged(layout: Layout, name: str) -> tuple[np.ndarray, np.ndarray]:
    files = [layout.roi_folder / f"{name}.nii.gz"]
    if not files[0].is_file():
        files = [layout.roi_folder / f"{side}.{name}.nii.gz" for side in ("lh", "rh")]
        files = [path for path in files if path.is_file()]
    if not files:
        raise NSDError(f"roi must be one of {available(layout)} in {layout.roi_folder}, got {name!r}.")
    labels, affine = read_labels(files[0])
    for path in files[1:]:
        other, other_affine = read_labels(path)
        check_grid(str(path), (other.shape, other_affine), (labels.shape, affine), path)
        # -1 is "not this hemisphere's cortex", so the larger value is the one that knows
        labels = np.maximum(labels, other)
    return labels, affine


def label_names(name: str, labels: np.ndarray, table: dict[int, str]) -> dict[int, str]:
    """Names of labels by their table; a region without an entry gets the family's name, with its number if several."""
    present = [int(k) for k in np.unique(labels[labels > 0])]
    fallback = (lambda k: name) if len(present) == 1 else (lambda k: f"{name}-{k}")
    names = {k: v for k, v in table.items() if k > 0}
    return dict(sorted(({k: fallback(k) for k in present if k not in names} | names).items()))
