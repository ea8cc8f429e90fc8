"""The Data panel: sessions, drawn masks, memory, and a real subject in the viewer."""

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication
from superqt.utils import WorkerBase

from napari_neuraldiffuser.core.params import BetasParams
from napari_neuraldiffuser.widgets.files.layer_info import KEY
from napari_neuraldiffuser.widgets.pages.data import DataPanel
from napari_neuraldiffuser.widgets.session import session as sessions
from tests.support.window.data_page import AFFINE, DESCRIBED, betas, drop, nsd_folder
from tests.support.window.fake_engine import FakeEngine


@pytest.mark.parametrize(("text", "good"), [("1-2,4", True), ("all", True), ("3", False), ("2-1", False), ("", False)])
def test_sessions_are_checked_as_they_are_typed(opened, qtbot, text, good):
    line = opened.sessions.line
    line.selectAll()
    line.clear()
    line.textEdited.emit("")
    if text:
        qtbot.keyClicks(line, text)
    assert opened.sessions.problem() == "" if good else "sessions must be" in opened.hint.text()
    assert opened.run_button.isEnabled() == good
    if good:
        assert betas(opened).sessions == text
        assert opened.sessions.note.text() == "on disk: 1-2, 4"


def test_labels_layers_are_listed_as_they_come_and_go(opened, viewer):
    viewer.add_image(np.zeros((3, 3, 3)))
    assert opened.mask.layer.count() == 0
    assert not opened.mask.use.isEnabled()
    first = viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="first")
    viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="second")
    viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="ROI", metadata={KEY: {"kind": "roi"}})
    assert [opened.mask.layer.itemText(k) for k in range(3)] == ["second", "first", "ROI"]
    opened.mask.layer.setCurrentText("first")
    first.name = "renamed"
    assert [opened.mask.layer.itemText(k) for k in range(3)] == ["second", "renamed", "ROI"]
    viewer.layers.remove("second")
    assert [opened.mask.layer.itemText(k) for k in range(2)] == ["renamed", "ROI"]


@pytest.mark.parametrize(
    ("join", "before", "after"),
    [(0, "nsdgeneral", ""), (1, "V1", "V1 & "), (2, "V1", "V1 + "), (3, "V1 + hV4", "V1 + hV4 - ")],
)
def test_a_drawn_mask_becomes_a_term(opened, viewer, qtbot, join, before, after):
    opened.roi.choose(before)
    opened.mask.new.click()
    layer = viewer.layers[-1]
    layer.data[1, 2, 3] = 1
    opened.mask.join.setCurrentIndex(join)
    with qtbot.waitSignal(opened.mask.drawn):
        opened.mask.use.click()
    roi = betas(opened).roi
    assert roi.startswith(after)
    path = roi.removeprefix(after)
    assert path.endswith(".nii.gz")
    assert "/cache/napari-neuraldiffuser/masks/mask-" in path
    image = nib.load(path)
    assert image.shape == tuple(DESCRIBED["shape"])
    np.testing.assert_allclose(image.affine, AFFINE)
    # the layer's first index runs up, its last to the right; the file's x runs to the left
    assert np.argwhere(image.get_fdata()).tolist() == [[7 - 1 - 3, 2, 1]]
    assert not opened.roi.tree.isEnabled()


def test_in_a_window_layers_are_drawn_and_let_go(make_napari_viewer_proxy, monkeypatch, nsd):
    """The panel hears of layers as long as it lives, and not when its dock was closed before the viewer."""
    from napari._vispy.layers import labels

    monkeypatch.setattr(labels, "get_max_texture_sizes", lambda: (2048, 2048))
    viewer = make_napari_viewer_proxy()
    session = sessions.Session(viewer, FakeEngine())
    panel = DataPanel(viewer, session)
    dock = viewer.window.add_dock_widget(panel, name="Data")
    drop(panel, nsd)
    session.engine.answer("describe", dict(DESCRIBED))
    panel.mask.new.click()
    assert [layer.mode for layer in viewer.layers.selection] == ["paint"]
    assert panel.mask.layer.currentText() == "mask"
    combo = panel.mask.layer
    viewer.window.remove_dock_widget(dock)
    panel.deleteLater()
    QApplication.sendPostedEvents(panel, QEvent.Type.DeferredDelete)
    with pytest.raises(RuntimeError):
        combo.count()
    viewer.add_labels(np.zeros((3, 3, 3), dtype=int))
    session.close()


