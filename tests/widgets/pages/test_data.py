"""The Data panel: source, regions, sessions and masks, on an engine whose answers the tests give."""

from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BetasParams, SimulationParams
from napari_neuraldiffuser.widgets.files.layer_info import KEY
from napari_neuraldiffuser.widgets.pages.data import DataPanel
from napari_neuraldiffuser.widgets.session.engine import EngineError
from napari_neuraldiffuser.widgets.session.worker import CoreWorker
from napari_neuraldiffuser.widgets.source.form import DESIGN, nsd_root
from napari_neuraldiffuser.widgets.source.roi_tree import USE, WITHOUT
from napari_neuraldiffuser.widgets.source.selection import absolute_masks
from tests.support import ROOT
from tests.support.window.fake_engine import FakeEngine

FAMILIES = {
    "floc-faces": {"OFA": 5, "FFA-1": 4, "FFA-2": 3},
    "nsdgeneral": {"nsdgeneral": 20},
    "prf-visualrois": {"V1v": 4, "V1d": 4, "hV4": 2},
}
AFFINE = [[-2.0, 0, 0, 7], [0, 2, 0, -9], [0, 0, 2, -4], [0, 0, 0, 1]]
DESCRIBED = {
    "subjects": ["subj01", "subj02"],
    "sessions": [1, 2, 4],
    "trials": 2250,
    "families": FAMILIES,
    "test_ids": [3, 7],
    "n_train": 1100,
    "space": "func1pt8mm",
    "shape": [7, 9, 5],
    "affine": AFFINE,
    "voxel_sizes_mm": [2.0, 2.0, 2.0],
    "notes": ["sessions without betas on disk: 3"],
}
CHECKED, UNCHECKED, PARTLY = Qt.CheckState.Checked, Qt.CheckState.Unchecked, Qt.CheckState.PartiallyChecked


def nsd_folder(place, *subjects):
    """What makes a folder an NSD folder for the form."""
    (place / DESIGN).parent.mkdir(parents=True)
    (place / DESIGN).touch()
    for subject in subjects:
        (place / "nsddata/ppdata" / subject / "func1pt8mm").mkdir(parents=True)
    return place


@pytest.fixture
def viewer(qtbot):
    """Without a window: only what is shown needs one."""
    return ViewerModel()


@pytest.fixture
def nsd(tmp_path):
    return nsd_folder(tmp_path / "nsd", "subj01", "subj02")


@pytest.fixture
def panel(viewer, session, qtbot):
    made = DataPanel(viewer)
    qtbot.addWidget(made)
    yield made
    CoreWorker.await_workers(30000)


@pytest.fixture
def opened(panel, nsd):
    """On an NSD folder whose description has arrived."""
    panel.form.take_folder(str(nsd))
    panel.session.engine.answer("describe", dict(DESCRIBED))
    return panel


def betas(panel):
    return panel.session.recipe.settings.betas


def leaf(panel, family, region):
    return panel.roi.tree._leaves[family, region]


def tick(panel, qtbot, item, column=USE, state=CHECKED):
    with qtbot.waitSignal(panel.roi.tree.changed):
        item.setCheckState(column, state)


def drop(panel, path):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    panel.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, buttons, keys))


# the source


def test_at_first_it_says_what_to_choose(panel):
    assert not panel.run.isEnabled()
    assert "NSD folder must be chosen" in panel.hint.text()
    assert panel.session.engine.calls == []
    assert not panel.mask.new.isEnabled()


def test_a_folder_fills_its_subjects_and_is_described(panel, nsd, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(nsd))
    panel.form.nsd.browse.click()
    assert panel.session.recipe.source == Source(str(nsd), "subj01")
    assert [panel.form.nsd.subject.itemText(k) for k in range(2)] == ["subj01", "subj02"]
    args, _ = panel.session.engine.last("describe")
    assert args == {"source": Source(str(nsd), "subj01").to_dict()}
    assert panel.facts.text() == "looking at the files …"
    assert not panel.session.busy, "other panels go on"
    panel.session.engine.answer("describe", dict(DESCRIBED))
    for words in ("2,250 trials in 3 sessions", "2 test stimuli, 1,100 for training", "2 × 2 × 2 mm", "on disk: 3"):
        assert words in panel.facts.text()
    assert panel.session.described["trials"] == 2250
    assert panel.run.isEnabled()


