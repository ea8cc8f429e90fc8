"""Neurological and radiological view, anatomical planes, places in mm: for layers in (S, A, R) mm (see reader)."""

import contextlib
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.widgets.files.layer_info import kind_of
from napari_neuraldiffuser.widgets.session import keys
from napari_neuraldiffuser.widgets.session.state import preferences

if TYPE_CHECKING:
    import napari

CONVENTIONS = ("neurological", "radiological")
RULES = {"neurological": "the left side is on the left", "radiological": "the right side is on the left"}
PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Order of the axes S, A, R: the slider first, then up, then to the right."""
ENDS = {"S": "IS", "A": "PA", "R": "LR"}
"""What lies at the low and the high end of an axis."""
SIDES = {"left": "middle_left", "right": "middle_right", "up": "top_center", "down": "bottom_center"}
NOTES = "volume_notes"
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
EVEN = ("SAR", "ARS", "RSA")


class PlaceError(UserError):
    """A plane or place that the viewer cannot show."""


_VIEWS: dict[int, "AnatomicalView"] = {}


class AnatomicalView:
    """Keeps a viewer's camera and the letters at its edges in agreement with the convention, in every slice order.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    convention : {"neurological", "radiological"}
        Which way the left-right axis runs in 2D.  In 3D the head is never mirrored.
    """

    def __init__(self, viewer: "napari.Viewer", convention: str) -> None:
        from napari.utils.events import EmitterGroup, Event

        self._viewer = weakref.ref(viewer)
        self.events = EmitterGroup(source=self, changed=Event)
        """`changed`: convention, order of the axes or letters."""
        self.convention = convention
        events, layers = viewer.dims.events, viewer.layers.events
        for event in (events.order, events.ndisplay, events.ndim, layers.inserted, layers.removed, layers.renamed):
            event.connect(self.apply)

    @classmethod
    def of(cls, viewer: "napari.Viewer") -> "AnatomicalView":
        """The view of a viewer, which from now on is anatomical and has the keys."""
        viewer = getattr(viewer, "__wrapped__", viewer)  # plugins are handed a proxy
        key = id(viewer)
        if key not in _VIEWS:
            chosen = preferences()["convention"]
            _VIEWS[key] = cls(viewer, chosen if chosen in CONVENTIONS else CONVENTIONS[0])
            weakref.finalize(viewer, _VIEWS.pop, key, None)
            # napari slices in 3D before anyone can hide outlines, and would say so over the scale bar each time
            warnings.filterwarnings("ignore", "Contours are not displayed", UserWarning)
            _show_scale_bar(viewer)
            bind_keys(viewer)
            _VIEWS[key].apply()
        return _VIEWS[key]

    def choose(self, convention: str) -> None:
        """Take another convention and say so in the status bar."""
        if convention not in CONVENTIONS:
            raise PlaceError(f"convention must be one of {list(CONVENTIONS)}, got {convention!r}.")
        self.convention = convention
        self.apply()
        viewer = self._viewer()
        if viewer is not None:
            viewer.status = f"{convention} view: {RULES[convention]}"

    def apply(self, event: "napari.utils.events.Event | None" = None) -> None:
        """Turn the camera and write the letters for the axes that are displayed now."""
        viewer = self._viewer()
        if viewer is None:
            return
        axes = displayed_axes(viewer)
        if len(axes) == 3:
            depth = "towards" if axes in EVEN else "away"
            viewer.scene.camera.orientation = (depth, "up", "right")
            letters = {}
        else:
            viewer.scene.camera.orientation2d = (self._direction(axes[0], "up"), self._direction(axes[1], "right"))
            letters = self.letters(axes)
        _write(viewer, letters)
        _write_notes(viewer)
        self.events.changed()

    def _oriented(self) -> bool:
        viewer = self._viewer()
        told = [layer.metadata.get("nifti") or {} for layer in viewer.layers] if viewer is not None else []
        return all(way_back.get("oriented", True) for way_back in told)

    def _direction(self, axis: str, towards: str) -> str:
        """Where the high end of an axis is; only left and right ever change places."""
        return OPPOSITE[towards] if self.mirrors(axis) else towards

    def mirrors(self, axis: str) -> bool:
        """Whether the high end of an axis, "S", "A" or "R", is on the left."""
        return axis == "R" and self.convention == "radiological"

    def letters(self, axes: str) -> dict[str, str]:
        """Edge ("left", "right", "up", "down") to what lies there, for an axis that points up and one to the right.

        None where a volume's file does not say how it lies in the head.
        """
        letters: dict[str, str] = {}
        if not self._oriented():
            return letters
        for axis, towards in zip(axes, ("up", "right"), strict=True):
            if axis in ENDS:
                high = self._direction(axis, towards)
                letters[high], letters[OPPOSITE[high]] = ENDS[axis][1], ENDS[axis][0]
        return letters


def displayed_axes(viewer: "napari.Viewer") -> str:
    """Letters of the displayed axes, outermost first: "AR" for axial slices; "?" for an axis that is not of space."""
    first = viewer.dims.ndim - 3
    return "".join("SAR"[axis - first] if axis >= first else "?" for axis in viewer.dims.displayed)


def _write(viewer: "napari.Viewer", letters: dict[str, str]) -> None:
    """Letters at the edges of the canvas."""
    for side in SIDES:
        overlay = _letter(viewer, side)
        overlay.text = letters.get(side, "")
        overlay.visible = side in letters


def _write_notes(viewer: "napari.Viewer") -> None:
    """Say on the canvas of which volumes something else is seen than the file has, and what cannot be known."""
    notes = []
    for layer in viewer.layers:
        way_back = layer.metadata.get("nifti") or {}
        if way_back.get("resampled"):
            notes.append(f"{layer.name}: oblique, resampled for display")
        if not way_back.get("oriented", True):
            notes.append(f"{layer.name}: neither sform nor qform, left and right are unknown")
    overlay = _overlay(viewer, NOTES, "bottom_left", 9)
    overlay.text, overlay.visible = "\n".join(dict.fromkeys(notes)), bool(notes)


def _letter(viewer: "napari.Viewer", side: str) -> Any:
    """The overlay of one edge."""
    return _overlay(viewer, f"{side}_side", SIDES[side], 14)


def _overlay(viewer: "napari.Viewer", key: str, position: str, font_size: int) -> Any:
    """A text on the canvas, made where it is not there."""
    from napari.components.overlays import TextOverlay

    if key not in viewer.canvas.overlays:
        viewer.canvas.overlays[key] = TextOverlay(position=position, font_size=font_size)
    return viewer.canvas.overlays[key]


def steps_to_view(viewer: "napari.Viewer") -> list[Callable[[], object]]:
    """What makes a viewer anatomical, in pieces that each cost the window's thread little."""
    letters = [partial(_open_letter, viewer, side) for side in SIDES]
    return [partial(_show_scale_bar, viewer), *letters, partial(AnatomicalView.of, viewer)]


