"""Sides, planes and places: what stands at an edge of the canvas is what lies there in millimetres."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.widgets.files import view
from napari_neuraldiffuser.widgets.files.view import AnatomicalView, PlaceError
from napari_neuraldiffuser.widgets.session.state import DEFAULTS

PLUGIN = "napari-neuraldiffuser"
LETTERS = {"L": (2, -1), "R": (2, 1), "P": (1, -1), "A": (1, 1), "I": (0, -1), "S": (0, 1)}
"""Letter to (axis of S, A, R; direction)."""


@pytest.fixture
def path(tmp_path):
    affine = nib.affines.from_matvec(np.diag([-2.0, 2, 2]), [20, -30, -10])
    data = np.random.default_rng(0).normal(size=(20, 30, 25)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "t1.nii.gz")
    return tmp_path / "t1.nii.gz"


@pytest.fixture
def volume(viewer, path):
    (layer,) = viewer.open(path, plugin=PLUGIN)
    return layer


def edges(viewer):
    """Letters on the canvas by edge."""
    overlays = viewer.canvas.overlays
    return {side: overlays[f"{side}_side"].text for side in view.SIDES if overlays[f"{side}_side"].visible}


def side_of(viewer, letter):
    """The edge at which a letter's place lies, from the camera alone."""
    axis, direction = LETTERS[letter]
    displayed = viewer.dims.displayed
    high = viewer.scene.camera.orientation2d[displayed.index(axis + viewer.dims.ndim - 3)].value
    return high if direction > 0 else view.OPPOSITE[high]


@pytest.mark.window
def test_opening_a_volume_is_neurological_with_a_scale_bar(viewer, volume):
    assert edges(viewer) == {"up": "A", "down": "P", "left": "L", "right": "R"}
    assert [side.value for side in viewer.scene.camera.orientation2d] == ["up", "right"]
    assert viewer.canvas.overlays.scale_bar.visible


@pytest.mark.parametrize("convention", view.CONVENTIONS)
def test_every_letter_stands_where_its_side_is(viewer, volume, convention):
    AnatomicalView.of(viewer).choose(convention)
    for plane, neurological in (("axial", "APLR"), ("coronal", "SILR"), ("sagittal", "SIPA")):
        view.show_plane(viewer, plane)
        shown = edges(viewer)
        expected = neurological if convention == "neurological" else neurological.replace("LR", "RL")
        assert "".join(shown[side] for side in ("up", "down", "left", "right")) == expected, plane
        assert all(side_of(viewer, letter) == side for side, letter in shown.items()), plane


def test_napari_own_buttons_keep_letters_true(viewer, volume):
    AnatomicalView.of(viewer).choose("radiological")
    for order in itertools.permutations(range(3)):
        viewer.dims.order = order
        shown = edges(viewer)
        assert len(shown) == 4, order
        assert all(side_of(viewer, letter) == side for side, letter in shown.items()), order


@pytest.mark.parametrize("convention", view.CONVENTIONS)
def test_head_is_never_mirrored_in_3d(viewer, volume, convention):
    AnatomicalView.of(viewer).choose(convention)
    screen = {"right": (1, 0, 0), "left": (-1, 0, 0), "up": (0, 1, 0), "down": (0, -1, 0)}
    screen |= {"towards": (0, 0, 1), "away": (0, 0, -1)}
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)):
        viewer.dims.order = order
        viewer.dims.ndisplay = 3
        way = {axis: screen[o.value] for axis, o in zip(order, viewer.scene.camera.orientation, strict=True)}
        # right x anterior = superior, on the screen as in the head
        np.testing.assert_array_equal(np.cross(way[2], way[1]), way[0], err_msg=str(order))
        assert edges(viewer) == {}
        viewer.dims.ndisplay = 2
        assert len(edges(viewer)) == 4, order


@pytest.mark.filterwarnings("error:Contours are not displayed")
def test_nothing_warns_of_contours_in_3d(viewer):
    AnatomicalView.of(viewer)
    labels = viewer.add_labels(np.random.default_rng(0).integers(0, 3, (4, 5, 6)))
    labels.contour = 1
    viewer.dims.ndisplay = 3
    assert labels.contour == 1


def test_4d_volume(viewer, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6, 3), np.float32), np.eye(4)), tmp_path / "bold.nii")
    viewer.open(tmp_path / "bold.nii", plugin=PLUGIN)
    view.show_plane(viewer, "coronal")
    assert viewer.dims.order == (0, 2, 1, 3)
    assert edges(viewer)["up"] == "S"
    view.go_to(viewer, (2, 3, 4))
    assert viewer.dims.point[1:] == (4, 3, 2)
    viewer.dims.order = (1, 2, 0, 3)  # time shown as an axis: it has no side
    assert edges(viewer) == {"left": "L", "right": "R"}