def test_another_subject_is_described_and_the_former_answer_ignored(opened, nsd):
    subject = opened.form.nsd.subject
    subject.setCurrentText("subj02")
    subject.activated.emit(1)
    assert opened.session.recipe.source.subject == "subj02"
    assert opened.session.described is None
    _, late = opened.session.engine.last("describe")
    subject.setCurrentText("subj01")
    subject.activated.emit(0)
    assert late.cancelling
    late.end({**DESCRIBED, "trials": 1})
    assert opened.session.described is None
    opened.session.engine.answer("describe", dict(DESCRIBED))
    assert opened.session.described["trials"] == 2250


def test_a_typed_folder_is_taken_after_a_while(panel, nsd, qtbot):
    line = panel.form.nsd.folder.lineEdit()
    qtbot.keyClicks(line, str(nsd))
    assert panel.session.engine.calls == []
    qtbot.waitUntil(lambda: "describe" in panel.session.engine.names(), timeout=5000)
    assert panel.session.engine.names().count("describe") == 1
    assert panel.form.nsd.recent() == [str(nsd)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "must be an existing folder"), ("plain", f"must hold {DESIGN}"), ("bare", "must hold subjects")],
)
def test_a_wrong_folder_is_said_beside_it(panel, tmp_path, name, message):
    (tmp_path / "plain").mkdir()
    nsd_folder(tmp_path / "bare")
    panel.form.take_folder(str(tmp_path / name))
    assert message in panel.form.nsd.problem_label.text()
    assert message in panel.hint.text()
    assert panel.session.engine.calls == []
    assert panel.form.nsd.recent() == []


def test_a_wrong_folder_leaves_the_other_panels_their_data_and_says_so(opened, nsd, tmp_path):
    opened.form.take_folder(str(tmp_path / "nowhere"))
    assert opened.session.recipe.source == Source(str(nsd), "subj01")
    assert f"the other panels keep subj01 of {nsd}" in opened.hint.text()


def test_a_dropped_folder_is_its_nsd_folder(panel, nsd):
    drop(panel, nsd / "nsddata/ppdata/subj02")
    assert panel.session.recipe.source.nsd_dir == str(nsd)
    assert nsd_root(nsd / "nsddata") == str(nsd)


def test_what_describe_says_is_wrong_is_shown_and_can_be_tried_again(panel, nsd):
    panel.form.take_folder(str(nsd))
    panel.session.engine.answer("describe", UserError("betas must be there, got none. Download them."))
    assert "Download them." in panel.hint.text()
    assert not panel.run.isEnabled()
    panel.session.change(models="other")
    assert panel.session.engine.names().count("describe") == 1, "not again for every change elsewhere"
    panel.form.take_folder(str(nsd))
    assert panel.session.engine.names().count("describe") == 2
    panel.session.engine.answer("describe", dict(DESCRIBED))
    assert panel.hint.text() == ""


def test_a_crash_while_describing_offers_details(panel, nsd):
    panel.form.take_folder(str(nsd))
    panel.session.engine.answer("describe", EngineError("The computing process ended.", "trace"))
    assert "The computing process ended." in panel.hint.text()
    assert panel.details.isVisibleTo(panel)