def _open_letter(viewer: "napari.Viewer", side: str) -> None:
    """Have napari make what draws an edge's letter, which it does when that is first seen."""
    if f"{side}_side" not in viewer.canvas.overlays:
        _letter(viewer, side).visible = True


def _show_scale_bar(viewer: "napari.Viewer") -> None:
    viewer.canvas.overlays.scale_bar.visible = True


def show_all_soon(viewer: "napari.Viewer") -> None:
    """Fit the view to the layers once those that are being read are there: napari does so for the first alone."""
    from qtpy.QtCore import QTimer

    held = weakref.ref(getattr(viewer, "__wrapped__", viewer))

    def fit() -> None:
        alive = held()
        if alive is not None and alive.layers:
            with contextlib.suppress(RuntimeError):  # its window was closed meanwhile
                alive.reset_view()

    QTimer.singleShot(0, fit)


def finish(layer: "napari.layers.Layer") -> None:
    """What a layer of ours can be told only when it exists: outlines of regions, the colour bar of a map."""
    from napari.layers import Image, Labels

    kind = kind_of(layer)
    if kind == "roi" and isinstance(layer, Labels):
        layer.contour = 1
    elif kind in ("contribution", "accuracy") and isinstance(layer, Image):
        layer.colorbar.visible = True


def _finish_inserted(event: Any) -> None:
    finish(event.value)


def finish_arriving(viewer: "napari.Viewer") -> None:
    """Finish layers of ours that napari itself adds, from now on."""
    viewer.layers.events.inserted.connect(_finish_inserted)


def all_ours(viewer: "napari.Viewer") -> bool:
    """Whether a viewer shows nothing of others, whose camera is not turned."""
    return all(kind_of(layer) for layer in viewer.layers)


def prepare(viewer: "napari.Viewer | None") -> None:
    """Have layers of ours finished as they arrive; turn the camera unless other layers are shown already."""
    if viewer is None:
        return
    finish_arriving(viewer)
    if all_ours(viewer):
        AnatomicalView.of(viewer)
    if not viewer.layers:
        show_all_soon(viewer)


