"""A click names the right voxel: the file's own index and value, whatever its axes, slices and other layers are."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.files import outputs
from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.probe import LAYER_NAME, Probe, describe, look_up
from napari_neuraldiffuser.widgets.pages.contribution import IN_3D, ContributionPanel
from napari_neuraldiffuser.widgets.views.clicks import place_of
from tests.support.window.output_folder import AFFINE, PEAK, PLACES, SHAPE, write_output
from tests.support.window.viewers import dock

TURN = nib.eulerangles.euler2mat(0.3, 0.2, -0.1)
AFFINES = {
    "RAS": AFFINE,
    "LAS": nib.affines.from_matvec(np.diag([-4.0, 4.0, 4.0]), [20, -30, -10]),
    "PSR": nib.affines.from_matvec([[0, 0, 3.0], [-2.5, 0, 0], [0, 2.0, 0]], [5, 6, 7]),
    "oblique": nib.affines.from_matvec(TURN @ np.diag([2.0, 2.5, 3.0]), [1, 2, 3]),
}


@pytest.fixture(params=AFFINES)
def affine(request):
    return AFFINES[request.param]


@pytest.fixture
def subject(tmp_path, affine):
    found = outputs.find_subjects(write_output(tmp_path / "out", affine))["sub-01"]
    return maps.read_subject(found, lambda *_: None)


def test_every_voxel_has_its_own_value_and_place(subject, affine):
    files = {target: nib.load(path) for target, path in subject.paths.items()}
    values = {target: image.get_fdata() for target, image in files.items()}
    rng = np.random.default_rng(0)
    for index in [PEAK, (0, 0, 0), tuple(n - 1 for n in SHAPE), *rng.integers(0, SHAPE, (40, 3)).tolist()]:
        # anywhere within the voxel, less a margin of rounding
        place = apply_affine(affine, np.array(index) + rng.uniform(-0.49, 0.49, 3))
        found = look_up(subject, "c", subject.families, place)
        assert found.index == tuple(index)
        np.testing.assert_allclose(found.place, apply_affine(files["c"].affine, index), atol=1e-4)
        for target, share in found.shares.items():
            assert share == pytest.approx(values[target][tuple(index)], rel=1e-6)
        assert set(found.regions.values()) == {roi for roi, box in PLACES.items() if inside(index, box)}


def inside(index, box):
    return all(s.start <= i < s.stop for i, s in zip(index, box, strict=True))


def test_outside_the_map(subject, affine):
    for index in ((-1, 0, 0), (0, 7, 0), (99, 99, 99)):
        assert look_up(subject, "c", subject.families, apply_affine(affine, index)) is None
    assert "Outside the contribution map" in describe(None, "c", "", "share")


def test_what_is_shown_lies_where_the_file_says(subject, affine):
    volume = subject.maps["g02"]
    shown = volume.shown_index(apply_affine(affine, PEAK))
    peak = np.unravel_index(volume.shown.argmax(), volume.shown.shape)
    # a resampled grid has the peak within a voxel of its place
    assert np.abs(shown - peak).max() <= (0 if np.allclose(np.abs(affine[:3, :3]).astype(bool).sum(), 3) else 1)


def test_peak_of_a_region(subject, affine):
    family = subject.families["prf-visualrois"]
    np.testing.assert_allclose(subject.peak("g02", family, "V1v", "positive"), apply_affine(affine, PEAK), atol=1e-4)
    assert subject.peak("g02", family, "V9", "positive") is None


def test_text_has_regions_shares_and_place(subject, affine):
    text = describe(
        look_up(subject, "c", subject.families, apply_affine(affine, PEAK)), "c", "text & <b>", "share of R²"
    )
    assert "<b>FFA-1 (floc-faces), V1v (prf-visualrois)</b>" in text
    assert "voxel (2, 3, 4) of the file" in text
    r, a, s = apply_affine(affine, PEAK)
    assert f"R {r:.1f}, A {a:.1f}, S {s:.1f} mm" in text
    assert "text &amp; &lt;b&gt;" in text
    assert "g02 2" in text
    assert "share of R² in text &amp; &lt;b&gt;: <b>1</b>" in text  # as the table and the bar have it


# ---- the mouse --------------------------------------------------------------------------------------------------


class Mouse:
    """Presses, moves and releases on a viewer, with the events that napari's canvas makes."""

    def __init__(self, viewer, probe):
        self.viewer, self.probe = viewer, probe

    def click(self, position, moved_to=None, button=1, modifiers=(), ndisplay=2):
        event = SimpleNamespace(type="mouse_press", position=position, button=button, modifiers=modifiers)
        event.dims_displayed = list(range(ndisplay))
        steps = self.probe._on_press(self.viewer, event)
        for kind, place in (("mouse_move", moved_to), ("mouse_release", moved_to or position)):
            if kind == "mouse_move" and place is None:
                continue
            next(steps, None)
            event.type, event.position = kind, place
        list(steps)


