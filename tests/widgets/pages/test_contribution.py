"""The contribution panel: reads in a thread, thresholds live, and keeps table, slice and outlines together."""

import threading

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from qtpy.QtCore import QMimeData, QUrl

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BetasParams
from napari_neuraldiffuser.widgets.files import outputs
from napari_neuraldiffuser.widgets.maps import source as map_source
from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.outlines import SELECTED, fine
from napari_neuraldiffuser.widgets.maps.overlay_controls import ALL, PERCENT, THOUSANDTHS
from napari_neuraldiffuser.widgets.maps.roi_table import FRACTION, SHARE
from napari_neuraldiffuser.widgets.maps.save_row import copy_file
from napari_neuraldiffuser.widgets.maps.source import LATE
from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from napari_neuraldiffuser.widgets.session.worker import CoreWorker
from tests.support.window.output_folder import AFFINE, LOWEST, PEAK, PLACES, REGIONS, write_output
from tests.support.window.viewers import dock

PATIENCE = 20_000  # ms


@pytest.fixture
def out_dir(tmp_path):
    return write_output(tmp_path / "out")


@pytest.fixture
def empty(viewer, session, qtbot):
    panel = ContributionPanel(viewer)
    dock(viewer, panel, qtbot)
    return panel


@pytest.fixture
def panel(empty, out_dir, qtbot):
    read(empty, out_dir, qtbot)
    return empty


def read(panel, folder, qtbot):
    panel.session.show_output(folder)
    finish(panel, qtbot)


def finish(panel, qtbot):
    qtbot.waitUntil(lambda: panel.source.reading is None, timeout=PATIENCE)


def choose(panel, target):
    panel.target.setCurrentIndex(panel.target.findData(target))


def rows(panel):
    return [panel.table.item(i, 0).text() for i in range(panel.table.rowCount())]


def row_of(panel, roi):
    return rows(panel).index(roi)


def bold(panel):
    return {roi for i, roi in enumerate(rows(panel)) if panel.table.item(i, 0).font().bold()}


# ---- the folder -------------------------------------------------------------------------------------------------


def test_folder_is_read_in_a_thread_and_shown(empty, viewer, session, out_dir, qtbot):
    session.show_output(out_dir)
    assert len(viewer.layers) == 0  # nothing yet: the window was not kept waiting
    finish(empty, qtbot)
    assert empty.source.subject.currentText() == "sub-01"
    assert [empty.target.itemText(i) for i in range(2)] == ["c, text embedding", "g02, guidance layer 2"]
    assert {"contribution", "outlines prf-visualrois"} == {layer.name for layer in viewer.layers}
    assert viewer.layers["contribution"].metadata["target"] == "c"


def test_another_subject(panel, viewer, qtbot):
    panel.source.subject.setCurrentText("sub-02")
    finish(panel, qtbot)
    assert panel.target.currentData() == "z"
    assert rows(panel) == []
    assert [layer.name for layer in viewer.layers] == ["contribution"]


def test_a_folder_chosen_while_another_is_read_wins(empty, session, out_dir, tmp_path, qtbot):
    other = write_output(tmp_path / "other")
    for path in (other / "sub-01").glob("*_contribution.*"):
        path.unlink()
    session.show_output(out_dir)
    session.show_output(other)
    finish(empty, qtbot)
    qtbot.wait(200)
    assert empty.maps.label == "sub-02"
    assert empty.source.opened == str(other)


def test_dropped_folder_is_opened(empty, session, out_dir, qtbot):
    class Drop:
        def mimeData(self):  # noqa: N802
            data = QMimeData()
            data.setUrls([QUrl.fromLocalFile(str(out_dir))])
            return data

    empty.source.dropEvent(Drop())
    finish(empty, qtbot)
    assert session.output == str(out_dir)
    assert empty.maps.label == "sub-01"


def test_a_wrong_folder_is_said_and_nothing_stays_shown(panel, viewer, tmp_path, qtbot):
    (tmp_path / "nothing").mkdir()
    read(panel, tmp_path / "nothing", qtbot)
    assert "folder must hold sub-XX" in panel.message.text()
    assert panel.source.subject.count() == panel.target.count() == panel.table.rowCount() == 0
    assert "contribution" not in viewer.layers


