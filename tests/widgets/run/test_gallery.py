"""Images on screen, what a run keeps, and the tables beside them."""

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import GuidanceParams
from napari_neuraldiffuser.widgets.run import record as run_record
from napari_neuraldiffuser.widgets.run.compare import BEFORE
from napari_neuraldiffuser.widgets.run.gallery import Gallery
from napari_neuraldiffuser.widgets.run.picture import LARGE, Enlarged, ImageCell, pixmap, qimage
from napari_neuraldiffuser.widgets.run.record import History, Run, changes
from napari_neuraldiffuser.widgets.run.score_table import LossCurve, ScoreTable, definition, mean_text
from napari_neuraldiffuser.widgets.run.view import RunView, write_images
from tests.support.window.reconstruct_run import BLUE, GREEN, RED, colour, image, pixels


def begun(recipe=None, stimuli=(3, 7), repeats=2):
    run = Run(recipe or Recipe(stimulus_ids=stimuli))
    n = len(run.stimulus_ids)
    given = {"seen": np.stack([image(GREEN, 100)] * n), "start": np.stack([image(BLUE)] * n)}
    run.take("begin", {"stimulus_ids": list(run.stimulus_ids), "arms": ["guided", "unguided"], "n_steps": 18, **given})
    return run


def finish(run, arm, colour, repeats=2, scores=()):
    n = len(run.stimulus_ids)
    images = np.broadcast_to(colour, (n, repeats, 64, 64, 3)).copy()
    losses = [[[3.0, 2.0]] * repeats] * n if arm == "guided" else [[[]] * repeats] * n
    run.take("arm", {"arm": arm, "images": images, "losses": losses, "scores": list(scores), "cached": False})


# pictures


@pytest.mark.parametrize("side", [33, 40])
def test_rows_that_are_no_multiple_of_four_bytes_are_not_skewed(qapp, side):
    own = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    np.testing.assert_array_equal(pixels(qimage(own)), own)


def test_a_small_image_is_enlarged_by_a_whole_number_without_new_colours(qapp):
    own = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    shown = pixmap(own, 110)
    assert shown.width() == 96
    np.testing.assert_array_equal(pixels(shown), own.repeat(3, axis=0).repeat(3, axis=1))


def test_a_large_image_is_smooth_and_of_the_asked_size(qapp):
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = pixels(pixmap(stripes, 128))
    assert shown.shape == (128, 128, 3)
    assert 100 < shown.mean() < 155
    assert shown.std() < 40  # nearest neighbour would give stripes or one colour only


def test_a_dense_screen_gets_its_pixels(qapp):
    shown = pixmap(np.zeros((512, 512, 3), np.uint8), 128, 2.0)
    assert shown.width() == 256
    assert shown.deviceIndependentSize().width() == 128


def test_a_click_enlarges_and_the_menu_copies_and_saves(qtbot, tmp_path, monkeypatch):
    cell = ImageCell("guided, repeat 1")
    qtbot.addWidget(cell)
    cell.show_image(image(RED), 110, "PixCorr 0.400")
    cell.show()
    qtbot.mouseClick(cell, Qt.MouseButton.LeftButton)
    windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, Enlarged) and w.isVisible()]
    assert len(windows) == 1
    assert windows[0].picture.pixmap().width() == LARGE
    assert windows[0].text.text() == "guided, repeat 1\nPixCorr 0.400"
    windows[0].close()

    copy, save = cell.menu().actions()
    copy.trigger()
    np.testing.assert_array_equal(pixels(QApplication.clipboard().image()), image(RED))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "own"), ""))
    save.trigger()
    np.testing.assert_array_equal(pixels(QImage(str(tmp_path / "own.png"))), image(RED))


# runs


def test_events_make_up_a_run():
    run = begun()
    assert run.tag("guided") == "step 0 of 18"
    for k in range(1, 8):
        step = {"arm": "guided", "done": k, "total": 18, "stimulus_ids": [3, 7], "loss": [k, k + 2, 10 * k, 10 * k]}
        run.take("step", step)
    assert run.tag("guided") == "step 7 of 18"
    assert run.curve(3) == [k + 1 for k in range(1, 8)]
    assert run.curve(7) == [10 * k for k in range(1, 8)]
    run.take("preview", {"arm": "guided", "images": np.zeros((2, 2, 8, 8, 3), np.uint8)})
    run.end()
    assert run.tag("guided") == "partial: step 7 of 18"
    assert not run.complete


