"""The report panel: what it asks the engine for, what it shows at the end, and what it says before and after."""

import os
from pathlib import Path

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.files.layer_info import KEY, about
from napari_neuraldiffuser.widgets.pages import report as panels
from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from napari_neuraldiffuser.widgets.pages.report import (
    ReportPanel,
    folder_problems,
    mean_se,
    proposed_folder,
    read_finished,
    score_rows,
)
from napari_neuraldiffuser.widgets.run.score_table import TableRow
from tests.support.window import contribution_page
from tests.support.window.output_folder import write_output
from tests.support.window.viewers import dock

SUMMARY = {
    "protocol": {"metrics": {"pixcorr": "Pearson correlation."}, "ceiling": {"levels": {"pixcorr": 0.93}}},
    "arms": {
        "unguided": {"pixcorr": {"mean": 0.5, "se": 0.02, "n": 4}, "ssim": {"mean": 0.7, "se": None, "n": 4}},
        "guided": {
            "pixcorr": {"mean": 0.54, "se": 0.03, "n": 4, "chance": 0.22},
            "ssim": {"mean": None, "se": None, "n": 0},
        },
    },
    "paired": {"pixcorr": {"mean": 0.04, "se": 0.01, "n": 8, "worse": 0.25}},
}


@pytest.fixture
def panel(viewer, session, qtbot, tmp_path):
    made = ReportPanel(viewer)
    dock(viewer, made, qtbot)
    made.folder.setText(str(tmp_path / "out"))
    made.chosen = True
    return made


@pytest.fixture
def ready(panel, session):
    session.choose(Source(nsd_dir="somewhere"))
    session.set_described({"test_ids": list(range(12))})
    return panel


@pytest.fixture
def result(tmp_path):
    out = write_output(tmp_path / "out")
    (out / "sub-01.html").write_text("<html></html>")
    about = {"summary": SUMMARY, "failed": [], "warnings": []}
    return {"page": str(out / "sub-01.html"), "out_dir": str(out), **about}


def finish(panel, result, qtbot):
    panel.run_button.click()
    panel.session.engine.answer("report", result)
    qtbot.waitUntil(lambda: panel.finished is not None)


def cells(panel, row):
    return [panel.scores.verticalHeaderItem(row).text(), *(panel.scores.item(row, j).text() for j in range(5))]


def test_the_proposed_folder_is_one_the_user_finds(viewer, session, qtbot):
    made = ReportPanel(viewer, session)
    qtbot.addWidget(made)
    session.choose(Source(nsd_dir="/data/my study"))
    assert made.folder.text() == str(proposed_folder(session.recipe.source))
    assert made.folder.text().endswith("NeuralDiffuser/my study")
    assert Path(made.folder.text()).is_relative_to(Path.home())
    assert made.folder.text() in made.where.text()
    session.choose(Source(betas="/scans/pilot/betas.nii.gz"))
    assert made.folder.text().endswith("NeuralDiffuser/pilot")
    made.folder.setText("/elsewhere")
    made.folder.textEdited.emit("/elsewhere")
    session.choose(Source(nsd_dir="/data/other"))
    assert made.folder.text() == "/elsewhere", "a folder of the user's own stays"


def test_the_page_says_which_decoder_it_will_have(ready, session):
    assert "is fitted first" in ready.where.text()
    session.set_decoded({"test_ids": [1, 2]})
    assert "the decoder of the Decode page is taken" in ready.where.text()


def test_what_is_missing_is_said_before_the_run(panel, session, tmp_path):
    assert "Data must be chosen" in panel.hint.text()
    session.choose(Source(nsd_dir="somewhere"))
    assert panel.hint.text() == ""
    assert panel.run_button.isEnabled()
    session.set_described({"test_ids": [1]})
    assert "at least 2 test stimuli, got 1" in panel.hint.text()
    session.set_described({"test_ids": [1, 2, 3]})
    assert panel.run_button.isEnabled()
    assert panel.all.text() == "all 3"
    assert panel.n_stimuli.maximum() == 3
    panel.folder.setText(" ")
    assert "Output folder must be chosen" in panel.hint.text()


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    assert folder_problems(tmp_path / "new" / "deeper") == []
    assert not (tmp_path / "new").exists()  # asked, not made
    (tmp_path / "file").write_text("")
    assert "got the file" in folder_problems(tmp_path / "file")[0]
    assert "can be written" in folder_problems(tmp_path / "file" / "below")[0]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "can be written" in folder_problems(tmp_path / "new")[0]


