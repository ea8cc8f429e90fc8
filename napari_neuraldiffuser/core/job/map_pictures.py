"""Pictures of contribution maps for the page: slices, seen through the brain, and on fsaverage."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import nibabel
import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.outputs.report.flat import DRAWN, DRAWN_AS, NOT_DRAWN, flat_maps
from napari_neuraldiffuser.core.outputs.report.glass import glass_brain
from napari_neuraldiffuser.core.outputs.report.slices import SliceStyle, contribution_slices, limit_of

OUTLINED = "prf-visualrois"
LIFTED = (
    "on fsaverage a vertex has the mean share of the voxels at 25, 50 and 75 % of the depth of its grey matter, by "
    f"NSD's transforms; {DRAWN:,} vertices of each hemisphere are drawn, and shares outside grey matter are not"
)


class Maps(Protocol):
    """Contribution maps by target, of a volume or of a surface."""

    def volumes(self) -> dict[str, nibabel.Nifti1Image]: ...

    def surfaces(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class MapPictures:
    """PNGs of every target.

    Attributes
    ----------
    slices : dict of str to bytes
        Slices, or flat hemispheres of a map on a surface.
    views : dict of str to sequence of bytes
        Other pictures of the same map in the same colours.
    notes : sequence of str
        What is to be said of how they are drawn.
    """

    slices: dict[str, bytes] = field(default_factory=dict)
    views: dict[str, list[bytes]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def map_pictures(
    maps: Maps, unit: str, subject: nsd.BrainSource, places: Derivatives, records: Records, progress: Progress
) -> MapPictures:
    """Draw what has changed, and read the rest from where it was drawn to.

    `unit` stands at the colour bar: what the maps' values are fractions of.
    """
    artist = _Artist(unit, subject, places, records, progress)
    if not places.on_surface:
        return artist.of_volumes(maps.volumes())
    surfaces = maps.surfaces()
    if not surfaces:
        return MapPictures()
    n = next(iter(surfaces.values())).shape[1]
    drawable = {target: values for target, values in surfaces.items() if values[:, :DRAWN].any()}
    if n < DRAWN or not drawable:
        return MapPictures(notes=[NOT_DRAWN.format(n=n)])
    return MapPictures(artist.flat(drawable), notes=[DRAWN_AS.format(n=n)] * (n > DRAWN))


@dataclass(frozen=True)
class _Artist:
    """Draws the maps of one subject; a picture again only when its map, the anatomy or the outlines changed."""

    unit: str
    subject: nsd.BrainSource
    places: Derivatives
    records: Records
    progress: Progress

    @property
    def style(self) -> SliceStyle:
        return SliceStyle(label=self.unit)

    def outlines(self) -> nsd.Rois | None:
        return self.subject.rois(OUTLINED) if OUTLINED in self.subject.roi_names() else None

    def flat(self, surfaces: Mapping[str, np.ndarray]) -> dict[str, bytes]:
        """Both hemispheres laid flat."""
        outlines = self.outlines()
        made_from: list[str | None] = [self.unit, *(_digest(values, None, 7) for values in surfaces.values())]
        made_from.append(None if outlines is None else _digest(outlines.labels, None, 0))

        def draw(target: str) -> bytes:
            return flat_maps(surfaces[target], outlines, self.style)

        return self._drawn("slices", made_from, {target: self.places.slices(target) for target in surfaces}, draw)

    def of_volumes(self, volumes: Mapping[str, nibabel.Nifti1Image]) -> MapPictures:
        """Slices, views through the brain and, where files say how, fsaverage."""
        anatomy, outlines = self.subject.anatomy(), self.outlines()
        # rounded: a sum in another order does not count as another map
        made_from: list[str | None] = [self.unit, *(_digest(v.get_fdata(), v.affine, 7) for v in volumes.values())]
        made_from.append(None if anatomy is None else _digest(anatomy.get_fdata(), anatomy.affine, 3))
        made_from.append(None if outlines is None else _digest(outlines.labels, outlines.affine, 0))

        def cut(target: str) -> bytes:
            return contribution_slices(volumes[target], anatomy, outlines, self.style)

        def through(target: str) -> bytes:
            return glass_brain(volumes[target], anatomy, self.style)

        slices = self._drawn("slices", made_from, {target: self.places.slices(target) for target in volumes}, cut)
        glass = self._drawn("glass", made_from, self._views("glass", volumes), through)
        on_fsaverage, notes = self._lifted(volumes, outlines, made_from)
        views = {target: [glass[target], *filter(None, [on_fsaverage.get(target)])] for target in volumes}
        return MapPictures(slices, views, notes)

    def _lifted(
        self, volumes: Mapping[str, nibabel.Nifti1Image], outlines: nsd.Rois | None, made_from: list[str | None]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Maps brought to fsaverage, and what is to be said of them; none without the files that this takes."""
        try:
            lift = self.subject.lift()
        except UserError as error:
            return {}, [f"maps are not drawn on fsaverage: {error}"]
        if lift is None or not volumes:
            return {}, []
        values = {target: lift(volume.get_fdata()) for target, volume in volumes.items()}
        drawable = {target: lifted for target, lifted in values.items() if _can_be_drawn(lifted)}
        if not drawable:
            return {}, ["maps are not drawn on fsaverage: none of its vertices lies in the mask, by NSD's transforms"]
        regions = None if outlines is None else nsd.Rois(OUTLINED, lift.labels(outlines.labels), outlines.names, None)

        def draw(target: str) -> bytes:
            limit = limit_of(np.nan_to_num(volumes[target].get_fdata()))
            return flat_maps(drawable[target], regions, self.style, limit)

        lifted = [_digest(values, None, 7) for values in drawable.values()]
        return self._drawn("fsaverage", [*made_from, *lifted], self._views("fsaverage", drawable), draw), [LIFTED]

    def _views(self, view: str, targets: Mapping[str, object]) -> dict[str, Path]:
        return {target: self.places.view(target, view) for target in targets}

    def _drawn(
        self, what: str, made_from: list[str | None], paths: Mapping[str, Path], draw: Callable[[str], bytes]
    ) -> dict[str, bytes]:
        """The pictures of `paths`, drawn where the record does not vouch for them."""

        def work() -> None:
            for k, (target, path) in enumerate(paths.items()):
                self.progress(k, len(paths), "slices")
                with atomic_path(path) as temporary:
                    temporary.write_bytes(draw(target))
            self.progress(len(paths), len(paths), "slices")

        self.records.make(what, made_from, paths.values(), work)
        return {target: path.read_bytes() for target, path in paths.items()}


def _can_be_drawn(lifted: np.ndarray) -> bool:
    return lifted.shape[1] >= DRAWN and bool(lifted[:, :DRAWN].any())


def _digest(values: np.ndarray, affine: np.ndarray | None, decimals: int) -> str:
    rounded = np.round(values, decimals) + 0.0  # no -0
    place = b"" if affine is None else np.asarray(affine).tobytes()
    return hashlib.sha256(rounded.astype(np.float32).tobytes() + place).hexdigest()