def test_the_losses_of_a_finished_arm_replace_those_of_its_steps():
    run = begun()
    run.take("step", {"arm": "guided", "done": 1, "total": 18, "loss": [9.0] * 4})
    finish(run, "guided", RED)
    assert run.curve(3) == [3.0, 2.0]
    assert run.tag("guided") == ""
    finish(run, "unguided", RED)
    assert run.curve(3) == [3.0, 2.0]
    assert run.complete


def test_a_loss_that_is_not_finite_is_left_out():
    run = begun(stimuli=(3,), repeats=1)
    for loss in ([1.0, float("nan")], [float("nan")] * 2, [2.0, 4.0]):
        run.take("step", {"arm": "guided", "done": 1, "total": 18, "loss": loss})
    assert run.curve(3) == [1.0, 3.0]


def test_what_changed_between_runs():
    before = Recipe(stimulus_ids=(3,))
    guided = before.settings.guidance.but(guidance_scale=9.0)
    after = before.with_stage("guidance", guided).with_stage("diffusion", before.settings.diffusion.but(n_steps=24))
    assert changes(before, after) == "steps 50 → 24, κ 5 → 9"
    assert changes(before, before) == ""
    assert changes(before, before.but(arms=("guided",))) == "arms guided unguided → guided"
    layers = GuidanceParams(layers=("g02",), layer_weights=(2.0,))
    assert "layers g02 g04 g06 g08 g10 g12 → g02" in changes(before, before.with_stage("guidance", layers))


def test_history_keeps_the_last_runs_and_a_bound_on_memory(monkeypatch):
    history = History()
    runs = [begun(stimuli=(k % 2,)) for k in range(run_record.KEPT + 3)]
    for run in runs:
        history.add(run)
    assert history.runs == runs[3:]
    assert history.before(runs[-1], 0) is runs[-3]
    assert history.latest(runs[-2].recipe.source, 1) is runs[-2]
    assert history.latest(Source("elsewhere"), 1) is None
    assert history.before(history.runs[0], 1) is None
    monkeypatch.setattr(run_record, "KEPT_BYTES", 3 * runs[0].nbytes)
    history.add(begun(stimuli=(1,)))
    assert len(history.runs) == 3
    monkeypatch.setattr(run_record, "KEPT_BYTES", 0)
    history.add(newest := begun())
    assert history.runs == [newest]


# the gallery


@pytest.fixture
def gallery(qtbot):
    made = Gallery()
    qtbot.addWidget(made)
    made.show()
    return made


def test_rows_of_a_run(gallery):
    run = begun()
    gallery.show_run(run, 7)
    given = gallery.rows["given"].cells
    assert [colour(cell) for cell in given] == [GREEN.tolist(), BLUE.tolist()]
    assert not gallery.rows["guided"].isVisible()
    scores = [{"stim": s, "rep": r, "arm": "guided", "pixcorr": r / 10 + s} for s in (3, 7) for r in (1, 2)]
    finish(run, "guided", RED, scores=scores)
    gallery.show_run(run, 7)
    row = gallery.rows["guided"]
    assert [colour(cell) for cell in row.cells] == [RED.tolist()] * 2
    assert row.heading.text() == "guided   PixCorr 7.15"
    assert row.cells[1].text_below == "PixCorr 7.200"
    assert gallery.position.text() == "stimulus 7 (2 of 2)"


def test_cells_are_updated_in_place_and_grow_with_the_slider(gallery):
    run = begun(stimuli=(3,))
    finish(run, "guided", RED)
    gallery.show_run(run, 3)
    cell = gallery.rows["guided"].cells[0]
    finish(run, "guided", BLUE, repeats=1)
    gallery.size.setValue(256)
    gallery.show_run(run, 3)
    assert gallery.rows["guided"].cells[0] is cell
    assert colour(cell) == BLUE.tolist()
    assert cell.pixmap().width() == 256
    assert not gallery.rows["guided"].cells[1].isVisible()


def test_the_run_before_is_shown_below(gallery):
    former, present = begun(stimuli=(3,)), begun(stimuli=(3,))
    finish(former, "guided", GREEN)
    finish(present, "guided", RED)
    gallery.show_run(present, 3, former)
    assert colour(gallery.rows["B, guided"].cells[0]) == GREEN.tolist()
    gallery.show_run(present, 3)
    assert not gallery.rows["B, guided"].isVisible()