@pytest.mark.parametrize("damage", ["map", "table", "4d"])
def test_damaged_files_are_named(empty, out_dir, qtbot, damage):
    path = out_dir / "sub-01" / "sub-01_space-func1pt8mm_target-g02_contribution.nii.gz"
    if damage == "map":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "4d":
        nib.save(nib.Nifti1Image(np.random.default_rng(0).random((3, 3, 3, 2)), np.eye(4)), path)
    else:
        path = out_dir / "sub-01" / "sub-01_contribution.tsv"
        path.write_text("roi\ttarget\tshare\nV1v\tg02\t0.2\n")
    read(empty, out_dir, qtbot)
    assert path.name in empty.message.text()
    assert "must" in empty.message.text()


def test_a_damaged_region_volume_leaves_the_maps(empty, out_dir, qtbot):
    broken = next((out_dir / "sub-01" / "anat").glob("*floc*.nii.gz"))
    broken.write_bytes(b"")
    read(empty, out_dir, qtbot)
    assert list(empty.families) == ["prf-visualrois"]
    assert broken.name in empty.message.text()
    assert empty.target.count() == 2


# ---- computing --------------------------------------------------------------------------------------------------


def test_compute_needs_data_and_decoding_and_shows_what_it_made(empty, session, out_dir, qtbot):
    assert "Data must be chosen" in empty.hint.text()
    session.choose(Source(nsd_dir="somewhere"))
    assert "Run Decode first" in empty.hint.text()
    session.set_decoded({"accuracy": {}})
    assert empty.run.isEnabled()
    empty.run.click()
    args, _ = session.engine.last("contribution")
    assert args["recipe"]["source"]["nsd_dir"] == "somewhere"
    session.engine.answer("contribution", {"folder": str(out_dir), "kind": "product-measure", "totals": {}})
    finish(empty, qtbot)
    assert session.output == str(out_dir)
    assert empty.target.count() == 2


@pytest.fixture
def computing(empty, session, out_dir):
    """A panel whose maps are being computed."""
    session.choose(Source(nsd_dir="somewhere"))
    session.set_decoded({"accuracy": {}})
    empty.run.click()
    return empty


ANSWER = {"kind": "product-measure", "totals": {}}


def test_maps_of_former_data_are_not_shown(computing, session, viewer, out_dir):
    session.change_stage("betas", BetasParams(roi="V1"))
    session.engine.answer("contribution", {"folder": str(out_dir), **ANSWER})
    assert session.output == ""
    assert computing.source.reading is None
    assert computing.message.text() == LATE
    assert len(viewer.layers) == 0


def test_maps_that_fit_no_longer_are_named(computing, session, out_dir, tmp_path, qtbot):
    session.engine.answer("contribution", {"folder": str(out_dir), **ANSWER})
    finish(computing, qtbot)
    before = session.recipe
    session.change_stage("diffusion", before.settings.diffusion.but(seed=9))
    assert not computing.age.isVisibleTo(computing), "the maps do not depend on it"
    session.change_stage("betas", BetasParams(roi="V1"))
    assert computing.age.text() == "Compute again: the ROI changed since."
    assert computing.age.isVisibleTo(computing)
    session.show_output(str(tmp_path))
    assert not computing.age.isVisibleTo(computing), "a folder that was opened is of any data"
    session.show_output(str(out_dir))
    assert computing.age.isVisibleTo(computing)
    session._take(before)
    assert not computing.age.isVisibleTo(computing)
    finish(computing, qtbot)


# ---- look -------------------------------------------------------------------------------------------------------


def test_threshold_acts_live_on_one_layer(panel, viewer):
    layer = viewer.layers["contribution"]
    limits = []
    for value in range(100, 900, 200):
        panel.look.slider.setValue(value)
        limits.append(layer.contrast_limits[0])
    assert limits == pytest.approx([0.1, 0.3, 0.5, 0.7])
    panel.look.value.setValue(25.0)
    assert layer.contrast_limits[0] == pytest.approx(0.25)
    assert panel.look.slider.value() == 250
    panel.look.opacity.setValue(30)
    assert layer.opacity == pytest.approx(0.3)


def test_another_target_keeps_threshold_slice_and_layer(panel, viewer):
    identity = viewer.layers["contribution"].unique_id
    panel.look.slider.setValue(400)
    viewer.dims.set_point(0, 10.0)
    choose(panel, "g02")
    layer = viewer.layers["contribution"]
    assert layer.unique_id == identity
    assert layer.contrast_limits == pytest.approx([0.8, 2.0])
    assert viewer.dims.point[0] == 10.0
    # in units of the share, the share stays
    panel.look.unit.setCurrentText(THOUSANDTHS)
    assert panel.look.value.value() == pytest.approx(800)
    choose(panel, "c")
    assert viewer.layers["contribution"].contrast_limits == pytest.approx([0.8, 1.0])
    panel.look.unit.setCurrentText(PERCENT)
    assert panel.look.value.value() == pytest.approx(80)


