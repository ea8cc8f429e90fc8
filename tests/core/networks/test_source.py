"""Where models lie: a typing error in a path is told from a hub id, and nothing is ever asked of a server."""

import shutil
import socket

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks import models as m
from napari_neuraldiffuser.core.networks.machine import check_device
from napari_neuraldiffuser.core.networks.source import is_hub_id, model_place
from tests.support.model_folders import in_cache


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a server was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("hub_id", ["CompVis/stable-diffusion-v1-4", "openai/clip-vit-base-patch32", "a/b.c_d-1"])
def test_a_hub_id_that_is_not_in_the_cache(hub_cache, hub_id):
    with pytest.raises(m.ModelError, match=f"local cache {hub_cache}, got {hub_id}, .*hf download {hub_id}"):
        m.load(hub_id)


def test_a_hub_id_in_the_cache(hub_cache, folder):
    place = in_cache(hub_cache, "owner/sd", folder)
    assert model_place("owner/sd") == place
    opened = m.load("owner/sd")
    assert opened.name == "owner/sd"
    assert opened.digest == m.folder_digest("owner/sd"), "stands for itself"


def test_a_guide_in_the_cache(hub_cache, folder, tmp_path):
    shutil.move(folder / "image_encoder", tmp_path / "clip")
    with pytest.raises(m.ModelError, match="Guide must be an existing folder or in the hub's .*hf download owner/clip"):
        m.load(folder, "owner/clip")
    in_cache(hub_cache, "owner/clip", tmp_path / "clip")
    assert m.load(folder, "owner/clip").guide_size() == 24


@pytest.mark.parametrize("lost", ["refs", "snapshots"])
def test_a_cache_that_was_cleared(hub_cache, folder, lost):
    in_cache(hub_cache, "owner/sd", folder)
    shutil.rmtree(hub_cache / "models--owner--sd" / lost)
    with pytest.raises(m.ModelError, match="hf download owner/sd"):
        m.load("owner/sd")


@pytest.mark.parametrize("form", ["{0}/sd14", "./sd14", "models/sd14", "sd14", "a/b/sd14", "../x/sd14", "~/sd14", ""])
def test_a_path_with_a_typing_error_is_no_hub_id(tmp_path, monkeypatch, form):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    text = form.format(tmp_path)
    assert not is_hub_id(text)
    with pytest.raises(m.ModelError, match="must be 'demo', an existing folder or a hub id") as error:
        m.load(text)
    assert f"got {text or 'nothing'}. Check the path." in str(error.value)


@pytest.mark.parametrize("typed", ["models/sd-14", "models/sd_1.4", "models/SD14"])
def test_the_folder_that_was_meant(tmp_path, monkeypatch, typed):
    (tmp_path / "models" / "sd14" / "unet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(m.ModelError, match="Did you mean models/sd14?"):
        m.load(typed)


@pytest.mark.parametrize("name", ["v1-5-pruned.safetensors", "sd-v1-4.ckpt", "model.pt"])
def test_a_single_file_is_told_how_to_be_converted(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"weights")
    with pytest.raises(m.ModelError) as error:
        m.load(path)
    code = str(error.value).split('python -c "')[1].removesuffix('"')
    compile(code, "remedy", "exec")
    assert f"P.from_single_file('{path}').save_pretrained('{path.with_suffix('')}')" in code
    from diffusers import StableDiffusionPipeline

    assert callable(StableDiffusionPipeline.from_single_file)


def test_a_folder_of_a_single_file(tmp_path):
    (tmp_path / "v1-5.safetensors").write_bytes(b"weights")
    with pytest.raises(m.ModelError, match="It has v1-5.safetensors. .*from_single_file"):
        m.load(tmp_path)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "sd.zip").write_bytes(b"PK")
    with pytest.raises(m.ModelError, match="must be a folder, got the file .*sd.zip. Give the folder that has unet"):
        m.load(tmp_path / "sd.zip")


def test_a_folder_that_is_no_model_is_not_meant(tmp_path):
    (tmp_path / "NSD_DIR").mkdir()
    with pytest.raises(m.ModelError, match=r"Check the path\.$"):
        model_place(tmp_path / "SD_DIR")


@pytest.mark.parametrize(("gpus", "said"), [(0, "word for a GPU is cuda, but torch sees none"), (1, "cuda:0, got")])
def test_a_device_that_torch_does_not_know(monkeypatch, gpus, said):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(UserError, match=said):
        check_device("gpu")