def prepare_current_viewer() -> None:
    """Prepare the viewer that asked for layers; does nothing in a script without one."""
    from napari import current_viewer

    prepare(current_viewer())


def show_plane(viewer: "napari.Viewer", plane: str) -> None:
    """Show slices of one plane in 2D: "axial", "coronal" or "sagittal"."""
    if plane not in PLANES:
        raise PlaceError(f"plane must be one of {list(PLANES)}, got {plane!r}.")
    _check_space(viewer)
    AnatomicalView.of(viewer)
    extra = viewer.dims.ndim - 3
    viewer.dims.ndisplay = 2
    viewer.dims.order = (*range(extra), *(extra + axis for axis in PLANES[plane]))
    viewer.reset_view(layers=[layer for layer in viewer.layers if layer.visible] or None)


def go_to(viewer: "napari.Viewer", place: Sequence[float]) -> None:
    """Show the slice through a place and centre the camera on it.

    Parameters
    ----------
    place : (x, y, z)
        mm in the layers' world: x towards right, y towards anterior, z towards superior.
    """
    _check_space(viewer)
    world = tuple(place)[::-1]
    extra = viewer.dims.ndim - 3
    spans = viewer.dims.range[extra:]
    for name, value, span in zip("zyx", world, spans, strict=True):
        if not span.start <= value <= span.stop:
            raise PlaceError(
                f"{name} must be {span.start:.0f} ... {span.stop:.0f} mm, which is where layers are, got {value:g}."
            )
    viewer.dims.set_point(range(extra, extra + 3), world)
    centre = [world[axis - extra] if axis >= extra else 0.0 for axis in viewer.dims.displayed]
    viewer.scene.camera.center = (*(0.0,) * (3 - len(centre)), *centre)
    x, y, z = place
    viewer.status = f"x {x:g}, y {y:g}, z {z:g} mm"


def place_shown(viewer: "napari.Viewer") -> tuple[float, float, float]:
    """The place (x, y, z) in mm where the three sliders stand."""
    _check_space(viewer)
    z, y, x = viewer.dims.point[-3:]
    return x, y, z


def _check_space(viewer: "napari.Viewer") -> None:
    if viewer.dims.ndim < 3:
        raise PlaceError(f"layers must have three axes, got {viewer.dims.ndim}. Open a volume first.")


def parse_place(text: str) -> tuple[float, float, float]:
    """Three numbers from "12, -34.5, 8" or "12 -34.5 8"; PlaceError for anything else."""
    try:
        x, y, z = (float(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise PlaceError(f"place must be three numbers x, y, z in mm, got {text!r}.") from None
    return x, y, z


# commands of the manifest: napari hands the viewer over


def axial(viewer: "napari.Viewer") -> None:
    """Show axial slices."""
    show_plane(viewer, "axial")


def coronal(viewer: "napari.Viewer") -> None:
    """Show coronal slices."""
    show_plane(viewer, "coronal")


def sagittal(viewer: "napari.Viewer") -> None:
    """Show sagittal slices."""
    show_plane(viewer, "sagittal")


def toggle_convention(viewer: "napari.Viewer") -> None:
    """From neurological to radiological view and back."""
    view = AnatomicalView.of(viewer)
    view.choose(CONVENTIONS[1 - CONVENTIONS.index(view.convention)])


def ask_place(viewer: "napari.Viewer") -> None:
    """Ask for a place in mm and show it."""
    from qtpy.QtWidgets import QApplication, QInputDialog

    here = ", ".join(f"{value:.1f}" for value in place_shown(viewer))
    asked = "x (right), y (anterior), z (superior) in mm"
    text, accepted = QInputDialog.getText(QApplication.activeWindow(), "Go to", asked, text=here)
    if accepted:
        go_to(viewer, parse_place(text))


def toggle_linked(viewer: "napari.Viewer") -> None:
    """Open or hide the three linked planes."""
    from napari_neuraldiffuser.widgets.views.linked import toggle

    toggle(viewer)


COMMANDS = {
    "axial": axial,
    "coronal": coronal,
    "sagittal": sagittal,
    "convention": toggle_convention,
    "place": ask_place,
    "linked": toggle_linked,
}


def bind_keys(viewer: "napari.Viewer") -> None:
    """Give the commands above their keys: those that a manifest names are ignored."""
    keys.bind(viewer, COMMANDS)
