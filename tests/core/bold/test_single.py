"""GLMsingle, which is optional: told where it is absent, and called as its own `GLM_single.fit` wants it."""

import sys
import types

import numpy as np
import pytest

from napari_neuraldiffuser.core.bold import BoldError, find_runs, make_betas, survey
from napari_neuraldiffuser.core.bold.single import common_step, need_glmsingle, resampled
from napari_neuraldiffuser.core.params import BoldParams
from tests.core.bold.test_stage import values_of
from tests.support.nsd.bids_files import write_bids

PARAMS = BoldParams(estimator="glmsingle")


@pytest.fixture
def stand_in(monkeypatch):
    """A package with GLMsingle's interface that checks its arguments as `check_inputs` does and fits least squares
    with the response it is told of; `calls` has what it was given."""
    calls = []

    class GLM_single:  # noqa: N801 (GLMsingle's own name)
        def __init__(self, params=None):
            self.params = params

        def fit(self, design, data, stimdur, tr, outputdir=None, figuredir=None):
            assert isinstance(design, list) and isinstance(data, list) and len(design) == len(data)
            for matrix, values in zip(design, data, strict=True):
                np.testing.assert_array_equal(np.unique(matrix), [0, 1])
                assert matrix.shape[1] == design[0].shape[1] and values.shape[1] == len(matrix)
                assert (matrix.sum(axis=1) <= 1).all() and np.isfinite(values).all()
            assert len(self.params["extra_regressors"]) == len(design)
            calls.append((self.params, design, data, stimdur, tr))
            print("*** GLMsingle is chatty ***")
            # condition and voxel of every trial, in order of time
            rows = [(k, cond) for k, one in enumerate(design) for cond in one[one.any(axis=1)].argmax(axis=1)]
            betas = np.array([cond + np.arange(len(data[0])) / 1000 for _, cond in rows]).T
            kind = "typed" if self.params["wantmemoryoutputs"][3] else "typeb"
            return {kind: {"betasmd": betas[:, None, None, :]}}

    package, module = types.ModuleType("glmsingle"), types.ModuleType("glmsingle.glmsingle")
    package.__spec__, package.__path__ = types.SimpleNamespace(), []
    module.GLM_single = GLM_single
    monkeypatch.setitem(sys.modules, "glmsingle", package)
    monkeypatch.setitem(sys.modules, "glmsingle.glmsingle", module)
    return calls


def on_volumes(scanned, runs):
    """Let the trials of the runs start with volumes."""

    def rounded(table):
        onset = table.onset.astype(float)
        return table.assign(onset=0.75 + 1.5 * ((onset - 0.75) / 1.5).round())

    for run in runs:
        scanned.edit_events(*run, rounded)


def test_it_is_told_where_it_is_absent(monkeypatch, scanned):
    monkeypatch.setitem(sys.modules, "glmsingle", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BoldError, match="needs the package GLMsingle, not installed here. Run: pip install .* lss"):
        need_glmsingle()
    with pytest.raises(BoldError, match="needs the package GLMsingle"):
        survey(find_runs(scanned.raw, "01"), PARAMS)


def test_sessions_are_fitted_whole_and_trials_stay_in_their_places(stand_in, tmp_path, capsys):
    scanned = write_bids(tmp_path / "bids")
    on_volumes(scanned, [("a", "1"), ("a", "2"), ("b", "1")])
    written = make_betas(find_runs(scanned.raw, "01"), tmp_path / "out", "01", PARAMS)
    assert [len(design) for _, design, *_ in stand_in] == [2, 1]
    params, design, data, duration, step = stand_in[0]
    assert duration == 2.0 and 1.5 / step == pytest.approx(round(1.5 / step))
    assert params["wantglmdenoise"] == params["wantfracridge"] == 1 and params["wantpercentbold"] == 1
    assert params["extra_regressors"][0].shape == (len(design[0]), 9)
    # session b has one run: its repeats cannot be predicted from another
    assert stand_in[1][0]["wantglmdenoise"] == 0 and stand_in[1][0]["wantmemoryoutputs"] == [0, 1, 0, 0]
    labels = [f"s{k:02d}.png" for k in range(9)]
    shown = [labels.index(one) for one in survey(find_runs(scanned.raw, "01"), BoldParams()).trials.stimulus]
    expected = np.array(shown)[:, None] + np.arange(scanned.mask.sum()) / 1000
    np.testing.assert_allclose(values_of(written.betas, scanned.mask), expected, atol=1e-5)
    assert "chatty" not in capsys.readouterr().out
    assert "GLMsingle" in written.page.read_text()


def test_onsets_fall_on_samples(scanned):
    designs = survey(find_runs(scanned.raw, "01"), BoldParams()).designs[:2]
    for design in designs:
        design.trials["onset"] = 0.75 + 1.5 / 4 * np.arange(9, 9 + 5 * len(design.trials), 5) + 0.09
    assert common_step(designs) == pytest.approx(1.5 / 4)
    for design in designs:
        design.trials["onset"] = 0.75 + 1.5 * np.arange(4, 4 + 3 * len(design.trials), 3)
    assert common_step(designs) == 1.5
    design = designs[0]
    smooth = np.sin(design.timing.frames / 9)[:, None]
    wanted = np.sin((0.75 + 0.5 * np.arange(3 * design.timing.n - 2)) / 9)[:, None]
    np.testing.assert_allclose(resampled(smooth, design, 0.5), wanted, atol=1e-3)


@pytest.mark.parametrize(("onset", "off"), [(0.0, "0.75"), (0.6, "0.15"), (20.0, "0.12"), (32.0, "0.12")])
def test_trials_between_samples_are_not_moved(stand_in, own, onset, off):
    """The first volume is at 0.75 s: an onset before it has no sample at all."""
    on_volumes(own, [("a", "1")])
    own.edit_events("a", "1", lambda t: t.assign(onset=[str(onset), *t.onset[1:]]))
    with pytest.raises(BoldError, match=f"within 0.1 s of a volume.*got one at {onset:g} s in .*{off}.* off"):
        survey(find_runs(own.raw, "01"), PARAMS)


def test_trials_of_different_durations(stand_in, own, tmp_path):
    on_volumes(own, [("a", "1")])
    own.edit_events("a", "1", lambda t: t.assign(duration=["1"] * 6 + ["3"] * 6))
    with pytest.raises(BoldError, match="trials of one duration, got 1 to 3 s. Choose lss"):
        make_betas(find_runs(own.raw, "01"), tmp_path / "out", "01", PARAMS)
