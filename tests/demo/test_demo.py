"""The whole demo at its committed seed and settings: what it must reach, and how long it may take on disk."""

import json

import pandas as pd
import pytest

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core.base.files import read_json


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert cli.main(["demo", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def summary(out):
    return json.loads((out / "sub-01" / "sub-01_desc-summary_scores.json").read_text())


def shares(out, target):
    """Share in one target of the regions that the simulator made low-level (V1-V3) and high-level (ventral)."""
    truth = read_json(out / "nsd" / "nsddata" / "ppdata" / "subj01" / "simulation_truth.json")["regions"]
    early = [name for name, region in truth.items() if region["low_level_share"] == 1]
    ventral = [name for name, region in truth.items() if region["low_level_share"] < 0.2]
    assert {"V1v", "V3d"} <= set(early)
    assert {"FFA-1", "PPA"} <= set(ventral)
    table = pd.read_csv(out / "sub-01" / "sub-01_contribution.tsv", sep="\t")
    own = table[table.target == target].set_index("roi").share
    # what is outside every family has no row of its own name
    return own[own.index.isin(early)].sum(), own[own.index.isin(ventral)].sum()


@pytest.mark.parametrize("metric", ["pixcorr", "ssim"])
def test_guidance_brings_images_closer_to_the_seen_ones(summary, metric):
    paired = summary["paired"][metric]
    assert summary["protocol"]["n_test_images"] >= 40
    assert summary["protocol"]["repeats"] == 3
    assert paired["mean"] > 3 * paired["se"] > 0


def test_guidance_makes_repeats_agree_in_edges(summary):
    assert summary["paired"]["repeat_edges"]["mean"] > 2 * summary["paired"]["repeat_edges"]["se"]


def test_guided_images_are_identified(summary):
    assert summary["arms"]["guided"]["twoway_demo"]["mean"] >= 0.90


def test_contributions_follow_the_simulators_truth(out):
    early_g02, ventral_g02 = shares(out, "g02")
    early_c, ventral_c = shares(out, "c")
    assert early_g02 > early_c
    assert ventral_c > ventral_g02


def test_the_simulated_subject_is_small(out):
    size = sum(p.stat().st_blocks * 512 for p in (out / "nsd").rglob("*") if p.is_file())
    assert size <= 200e6
