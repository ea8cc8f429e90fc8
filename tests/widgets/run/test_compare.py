"""Two runs beside each other, and what of a run is out of date."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.evaluation.differences import LEAST
from napari_neuraldiffuser.widgets.run.compare import BEFORE, NONE, score_rows, shared_stimuli
from napari_neuraldiffuser.widgets.run.record import Run, outdated
from napari_neuraldiffuser.widgets.run.view import RunView
from tests.support.window.reconstruct_run import GREEN, RED, colour
from tests.widgets.run.test_gallery import begun, finish


def run_of(stimuli, kappa, values, shade=RED, seed=0):
    """A finished run; `values` is stimulus -> PixCorr of each repeat, the same in both arms but for 0.1."""
    recipe = Recipe(stimulus_ids=stimuli)
    recipe = recipe.with_stage("guidance", recipe.settings.guidance.but(guidance_scale=kappa))
    run = begun(recipe.with_stage("diffusion", recipe.settings.diffusion.but(seed=seed)))
    for arm, more in (("guided", 0.1), ("unguided", 0.0)):
        rows = [
            {"stim": s, "rep": k, "arm": arm, "pixcorr": value + more, "twoway_demo": 0.5}
            for s, own in values.items()
            for k, value in enumerate(own, 1)
        ]
        finish(run, arm, shade, scores=rows)
    run.end({"folder": "f"})
    return run


@pytest.fixture
def view(qtbot):
    made = RunView()
    qtbot.addWidget(made)
    return made


def cells(view):
    table = view.compare.table
    names = [table.verticalHeaderItem(k).text() for k in range(table.rowCount())]
    return {f"{k} {name}": [table.item(k, column).text() for column in range(3)] for k, name in enumerate(names)}


def test_any_two_runs_beside_each_other(view):
    runs = [run_of((3, 7), kappa, {3: [v, v], 7: [v, v]}) for kappa, v in ((1, 0.1), (2, 0.2), (3, 0.5))]
    finish(runs[0], "guided", GREEN)
    for run in runs:
        view.add(run)
    view._pick(1)  # the second run is A
    assert view.run is runs[1]
    view.compare._choose(view.compare.offered.index(runs[0]))
    assert colour(view.gallery.rows["guided"].cells[0]) == RED.tolist()
    assert colour(view.gallery.rows["B, guided"].cells[0]) == GREEN.tolist()
    assert view.compare.words.text() == "From A to B: κ 2 → 1"
    assert cells(view)["1 PixCorr"] == ["0.300", "0.200", "-0.100 ± 0.000 (n = 2)"]
    assert view.table.isHidden(), "the table of one run would be a second one"
    view.compare._choose(view.compare.offered.index(runs[2]))
    assert cells(view)["1 PixCorr"][2] == "+0.300 ± 0.000 (n = 2)"
    view.compare.choose(NONE)
    assert view.gallery.rows["B, guided"].isHidden()
    assert not view.table.isHidden()


def test_a_difference_is_bold_only_where_it_is_clear():
    def bold(n):
        rng = np.random.default_rng(0)
        noise = {s: [float(v)] for s, v in enumerate(rng.normal(0, 0.01, n))}
        one = run_of(tuple(range(n)), 1, dict.fromkeys(range(n), [0.2]))
        return score_rows(one, run_of(tuple(range(n)), 2, noise), range(n))[1].bold

    assert bold(2) == ()
    assert bold(LEAST - 1) == ()
    assert bold(LEAST) == (2,)


def test_repeats_are_paired_only_where_their_noise_is_the_same():
    one = run_of((3,), 1, {3: [0.1, 0.5]})
    same, other = run_of((3,), 2, {3: [0.2, 0.6]}), run_of((3,), 2, {3: [0.2, 0.6]}, seed=1)
    assert score_rows(one, same, [3])[1].texts[2] == "+0.100 ± 0.000 (n = 2)"
    assert score_rows(one, other, [3])[1].texts[2] == "+0.100 ± 0.283 (n = 2)"


def test_a_number_that_stands_for_another_picture_is_another_stimulus():
    one, other = run_of((3, 7), 1, {3: [0.1], 7: [0.2]}), run_of((3, 7), 1, {3: [0.5], 7: [0.3]})
    other.seen = other.seen.copy()
    other.seen[0] = 0
    assert shared_stimuli(one, other) == [7]
    rows = score_rows(one, other, [7])
    assert [row.name for row in rows[:2]] == ["guided", "PixCorr"]
    assert rows[1].texts[2].startswith("+0.100 (n = 1)")
    assert "Two-way identification" not in [row.name for row in rows], "it compares stimuli, and those are others"
    unbegun = Run(one.recipe)
    assert shared_stimuli(one, unbegun) == []


def test_a_run_without_the_stimulus_is_said_so(view):
    one, other = run_of((3, 7), 1, {3: [0.1], 7: [0.2]}), run_of((7,), 2, {7: [0.5]})
    for run in (other, one):
        view.add(run)
    view.compare.choose(other)
    assert "B has no stimulus 3" in view.compare.words.text()
    assert view.gallery.rows["B, guided"].isHidden()
    view.show_run(one, 7)
    assert view.compare.words.text() == "From A to B: κ 1 → 2"
    assert not view.gallery.rows["B, guided"].isHidden()


def test_a_forgotten_run_is_no_longer_compared_with(view):
    one, other = run_of((3,), 1, {3: [0.1]}), run_of((3,), 2, {3: [0.5]})
    view.add(other)
    view.add(one)
    view.compare.choose(other)
    view.drop(other)
    assert view.compare.choice == NONE
    view.compare.choose(BEFORE)
    assert view.gallery.rows["B, guided"].isHidden()


# out of date


def stage(recipe, name, **changes):
    return recipe.with_stage(name, getattr(recipe.settings, name).but(**changes))


@pytest.mark.parametrize(
    "name, changes, marked",
    [
        ("guidance", {"guidance_scale": 7.0}, {"guided"}),
        ("diffusion", {"seed": 5}, {"guided", "unguided"}),
        ("diffusion", {"batch_size": 3}, set()),
        ("betas", {"roi": "V1"}, {"guided", "unguided", "given"}),
        ("decoding", {"align": "none"}, {"guided", "unguided", "given"}),
        ("evaluation", {"size": 64}, set()),
        ("contribution", {"seed": 4}, set()),
    ],
)
def test_pictures_are_out_of_date_when_something_that_decides_them_changed(name, changes, marked):
    run = Run(Recipe(stimulus_ids=(3,)), "/a.h5")
    found = outdated(run, stage(run.recipe, name, **changes), "/a.h5")
    assert {row for row, what in found.items() if what} == marked


def test_another_decoder_and_other_arms():
    run = Run(Recipe(stimulus_ids=(3,)), "/a.h5")
    assert set(outdated(run, run.recipe, "/b.h5").values()) == {"the decoder"}
    assert set(outdated(run, run.recipe, "").values()) == {""}, "not known yet"
    assert set(outdated(run, run.recipe.but(arms=("guided",), stimulus_ids=(9,)), "/a.h5").values()) == {""}
    assert set(outdated(run, run.recipe.but(source=Source("other")), "/b.h5").values()) == {"other data"}


def test_titles_are_marked_and_cleared(view):
    run = run_of((3,), 1, {3: [0.1]})
    view.add(run)
    view.follow(run.recipe, "")
    heading = view.gallery.rows["guided"].heading
    plain = heading.text()
    assert "OUT OF DATE" not in plain
    view.follow(stage(run.recipe, "guidance", guidance_scale=9.0), "")
    assert heading.text() == f"{plain}   OUT OF DATE: κ 1 → 9"
    assert "OUT OF DATE" not in view.gallery.rows["unguided"].heading.text()
    view.show_run(run, 3)  # drawn again, still out of date
    assert "OUT OF DATE" in heading.text()
    view.follow(run.recipe, "")
    assert heading.text() == plain


def test_a_ruined_image_is_said_for_its_stimulus_alone(view):
    run = run_of((3, 7), 50, {3: [0.1], 7: [0.1]})
    run.result["ruined"] = {"7": "PixCorr is 0.10 with guidance and 0.40 without"}
    view.add(run)
    assert view.ruined.isHidden()
    view.show_run(run, 7)
    assert view.ruined.text() == "κ 50 ruins this image: PixCorr is 0.10 with guidance and 0.40 without. Lower κ or η."