def test_own_scans(panel, tmp_path):
    panel.form.use_own.setChecked(True)
    fields = panel.form.own.fields
    assert "Betas must be given" in panel.hint.text()
    for name in ("betas.nii.gz", "mask.nii.gz", "trials.tsv", "a.nii", "b.nii"):
        (tmp_path / name).touch()
    fields["betas"].choose(str(tmp_path / "betas.nii.gz"))
    fields["mask"].choose(str(tmp_path / "no.nii.gz"))
    assert fields["mask"].problem_label.text().startswith("Mask must be an existing file")
    assert panel.session.engine.calls == []
    fields["mask"].choose(str(tmp_path / "mask.nii.gz"))
    fields["trials"].choose(str(tmp_path / "trials.tsv"))
    assert panel.session.recipe.source.own
    fields["rois"].choose(f"{tmp_path / 'a.nii'}; {tmp_path / 'b.nii'}")
    args, _ = panel.session.engine.last("describe")
    assert args["source"]["rois"] == [str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]
    assert args["source"]["betas"] == str(tmp_path / "betas.nii.gz")
    fields["rois"].choose(f"{tmp_path / 'a.nii'}; {tmp_path / 'c.nii'}")
    assert f"got {tmp_path / 'c.nii'}" in panel.hint.text()
    panel.form.own.subject.setText("sub 1")
    fields["rois"].choose("")
    assert "Subject must look like subj01" in panel.hint.text()
    # the default region of NSD is not among own ones
    found = {**DESCRIBED, "families": {"mask": {"mask": 9}}, "space": "native", "sessions": ["01", "02"]}
    panel.session.engine.answer("describe", found)
    assert betas(panel).roi == "mask"
    assert "roi: mask in place of nsdgeneral" in panel.facts.text()


def test_the_sample_is_asked_for_and_adopted(panel, nsd):
    opened = []

    def sample(plugin, name):
        opened.append((plugin, name))
        assert not panel.sample.isEnabled()
        panel.session.choose(Source(str(nsd), "subj02"))

    panel.viewer = Mock(open_sample=sample)
    panel.sample.click()
    assert opened == [("napari-neuraldiffuser", "simulated_subject")]
    assert panel.sample.isEnabled()
    assert panel.form.nsd.path == str(nsd)
    assert panel.form.nsd.subject.currentText() == "subj02"
    panel.viewer.open_sample = Mock(side_effect=UserError("The simulated subject was cancelled."))
    panel.sample.click()
    assert "cancelled" in panel.message.text()
    assert panel.sample.isEnabled()


@pytest.mark.parametrize("error", [None, UserError("cancelled")])
def test_a_panel_closed_while_the_sample_is_written(viewer, session, error):
    panel, failed = DataPanel(viewer), Mock()
    panel.fail = failed

    def sample(plugin, name):
        """As when the dock is closed within the sample's event loop."""
        panel.deleteLater()
        QApplication.sendPostedEvents(panel, QEvent.Type.DeferredDelete)
        if error:
            raise error

    panel.viewer = Mock(open_sample=sample)
    button = panel.sample
    button._open()
    assert not isalive(button)
    failed.assert_not_called()
    CoreWorker.await_workers(30000)


def test_the_sample_of_the_button_is_in_the_manifest():

    import yaml

    from napari_neuraldiffuser.widgets.source.form import PLUGIN, SAMPLE

    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text())
    assert manifest["name"] == PLUGIN
    assert SAMPLE in [sample["key"] for sample in manifest["contributions"]["sample_data"]]


# paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Current folder and home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("text", ["~/nsd", "nsd", "./nsd"])
def test_the_folder_is_taken_by_its_whole_path(panel, nsd, home, text):
    panel.form.nsd.folder.setEditText(text)
    panel.form.nsd._taken()
    assert panel.session.recipe.source == Source(str(nsd), "subj01")
    assert panel.form.nsd.recent() == [str(nsd)]
    assert panel.form.nsd.path == text, "what is being typed is left alone"


