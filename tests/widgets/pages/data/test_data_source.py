"""The Data panel: which scans."""

from unittest.mock import Mock

import pytest
from qtpy.compat import isalive
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QFileDialog
from superqt.utils import WorkerBase

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.pages.data import DataPanel
from napari_neuraldiffuser.widgets.session.engine import EngineError
from napari_neuraldiffuser.widgets.source.form import DESIGN, nsd_root
from napari_neuraldiffuser.widgets.source.selection import absolute_masks
from tests.support import ROOT
from tests.support.window.data_page import DESCRIBED, betas, drop, nsd_folder


def test_at_first_it_says_what_to_choose(panel):
    assert not panel.run_button.isEnabled()
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
    assert panel.run_button.isEnabled()


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


def test_a_further_test_set_is_chosen_and_shown_again(opened, nsd, tmp_path):
    page = opened.form.nsd

    def choose(name):
        page.tested.setCurrentIndex(page.tested.findData(name))
        page.tested.activated.emit(page.tested.currentIndex())

    assert not page.beside["trials"].isVisibleTo(page)
    choose("synthetic")
    assert opened.session.recipe.source == Source(str(nsd), "subj01", test_set="synthetic")
    choose("imagery")
    assert page.beside["trials"].isVisibleTo(page) and "Rows" in page.problem()
    table, targets = tmp_path / "rows.tsv", tmp_path / "targets"
    table.touch()
    targets.mkdir()
    source = Source(str(nsd), "subj01", trials=str(table), images=str(targets), test_set="imagery")
    opened.form.show_source(Source(str(nsd), "subj02"))
    assert page.tested.currentData() == "core" and page.source() == Source(str(nsd), "subj02")
    opened.form.show_source(source)
    assert page.source() == source and not page.problem()


def test_a_typed_folder_is_taken_after_a_while(panel, nsd, qtbot):
    line = panel.form.nsd.folder.lineEdit()
    qtbot.keyClicks(line, str(nsd))
    assert panel.session.engine.calls == []
    qtbot.waitUntil(lambda: "describe" in panel.session.engine.names())
    assert panel.session.engine.names().count("describe") == 1
    assert panel.form.nsd.folder.recent() == [str(nsd)]


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
    assert panel.form.nsd.folder.recent() == []


def test_a_wrong_folder_leaves_the_recipe_its_data_and_says_so(opened, nsd, tmp_path):
    opened.form.take_folder(str(tmp_path / "nowhere"))
    assert opened.session.recipe.source == Source(str(nsd), "subj01")
    assert "must be an existing folder" in opened.hint.text()


def test_a_dropped_folder_is_its_nsd_folder(panel, nsd):
    drop(panel, nsd / "nsddata/ppdata/subj02")
    assert panel.session.recipe.source.nsd_dir == str(nsd)
    assert nsd_root(nsd / "nsddata") == str(nsd)


def test_what_describe_says_is_wrong_is_shown_and_can_be_tried_again(panel, nsd):
    panel.form.take_folder(str(nsd))
    panel.session.engine.answer("describe", UserError("betas must be there, got none. Download them."))
    assert "Download them." in panel.hint.text()
    assert not panel.run_button.isEnabled()
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
    WorkerBase.await_workers(30000)


def test_the_sample_of_the_button_is_in_the_manifest():

    import yaml

    from napari_neuraldiffuser.widgets.source.form import PLUGIN, SAMPLE

    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text())
    assert manifest["name"] == PLUGIN
    assert SAMPLE in [sample["key"] for sample in manifest["contributions"]["sample_data"]]


@pytest.mark.parametrize("text", ["~/nsd", "nsd", "./nsd"])
def test_the_folder_is_taken_by_its_whole_path(panel, nsd, home, text):
    panel.form.nsd.folder.setEditText(text)
    panel.form.nsd._taken()
    assert panel.session.recipe.source == Source(str(nsd), "subj01")
    assert panel.form.nsd.folder.recent() == [str(nsd)]
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


def test_glmsingles_betas_need_no_table_where_their_design_lies_beside(panel, tmp_path):
    from tests.support.nsd.glmsingle_files import make, write

    outputs = make(tmp_path / "glm")
    panel.form.use_own.setChecked(True)
    fields = panel.form.own.fields
    assert "*.npy" in fields["betas"].filters and "*.hdf5" in fields["betas"].filters
    fields["mask"].choose(str(outputs.mask_file))
    fields["betas"].choose(str(outputs.folder / "betas.nii.gz"))
    assert panel.form.problem() == "Trials must be given. Choose the file."
    fields["betas"].choose(str(write(outputs, "npy")))
    assert panel.form.problem() == ""
    assert panel.session.recipe.source.betas.endswith(".npy")
    (outputs.folder / "DESIGNINFO.npy").unlink()
    assert panel.form.problem() == "Trials must be given. Choose the file."


def test_voxels_can_be_chosen_by_noise_ceiling(opened):
    controls = opened.controls.controls
    controls["min_noise_ceiling"].setValue(12.5)
    controls["max_voxels"].setValue(300)
    found = opened.session.recipe.settings.betas
    assert (found.min_noise_ceiling, found.max_voxels, found.ceiling_from) == (12.5, 300, "auto")
    assert "circular" in controls["ceiling_from"].toolTip()
