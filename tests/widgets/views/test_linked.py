"""Linked views: every pixel is the voxel that nibabel has at its place, and one crosshair for all of them."""

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_neuraldiffuser.widgets.files import view
from napari_neuraldiffuser.widgets.files.view import PLANES, AnatomicalView
from napari_neuraldiffuser.widgets.session.keys import window_of
from napari_neuraldiffuser.widgets.views import docked
from napari_neuraldiffuser.widgets.views.linked import LinkedViews, toggle
from napari_neuraldiffuser.widgets.views.planes import Grid, box_of, colours_of, drawn, grid_of, outlines, values_at

PLUGIN = "napari-neuraldiffuser"
TURNED = nib.affines.from_matvec([[0, 0, 3.0], [-2.0, 0, 0], [0, 1.5, 0]], [5, 40, -20])
AFFINES = {
    "RAS": nib.affines.from_matvec(np.diag([2.0, 2, 2]), [-20, -30, -10]),
    "LAS, anisotropic": nib.affines.from_matvec(np.diag([-1.0, 2.5, 3]), [13, -30, -10]),
    "axes turned": TURNED,
}


@pytest.fixture(params=AFFINES)
def volume(request, viewer, tmp_path):
    """A file whose voxels are all different, opened."""
    data = np.random.default_rng(0).permutation(11 * 13 * 7).reshape(11, 13, 7).astype(np.float32)
    nib.save(nib.Nifti1Image(data, AFFINES[request.param]), tmp_path / "a.nii.gz")
    (layer,) = viewer.open(tmp_path / "a.nii.gz", plugin=PLUGIN)
    return layer, data, AFFINES[request.param]


@pytest.mark.parametrize("plane", PLANES)
def test_every_pixel_is_the_voxel_of_its_place(volume, plane):
    layer, data, affine = volume
    box = box_of([layer])
    place = tuple(low + 0.4 * (high - low) for low, high in box)
    grid = grid_of(PLANES[plane], place, box, 0.9)
    values, inside = values_at(layer, grid, ())
    assert inside.all()
    for row in range(0, len(grid.rows), 3):
        for column in range(0, len(grid.columns), 3):
            sar = np.empty(3)
            sar[[grid.fixed, grid.up, grid.across]] = grid.at, grid.rows[row], grid.columns[column]
            index = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), sar[::-1])).astype(int)
            assert values[row, column] == data[tuple(index)], (row, column)


def test_the_box_has_whole_voxels(volume):
    layer, data, affine = volume
    corners = [[*(np.array(data.shape) * pick - 0.5)] for pick in np.ndindex(2, 2, 2)]
    places = nib.affines.apply_affine(affine, np.array(corners))
    expected = np.stack([places.min(0), places.max(0)], axis=1)[::-1]
    np.testing.assert_allclose(box_of([layer]), expected)


def test_outside_a_layer_nothing_is_drawn(viewer):
    layer = viewer.add_image(np.ones((3, 3, 3)), contrast_limits=(0, 1), translate=(5, 5, 5))
    grid = Grid(0, 1, 2, 6.0, np.arange(10.0)[::-1], np.arange(10.0), 1.0)
    picture = drawn([layer], grid)
    expected = np.zeros((10, 10))
    expected[2:5, 5:8] = 255
    np.testing.assert_array_equal(picture[..., 0], expected)
    layer.visible = False
    assert not drawn([layer], grid).any()


def test_time_stands_where_its_slider_does(viewer):
    data = np.arange(4 * 2 * 2 * 2).reshape(4, 2, 2, 2)
    layer = viewer.add_image(data)
    still = viewer.add_image(np.full((2, 2, 2), 7))
    grid = Grid(0, 1, 2, 1.0, np.array([1.0, 0.0]), np.array([0.0, 1.0]), 1.0)
    values, _ = values_at(layer, grid, (3.0,))
    np.testing.assert_array_equal(values, data[3, 1, ::-1])
    np.testing.assert_array_equal(values_at(still, grid, (3.0,))[0], np.full((2, 2), 7))


def test_a_turned_layer_that_is_not_ours(viewer):
    """A rotation of 90 degrees about S: what napari shows at a place is what is drawn there."""
    data = np.arange(27.0).reshape(3, 3, 3)
    layer = viewer.add_image(data, rotate=np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]))
    grid = Grid(0, 1, 2, 1.0, np.array([0.0, -1.0, -2.0]), np.array([0.0, 1.0, 2.0]), 1.0)
    values, inside = values_at(layer, grid, ())
    assert inside.all()
    for row, column in np.ndindex(3, 3):
        assert values[row, column] == layer.get_value((1.0, grid.rows[row], grid.columns[column]), world=True)