def test_own_files_are_taken_by_their_whole_paths(panel, home):
    for name in ("betas.nii.gz", "mask.nii.gz", "trials.tsv", "a.nii", "b.nii"):
        (home / name).touch()
    panel.form.use_own.setChecked(True)
    names = {"betas": "~/betas.nii.gz", "mask": "mask.nii.gz", "trials": "trials.tsv", "rois": "a.nii; ~/b.nii"}
    for name, text in names.items():
        panel.form.own.fields[name].choose(text)
    source = panel.session.recipe.source
    assert (source.betas, source.mask) == (str(home / "betas.nii.gz"), str(home / "mask.nii.gz"))
    assert source.rois == (str(home / "a.nii"), str(home / "b.nii"))
    assert source.images == ""
    assert panel.state()["own"]["rois"] == f"{home / 'a.nii'}; {home / 'b.nii'}"


def test_a_home_that_nobody_has_is_said(panel):
    panel.form.nsd.folder.setEditText("~nobody-has-this-name/nsd")
    panel.form.nsd._taken()
    assert "must be an existing folder, got ~nobody-has-this-name/nsd" in panel.hint.text()


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("drawn.nii.gz", "{}/drawn.nii.gz"),
        ("V1 - ~/drawn.nii.gz + hV4", "V1 - {}/drawn.nii.gz + hV4"),
        ('V1 & "a - b.nii"', 'V1 & "{}/a - b.nii"'),
        ("V1 + {}/drawn.nii.gz", "V1 + {}/drawn.nii.gz"),
    ],
)
def test_masks_are_taken_by_their_whole_paths(opened, home, typed, taken):
    (home / "drawn.nii.gz").touch()
    (home / "a - b.nii").touch()
    opened.roi.choose(typed.format(home))
    assert betas(opened).roi == taken.format(home)
    assert opened.roi.expression == taken.format(home)


@pytest.mark.parametrize("text", ["V1 + gone.nii", 'V1 + "open.nii', "V1 - + a.nii"])
def test_masks_that_are_not_there_stay_as_they_are(home, text):
    assert absolute_masks(text) == text


# regions


def test_the_default_is_ticked(opened):
    assert opened.roi.expression == "nsdgeneral"
    assert leaf(opened, "nsdgeneral", "nsdgeneral").checkState(USE) == CHECKED
    assert opened.roi.tree.marks() == {("nsdgeneral", "nsdgeneral"): "with"}
    assert opened.roi.tree.topLevelItem(0).text(1) == "12"


def test_ticks_become_an_expression(opened, qtbot):
    tick(opened, qtbot, leaf(opened, "nsdgeneral", "nsdgeneral"), state=UNCHECKED)
    assert "must have a region" in opened.roi.error.text()
    assert "Until then nsdgeneral is used" in opened.hint.text()
    assert betas(opened).roi == "nsdgeneral", "kept until there is another"
    family = opened.roi.tree.topLevelItem(2)
    seen = []
    opened.session.recipe_changed.connect(seen.append)
    tick(opened, qtbot, family)
    assert (opened.roi.expression, betas(opened).roi) == ("prf-visualrois", "prf-visualrois")
    assert len(seen) == 1, "one click, one change"
    tick(opened, qtbot, leaf(opened, "prf-visualrois", "hV4"), state=UNCHECKED)
    assert betas(opened).roi == "V1"
    assert family.checkState(USE) == PARTLY
    tick(opened, qtbot, leaf(opened, "floc-faces", "FFA-2"), WITHOUT)
    assert betas(opened).roi == "V1 - FFA-2"


def test_a_region_is_used_or_left_out_but_not_both(opened, qtbot):
    item = leaf(opened, "floc-faces", "OFA")
    tick(opened, qtbot, item)
    tick(opened, qtbot, item, WITHOUT)
    assert item.checkState(USE) == UNCHECKED
    assert betas(opened).roi == "nsdgeneral - OFA"
    tick(opened, qtbot, item)
    assert betas(opened).roi == "OFA + nsdgeneral"
    tick(opened, qtbot, opened.roi.tree.topLevelItem(0), WITHOUT)
    assert betas(opened).roi == "nsdgeneral - floc-faces"
    assert opened.roi.tree.topLevelItem(0).checkState(USE) == UNCHECKED