def test_signs(panel, viewer):
    layer = viewer.layers["contribution"]
    panel.look.slider.setValue(500)
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("negative"))
    assert layer.contrast_limits == pytest.approx([-0.5, -0.25])
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("both"))
    assert layer.contrast_limits == pytest.approx([-1, 1])
    assert layer.colormap.map(np.array([0.0, 0.5, 1.0]))[:, 3].tolist() == [1, 0, 1]


def test_look_is_remembered(panel, viewer, session, qtbot):
    panel.look.sign.setCurrentIndex(2)
    panel.look.slider.setValue(330)
    panel.regions.width.setValue(3)
    panel._store()
    again = ContributionPanel(viewer, session)
    qtbot.addWidget(again)
    finish(again, qtbot)
    assert again.look.look() == panel.look.look()
    assert again.regions.width.value() == 3
    again.restore({"sign": "sideways", "fraction": "x", "opacity": float("nan"), "width": None, "unit": 3})
    assert again.look.look().sign == "positive"


# ---- regions ----------------------------------------------------------------------------------------------------


def test_outlines(panel, viewer):
    layer = viewer.layers["outlines prf-visualrois"]
    assert (layer.contour, layer.visible) == (1, True)
    panel.regions.width.setValue(2)
    assert layer.contour == 2
    panel.regions.family.setCurrentText(ALL)
    assert viewer.layers["outlines floc-faces"].visible
    panel.regions.family.setCurrentText("floc-faces")
    assert not layer.visible
    assert viewer.layers["outlines floc-faces"].visible
    panel.regions.outlined.setChecked(False)
    assert not viewer.layers["outlines floc-faces"].visible


def test_regions_of_the_viewer_are_used_and_get_their_look_back(empty, viewer, out_dir, qtbot):
    volume = next((out_dir / "sub-01" / "anat").glob("*prf*.nii.gz"))
    data, keywords, _ = maps.volume_layer(nib.load(volume), volume)
    names = {"index": [0, 1, 2], "roi": ["", "V1v", "V2v"]}
    told = {"neuraldiffuser": {"kind": "roi", "family": "prf-visualrois"}}
    placing = {key: keywords[key] for key in ("affine", "units", "axis_labels")}
    layer = viewer.add_labels(data, name="mine", features=names, metadata=told, **placing)
    for path in (out_dir / "sub-01" / "anat").iterdir():
        path.unlink()
    read(empty, out_dir, qtbot)
    assert list(empty.families) == ["prf-visualrois"]
    assert not layer.visible
    assert viewer.layers["outlines prf-visualrois"].visible
    empty.go_to("prf-visualrois", "V1v")
    np.testing.assert_allclose(viewer.dims.point[::-1], apply_affine(AFFINE, PEAK))
    empty.regions.outlined.setChecked(False)
    assert layer.visible
    assert not viewer.layers["outlines prf-visualrois"].visible


def test_outlines_follow_the_plane_and_leave_the_slice(panel, viewer, qtbot):
    layer, place = viewer.layers["outlines prf-visualrois"], tuple(viewer.dims.point)
    shapes = {}
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        viewer.dims.order = order
        qtbot.waitUntil(lambda: not panel._redraw_timer.isActive())
        shapes[order] = layer.data.shape
        assert layer.data.shape[order[0]] == viewer.layers["contribution"].data.shape[order[0]]
        assert viewer.dims.range[order[0]].step == 4.0
        np.testing.assert_allclose(viewer.dims.point, place, atol=1e-9)
        assert layer.visible
    assert len(set(shapes.values())) == 3


