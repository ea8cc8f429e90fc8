"""How much of what true betas tell is left in betas from BOLD: decoding held-out stimuli, as the benchmark has it."""

import importlib
import sys

import numpy as np
import pytest

from napari_neuraldiffuser.core.params import BoldParams, BoldSimulationParams
from tests.support import ROOT


@pytest.fixture
def held_out(monkeypatch):
    """The benchmark's own measure."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module("common.held_out")
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "common":
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8])
def test_betas_from_bold_keep_four_fifths_of_the_held_out_correlation(held_out, tmp_path, seed):
    scans = held_out.scan(tmp_path, BoldSimulationParams(seed=seed))
    true = held_out.correlations(scans, scans.true)
    ours = scans.estimated(BoldParams())
    found = held_out.correlations(scans, ours)
    shuffled = held_out.correlations(scans, ours, shuffle=seed)
    scans.targets.close()
    ratio = np.mean(list(held_out.ratios(found, true).values()))
    assert min(true.values()) > 0.4
    assert ratio >= 0.8
    assert np.mean(list(held_out.ratios(shuffled, true).values())) < 0.25