@pytest.mark.parametrize(
    ("expression", "ticked", "left_out"),
    [
        ("V1 + hV4", {"V1v", "V1d", "hV4"}, set()),
        ("nsdgeneral - FFA", {"nsdgeneral"}, {"FFA-1", "FFA-2"}),
        ("floc-faces - OFA", {"FFA-1", "FFA-2"}, {"OFA"}),
    ],
)
def test_a_typed_expression_becomes_ticks(opened, expression, ticked, left_out):
    opened.roi.line.setText(expression)
    opened.roi.line.editingFinished.emit()
    marks = opened.roi.tree.marks()
    assert {region for (_, region), mark in marks.items() if mark == "with"} == ticked
    assert {region for (_, region), mark in marks.items() if mark == "without"} == left_out
    assert betas(opened).roi == expression


def test_what_ticks_cannot_show_is_kept(opened):
    opened.roi.line.setText("nsdgeneral & V1")
    opened.roi.line.editingFinished.emit()
    assert betas(opened).roi == "nsdgeneral & V1"
    assert not opened.roi.tree.isEnabled()
    assert "cannot be shown as ticks" in opened.roi.note.text()
    opened.roi.quick["early"].click()
    assert opened.roi.tree.isEnabled()
    assert betas(opened).roi == "V1"


def test_a_wrong_expression_is_said_and_not_taken(opened):
    opened.roi.line.setText("nsdgenerl")
    opened.roi.line.editingFinished.emit()
    assert "Did you mean nsdgeneral?" in opened.roi.error.text()
    assert betas(opened).roi == "nsdgeneral"
    opened.roi.line.setText("V1")
    opened.roi.line.editingFinished.emit()
    assert not opened.roi.error.isVisibleTo(opened)
    assert betas(opened).roi == "V1"


def test_quick_sets_are_those_that_exist(opened):
    opened.roi.quick["early"].click()
    opened.roi.quick["faces"].click()
    assert betas(opened).roi == "V1 - FFA - OFA"
    opened.roi.quick["faces"].click()
    assert betas(opened).roi == "V1 - FFA - OFA", "once is enough"
    opened.roi.quick["all"].click()
    assert betas(opened).roi == "nsdgeneral"
    opened.session.set_described({**DESCRIBED, "families": {"nsdgeneral": {"nsdgeneral": 3}}})
    assert not opened.roi.quick["early"].isVisibleTo(opened)
    assert not opened.roi.quick["faces"].isVisibleTo(opened)
    assert opened.roi.quick["all"].isVisibleTo(opened)


def test_a_region_that_the_next_subject_lacks_is_replaced(opened):
    opened.roi.choose("V1")
    opened.session.set_described({**DESCRIBED, "families": {"nsdgeneral": {"nsdgeneral": 3}}})
    assert betas(opened).roi == "nsdgeneral"
    assert "roi: nsdgeneral in place of V1" in opened.facts.text()


def test_voxels_are_counted_once_the_choice_rests(opened, qtbot):
    engine = opened.session.engine
    for expression in ("V1", "hV4", "V1 + hV4"):
        opened.roi.choose(expression)
    qtbot.waitUntil(lambda: "voxels" in engine.names(), timeout=5000)
    assert engine.names().count("voxels") == 1
    args, task = engine.last("voxels")
    assert args["recipe"]["settings"]["betas"]["roi"] == "V1 + hV4"
    opened.roi.choose("hV4")
    qtbot.waitUntil(lambda: engine.names().count("voxels") == 2, timeout=5000)
    task.end({"n_voxels": 999})
    assert "999" not in opened.count.text(), "the answer to a former question"
    engine.answer("voxels", {"n_voxels": 2})
    assert opened.count.text() == "2 voxels selected"
    opened.session.change_stage("betas", betas(opened).but(sessions="1-2"))
    qtbot.wait(400)
    assert engine.names().count("voxels") == 2, "sessions do not matter to them"
    opened.roi.choose("V1")
    qtbot.waitUntil(lambda: engine.names().count("voxels") == 3, timeout=5000)
    engine.answer("voxels", UserError("ROI V1 must have voxels above 0, got none."))
    assert "got none" in opened.count.text()


