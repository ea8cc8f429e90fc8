"""The guidance study's own arithmetic: gains, goals, controls, and cells that are computed once."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from tests.package.test_benchmarks import load  # noqa: F401


@pytest.fixture
def study(load):  # noqa: F811
    return SimpleNamespace(**{name: load(f"common.guidance_{name}") for name in ("cells", "plan", "tables")})


def result(study, **scores):
    n = len(next(iter(scores.values())))
    whole = {name: np.asarray(scores.get(name, np.full(n, np.nan)), float) for name in study.cells.SCORES}
    return study.cells.Result(whole, 0.2, 0, None)


def test_a_gain_is_that_of_the_paired_t_test_over_the_stimuli_of_all_cases(study):
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.1, 1, (2, 3, 20)), rng.normal(0, 1, (2, 3, 20))
    first[0, 0, 4] = np.nan
    results = [[result(study, ssim=row) for row in values.reshape(6, 20)] for values in (first, second)]
    gain = study.tables.Gain.of(*results, "ssim")
    a, b = (np.delete(values.ravel(), 4) for values in (first, second))
    assert gain.errors == pytest.approx(stats.ttest_rel(a, b).statistic)
    assert gain.mean == pytest.approx((a - b).mean())
    assert str(study.tables.Gain(0.0434, 0.01)) == "+.043 (4.3)"
    assert str(study.tables.Gain.of(*results, "edges")) == "", "a score that has no value has no gain"


@pytest.mark.parametrize(("clear", "expected"), [(5, True), (4, True), (3, False)])
def test_the_goal_wants_every_score_clear_on_four_of_five_seeds(study, clear, expected):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 30)
    noise -= noise.mean()
    rows = {"unguided": [], "start": [], "chosen": []}
    for seed in range(5):
        rows["unguided"].append(result(study, pixcorr=np.zeros(30), ssim=np.zeros(30), edges=np.zeros(30)))
        rows["start"].append(result(study, edges=np.zeros(30), twoway_demo=np.zeros(30)))
        ssim = noise + (0.01 if seed < clear else 0.004)  # its standard error is about 0.0018
        rows["chosen"].append(result(study, pixcorr=noise + 1, ssim=ssim, edges=noise + 1, twoway_demo=noise + 1))
    told = study.tables.reached(rows, "chosen", "unguided", "start")
    assert told == {"over unguided": clear, "over the decoded start": 5, "of": 5, "reached": expected}


def test_a_cell_is_computed_once_and_again_where_anything_differs(study, tmp_path, monkeypatch):
    case = SimpleNamespace(folder=tmp_path, facts=[7, "validation", 3, "digest"], seed=7, which="validation")
    made = []

    def images_of(cell, case, decoded):
        made.append(cell)
        return np.zeros((3, 2, 4, 4, 3), np.uint8), np.array([True, False, True])

    monkeypatch.setattr(study.cells, "embeddings_of", lambda cell, case: None)
    monkeypatch.setattr(study.cells, "images_of", images_of)
    monkeypatch.setattr(study.cells, "scores_of", lambda images, case: {"ssim": np.array([0.1, np.nan, 0.3])})
    base = study.plan.cell({})
    first, again = study.cells.measure(base, case), study.cells.measure(base, case)
    assert len(made) == 1
    assert first.failed == again.failed == 1
    np.testing.assert_array_equal(again.scores["ssim"], [0.1, np.nan, 0.3])
    others = [
        study.plan.cell({"guidance_scale": 2.0}),
        study.plan.cell({study.plan.DECODED: "contrastive"}),
        base.as_control("unguided"),
        base.as_control("start"),
    ]
    for other in others:
        study.cells.measure(other, case)
    assert len(made) == 5
    study.cells.measure(study.plan.cell({"n_steps": 99}).as_control("start"), case)
    assert len(made) == 5, "a start takes no diffusion, so that its settings do not matter"


def test_controls_change_what_they_say(study):
    def some(seed):
        rng = np.random.default_rng(seed)
        return Embeddings(rng.normal(size=(3, 4, 2, 2)), rng.normal(size=(3, 2)), {"g02": np.arange(3)}, np.arange(3))

    decoded, true = some(0), some(1)
    true.g["g02"] = np.arange(3) + 10
    case = SimpleNamespace(decoded=lambda way: decoded, true=lambda: true)
    base = study.plan.cell({})
    shuffled = study.cells.embeddings_of(base.as_control("shuffled g"), case)
    assert list(shuffled.g["g02"]) == [2, 0, 1]
    assert (shuffled.z == decoded.z).all()
    assert list(study.cells.embeddings_of(base.as_control("true g"), case).g["g02"]) == [10, 11, 12]
    of_z = study.cells.embeddings_of(base.as_control("true z"), case)
    assert (of_z.z == true.z).all() and of_z.g is decoded.g
    assert base.as_control("unguided").params()[1].guidance_scale == 0