def test_run_asks_for_both_arms_of_the_recipe(ready, session, tmp_path):
    session.change(arms=("guided",), stimulus_ids=(5,), device="cuda:1")
    ready.run_button.click()
    args, _ = session.engine.last("report")
    assert args["recipe"]["arms"] == ["unguided", "guided"]
    assert args["recipe"]["stimulus_ids"] == []
    assert args["recipe"]["device"] == "cuda:1"
    assert args["out_dir"] == str(tmp_path / "out")
    assert args["n_stimuli"] is None
    assert session.recipe.arms == ("guided",)  # what Reconstruct does next stays its own affair


def test_first_n_stimuli(ready, session):
    assert not ready.n_stimuli.isEnabled()
    ready.all.setChecked(False)
    ready.n_stimuli.setValue(1)
    assert ready.n_stimuli.value() == 2
    ready.run_button.click()
    assert session.engine.last("report")[0]["n_stimuli"] == 2


def test_progress_names_the_stage(ready, session):
    ready.run_button.click()
    session.engine.tell("report", 3, 60, "images, guided")
    assert ready.message.text() == "images, guided (3 of 60)"
    assert ready.bar.value() == 3


def test_results_are_shown(ready, session, result, qtbot):
    assert not ready.results.isVisibleTo(ready)
    finish(ready, result, qtbot)
    assert ready.results.isVisibleTo(ready)
    assert cells(ready, 0) == ["PixCorr", "0.500", "0.540", "n/a, n/a", "0.22, 0.93", "+0.040 ± 0.010 (n = 8)"]
    assert "unguided: 0.500 ± 0.020, n = 4" in ready.scores.item(0, 1).toolTip()
    assert "Pearson correlation." in ready.scores.item(0, 0).toolTip()
    assert ready.scores.item(0, 4).font().bold()
    assert cells(ready, 1) == ["SSIM", "0.700", "n/a", "n/a, n/a", "n/a, n/a", "n/a"]
    assert not ready.scores.item(1, 4).font().bold()
    text = ready.written.text()
    assert "page: sub-01.html" in text
    assert "contribution maps (2): sub-01" in text
    assert "anatomy and regions (2): sub-01/anat" in text
    assert "reconstructions" not in text
    assert not ready.failed.isVisibleTo(ready)
    assert session.output == result["out_dir"]


def test_failed_stimuli_are_listed(ready, result, qtbot):
    finish(ready, result | {"failed": list(range(100, 113))}, qtbot)
    assert ready.failed.isVisibleTo(ready)
    assert ready.failed.text().startswith("13 stimuli failed and are left out: 100, 101")
    assert "112" not in ready.failed.text()


def test_warnings_are_shown_and_gone_with_the_next_run(ready, result, qtbot):
    finish(ready, result | {"warnings": ["Guidance makes these images worse: so.", "Another."]}, qtbot)
    assert ready.warnings.isVisibleTo(ready)
    assert ready.warnings.text() == "Guidance makes these images worse: so.\nAnother."
    ready.finished = None
    finish(ready, result, qtbot)
    assert not ready.warnings.isVisibleTo(ready)


def test_cancel_says_that_it_goes_on_later(ready, session):
    ready.run_button.click()
    ready.cancel.click()
    session.engine.answer("report", Cancelled())
    assert "Run continues where it stopped" in ready.message.text()
    assert ready.run_button.isEnabled()


def test_an_error_is_said_and_former_results_are_gone(ready, session, result, qtbot):
    finish(ready, result, qtbot)
    ready.run_button.click()
    assert not ready.results.isVisibleTo(ready)
    session.engine.answer("report", UserError("betas must be there, got none. Copy them."))
    assert ready.message.text() == "betas must be there, got none. Copy them."
    assert not ready.results.isVisibleTo(ready)