@pytest.fixture
def clicks(viewer):
    found = []
    probe = Probe(viewer, found.append)
    return found, Mouse(viewer, probe), probe


def test_a_click_gives_the_place(clicks):
    found, mouse, _ = clicks
    mouse.click((3.0, 2.0, 1.0))
    np.testing.assert_array_equal(found[0], [1, 2, 3])
    mouse.click((7.0, 3.0, 2.0, 1.0))  # with an axis of volumes
    np.testing.assert_array_equal(found[1], [1, 2, 3])
    mouse.click((3.0, 2.0, 1.0), ndisplay=3)
    assert found[2] is None
    assert place_of((1.0, 2.0)) is None


def test_what_is_no_click(clicks):
    found, mouse, probe = clicks
    mouse.click((3.0, 2.0, 1.0), moved_to=(3.0, 9.0, 1.0))
    mouse.click((3.0, 2.0, 1.0), button=2)
    mouse.click((3.0, 2.0, 1.0), modifiers=("Shift",))
    probe.enabled = False
    mouse.click((3.0, 2.0, 1.0))
    assert found == []
    probe.close()
    probe.close()


@pytest.fixture
def panel(viewer, session, tmp_path, qtbot):
    made = ContributionPanel(viewer)
    dock(viewer, made, qtbot)
    session.show_output(write_output(tmp_path / "out"))
    qtbot.waitUntil(lambda: not made.arriving)
    return made


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_panel_says_what_was_clicked_and_marks_it(panel, viewer, order):
    viewer.dims.order = order
    steps = viewer.dims.nsteps
    mouse = Mouse(viewer, panel.probe)
    mouse.click(tuple(apply_affine(AFFINE, PEAK)[::-1] + 1.0))
    assert "V1v (prf-visualrois)" in panel.voxel_text.text()
    assert "voxel (2, 3, 4)" in panel.voxel_text.text()
    cross = viewer.layers[LAYER_NAME]
    np.testing.assert_allclose(cross.data_to_world(cross.data[0])[::-1], apply_affine(AFFINE, PEAK))
    assert viewer.dims.nsteps[order[0]] == steps[order[0]]  # the slider's steps stay as wide as voxels
    assert viewer.layers.selection.active.name != LAYER_NAME
    mouse.click((500.0, 500.0, 500.0))
    assert "Outside the contribution map" in panel.voxel_text.text()
    assert len([layer for layer in viewer.layers if layer.name.startswith(LAYER_NAME)]) == 1
    mouse.click((0.0, 0.0, 0.0), ndisplay=3)
    assert panel.voxel_text.text() == IN_3D


def test_clicks_can_be_switched_off(panel, viewer):
    panel.listen.setChecked(False)
    before = panel.voxel_text.text()
    Mouse(viewer, panel.probe).click(tuple(apply_affine(AFFINE, PEAK)[::-1]))
    assert panel.voxel_text.text() == before