def test_layers_that_the_user_removed_do_not_come_back(panel, viewer, qtbot):
    viewer.layers.clear()
    viewer.add_image(np.zeros((4, 5, 6)), name="other")
    qtbot.wait(50)
    assert [layer.name for layer in viewer.layers] == ["other"]


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (0, 2), ()])
@pytest.mark.parametrize(("size", "k"), [(5.0, 5), (4.0, 3), (1.8, 1), (0.5, 1)])
def test_fine_labels_are_in_the_same_place(size, k, axes):
    labels = np.random.default_rng(0).integers(0, 300, (3, 4, 5))
    affine = nib.affines.from_matvec(np.diag([size, size, 2 * size]), [-7, 3, 11])
    placing = {"affine": affine, "units": ("mm",) * 3, "axis_labels": ("S", "A", "R"), "metadata": {}}
    data, keywords = fine(labels, placing, axes)
    assert data.shape == tuple((k if i in axes else 1) * n for i, n in enumerate(labels.shape))
    index = np.argwhere(np.ones(data.shape, bool))
    world = apply_affine(keywords["affine"], index)
    coarse = np.rint(apply_affine(np.linalg.inv(affine), world)).astype(int)
    np.testing.assert_array_equal(data[tuple(index.T)], labels[tuple(coarse.T)])
    corner = np.full(3, -0.5)
    np.testing.assert_allclose(apply_affine(keywords["affine"], corner), apply_affine(affine, corner))


# ---- table and slice --------------------------------------------------------------------------------------------


def test_table_is_sorted_and_filtered(panel):
    assert rows(panel) == ["V1v", "V2v", "outside prf-visualrois"]
    assert panel.table.item(0, SHARE).text() == "0.3000 ± 0.0100"
    panel.regions.family.setCurrentText(ALL)
    assert rows(panel) == ["V1v", "FFA-1", "V2v", "outside prf-visualrois"]
    assert panel.table.item(1, SHARE).text() == "0.0500"  # no error of a single stimulus
    choose(panel, "g02")
    assert rows(panel)[:2] == ["V2v", "V1v"]
    grey = panel.table.item(3, 0).foreground().color()
    assert grey != panel.table.item(0, 0).foreground().color()


def test_bars_share_one_zero_line(panel):
    bars = [panel.table.item(i, SHARE).data(FRACTION) for i in range(3)]
    assert bars[0] == pytest.approx((0.75, 0.25))  # from -0.1 to 0.3
    assert bars[1] == pytest.approx((-0.25, 0.25))
    assert bars[2][0] == 0  # what no region has is not drawn


def test_selecting_a_row_moves_to_the_peak_and_outlines_the_region(panel, viewer):
    panel.table.selectRow(row_of(panel, "V1v"))
    np.testing.assert_allclose(viewer.dims.point, apply_affine(AFFINE, PEAK)[::-1])
    layer = viewer.layers[SELECTED]
    drawn = apply_affine(layer.affine.affine_matrix, np.argwhere(layer.data))[:, ::-1]
    found = np.unique(np.rint(apply_affine(np.linalg.inv(AFFINE), drawn)).astype(int), axis=0)
    expected = np.zeros((6, 7, 8), bool)
    expected[PLACES["V1v"]] = True
    np.testing.assert_array_equal(found, np.argwhere(expected))
    assert "V1v (prf-visualrois)" in panel.found.text()
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("negative"))
    panel.table.selectRow(row_of(panel, "V2v"))
    np.testing.assert_allclose(viewer.dims.point, apply_affine(AFFINE, LOWEST)[::-1])
    assert panel.table.selected() == ("prf-visualrois", "V2v")
    choose(panel, "g02")
    assert panel.table.selected() == ("prf-visualrois", "V2v")


def test_selecting_what_is_outside_or_has_no_volume(panel, viewer):
    panel.table.selectRow(row_of(panel, "outside prf-visualrois"))
    index = maps.Volume.index(panel.maps.maps["c"], np.array(viewer.dims.point)[::-1])
    assert not any(inside(index, box) for box in PLACES.values())
    panel.families.pop("prf-visualrois")
    panel.go_to("prf-visualrois", "V1v")
    assert "has no label volume" in panel.message.text()


def inside(index, box):
    return all(s.start <= i < s.stop for i, s in zip(index, box, strict=True))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_the_slice_marks_the_regions_in_view(panel, viewer, qtbot, order):
    panel.regions.family.setCurrentText(ALL)
    viewer.dims.order = order
    across = 2 - order[0]  # axis of the file that the slider runs along
    for i in range((6, 7, 8)[across]):
        viewer.dims.set_point(order[0], apply_affine(AFFINE, (i,) * 3)[across])
        expected = {roi for roi, box in PLACES.items() if box[across].start <= i < box[across].stop}
        qtbot.waitUntil(lambda expected=expected: bold(panel) == expected, timeout=2000)
    viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: bold(panel) == set(), timeout=2000)