@pytest.mark.parametrize("lacking", ["A", "B"])
@pytest.mark.parametrize("arm", ["guided", "unguided"])
def test_an_arm_that_one_run_lacks_keeps_its_place(gallery, arm, lacking):
    a, b = begun(stimuli=(3,)), begun(stimuli=(3,))
    finish(a if lacking == "B" else b, arm, GREEN)
    gallery.show_run(a, 3, b)
    QApplication.processEvents()
    first, second = gallery.rows[arm], gallery.rows[f"B, {arm}"]
    empty, full = (first, second) if lacking == "A" else (second, first)
    assert first.isVisible() and second.isVisible() and first.x() < second.x()
    assert empty.heading.text() == f"{lacking} {arm}   step 0 of 18"
    assert not any(cell.isVisible() for cell in empty.cells)
    assert colour(full.cells[0]) == GREEN.tolist()
    finish(a if lacking == "A" else b, arm, RED)
    gallery.show_run(a, 3, b)
    assert colour(empty.cells[0]) == RED.tolist()
    never = Run(Recipe(stimulus_ids=(3,), arms=tuple({"guided", "unguided"} - {arm})))
    never.take(
        "begin", {"stimulus_ids": [3], "arms": list(never.recipe.arms), "n_steps": 18, "seen": a.seen, "start": a.start}
    )
    gallery.show_run(*((never, 3, b) if lacking == "A" else (a, 3, never)))
    assert empty.heading.text() == f"{lacking} {arm}   not computed"


def test_an_empty_gallery_says_what_to_do(gallery):
    gallery.show_run(begun(), 3)
    gallery.show_empty("Press Run.")
    assert gallery.empty.isVisible()
    assert not any(row.isVisible() for row in gallery.rows.values())


# tables


def rows(arm, *values):
    return [{"stim": 3, "rep": k, "arm": arm, "pixcorr": value} for k, value in enumerate(values, 1)]


def test_score_table(qtbot):
    table = ScoreTable()
    qtbot.addWidget(table)
    run = begun(stimuli=(3,))
    finish(run, "unguided", RED, scores=rows("unguided", 0.1, 0.3))
    table.show_run(run, 3)
    assert [table.item(0, k).text() for k in range(3)] == ["0.200 ± 0.141", "", ""]
    finish(run, "guided", RED, scores=[*rows("guided", 0.2, 0.4), {"stim": 4, "rep": 1, "arm": "guided", "ssim": 1.0}])
    table.show_run(run, 3)
    # paired: every repeat is better by the same
    assert [table.item(0, k).text() for k in range(3)] == ["0.200 ± 0.141", "0.300 ± 0.141", "+0.100 ± 0.000"]
    assert table.rowCount() == 1
    assert table.verticalHeaderItem(0).text() == "PixCorr"
    assert "425 px" in table.item(0, 0).toolTip()
    table.show_run(None, 3)
    assert table.isHidden()


def test_chance_and_ceiling_stand_beside_every_score(qtbot):
    table = ScoreTable()
    qtbot.addWidget(table)
    run = begun(stimuli=(3, 7))
    run.take("ceiling", {"rows": [{"stim": 3, "rep": 1, "arm": "ceiling", "pixcorr": 0.9}]})
    finish(run, "guided", RED, scores=[{**row, "repeat_ssim": 0.5} for row in rows("guided", 0.2, 0.4)])
    table.show_run(run, 3)
    assert [table.item(k, 4).text() for k in range(2)] == ["n/a, 0.90", "n/a, n/a"]
    run.chance["guided"] = {"pixcorr": 0.21}
    table.show_run(run, 3)
    assert table.item(0, 4).text() == "0.21, 0.90"
    assert "mixed up" in table.horizontalHeaderItem(4).toolTip()


def test_pictures_without_diffusion_stand_beside_every_score(qtbot):
    table = ScoreTable()
    qtbot.addWidget(table)
    run = begun(stimuli=(3, 7))
    told = [{"stim": s, "rep": 1, "arm": arm, "pixcorr": v} for s, arm, v in ((3, "start", 0.58), (7, "mean", 0.2))]
    run.take("controls", {"rows": told})
    finish(run, "guided", RED, scores=[{**row, "repeat_ssim": 0.5} for row in rows("guided", 0.2, 0.4)])
    table.show_run(run, 3)
    assert [table.item(k, 3).text() for k in range(2)] == ["0.58, n/a", "n/a, n/a"]
    assert "no diffusion" in table.horizontalHeaderItem(3).toolTip()


