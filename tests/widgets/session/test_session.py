"""What panels share: decoded embeddings are forgotten when the recipe no longer fits them; the rest is remembered."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import BetasParams, GuidanceParams, Settings
from napari_neuraldiffuser.widgets.session import session as sessions
from napari_neuraldiffuser.widgets.session.session import Session, first_recipe
from napari_neuraldiffuser.widgets.session.state import config_folder, remember


def test_panels_of_one_viewer_share_it(viewer, session):
    assert Session.of(viewer) is session


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda s: s.change_stage("guidance", GuidanceParams(guidance_scale=1.0)), True),
        (lambda s: s.change(stimulus_ids=(3,)), True),
        (lambda s: s.change(device="cuda"), False),
        (lambda s: s.change_stage("betas", BetasParams(roi="V1")), False),
        (lambda s: s.change(models="other"), False),
        (lambda s: s.choose(Source("elsewhere")), False),
    ],
)
def test_decoded_embeddings_go_with_what_decided_them(session, change, kept):
    session.set_decoded({"test_ids": [3]})
    said = []
    session.decoded_changed.connect(said.append)
    change(session)
    assert (session.decoded is not None) == kept
    assert said == ([] if kept else [None])


def test_an_equal_recipe_changes_nothing(session, qtbot):
    session.set_decoded({})
    with qtbot.assertNotEmitted(session.recipe_changed):
        session.change(models=session.recipe.models)
        session.change_stage("betas", session.recipe.settings.betas)
        session.choose(session.recipe.source)
    assert session.decoded is not None


def test_choosing_data_forgets_the_stimuli_and_the_description(session):
    session.change(stimulus_ids=(1, 2))
    session.set_described({"trials": 3})
    session.choose(Source("nsd", "subj02"))
    assert session.recipe.stimulus_ids == ()
    assert session.described is None


def test_the_recipe_is_remembered(session, qtbot, monkeypatch):
    monkeypatch.setattr(sessions, "SAVE_AFTER", 10)
    session._timer.setInterval(10)
    session.change(source=Source("nsd", "subj03"), device="cuda:1")
    qtbot.waitUntil(lambda: (config_folder() / "panels.json").exists())
    assert first_recipe() == session.recipe


@pytest.mark.parametrize(
    "stored",
    [
        {"models": 3, "magic": 1},
        {"settings": {"guidance": {"rule": "x"}}},
        {"arms": 5},
        {"settings": []},
        {"settings": {"guidance": {"layers": 5}}},
        {"source": {"nsd_dir": 5}},
        {"source": []},
        {"models": 7},
    ],
)
def test_a_recipe_of_another_version_is_left_behind(session, stored):
    remember("recipe", stored)
    found = first_recipe()
    assert isinstance(found, Recipe)
    assert found.source == Source()
    assert found.settings.diffusion.repeats == 3, "the demo preset of the Preferences page"


def test_damaged_memory_is_no_memory(session):
    config_folder().mkdir(parents=True, exist_ok=True)
    (config_folder() / "panels.json").write_text("{not json")
    assert first_recipe().settings.betas == Settings().betas


def test_layers_that_name_their_subject_are_adopted(viewer, session):
    about = {"kind": "anatomy", "source": Source("nsd", "subj05").to_dict(), "output": "/out"}
    shown = []
    session.output_changed.connect(shown.append)
    viewer.add_image(np.zeros((2, 2, 2)), metadata={"neuraldiffuser": about})
    assert session.recipe.source == Source("nsd", "subj05")
    assert shown == ["/out"]
    viewer.add_image(np.zeros((2, 2)))
    assert session.recipe.source == Source("nsd", "subj05")


def test_a_viewer_with_layers_is_read_when_the_first_panel_opens(viewer):
    about = {"kind": "anatomy", "source": Source("nsd", "subj06").to_dict()}
    viewer.add_image(np.zeros((2, 2, 2)), metadata={"neuraldiffuser": about})
    made = Session.of(viewer)
    assert made.recipe.source == Source("nsd", "subj06")
    made.close()


def test_closing_ends_the_engine_and_a_new_session_begins(viewer, session):
    session.close()
    assert session.engine.stopped == 1
    fresh = Session.of(viewer)
    assert fresh is not session
    fresh.close()


def test_busy_while_a_call_is_waited_for(session):
    said = []
    session.busy_changed.connect(said.append)
    session.call("thumbnails", {}, quiet=True)
    assert not session.busy
    session.call("decode")
    assert session.busy
    session.engine.answer("decode", {})
    assert said == [True, False]
    args, _ = session.engine.last("decode")
    assert Recipe.from_dict(args["recipe"]) == session.recipe