def test_links_with_a_4d_layer_in_the_viewer(panel, viewer, qtbot):
    layer = viewer.layers["contribution"]
    affine = np.eye(5)
    affine[1:, 1:] = layer.affine.affine_matrix
    viewer.add_image(np.zeros((3, *layer.data.shape)), affine=affine, units=("pixel", "mm", "mm", "mm"))
    viewer.dims.set_point(0, 2)
    panel.table.selectRow(row_of(panel, "V1v"))
    np.testing.assert_allclose(viewer.dims.point, [2, *apply_affine(AFFINE, PEAK)[::-1]])
    qtbot.waitUntil(lambda: bold(panel) == {"V1v"}, timeout=2000)
    viewer.dims.order = (1, 0, 2, 3)
    assert ("prf-visualrois", "V1v") in panel.in_view()


def test_many_slices_are_marked_once(panel, viewer, qtbot, monkeypatch):
    calls = []
    monkeypatch.setattr(panel.table, "mark", lambda found: calls.append(found))
    for value in np.linspace(-10, 15, 40):
        viewer.dims.set_point(0, float(value))
    assert calls == []
    qtbot.waitUntil(lambda: len(calls) == 1, timeout=2000)


# ---- saving and leaving -----------------------------------------------------------------------------------------


def test_map_is_copied_whole(panel, out_dir, tmp_path, qtbot):
    choose(panel, "g02")
    panel.saving.copy_map(tmp_path / "new" / "mine.nii.gz")
    qtbot.waitUntil(lambda: "Written" in panel.message.text(), timeout=PATIENCE)
    source = next((out_dir / "sub-01").glob("*g02*.nii.gz"))
    assert (tmp_path / "new" / "mine.nii.gz").read_bytes() == source.read_bytes()
    assert copy_file(source, source) == source
    assert source.read_bytes() == (tmp_path / "new" / "mine.nii.gz").read_bytes()


def test_a_copy_that_cannot_be_written_is_said(panel, tmp_path, qtbot):
    (tmp_path / "file").write_text("")
    panel.saving.copy_map(tmp_path / "file" / "mine.nii.gz")
    qtbot.waitUntil(lambda: "must be a folder" in panel.message.text(), timeout=PATIENCE)


def test_picture_is_written_atomically(panel, tmp_path, monkeypatch):
    def screenshot(path, **options):
        assert options == {"canvas_only": True, "flash": False}
        with open(path, "wb") as stream:
            stream.write(b"png")

    class Viewer:
        pass

    panel.saving.viewer = Viewer()
    panel.saving.viewer.screenshot = screenshot
    panel.saving.write_picture(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"png"
    assert [p.name for p in tmp_path.glob("*.png")] == ["a.png"]


def test_nothing_to_save(empty):
    empty.saving.choose_copy()
    assert "A map must be shown" in empty.message.text()


@pytest.mark.window
def test_a_closed_panel_listens_no_longer(panel, viewer, qtbot):
    callback = panel.probe._on_press
    assert callback in viewer.mouse_drag_callbacks
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: callback not in viewer.mouse_drag_callbacks, timeout=2000)
    viewer.dims.set_point(0, 3.0)


def reopen(panel, viewer, session, qtbot):
    """The panel that takes the place of one that is closed."""
    gone = []
    panel.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=2000)
    again = ContributionPanel(viewer, session)
    viewer.window.add_dock_widget(again)
    finish(again, qtbot)
    return again


@pytest.mark.window
def test_a_reopened_panel_has_the_layers_of_the_closed_one(panel, viewer, session, tmp_path, qtbot):
    panel.table.selectRow(row_of(panel, "V1v"))
    identity, names = viewer.layers["contribution"].unique_id, sorted(layer.name for layer in viewer.layers)
    again = reopen(panel, viewer, session, qtbot)
    again.table.selectRow(row_of(again, "V1v"))
    assert sorted(layer.name for layer in viewer.layers) == names
    layer = viewer.layers["contribution"]
    assert (layer.unique_id, layer.visible) == (identity, True)
    assert viewer.layers["outlines prf-visualrois"].visible
    read(again, write_output(tmp_path / "new"), qtbot)
    choose(again, "g02")
    assert [layer.name for layer in viewer.layers].count("contribution") == 1
    assert layer.visible
    assert layer.metadata["target"] == "g02"
    np.testing.assert_array_equal(layer.data, again.maps.maps["g02"].shown)
    again.look.slider.setValue(500)
    assert layer.contrast_limits[0] == pytest.approx(0.5 * layer.contrast_limits[1])