def test_one_repeat_has_no_spread(qtbot):
    table = ScoreTable()
    qtbot.addWidget(table)
    run = begun(stimuli=(3,))
    finish(run, "unguided", RED, repeats=1, scores=rows("unguided", 0.5))
    finish(run, "guided", RED, repeats=1, scores=rows("guided", 0.25))
    table.show_run(run, 3)
    assert [table.item(0, k).text() for k in range(3)] == ["0.500", "0.250", "-0.250"]


def test_every_metric_has_a_definition():
    assert "{" not in definition("twoway_demo", 425) + definition("ssim", 425) + definition("repeat_features", 425)
    assert "chance 0.5" in definition("twoway_demo", 425)
    assert mean_text(rows("guided", 0.1, 0.2)) == "PixCorr 0.15"


def test_loss_curve_runs_from_high_left_to_low_right(qtbot):
    curve = LossCurve()
    qtbot.addWidget(curve)
    curve.resize(200, 48)
    curve.show_values([3.0])
    assert curve.isHidden()
    curve.show_values([4.0, 2.0, 1.0])
    xs, ys = zip(*((p.x(), p.y()) for p in curve.points()), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # Qt's y points down
    assert 0 < min(ys) < max(ys) < curve.height()
    assert curve.caption == "feature loss 4 → 1 over 3 guided steps"
    curve.grab()
    curve.show_values([2.0, 2.0])
    curve.grab()


# the view of runs


def test_earlier_runs_can_be_chosen(qtbot):
    view = RunView()
    qtbot.addWidget(view)
    first = begun(Recipe(stimulus_ids=(3,)))
    second = begun(first.recipe.with_stage("guidance", replace(first.recipe.settings.guidance, guidance_scale=9.0)))
    for run, shade in ((first, GREEN), (second, RED)):
        view.add(run)
        finish(run, "guided", shade)
        finish(run, "unguided", shade)
        run.end({"folder": "f"})
        view.ended(run)
    assert view.box.itemText(0).endswith("stimulus 3: κ 5 → 9")
    assert view.box.itemText(1).endswith("stimulus 3: first run")
    view._pick(1)
    assert view.run is first
    assert colour(view.gallery.rows["guided"].cells[0]) == GREEN.tolist()
    view._pick(0)
    view.compare.choose(BEFORE)
    assert colour(view.gallery.rows["B, guided"].cells[0]) == GREEN.tolist()
    view.gallery.size.setValue(200)  # still compared
    assert not view.gallery.rows["B, guided"].isHidden()
    source = first.recipe.source
    view.show_stimulus(source, 8)
    assert view.run is None
    assert "No run of stimulus 8" in view.gallery.empty.text()
    assert not view.results.python.isEnabled()
    view.show_stimulus(source, 3)
    assert view.run is second
    view.show_stimulus(Source("elsewhere"), 3)
    assert view.run is None, "another subject has seen the same stimulus"


def test_all_images_of_a_run_are_written(qtbot, tmp_path):
    view = RunView()
    qtbot.addWidget(view)
    run = begun(stimuli=(3, 7))
    view.add(run)
    finish(run, "guided", RED)
    view.update_run(run)
    with qtbot.waitSignal(view.said) as said:
        view.results.save_to(tmp_path)
    assert said.args == [f"8 images written to {tmp_path}"]
    assert pixels(QImage(str(tmp_path / "stim-00007_rep-2_guided.png")))[0, 0].tolist() == RED.tolist()
    with pytest.raises(Exception, match="must be saved to a folder that can be written"):
        write_images(tmp_path / "none", view.gallery.shown_images(), lambda *_: None)


@pytest.mark.parametrize("folder", ["none", "file", "none/below"])
def test_images_that_cannot_be_written_are_an_error(qtbot, tmp_path, folder):
    (tmp_path / "file").touch()
    view = RunView()
    qtbot.addWidget(view)
    view.add(begun())
    said = []
    view.said.connect(said.append)
    with qtbot.waitSignal(view.failed) as failed:
        view.results.save_to(tmp_path / folder)
    assert "must be saved to a folder that can be written" in str(failed.args[0])
    assert said == []
