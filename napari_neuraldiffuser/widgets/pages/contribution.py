"""Panel: contribution maps as a thresholded overlay with region outlines, linked to their ROI table and to clicks."""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.outputs.report.slices import region_colours
from napari_neuraldiffuser.widgets.files.arrival import Arrival, answers, arriving_in
from napari_neuraldiffuser.widgets.files.layer_info import kind_of
from napari_neuraldiffuser.widgets.files.layers import add_anatomy
from napari_neuraldiffuser.widgets.files.view import steps_to_view
from napari_neuraldiffuser.widgets.maps.outlines import Outlines, families_in
from napari_neuraldiffuser.widgets.maps.overlay import LookControls, Overlay, RegionControls, open_title
from napari_neuraldiffuser.widgets.maps.probe import Probe, VoxelFacts, describe, look_up
from napari_neuraldiffuser.widgets.maps.region_names import RegionNames
from napari_neuraldiffuser.widgets.maps.roi_table import RoiTable
from napari_neuraldiffuser.widgets.maps.source import LATE, MapAge, MapSource, SaveRow
from napari_neuraldiffuser.widgets.maps.subject_maps import Family, SubjectMaps, plain, target_name
from napari_neuraldiffuser.widgets.maps.surfaces import RegionSurfaces
from napari_neuraldiffuser.widgets.session.controls import StageControls, add, form
from napari_neuraldiffuser.widgets.session.panel import Panel
from napari_neuraldiffuser.widgets.views.clicks import weakly

MARK_AFTER = 60
"""Milliseconds without another slice after which the regions in view are marked."""
INVITATION = "Click a voxel in the canvas: its regions, and what it adds to every target, appear here."
REMOVED = "The layers were removed while the folder was read. Open it again to show its maps."
IN_3D = "Voxels are named in slices: switch the viewer to 2D to click one."