def test_page_and_folder_are_opened_by_the_system(ready, result, qtbot, monkeypatch):
    opened, answer = [], [True]
    services = type("Services", (), {"openUrl": lambda url: opened.append(url.toLocalFile()) or answer[0]})
    monkeypatch.setattr(panels, "QDesktopServices", services)
    finish(ready, result, qtbot)
    ready.open_page()
    ready.open_folder()
    assert opened == [result["page"], result["out_dir"]]
    answer[0] = False
    ready.open_page()
    assert "Open it by hand" in ready.message.text()
    os.unlink(result["page"])
    ready.open_page()
    assert "is gone" in ready.message.text()
    assert len(opened) == 3


def test_results_as_layers(ready, viewer, result, qtbot):
    finish(ready, result, qtbot)
    ready.show_layers()
    assert len(viewer.layers) == 0  # read in a thread
    qtbot.waitUntil(lambda: "contribution g02" in viewer.layers)
    assert "ROI prf-visualrois" in viewer.layers
    shown = list(viewer.layers)
    ready.show_layers()
    qtbot.waitUntil(lambda: ready.message.text() == "")
    assert not set(map(id, shown)) & set(map(id, viewer.layers)), "others in their place"
    assert [layer.name for layer in viewer.layers] == [layer.name for layer in shown]


def test_what_the_contribution_page_shows_is_not_added_again(ready, viewer, session, result, qtbot):
    page = ContributionPanel(viewer, session)
    dock(viewer, page, qtbot)
    finish(ready, result, qtbot)
    contribution_page.finish(page, qtbot)
    shown = [layer.name for layer in viewer.layers]
    viewer.layers["contribution"].visible = False
    ready.show_layers()
    qtbot.waitUntil(lambda: ready.message.text() == "The results are shown already.")
    assert [layer.name for layer in viewer.layers] == shown
    assert viewer.layers["contribution"].visible
    page.source.subject.setCurrentText("sub-02")  # another subject's maps are others
    contribution_page.finish(page, qtbot)
    ready.show_layers()
    qtbot.waitUntil(lambda: "contribution g02" in viewer.layers)
    assert "ROI prf-visualrois" in viewer.layers


def test_regions_that_the_data_page_shows_are_not_added_again(ready, viewer):
    labels = np.random.default_rng(0).integers(0, 3, (3, 4, 5))

    def regions(data, family="prf-visualrois", **told):
        metadata = {KEY: about("roi", family=family, **told)}
        return data, {"name": "ROI", "affine": np.eye(4), "units": ("mm",) * 3, "metadata": metadata}, "labels"

    data, keywords, _ = regions(labels, source=Source(nsd_dir="somewhere"))
    viewer.add_labels(data, **keywords)
    ready._add_layers([regions(labels.copy(), "prfvisualrois", output="/out")])
    assert len(viewer.layers) == 1
    ready._add_layers([regions(labels.copy(), "floc-faces", output="/out"), regions(labels + 1, output="/out")])
    assert len(viewer.layers) == 3, "another family, and another subject's regions"


def test_an_anatomy_that_is_shown_already_is_not_added_twice(ready, viewer):
    brain = np.random.default_rng(0).random((3, 4, 5))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])

    def anatomy(data, **told):
        metadata = {KEY: about("anatomy", **told)}
        return data, {"name": "anatomy", "affine": affine, "units": ("mm",) * 3, "metadata": metadata}, "image"

    data, keywords, _ = anatomy(brain)
    viewer.add_image(data, **keywords)  # as another page adds it
    ready._add_layers([anatomy(brain.copy(), output="/out")])
    assert len(viewer.layers) == 1
    ready._add_layers([anatomy(brain + 1, output="/out")])
    assert len(viewer.layers) == 2, "another subject's brain is another one"


def test_controls_are_remembered(ready, viewer, session, tmp_path, qtbot):
    ready.all.setChecked(False)
    ready.n_stimuli.setValue(7)
    ready._store()
    again = ReportPanel(viewer, session)
    qtbot.addWidget(again)
    assert again.folder.text() == str(tmp_path / "out")
    assert (again.all.isChecked(), again.n_stimuli.value()) == (False, 7)
    again.restore({"folder": None, "n_stimuli": "many"})
    assert again.folder.text() == str(proposed_folder(session.recipe.source))


