"""Recipes travel as JSON and come back the same; what cannot be is named."""

import json
import subprocess
import sys

import pytest

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import GuidanceParams, ParamError, Settings, settings_from_dict

OWN = Source(betas="b.nii.gz", mask="m.nii.gz", trials="t.tsv", images="images", rois=("a.nii.gz", "b.nii.gz"))


@pytest.mark.parametrize("source", [Source(), Source("nsd", "subj07"), OWN, Source("nsd", test_set="synthetic")])
def test_json_round_trip(source):
    guidance = GuidanceParams(layers=("g04", "g02"), layer_weights=(0.5, 2.0))
    recipe = Recipe(source=source, stimulus_ids=(5, 3), arms=("guided",)).with_stage("guidance", guidance)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_what_is_left_out_has_its_default():
    assert Recipe.from_dict({}) == Recipe()
    assert settings_from_dict({"guidance": {}}) == Settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kappa": 1}, "recipe must have fields among"),
        ({"source": {"folder": "x"}}, "source must have fields among"),
        ({"settings": {"magic": {}}}, "Settings must have stages among"),
        ({"settings": {"guidance": {"guidance_scale": -1.0}}}, "must be at least 0"),
        ({"arms": ["guided", "misguided"]}, "arms must be among"),
        ({"settings": []}, "must have a dict for every stage"),
        ({"settings": {"guidance": {"layers": 5}}}, "layers must be a list"),
        ({"source": {"nsd_dir": 5}}, "nsd_dir must be text"),
        ({"models": 7}, "models must be text"),
        ({"source": {"test_set": "shared"}}, "test_set must be one of"),
    ],
)
def test_what_cannot_be_is_named(values, message):
    with pytest.raises(ParamError, match=message):
        Recipe.from_dict(values)


def test_source_says_what_it_is():
    assert OWN.own
    assert OWN.given
    assert not Source().given
    assert Source("nsd").given
    assert not Source("nsd").own
    further = Source("nsd", trials="rows.tsv", images="targets", test_set="imagery")
    assert further.further and not further.own and not Source("nsd").further and not OWN.further
    assert further.absolute().test_set == "imagery" and further.absolute().trials.endswith("/rows.tsv")
    assert further.stimuli != Source("nsd", trials="rows.tsv", images="targets").stimuli


def test_a_front_end_imports_it_without_numpy():
    code = (
        "import sys, napari_neuraldiffuser.core.base.recipe; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