class ContributionPanel(Panel):
    """Which voxels and regions carried each decoded target.

    Parameters
    ----------
    viewer : napari.Viewer
        Receives one Image layer "contribution", outlines of regions, and a cross where the user clicked, in mm.
    """

    name = "contribution"
    title = "Contribution"
    run_text = "Compute contribution maps"

    def build(self) -> None:
        """The controls, from top to bottom, and what they show."""
        self.maps: SubjectMaps | None = None
        self._arrival: Arrival | None = None
        self.families: dict[str, Family] = {}
        self.overlay, self.outlines = Overlay(self.viewer), Outlines(self.viewer)
        self.names, self.surfaces = RegionNames(self.viewer), RegionSurfaces(self.viewer)
        self.source, self.look, self.regions, self.table = MapSource(), LookControls(), RegionControls(), RoiTable()
        self.target = QComboBox(toolTip="Decoded target whose prediction is split over the voxels")
        self.age = MapAge(self.session)
        names = {"method": "Method", "roi_permutations": "Permutations", "hemispheres": "Hemispheres"}
        method = StageControls(self.session, "contribution", tuple(names), names)
        target, regions = form(None, ("Target", self.target)), form(None, ("Regions", self.regions))
        add(self.body, self.source, self.age, method, target, self.look, regions)
        self.body.addWidget(self.table, 1)
        self.listen = QCheckBox("Click in the canvas names the voxel", checked=True)
        self.listen.setToolTip("Regions, shares in every target, mm and voxel index of the place that is clicked")
        self.used = QCheckBox("Outline what the decoder uses")
        self.used.setToolTip("A white line around the voxels that have a share; outside it nothing is known, not 0")
        self.voxel_text = QLabel(INVITATION, wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.voxel_text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.saving = SaveRow(self.viewer)
        self.saving.said.connect(self.say)
        self.saving.failed.connect(self.fail)
        add(self.body, self.used, self.listen, self.voxel_text, self.saving)
        self.run_tip = "Splits the decoder's prediction of the test stimuli over voxels and regions"
        self._connect()
        self._follow()

    def _connect(self) -> None:
        self.source.chosen.connect(self.session.show_output)
        self.source.told.connect(self._reading_told)
        self.source.arrived.connect(self._arrived)
        self.target.currentIndexChanged.connect(lambda _: self.show_target())
        self.look.changed.connect(self._look_changed)
        self.regions.changed.connect(self._regions_changed)
        self.table.chosen.connect(self.go_to)

    def _follow(self) -> None:
        """Listen to session and viewer, and to the viewer no longer once the panel is gone."""
        self.probe = Probe(self.viewer, weakly(self.clicked))
        self.used.toggled.connect(lambda _: self._regions_changed())
        self.listen.toggled.connect(lambda on: setattr(self.probe, "enabled", on))
        self._mark_timer = QTimer(self, singleShot=True, interval=MARK_AFTER, timeout=self.mark_slice)
        self._redraw_timer = QTimer(self, singleShot=True, interval=0, timeout=self._redraw)
        events = self.viewer.dims.events
        emitters = (events.point, events.order, events.ndisplay)
        for emitter in emitters:
            emitter.connect(self._slice_changed)
        removed = self.viewer.layers.events.removed
        removed.connect(self._layer_removed)
        slots = [(emitter, WeakMethod(self._slice_changed)) for emitter in emitters]
        slots.append((removed, WeakMethod(self._layer_removed)))
        inserted = self.viewer.layers.events.inserted
        inserted.connect(self._layer_inserted)
        slots.append((inserted, WeakMethod(self._layer_inserted)))
        self.destroyed.connect(partial(_let_go, self.probe, slots))
        session = self.session
        session.output_changed.connect(self.open_folder)
        for signal in (session.recipe_changed, session.decoded_changed):
            signal.connect(self.revalidate)
        if session.output:
            self.open_folder(session.output)

    # computing and reading

    def problems(self) -> list[str]:
        """Say what the recipe lacks."""
        if not self.session.recipe.source.given:
            return ["Data must be chosen before maps can be computed. Choose them in the Data panel."]
        if self.session.decoded is None:
            return ["Embeddings must be decoded before maps can be computed. Run Decode first."]
        return []

    def start(self) -> None:
        """Compute the maps of the recipe, then show them."""
        self.run_task("contribution", done=partial(self._computed, self.session.recipe))

    def _computed(self, started: Recipe, result: dict[str, Any]) -> None:
        if not self.age.fits(started):
            self.say(LATE)
            return
        self.session.show_output(result["folder"])
        self.age.take(started, result["folder"])

    def open_folder(self, folder: str) -> None:
        """Read an output folder in a thread; an error appears in the panel."""
        if folder:
            self.source.open(folder)

    def _reading_told(self, done: int, total: int, what: str) -> None:
        if self.task is None:
            self.say(f"{what} ({done} of {total})")

    def _arrived(self, result: Any) -> None:
        """Show what was read, in a window one layer a turn."""
        if self._arrival is not None:
            self._arrival.end()
        if isinstance(result, Exception):
            self._take(None)
            self.fail(result)
            return
        if result is None:
            self._take(None)
            self.say(REMOVED)
            return
        _, maps, anatomy = result
        steps: list[Callable[[], object]] = [partial(add_anatomy, self.viewer, anatomy), *steps_to_view(self.viewer)]
        steps += [partial(open_title, self.viewer), partial(self._take, maps)]
        steps += [self._draw_outlines, self._draw_names, partial(self._say_notes, maps.notes)]
        if answers(self.viewer):
            self._arrival = Arrival(self, steps, self.viewer)
        else:
            for step in steps:
                step()

    @property
    def arriving(self) -> bool:
        """Whether an opened folder is still to be shown in full."""
        return self.source.reading is not None or (self._arrival is not None and self._arrival.under_way)

    def _say_notes(self, notes: list[str]) -> None:
        if self.task is None:
            self.say(" ".join(notes))

    def _take(self, maps: SubjectMaps | None) -> None:
        """Show another subject's maps; target, threshold and slice stay where they can."""
        self.maps = maps
        self.outlines.clear()
        self.names.remove()
        self.surfaces.forget()
        former = self.target.currentData()
        with signals_blocked(self.target):
            self.target.clear()
            for target in maps.maps if maps else ():
                self.target.addItem(target_name(target), target)
            self.target.setCurrentIndex(max(self.target.findData(former), 0) if maps else -1)
        self._take_families()
        if maps is not None:
            self.overlay.hide_others()
        self.voxel_text.setText(INVITATION)
        self.show_target()

    def _take_families(self) -> None:
        """Regions of the folder, and of the viewer's own layers where the folder has none of that family."""
        own, rows = (self.maps.families, self.maps.rows) if self.maps else ({}, [])
        known = {plain(name) for name in own}
        shown = families_in(self.viewer) if self.maps else {}
        families = own | {name: family for name, family in shown.items() if plain(name) not in known}
        listed = list(dict.fromkeys(row.family for row in rows if row.family))
        full = {plain(name): name for name in listed}
        self.families = {full.get(plain(name), name): family for name, family in families.items()}
        self.regions.set_families(list(dict.fromkeys([*listed, *self.families])))
        self.table.colours = {
            (name, family.names[label]): colour
            for name, family in self.families.items()
            for label, colour in region_colours(family.names).items()
        }

    # overlay and outlines

    def show_target(self) -> None:
        """Show the chosen target's map and rows."""
        target = self.target.currentData()
        if self.maps is None or target is None:
            self.table.fill([])
            self.saving.path = None
            self.overlay.remove()
            self.probe.remove()
            return
        volume, self.saving.path = self.maps.maps[target], self.maps.paths[target]
        self.overlay.measure(volume)
        self.look.set_largest(self.overlay.largest(self.look.look().sign))
        told = {**volume.placing["metadata"], "target": target, "unit": self.maps.unit, "subject": self.maps.label}
        self.overlay.show(volume, self.look.look(), told)
        self._fill_table()

    def _look_changed(self) -> None:
        self.look.set_largest(self.overlay.largest(self.look.look().sign))
        if self.maps is not None:  # the layer may be another panel's, of maps that this one has not read yet
            self.overlay.apply(self.look.look())
        self.changed()

    def _regions_changed(self) -> None:
        self._fill_table()
        self._redraw()
        self.changed()

    def _chosen(self) -> dict[str, Family]:
        return {name: f for name, f in self.families.items() if self.regions.chosen in ("", name)}

    def _layer_inserted(self, event: Any) -> None:
        """Hide what of an opened folder comes after its maps are shown, as what came before was."""
        ours = kind_of(event.value) in ("contribution", "roi") and not self.overlay.made(event.value)
        if ours and self.overlay.shown and arriving_in(self.viewer):
            self.overlay.hide_others()
            self._redraw_timer.start()

    def _layer_removed(self, event: Any) -> None:
        """Nothing comes back that the user took away, until the folder is opened again."""
        if self.overlay.replacing:
            return
        if self.overlay.made(event.value):
            self.session.forget_output()
        if not self.viewer.layers:
            self.source.abandon()

    def _redraw(self) -> None:
        if not self.overlay.shown:
            return  # the user removed it: outlines and names would come back without their map
        self._draw_outlines()
        self._draw_names()

    def _draw_outlines(self) -> None:
        used = self.maps.used if self.maps is not None and self.used.isChecked() else None
        self.outlines.show(self._outlined() | ({used.name: used} if used else {}), self.regions.width.value())
        self._outline_selected()

    def _outlined(self) -> dict[str, Family]:
        """The families whose outlines are wanted."""
        return self._chosen() if self.regions.outlined.isChecked() else {}

    def _draw_names(self) -> None:
        self.names.show(self._chosen() if self.regions.named.isChecked() else {}, self.outlines.plane)

    def _outline_selected(self) -> None:
        if not self.overlay.shown:
            return
        selected = self.table.selected()
        family, roi = selected or ("", "")
        self.outlines.select(self.families.get(family), roi, self.regions.width.value())
        self.surfaces.show(self._outlined(), selected if family in self.families else None)

    # table and slice

    def _fill_table(self) -> None:
        target, family = self.target.currentData(), self.regions.chosen
        rows = self.maps.rows if self.maps else []
        self.table.set_unit(self.maps.unit if self.maps else "share")
        self.table.fill([row for row in rows if row.target == target and (not family or row.family in ("", family))])
        self.mark_slice()

    def go_to(self, family: str, roi: str) -> None:
        """Move the viewer to the slice through a region's peak, and outline the region."""
        known = self.families.get(family)
        sign = self.look.look().sign
        place = self.maps.peak(self.target.currentData(), known, roi, sign) if known else None
        self._outline_selected()
        if place is None:
            why = "has no voxel with a share" if known else "has no label volume in the output folder or the viewer"
            self.say(f"{roi} {why}.")
            return
        self.say("")
        dims = self.viewer.dims
        dims.set_point(range(dims.ndim - 3, dims.ndim), place[::-1])
        self._describe(place)

    def _slice_changed(self, event: Any) -> None:
        if event.type != "point" and self.overlay.shown:
            self._redraw_timer.start()  # later: napari may be inserting the very layer that changed the order
        self._mark_timer.start()

    def mark_slice(self) -> None:
        """Set the rows of the regions in the present slice in bold."""
        self.table.mark(self.in_view())

    def in_view(self) -> set[tuple[str, str]]:
        """(family, region) with a voxel in the slice that is shown; in 3D none is marked."""
        dims = self.viewer.dims
        if dims.ndisplay == 3 or dims.ndim < 3:
            return set()
        place = np.array(dims.point[-3:])[::-1]
        axes = [axis - (dims.ndim - 3) for axis in dims.not_displayed if axis >= dims.ndim - 3]
        regions = set()
        for name, family in self.families.items():
            slices = [family.in_slice(axis, place) for axis in axes]
            regions |= {(name, roi) for roi in set.intersection(*slices)} if slices else set()
        return regions

    # a voxel

    def clicked(self, place: np.ndarray | None) -> None:
        """Say what is at a place (R, A, S) in mm, mark it, and select the row of its region."""
        voxel = self._describe(place)
        if voxel is not None:
            self.table.select(set(voxel.regions.items()))
            self._outline_selected()

    def _describe(self, place: np.ndarray | None) -> VoxelFacts | None:
        """Say what is at a place and mark it; what that is, None where nothing is known of it."""
        target = self.target.currentData()
        if self.maps is None or target is None:
            return None
        if place is None:
            self.voxel_text.setText(IN_3D)
            return None
        voxel = look_up(self.maps, target, self.families, place)
        self.voxel_text.setText(describe(voxel, target, target_name(target), self.maps.unit))
        if voxel is not None and self.overlay.shown:
            self.probe.mark(self.maps.maps[target], voxel.place)
        return voxel

    # memory

    def state(self) -> dict[str, Any]:
        """Look and outlines; the folder is opened anew each time."""
        return {**self.look.state(), **self.regions.state(), **self._ticks()}

    def _ticks(self) -> dict[str, bool]:
        return {"listen": self.listen.isChecked(), "used": self.used.isChecked()}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave."""
        self.look.restore(values)
        self.regions.restore(values)
        self.listen.setChecked(bool(values.get("listen", True)))
        self.used.setChecked(bool(values.get("used", False)))


def _let_go(probe: Probe, slots: list[tuple[Any, WeakMethod]], *_: Any) -> None:
    probe.close()
    for emitter, slot in slots:
        if (alive := slot()) is not None:
            emitter.disconnect(alive)
