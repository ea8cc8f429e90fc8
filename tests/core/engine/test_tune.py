"""The plugin's engine tunes on training stimuli, goes on where it was stopped, and says what it chose."""

import json
import shutil

import pytest

from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.networks import chosen
from napari_neuraldiffuser.core.params import TuneParams
from tests.support.study_cases import Log, call

QUICK = TuneParams(
    n_stimuli=4,
    repeats=1,
    factors=(1.0,),
    shares=(0.67,),
    cfg_scales=(3.0,),
    steps=(3,),
    finer=(0.5,),
    finalists=1,
)


@pytest.mark.slow
def test_a_stopped_search_goes_on_and_its_choice_is_the_models(given, ready, tmp_path):
    models = shutil.copytree(given.models, tmp_path / "models")
    recipe = given.but(models=str(models))
    log = Log(stop=lambda name, about: name == "told" and about["what"].startswith("tuning") and about["done"] >= 3)
    with pytest.raises(Cancelled):
        call(ready, "tune", recipe, log, params=QUICK.to_dict())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/tune/work/scores").glob("*.json")}
    assert kept and not (models / chosen.CHOSEN).exists()
    result = call(ready, "tune", recipe, params=QUICK.to_dict())
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was scored is not scored again"
    found = chosen.chosen(models)
    assert found.place == models / chosen.CHOSEN
    assert json.loads(found.place.read_text())["guidance"] == result["guidance"]
    assert str(found.place) in result["note"]
