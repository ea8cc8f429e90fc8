"""The Decode panel: rows of the chosen kind of decoder alone, and the folder of a pretrained network."""

import json


def network_folder(folder, form=1):
    folder.mkdir()
    (folder / "network.json").write_text(json.dumps({"format": form}))
    (folder / "network.safetensors").write_bytes(b"weights")
    return folder


def shown(panel):
    parts = (panel.decoding, panel.kind)
    return {name for part in parts for name, one in part.controls.items() if part.layout().isRowVisible(one)}


def test_only_rows_of_the_chosen_kind_are_there(ready):
    kinds = {}
    for kind in ("ridge", "contrastive", "network"):
        ready.decoding.controls["decoder"].setCurrentText(kind)
        assert ready.session.recipe.settings.decoding.decoder == kind
        kinds[kind] = shown(ready)
        assert ready.decoding.layout().isRowVisible(ready.pretrained) == (kind == "network")
    assert "penalty" in kinds["ridge"] - kinds["contrastive"] - kinds["network"]
    assert all(name.startswith("contrastive_") for name in kinds["contrastive"] - kinds["ridge"])
    assert ready.kind.layout().labelForField(ready.kind.controls["network_epochs"]).text() == "Epochs"
    assert all(name.startswith("network_") for name in kinds["network"] - kinds["ridge"])
    assert "network_epochs" in kinds["network"] and "contrastive_rank" in kinds["contrastive"]


def test_a_pretrained_network_goes_to_the_recipe_and_a_wrong_folder_is_said(ready, tmp_path):
    ready.decoding.controls["decoder"].setCurrentText("network")
    folder = network_folder(tmp_path / "net")
    ready.pretrained.choose(str(folder))
    assert ready.session.recipe.settings.decoding.network_pretrained == str(folder)
    assert ready.run_button.isEnabled()
    ready.pretrained.choose(str(tmp_path))
    assert "must be the folder of a network, got none" in ready.pretrained.problem_label.text()
    assert not ready.run_button.isEnabled()
    ready.pretrained.choose(str(network_folder(tmp_path / "later", form=99)))
    assert "got format 99" in ready.pretrained.problem_label.text()
    ready.decoding.controls["decoder"].setCurrentText("ridge")
    assert ready.run_button.isEnabled(), "the folder does not matter to ridge"
    ready.reset()
    assert ready.pretrained.path == ""