def test_a_mask_on_a_wrong_grid_is_explained(opened, viewer, qtbot):
    viewer.add_labels(np.ones((4, 4, 4), dtype=int), name="elsewhere")
    with qtbot.waitSignal(opened.mask.failed):
        opened.mask.use.click()
    assert "elsewhere must lie on the betas' grid" in opened.message.text()
    assert "New mask layer" in opened.message.text()
    assert betas(opened).roi == "nsdgeneral"
    assert opened.mask.use.isEnabled()


def test_other_params_are_the_sessions(opened):
    controls = opened.controls.controls
    controls["zscore"].setChecked(False)
    controls["space"].setCurrentText("func1mm")
    assert betas(opened) == BetasParams(zscore=False, space="func1mm")
    assert "These are the numbers of func1pt8mm; func1mm is chosen" in opened.facts.text()
    assert not opened.mask.new.isEnabled(), "its grid is not known"
    opened.session.change_stage("betas", BetasParams(roi="V1", sessions="4", average_repeats=False))
    assert opened.roi.expression == "V1"
    assert opened.sessions.text == "4"
    assert not controls["average_repeats"].isChecked()
    assert opened.mask.new.isEnabled()


def test_a_folder_of_one_millimetre_only_is_read_so(panel, nsd):
    panel.form.take_folder(str(nsd))
    panel.session.engine.answer("describe", {**DESCRIBED, "space": "func1mm"})
    assert betas(panel).space == "func1mm"
    assert "space: func1mm in place of func1pt8mm" in panel.facts.text()


def test_reset_keeps_the_data(opened, nsd):
    opened.session.change_stage("betas", BetasParams(roi="V1", sessions="1", zscore=False, space="func1mm"))
    opened.reset()
    assert betas(opened) == BetasParams()
    assert opened.roi.expression == "nsdgeneral"
    assert opened.sessions.text == "all"
    assert opened.controls.controls["zscore"].isChecked()
    assert opened.session.recipe.source.nsd_dir == str(nsd)


def test_the_next_session_begins_where_this_one_ended(opened, viewer, qtbot, tmp_path, nsd):
    other = nsd_folder(tmp_path / "other", "subj05")
    opened.form.take_folder(str(other))
    opened.more.expand(animate=False)
    opened._store()
    opened.session.save()

    later = sessions.Session(viewer, FakeEngine())
    panel = DataPanel(viewer, later)
    qtbot.addWidget(panel)
    assert panel.form.nsd.path == str(other)
    assert panel.form.nsd.subject.currentText() == "subj05"
    assert panel.form.nsd.folder.recent() == [str(other), str(nsd)]
    assert panel.more.isExpanded()
    assert later.engine.names() == ["describe"]
    later.close()


@pytest.mark.parametrize("values", [{}, {"recent": 3, "own": [], "page": 1}, {"recent": [1], "own": {"mask": None}}])
def test_whatever_was_remembered_a_panel_opens(panel, values):
    panel.restore(values)
    assert panel.form.nsd.folder.recent() == []


def test_showing_and_drawing_on_a_real_subject(viewer, qtbot, nsd_dir):
    """With the real engine: described, counted, shown once, and a mask drawn where the regions are."""
    panel = DataPanel(viewer)
    qtbot.addWidget(panel)
    try:
        panel.form.take_folder(str(nsd_dir))
        qtbot.waitUntil(lambda: panel.session.described is not None)
        described = panel.session.described
        panel.roi.choose("V1 - V1d")
        qtbot.waitUntil(lambda: "selected" in panel.count.text())
        n_voxels = described["families"]["prf-visualrois"]["V1v"]
        assert panel.count.text() == f"{n_voxels} voxels selected"
        panel.run_button.click()
        qtbot.waitUntil(lambda: panel.message.text().endswith("layers added."))
        kinds = [layer.metadata[KEY]["kind"] for layer in viewer.layers]
        assert sorted(kinds) == ["anatomy"] + ["roi"] * len(described["families"])
        assert [layer.name for layer in viewer.layers if layer.visible] == ["anatomy", "ROI prf-visualrois"]
        panel.run_button.click()
        qtbot.waitUntil(lambda: panel.message.text() == "Everything is shown already.")
        assert len(viewer.layers) == len(kinds)
        regions = viewer.layers["ROI prf-visualrois"]
        names = regions.features.set_index("roi")["index"]
        panel.mask.new.click()
        viewer.layers[-1].data[...] = np.asarray(regions.data) == names["V1v"]
        with qtbot.waitSignal(panel.mask.drawn):
            panel.mask.use.click()
        qtbot.waitUntil(lambda: panel.count._task is None and panel.count._asked[1] == betas(panel).roi)
        assert panel.count.text() == f"{n_voxels} voxels selected", "the drawn voxels are the region's"
    finally:
        WorkerBase.await_workers(30000)
        panel.session.close()
