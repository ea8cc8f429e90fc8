"""From BOLD on the Data page: a folder is looked into, betas are asked for, and own scans are what comes back."""

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BoldParams


@pytest.fixture
def folder(panel, tmp_path):
    """A folder that was chosen and looked into."""
    place = tmp_path / "bids"
    place.mkdir()
    panel.bold.folder.choose(str(place))
    panel.session.engine.answer("bold_subjects", {"subjects": ["01", "02"], "out_dir": str(place / "derivatives/nd")})
    return place


def test_at_first_the_button_says_what_is_missing(panel):
    assert not panel.bold.run_button.isEnabled()
    assert "BIDS folder must be given" in panel.bold.run_button.toolTip()
    assert not panel.bold.hint.text() and panel.session.engine.calls == []


def test_the_folder_fills_the_subjects(panel, folder):
    assert [panel.bold.subject.itemText(k) for k in range(2)] == ["01", "02"]
    assert panel.bold.out.edit.placeholderText() == str(folder / "derivatives/nd")
    assert panel.bold.run_button.isEnabled() and not panel.session.busy


def test_a_folder_without_bold_is_told(panel, tmp_path):
    panel.bold.folder.choose(str(tmp_path))
    assert "looking at the folder" in panel.bold.run_button.toolTip()
    panel.session.engine.answer("bold_subjects", UserError("BIDS folder must hold preprocessed BOLD."))
    assert "must hold preprocessed BOLD" in panel.bold.hint.text() and not panel.bold.run_button.isEnabled()
    panel.bold.folder.choose(str(tmp_path / "nowhere"))
    assert "must be an existing folder" in panel.bold.run_button.toolTip()


def test_the_answer_about_a_former_folder_is_ignored(panel, folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "third").mkdir()
    panel.bold.folder.choose(str(tmp_path / "other"))
    _, former = panel.session.engine.last("bold_subjects")
    panel.bold.folder.choose(str(tmp_path / "third"))
    former.end({"subjects": ["99"], "out_dir": ""})
    assert panel.bold.subject.count() == 0


def test_betas_become_the_own_scans_of_the_session(panel, folder, tmp_path):
    panel.bold.subject.setCurrentText("02")
    panel.bold.controls.controls["estimator"].setCurrentText("lss")
    panel.bold.run_button.click()
    args, _ = panel.session.engine.last("betas")
    assert args["folder"] == str(folder) and args["subject"] == "02"
    assert BoldParams.from_dict(args["params"]) == BoldParams(estimator="lss")
    assert panel.session.busy and panel.cancel.isEnabled() and not panel.bold.run_button.isEnabled()
    panel.session.engine.tell("betas", 3, 18, "runs fitted")
    assert (panel.bar.value(), panel.bar.maximum()) == (3, 18)
    files = {name: tmp_path / name for name in ("b.nii.gz", "m.nii.gz", "t.tsv")}
    for path in files.values():
        path.touch()
    source = Source(subject="02", **dict(zip(("betas", "mask", "trials"), map(str, files.values()), strict=True)))
    made = {"source": source.to_dict(), "page": "/x/design.html", "notes": ["3 of 99 trials have no betas"]}
    panel.session.engine.answer("betas", made)
    assert panel.session.recipe.source == source
    assert panel.form.use_own.isChecked() and panel.form.own.fields["betas"].path == str(files["b.nii.gz"])
    assert panel.session.engine.last("describe")[0] == {"source": source.to_dict()}
    assert "design.html" in panel.message.text() and "3 of 99 trials" in panel.message.text()
    assert panel.bold.run_button.isEnabled()


def test_it_can_be_cancelled_and_fails_aloud(panel, folder):
    before = panel.session.recipe.source
    panel.bold.run_button.click()
    panel.cancel.click()
    assert panel.session.engine.last("betas")[1].cancelling
    panel.session.engine.answer("betas", Cancelled())
    panel.bold.run_button.click()
    panel.session.engine.answer("betas", UserError("BOLD must be of one space, got MNI, T1w. Choose one."))
    assert "BOLD must be of one space" in panel.message.text() and panel.session.recipe.source == before


@pytest.mark.parametrize("answer", [{"subjects": ["01"], "out_dir": ""}, UserError("BIDS folder must hold BOLD.")])
def test_an_answer_after_the_page_closed_reaches_nobody(panel, tmp_path, qtbot, answer):
    panel.bold.folder.choose(str(tmp_path))
    _, task = panel.session.engine.last("bold_subjects")
    with qtbot.waitSignal(panel.bold.destroyed):
        panel.bold.deleteLater()
    task.end(answer)