def test_two_panels_share_their_layers(panel, viewer, session, qtbot):
    other = ContributionPanel(viewer, session)
    qtbot.addWidget(other)
    finish(other, qtbot)
    choose(panel, "g02")
    assert sorted(layer.name for layer in viewer.layers) == ["contribution", "outlines prf-visualrois"]
    assert viewer.layers["contribution"].visible
    assert viewer.layers["contribution"].metadata["target"] == "g02"


@pytest.mark.window
def test_regions_that_a_closed_panel_hid_come_back_with_the_next(panel, viewer, session, qtbot):
    told = {"neuraldiffuser": {"kind": "roi", "family": "prf-visualrois"}}
    layer = viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="mine", metadata=told)
    panel._draw_outlines()
    assert not layer.visible
    again = reopen(panel, viewer, session, qtbot)
    assert not layer.visible, "the outlines are there still"
    again.regions.outlined.setChecked(False)
    assert layer.visible


def test_regions_come_back_where_their_outlines_were_removed(panel, viewer):
    told = {"neuraldiffuser": {"kind": "roi", "family": "prf-visualrois"}}
    layer = viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="mine", metadata=told)
    panel._draw_outlines()
    viewer.layers.remove("outlines prf-visualrois")
    panel.regions.outlined.setChecked(False)
    assert layer.visible


def test_other_maps_are_hidden(empty, viewer, out_dir, qtbot):
    told = {"neuraldiffuser": {"kind": "contribution"}}
    other = viewer.add_image(np.zeros((3, 3, 3)), name="contribution", metadata=told)
    read(empty, out_dir, qtbot)
    assert not other.visible, "though it has the name of the panel's own"
    assert empty.overlay.layer.visible
    assert empty.overlay.layer is not other


@pytest.mark.window
def test_a_panel_closed_while_it_reads(empty, viewer, session, out_dir, qtbot, monkeypatch):
    closed, read_folder = threading.Event(), map_source.read_folder

    def read_when_closed(*of):
        assert closed.wait(PATIENCE / 1000)
        return read_folder(*of)

    monkeypatch.setattr(map_source, "read_folder", read_when_closed)
    session.show_output(out_dir)
    viewer.window.remove_dock_widget(empty)
    with qtbot.waitSignal(empty.destroyed, timeout=PATIENCE):
        empty.deleteLater()
    closed.set()
    CoreWorker.await_workers(PATIENCE)
    qtbot.wait(300)
    assert len(viewer.layers) == 0


def test_every_control_has_a_tooltip(panel):
    from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QComboBox, QPushButton, QSlider

    for kind in (QAbstractSpinBox, QCheckBox, QComboBox, QPushButton, QSlider):
        for widget in panel.findChildren(kind):
            assert widget.toolTip() or not widget.isVisibleTo(panel), widget


# ---- plain functions --------------------------------------------------------------------------------------------


def test_names_of_targets():
    assert [maps.target_name(t) for t in ("z", "c", "g02", "g12", "other")] == [
        "z, image latent",
        "c, text embedding",
        "g02, guidance layer 2",
        "g12, guidance layer 12",
        "other",
    ]


def test_rows_of_a_table(out_dir, tmp_path):
    found = maps.read_rows(out_dir / "sub-01" / "sub-01_contribution.tsv")
    assert len(found) == 8
    assert np.isnan(found[3].se)
    assert [row.outside for row in found[:4]] == [False, False, True, False]
    old = tmp_path / "old.tsv"
    old.write_text("roi\ttarget\tshare\tse\nV1v\tc\t0.1\t0.2\n")
    assert maps.read_rows(old) == [maps.Row("", "V1v", "c", 0.1, 0.2, 0)]
    old.write_text("roi\ttarget\tshare\tse\nV1v\tc\tlots\t0.2\n")
    with pytest.raises(outputs.OutputFolderError, match="must have the columns roi, target, share and se"):
        maps.read_rows(old)


def test_families_of_the_folder(out_dir):
    found = outputs.find_subjects(out_dir)["sub-01"]
    assert set(found.regions) == set(REGIONS)
    family = maps.read_family("prf-visualrois", found.regions["prf-visualrois"])
    assert family.names[1] == "V1v"
    assert (family.label("V2v"), family.label("outside prf-visualrois"), family.label("V9")) == (2, 0, None)