def test_go_to_a_place(viewer, volume, path):
    voxel = (3, 12, 7)
    x, y, z = nib.affines.apply_affine(nib.load(path).affine, voxel)
    for plane in view.PLANES:
        view.show_plane(viewer, plane)
        view.go_to(viewer, (x, y, z))
        assert view.place_shown(viewer) == (x, y, z)
        centre = viewer.scene.camera.center[-2:]
        assert centre == tuple((z, y, x)[axis] for axis in viewer.dims.displayed)
        index = tuple(np.rint(volume.world_to_data((z, y, x))).astype(int))
        assert volume.data[index] == nib.load(path).dataobj[voxel]
    with pytest.raises(PlaceError, match=r"x must be -18 \.\.\. 20 mm"):
        view.go_to(viewer, (1000, 0, 0))


def test_places_are_parsed():
    assert view.parse_place("12, -34.5, 8") == view.parse_place(" 12 -34.5  8") == (12, -34.5, 8)
    for text in ("", "1, 2", "1 2 3 4", "a b c"):
        with pytest.raises(PlaceError, match="three numbers"):
            view.parse_place(text)


@pytest.mark.window
def test_commands_and_keys_do_the_same(viewer, volume, monkeypatch):
    from napari._app_model import get_app_model
    from qtpy.QtWidgets import QInputDialog

    def command(name):
        get_app_model().commands.execute_command(f"{PLUGIN}.{name}").result()

    command("coronal")
    assert viewer.dims.order == (1, 0, 2)
    command("toggle_convention")
    assert edges(viewer)["left"] == "R"
    assert "right side is on the left" in viewer.status
    monkeypatch.setattr(QInputDialog, "getText", lambda *args, **kwargs: ("4, 6, 8", True))
    command("go_to")
    assert view.place_shown(viewer) == (4, 6, 8)
    monkeypatch.setattr(QInputDialog, "getText", lambda *args, **kwargs: ("0, 0, 0", False))
    command("go_to")
    assert view.place_shown(viewer) == (4, 6, 8)


@pytest.mark.window
def test_preference_decides_the_first_view(viewer, path, monkeypatch):
    monkeypatch.setattr(view, "preferences", lambda: {**DEFAULTS, "convention": "radiological"})
    viewer.open(path, plugin=PLUGIN)
    assert edges(viewer)["left"] == "R"


def save_with(path, affine, sform=1, qform=1):
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32), affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("sform", "qform", "known"), [(1, 1, True), (0, 1, True), (4, 0, True), (0, 0, False)])
def test_no_letters_where_the_file_does_not_say_how_it_lies(viewer, tmp_path, sform, qform, known):
    AnatomicalView.of(viewer)
    viewer.open(save_with(tmp_path / "a.nii", np.diag([2.0, 2, 2, 1]), sform, qform), plugin=PLUGIN)
    assert bool(edges(viewer)) == known
    note = viewer.canvas.overlays[view.NOTES]
    assert note.visible != known
    assert ("a: neither sform nor qform" in note.text) != known
    if not known:  # beside one that does, nothing is claimed of both
        viewer.open(save_with(tmp_path / "b.nii", np.eye(4)), plugin=PLUGIN)
        assert edges(viewer) == {}
        viewer.layers.remove("a")
        assert len(edges(viewer)) == 4
        assert not note.visible


def test_the_canvas_says_what_is_resampled(viewer, tmp_path):
    turn = nib.eulerangles.euler2mat(0.2, 0.1, 0)
    oblique = nib.affines.from_matvec(turn @ np.diag([2.0, 2, 3]), [1, 2, 3])
    AnatomicalView.of(viewer)
    viewer.open(save_with(tmp_path / "tilted.nii", oblique), plugin=PLUGIN)
    note = viewer.canvas.overlays[view.NOTES]
    assert note.visible
    assert note.text == "tilted: oblique, resampled for display"
    viewer.layers["tilted"].name = "head"
    viewer.open(save_with(tmp_path / "straight.nii", np.eye(4)), plugin=PLUGIN)
    assert note.text.startswith("head: oblique")
    viewer.layers.remove("head")
    assert not note.visible


def test_wrong_names_and_empty_viewer(viewer):
    with pytest.raises(PlaceError, match="three axes"):
        view.show_plane(viewer, "axial")
    with pytest.raises(PlaceError, match="plane must be"):
        view.show_plane(viewer, "horizontal")
    with pytest.raises(PlaceError, match="convention must be"):
        AnatomicalView.of(viewer).choose("surgical")


def test_view_does_not_keep_a_viewer_alive():
    import gc
    import weakref

    from napari.components import ViewerModel

    model = ViewerModel()
    AnatomicalView.of(model).choose("radiological")
    ref, key = weakref.ref(model), id(model)
    assert key in view._VIEWS
    del model
    gc.collect()
    assert ref() is None
    assert key not in view._VIEWS
