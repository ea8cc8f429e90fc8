"""What panels share: decoded embeddings are forgotten when the recipe no longer fits them; the rest is remembered."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import BetasParams, GuidanceParams, Settings
from napari_neuraldiffuser.widgets.session import session as sessions
from napari_neuraldiffuser.widgets.session import state
from napari_neuraldiffuser.widgets.session.session import Session, first_recipe
from napari_neuraldiffuser.widgets.session.state import config_folder, remember
from tests.support.window.fake_engine import FakeEngine
from tests.support.window.viewers import settle


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


CHANGES = {
    "device": ("cuda:0", lambda recipe: recipe.device),
    "models": ("runwayml/stable-diffusion-v1-5", lambda recipe: recipe.models),
    "guide": ("openai/clip-vit-base-patch32", lambda recipe: recipe.guide),
    "n_steps": (77, lambda recipe: recipe.settings.diffusion.n_steps),
}


@pytest.fixture
def page(viewer):
    """napari's Preferences page of the plugin; as it was at the end."""
    made = state.preferences_page()
    yield made
    for name, value in state.DEFAULTS.items():
        setattr(made, name, value)


@pytest.mark.parametrize("name", CHANGES)
def test_a_preference_that_changed_wins_over_what_is_remembered(viewer, page, name):
    value, of = CHANGES[name]
    first = Session(viewer, FakeEngine())
    diffusion = first.recipe.settings.diffusion.but(n_steps=9, seed=5)
    first.change(device="cpu", models="demo", guide="own/guide")
    first.change_stage("diffusion", diffusion)
    first.save()
    setattr(page, name, value)  # between two sessions
    first._typing.stop()
    second = Session(viewer, FakeEngine())
    assert of(second.recipe) == value
    others = [other for key, (_, other) in CHANGES.items() if key != name]
    assert all(other(second.recipe) == other(first.recipe) for other in others), "they are as they are remembered"
    assert second.recipe.settings.diffusion.seed == 5
    second.change(device="cpu", models="demo", guide="own/guide")
    second.change_stage("diffusion", diffusion)
    second.save()
    assert of(Session(viewer, FakeEngine()).recipe) == of(first.recipe), "what the user chose after it wins over it"


def test_a_preset_that_is_preferred_replaces_diffusion_and_guidance(viewer, page):
    first = Session(viewer, FakeEngine())
    first.change_stage("diffusion", first.recipe.settings.diffusion.but(seed=5))
    first.save()
    page.preset = "published"
    first._typing.stop()
    second = Session(viewer, FakeEngine())
    settings = second.recipe.settings
    assert (settings.diffusion, settings.guidance) == state.params_of_preset("published")


def test_a_preference_acts_in_the_window_too(viewer, page):
    session, told = Session(viewer, FakeEngine()), []
    session.preferences_changed.connect(told.append)
    page.device = "cuda:1"
    page.preview_every = 7
    settle(session._typing)
    assert session.recipe.device == "cuda:1"
    assert told == [{"device": "cuda:1", "preview_every": 7}]


def test_panels_take_a_changed_preference_once(viewer, page, session, qtbot):
    from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel

    def opened():
        made = ReconstructPanel(viewer, session)
        qtbot.addWidget(made)
        return made

    former = opened()
    former.every.setValue(3)
    former._store()
    page.preview_every = 9
    settle(session._typing)
    assert former.every.value() == 9
    former.every.setValue(4)
    former._store()
    assert opened().every.value() == 4, "the user's later choice"
    page.preview_every = 11
    state.remember("reconstruct", {"preview_every": 4})
    session.preferred |= {"preview_every": 11}  # as a session that begins finds it
    assert opened().every.value() == 11