def test_colours_are_those_of_the_layer(viewer):
    from napari_neuraldiffuser.widgets.files.layers import transparent_below

    image = viewer.add_image(np.zeros((2, 2, 2)), contrast_limits=(1, 3), colormap=transparent_below())
    colours = colours_of(image, np.array([[0.0, 0.99, 1.01, 3.0]]))
    assert colours[0, :, 3].tolist() == [0, 0, 1, 1]
    labels = viewer.add_labels(np.array([[[0, 1], [2, 3]]] * 2))
    labels.opacity = 1.0
    got = colours_of(labels, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(got[0, 1:], [labels.get_color(1), labels.get_color(2)], atol=1e-6)
    assert got[0, 0, 3] == 0


def test_outlines_leave_the_inside_free():
    labels = np.zeros((9, 9), int)
    labels[1:8, 1:8] = 4
    found = outlines(labels, 2)
    assert found[1, 1] == found[2, 4] == 4
    assert not found[3:6, 3:6].any()
    assert not found[0].any()


@pytest.fixture
def linked(volume, viewer, qtbot):
    made = LinkedViews(viewer)
    qtbot.addWidget(made)
    made.resize(700, 250)
    made.show()
    made.draw()
    return made


@pytest.mark.parametrize("convention", view.CONVENTIONS)
def test_a_click_in_any_view_moves_the_one_crosshair(linked, viewer, convention):
    AnatomicalView.of(viewer).choose(convention)
    linked.draw()
    for plane, one in linked.views.items():
        before = viewer.dims.point
        grid, point = one.grid, QPoint(round(one.frame().center().x()) + 11, round(one.frame().center().y()) - 7)
        QTest.mouseClick(one, Qt.MouseButton.LeftButton, pos=point)
        linked.draw()
        assert viewer.dims.point[grid.fixed] == before[grid.fixed], plane
        for other in linked.views.values():
            assert other.place == viewer.dims.point
        # within a step of the slider and a pixel of the view
        steps = [span.step for span in viewer.dims.range]
        x, y = one.pixel(viewer.dims.point)
        frame = one.frame()
        scale = frame.width() / np.ptp([grid.columns[0], grid.columns[-1]])
        assert abs(x - point.x()) <= scale * steps[grid.across] + 1, plane
        assert abs(y - point.y()) <= scale * steps[grid.up] + 1, plane


def test_radiological_turns_the_brain_in_all_views_and_its_letters(linked, viewer):
    def left_columns():
        return {plane: one.picture[:, 0].tolist() for plane, one in linked.views.items()}

    anatomical = AnatomicalView.of(viewer)
    neurological = {plane: one.picture for plane, one in linked.views.items()}
    anatomical.choose("radiological")
    linked.draw()
    for plane, one in linked.views.items():
        mirrored = plane != "sagittal"
        expected = neurological[plane][:, ::-1] if mirrored else neurological[plane]
        np.testing.assert_array_equal(one.picture, expected, err_msg=plane)
        letters = one.letters["left"] + one.letters["right"]
        assert letters == ("RL" if mirrored else "PA"), plane


def test_what_changes_in_napari_is_drawn(linked, viewer, volume, qtbot):
    layer, *_ = volume
    axial = linked.views["axial"]
    before = axial.picture
    layer.contrast_limits = (0, 10)
    qtbot.waitUntil(lambda: not np.array_equal(axial.picture, before))
    viewer.dims.set_point(0, viewer.dims.range[0].start)
    qtbot.waitUntil(lambda: axial.place[0] == viewer.dims.range[0].start)
    viewer.add_labels(np.ones((3, 3, 3), int), translate=(-5, -5, -5))  # another layer is followed too
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not linked.empty.isHidden())
    assert axial.picture is None


@pytest.mark.parametrize("shape", [(1, 20, 30), (20, 1, 30), (20, 30, 1), (1, 1, 30), (1, 900, 1200), (1, 1, 1)])
def test_a_volume_of_one_slice_is_drawn_and_clicked(viewer, qtbot, shape):
    layer = viewer.add_image(np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape), units=("mm",) * 3)
    made = LinkedViews(viewer)
    qtbot.addWidget(made)
    made.resize(700, 250)
    made.draw()
    box = box_of([layer])
    for plane, one in made.views.items():
        assert not one.grab().isNull() and one.picture.any(), plane
        frame = one.frame()
        found = one.place_at(frame.center().toPoint())
        for axis, place in found.items():  # within a pixel of the screen
            size = max(box[axis][1] - box[axis][0], one.grid.step)
            assert abs(place - sum(box[axis]) / 2) <= size / min(frame.width(), frame.height()) * 1.01, (plane, axis)


def test_the_canvas_is_listened_to_only_while_the_views_are_open(viewer, qtbot):
    before = list(viewer.mouse_drag_callbacks)
    for _ in range(3):
        made = LinkedViews(viewer)
        assert len(viewer.mouse_drag_callbacks) == len(before) + 1
        with qtbot.waitSignal(made.destroyed):
            made.deleteLater()
    assert viewer.mouse_drag_callbacks == before


def test_the_wheel_goes_through_slices_and_stops_at_the_ends(linked, viewer):
    span = viewer.dims.range[0]
    for _ in range(40):
        linked.step(0, 1)
    assert viewer.dims.point[0] == pytest.approx(span.stop, abs=span.step)
    linked.step(0, -1)
    assert viewer.dims.point[0] <= span.stop - 0.5 * span.step


@pytest.mark.window
def test_the_canvas_fits_the_brain_in_the_room_that_is_left(viewer, qtbot):
    viewer.add_image(np.zeros((20, 30, 40)), units=("mm",) * 3)
    window_of(viewer).show()
    viewer.scene.camera.zoom = 999
    toggle(viewer)
    qtbot.waitUntil(lambda: viewer.scene.camera.zoom != 999)
    viewer.scene.camera.zoom = 999
    toggle(viewer)
    toggle(viewer)
    QApplication.processEvents()
    assert viewer.scene.camera.zoom == 999, "views that are only shown again leave the camera to the user"


@pytest.mark.window
def test_the_command_opens_hides_and_shows(viewer):
    toggle(viewer)
    views = docked.find(viewer, LinkedViews)
    dock = views.parent()
    assert not dock.isHidden()
    viewer.window._qt_window.show()
    toggle(viewer)
    assert dock.isHidden()
    toggle(viewer)
    assert not dock.isHidden()
    assert docked.find(viewer, LinkedViews) is views
    assert viewer.window.add_plugin_dock_widget(PLUGIN, "Linked views")[1] is views
