"""Settings that were chosen for a model folder: recorded in it, used for these weights alone, told."""

import json

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks import chosen
from napari_neuraldiffuser.core.networks.digest import CHOSEN, DEMO_FOLDER, folder_digest
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, preset

ABOUT = {"command": "neuraldiffuser tune NSD MODELS"}
CHANGES = {"diffusion": {"n_steps": 12}, "guidance": {"guidance_scale": 2.0}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = tmp_path / "models"
    (made / "unet").mkdir(parents=True)
    (made / "unet/weights.safetensors").write_bytes(b"one")
    return made


def test_what_is_recorded_is_used_and_changes_no_digest(folder):
    before = folder_digest(str(folder))
    assert chosen.chosen(folder).guidance == GuidanceParams()
    assert "preset scale-free: nothing was chosen" in chosen.chosen(folder).said
    assert chosen.write(folder, None, "scale-free", CHANGES, ABOUT) == folder / CHOSEN
    assert folder_digest(str(folder)) == before
    found = chosen.chosen(folder)
    assert found.diffusion == DiffusionParams(n_steps=12)
    assert found.guidance == GuidanceParams(guidance_scale=2.0)
    assert found.about == ABOUT
    assert "κ 2 (rms)" in found.said and str(folder) in found.said


def test_a_choice_for_other_weights_is_not_used_and_said(folder):
    chosen.write(folder, None, "scale-free", CHANGES, ABOUT)
    (folder / "unet/weights.safetensors").write_bytes(b"other")
    found = chosen.chosen(folder)
    assert (found.diffusion, found.guidance) == preset("scale-free")
    assert "must be of these models' weights" in found.said and "neuraldiffuser tune" in found.said


@pytest.mark.parametrize(
    "damage",
    [
        {"guidance": {"guidance_scale": -1.0}},
        {"guidance": {"colour": 1}},
        {"diffusion": [1]},
        {"preset": "nobody's"},
        {"format": 9},
        {"extra": 1},
    ],
)
def test_values_that_cannot_be_are_not_used_and_said(folder, damage):
    path = chosen.write(folder, None, "scale-free", CHANGES, ABOUT)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    found = chosen.chosen(folder)
    assert (found.diffusion, found.guidance) == preset("scale-free")
    assert str(path) in found.said and "Run neuraldiffuser tune" in found.said
    path.write_text("{")
    with pytest.raises(UserError, match="must be a record"):
        chosen.read(path)


def test_where_the_folder_is_not_for_writing_the_choice_is_the_users_own(folder, tmp_path):
    own = chosen.write("demo", None, "scale-free", CHANGES, ABOUT)
    assert own.parent == tmp_path / "state/napari-neuraldiffuser"
    assert chosen.chosen("demo").guidance.guidance_scale == 2.0, "counts before what came with the models"
    assert chosen.chosen(folder).guidance == GuidanceParams(), "and is of no other models"
    hub = chosen.write("owner/name", None, "scale-free", CHANGES, ABOUT)
    assert hub.parent == own.parent and hub != own


def test_the_record_of_the_bundled_models_is_of_their_weights():
    found = chosen.chosen("demo")
    assert found.place == DEMO_FOLDER / CHOSEN, found.said
    assert (found.diffusion, found.guidance) == (chosen.of_bundled().diffusion, chosen.of_bundled().guidance)
    assert found.about["command"] and found.about["data"]


def test_the_papers_strength_beside_other_models_is_said(tmp_path):
    for name in ("neuraldiffuser", "published"):
        told = chosen.foreign_strength(preset(name)[1], "demo")
        assert "Stable Diffusion 1.4 with CLIP ViT-B/32, which demo is not" in told and "neuraldiffuser tune" in told
    for name in ("scale-free", "demo", "none"):
        assert chosen.foreign_strength(preset(name)[1], "demo") == ""
    assert chosen.foreign_strength(preset("published")[1], tmp_path / "absent") == "", "which is said elsewhere"
    paper = {"unet": chosen.SD1, "image_encoder": chosen.B32}
    assert chosen.fits(paper) and not chosen.fits(paper | {"unet": {**chosen.SD1, "sample_size": 8}})