# sessions, masks, the rest


@pytest.mark.parametrize(("text", "good"), [("1-2,4", True), ("all", True), ("3", False), ("2-1", False), ("", False)])
def test_sessions_are_checked_as_they_are_typed(opened, qtbot, text, good):
    line = opened.sessions.line
    line.selectAll()
    line.clear()
    line.textEdited.emit("")
    if text:
        qtbot.keyClicks(line, text)
    assert opened.sessions.problem() == "" if good else "sessions must be" in opened.hint.text()
    assert opened.run.isEnabled() == good
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
    with qtbot.waitSignal(opened.mask.drawn, timeout=20000):
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

    from napari_neuraldiffuser.widgets.session import session as sessions

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
    with qtbot.waitSignal(opened.mask.failed, timeout=20000):
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
    from napari_neuraldiffuser.widgets.session import session as sessions

    later = sessions.Session(viewer, FakeEngine())
    panel = DataPanel(viewer, later)
    qtbot.addWidget(panel)
    assert panel.form.nsd.path == str(other)
    assert panel.form.nsd.subject.currentText() == "subj05"
    assert panel.form.nsd.recent() == [str(other), str(nsd)]
    assert panel.more.isExpanded()
    assert later.engine.names() == ["describe"]


@pytest.mark.parametrize("values", [{}, {"recent": 3, "own": [], "page": 1}, {"recent": [1], "own": {"mask": None}}])
def test_whatever_was_remembered_a_panel_opens(panel, values):
    panel.restore(values)
    assert panel.form.nsd.recent() == []


# showing


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    from napari_neuraldiffuser.core.nsd import simulate

    folder = tmp_path_factory.mktemp("simulated")
    simulate.write_subjects(folder, SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32))
    return folder


def test_showing_and_drawing_on_a_real_subject(viewer, qtbot, simulated):
    """With the real engine: described, counted, shown once, and a mask drawn where the regions are."""
    panel = DataPanel(viewer)
    qtbot.addWidget(panel)
    try:
        panel.form.take_folder(str(simulated))
        qtbot.waitUntil(lambda: panel.session.described is not None, timeout=60000)
        described = panel.session.described
        panel.roi.choose("V1 - V1d")
        qtbot.waitUntil(lambda: "selected" in panel.count.text(), timeout=60000)
        n_voxels = described["families"]["prf-visualrois"]["V1v"]
        assert panel.count.text() == f"{n_voxels} voxels selected"
        panel.run.click()
        qtbot.waitUntil(lambda: panel.message.text().endswith("layers added."), timeout=60000)
        kinds = [layer.metadata[KEY]["kind"] for layer in viewer.layers]
        assert sorted(kinds) == ["anatomy"] + ["roi"] * len(described["families"])
        assert [layer.name for layer in viewer.layers if layer.visible] == ["anatomy", "ROI prf-visualrois"]
        panel.run.click()
        qtbot.waitUntil(lambda: panel.message.text() == "Everything is shown already.", timeout=60000)
        assert len(viewer.layers) == len(kinds)
        regions = viewer.layers["ROI prf-visualrois"]
        names = regions.features.set_index("roi")["index"]
        panel.mask.new.click()
        viewer.layers[-1].data[...] = np.asarray(regions.data) == names["V1v"]
        with qtbot.waitSignal(panel.mask.drawn, timeout=20000):
            panel.mask.use.click()
        qtbot.waitUntil(lambda: panel.count._task is None and panel.count._asked[1] == betas(panel).roi, timeout=60000)
        assert panel.count.text() == f"{n_voxels} voxels selected", "the drawn voxels are the region's"
    finally:
        CoreWorker.await_workers(30000)
        panel.session.close()