def test_scores_of_a_summary():
    assert mean_se({}) == "n/a"
    assert mean_se({"mean": 0.1234, "se": 0.01}, "+") == "+0.123 ± 0.010"
    assert [row.name for row in score_rows(SUMMARY)] == ["PixCorr", "SSIM"]
    assert score_rows({}) == []


@pytest.mark.parametrize("none", [{}, {"mean": None, "se": None, "n": 0}])
def test_a_score_that_neither_arm_has_is_no_row(none):
    arms = {arm: {**SUMMARY["arms"][arm], "repeat_ssim": none} for arm in ("unguided", "guided")}
    assert [row.name for row in score_rows({**SUMMARY, "arms": arms})] == ["PixCorr", "SSIM"]
    arms["guided"]["repeat_ssim"] = {"mean": 0.9, "se": None, "n": 1}
    assert [row.name for row in score_rows({**SUMMARY, "arms": arms})][-1] == "Repeats: SSIM"


def test_names_of_scores_are_read_in_full(ready):
    from napari_neuraldiffuser.core.base.registry import METRICS

    names = [metric.label for metric in METRICS.values()]
    ready.scores.show_rows(
        [TableRow(name, "", ("0.123 ± 0.012", "0.123 ± 0.012", "0.22, 0.93", "0.22, 0.93", "+0.1")) for name in names]
    )
    ready.results.setVisible(True)
    header = ready.scores.verticalHeader()
    assert header.sizeHint().width() <= header.maximumWidth()
    told = [ready.scores.verticalHeaderItem(k) for k in range(len(names))]
    assert [" ".join(head.text().split()) for head in told] == names
    lines = [head.text().count("\n") + 1 for head in told]
    assert max(lines) > 1
    heights = [ready.scores.rowHeight(k) for k in range(len(names))]
    assert all(height >= n * header.fontMetrics().height() for height, n in zip(heights, lines, strict=True))
    assert ready.scores.height() >= sum(heights)


def test_a_start_that_guidance_does_not_beat_is_in_the_table_and_said(result):
    paired = {"pixcorr": {"mean": -0.1, "se": 0.01, "n": 8}}
    start = {"label": "decoded start", "scores": {"pixcorr": {"mean": 0.64, "se": 0.02, "n": 8}}, "paired": paired}
    found = read_finished(result | {"summary": SUMMARY | {"controls": {"start": start}}})
    assert found.scores[0].texts[2:4] == ("0.64, n/a", "0.22, 0.93")
    assert "decoded start: 0.640 ± 0.020; guided minus it: -0.100" in found.scores[0].tip
    (told,) = found.warnings
    assert told.startswith("The decoded start") and "-0.100" in told


@pytest.mark.parametrize("n, bold", [(2, ()), (4, ()), (5, (4,)), (None, ())])
def test_no_difference_is_bold_over_few_stimuli(n, bold):
    paired = {"pixcorr": {"mean": 0.04, "se": 0.001, "n": n, "worse": 0.0}}
    assert score_rows({**SUMMARY, "paired": paired})[0].bold == bold


def test_outcome_lists_what_is_there(result):
    outcome = read_finished(result)
    assert dict(outcome.written)["page"] == [outcome.page]
    assert "failed stimuli" not in dict(outcome.written)


def test_the_paragraph_of_the_trust_sheet_is_shown_where_there_is_one(ready, result):
    for trust, shown in (({"trust": {"paragraph": "It shows this."}}, True), ({}, False)):
        ready._show(read_finished({**result, "summary": {**result["summary"], "trust": {}, **trust}}))
        assert ready.trust.isVisibleTo(ready.results) is shown
        assert ready.trust.text() == ("It shows this." if shown else "")


def test_every_control_has_a_tooltip(ready):
    from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QPushButton

    for kind in (QAbstractSpinBox, QCheckBox, QPushButton):
        for widget in ready.findChildren(kind):
            assert widget.toolTip() or not widget.isVisibleTo(ready) or widget is ready.run, widget
