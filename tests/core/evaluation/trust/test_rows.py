"""Rows of the sheet against plain arithmetic, and the choice of a repeat."""

import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core.evaluation import Scores, scores_table
from napari_neuraldiffuser.core.evaluation.trust import rows, select


def test_values_come_back_from_the_table_in_the_order_of_the_stimuli():
    rng = np.random.default_rng(0)
    guided, start = rng.normal(size=(3, 2)), rng.normal(size=(3, 1))
    arms = {
        "guided": Scores({"pixcorr": guided, "repeat_ssim": guided + 1}, {}),
        "start": Scores({"pixcorr": start}, {}),
    }
    table = scores_table(arms, [70, 5, 12], ["a", "b", "c"])
    own = rows.values_of(table, "guided", [12, 70])
    assert np.array_equal(own["pixcorr"], guided[[2, 0]]) and np.array_equal(own["repeat_ssim"], guided[[2, 0]] + 1)
    found = rows.values_of(table, "start", [70, 5, 12])
    assert np.array_equal(found["pixcorr"][:, :1], start) and "repeat_ssim" not in found
    assert rows.values_of(table, "mean", [5]) == {}


def test_a_row_is_paired_by_stimulus_over_those_that_it_is_of():
    rng = np.random.default_rng(1)
    guided, own = rng.normal(size=(8, 3)), rng.normal(size=(3, 1))
    guided[2, 1] = np.nan
    row = rows.row("oracle", {"ssim": guided, "edges": guided}, {"ssim": own}, [2, 0, 7])
    d = np.nanmean(guided, axis=1)[[2, 0, 7]] - own[:, 0]
    assert row["n"] == 3 and set(row["paired"]) == {"ssim"}
    assert row["paired"]["ssim"]["mean"] == pytest.approx(d.mean())
    assert row["paired"]["ssim"]["se"] == pytest.approx(d.std(ddof=1) / 3**0.5)
    assert row["scores"]["ssim"]["mean"] == pytest.approx(own.mean())


def test_one_stimulus_has_a_mean_and_no_error():
    row = rows.row("start", {"ssim": np.array([[0.5]])}, {"ssim": np.array([[0.25]])})
    assert row["paired"]["ssim"] == {"mean": 0.25, "se": None, "n": 1, "worse": 0.0}
    assert rows.far_minus_near({"ssim": np.array([[0.5]])}, {"ssim": np.array([[0.25]])})["ssim"]["se"] is None


def test_far_minus_near_has_the_error_of_a_difference_of_two_samples():
    rng = np.random.default_rng(2)
    near, far = rng.normal(size=(9, 2)), rng.normal(size=(7, 2))
    found = rows.far_minus_near({"ssim": near}, {"ssim": far})["ssim"]
    a, b = near.mean(axis=1), far.mean(axis=1)
    assert found["mean"] == pytest.approx(b.mean() - a.mean()) and found["n"] == 7
    assert found["se"] == pytest.approx((a.var(ddof=1) / 9 + b.var(ddof=1) / 7) ** 0.5)


def test_the_repeat_is_chosen_by_its_agreement_alone():
    choice = select.choose(np.array([[0.1, 0.4, 0.2], [np.nan, np.nan, np.nan], [np.nan, 0.1, 0.3]]))
    assert choice.tolist() == [1, 0, 2]
    values = {"ssim": np.arange(9.0).reshape(3, 3), "repeat_ssim": np.zeros((3, 3))}
    assert {m: v.tolist() for m, v in select.chosen(values, choice).items()} == {"ssim": [[1], [3], [8]]}
    assert {m: v.tolist() for m, v in select.first(values).items()} == {"ssim": [[0], [3], [6]]}


def test_an_empty_table_has_no_values():
    assert rows.values_of(pd.DataFrame(columns=["stim", "rep", "arm", "ssim"]), "guided", [1]) == {}
