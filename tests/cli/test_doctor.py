"""The doctor never breaks off, names what is missing, and says nothing that is not so."""

import json
import shutil
import sys
from importlib import metadata, util

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_neuraldiffuser import cli
from napari_neuraldiffuser import doctor as module
from napari_neuraldiffuser.core.networks.digest import DEMO_FOLDER, OPTIONAL_PARTS, PARTS
from napari_neuraldiffuser.core.networks.folder import CONFIGS
from napari_neuraldiffuser.core.networks.kernels.backend import BackendError, backend_info
from napari_neuraldiffuser.core.networks.weight_files import NAMES
from napari_neuraldiffuser.core.nsd.simulation.scenes.draw import scene_vocabulary
from napari_neuraldiffuser.doctor import as_json, as_text, check_models, doctor

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:3d2\nsize 492265874\n"


@pytest.fixture
def model_folder(tmp_path):
    """The bundled models as a folder that can be spoiled."""
    return shutil.copytree(DEMO_FOLDER, tmp_path / "models")


def test_report_of_a_complete_installation(model_folder):
    report = doctor(model_folder)
    assert report["problems"] == []
    assert report["packages"]["numpy"] == metadata.version("numpy")
    assert report["kernels"] == backend_info()
    assert report["kernels"]["reason"] in as_text(report)
    assert "computing on cpu: precision auto is float32, batch_size 0 at most 16 images" in as_text(report)
    assert "channels first, images are the same in any batch" in report["computing"]["cpu"]
    assert json.loads(as_json(report)) == report
    assert ", complete\n" in as_text(report)
    assert report["models"]["parts"] == {
        part: f"{part}/{NAMES[part][0] if part in NAMES else CONFIGS[part]}" for part in (*PARTS, *OPTIONAL_PARTS)
    }


def test_the_words_that_captions_can_hold_are_counted(model_folder):
    file = model_folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    known = check_models(model_folder)["words"]
    assert known == len(scene_vocabulary())
    assert f"  captions: {known} words are known, others are read as one unknown word\n" in as_text(
        doctor(model_folder)
    )
    content["model"] = {"type": "BPE", "vocab": content["model"]["vocab"], "merges": []}
    file.write_text(json.dumps(content))
    assert check_models(model_folder)["words"] is None


def said(capsys, *options):
    """Exit status and output of the command."""
    status = cli.main(["doctor", *map(str, options)])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(model_folder, capsys, part):
    shutil.rmtree(model_folder / part)
    status, text = said(capsys, "--models", model_folder)
    assert status == 1
    assert ", incomplete" in text and text.count("problem: ") == 1
    assert f"missing: {part}" in text


@pytest.mark.parametrize("part", list(NAMES))
def test_pointer_files_are_no_weights(model_folder, capsys, part):
    (model_folder / part / NAMES[part][0]).write_text(POINTER)
    status, text = said(capsys, "--models", model_folder)
    assert status == 1 and ", complete" not in text
    assert "got a pointer of Git LFS. Run git lfs pull" in text
    assert (
        f"  {part}: " not in text
        and text.count(f"/{NAMES['vae'][0]}") + text.count(f"/{NAMES['text_encoder'][0]}") == 5
    )


def test_every_part_is_told_of(model_folder, capsys):
    """Weights that lack names, of another shape, of another model and for another text: all in one report."""
    for part, spoil in (("vae", lambda w: w.popitem()), ("image_encoder", lambda w: w.pop("visual_projection.weight"))):
        path = model_folder / part / NAMES[part][0]
        state = load_file(path)
        spoil(state)
        save_file(state, path, metadata={"format": "pt"})
    config = json.loads((model_folder / "unet" / "config.json").read_text())
    (model_folder / "unet" / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 1024}))
    (model_folder / "scheduler" / "scheduler_config.json").write_text("")
    status, text = said(capsys, "--models", model_folder, "--json")
    assert status == 1
    report = json.loads(text)["models"]
    assert set(report["parts"]) == {"text_encoder", "tokenizer", "vae_tiny"} and not report["complete"]
    assert [problem.split()[2] for problem in report["problems"]] == ["vae", "unet", "scheduler", "image_encoder"]
    assert all("\n" not in problem for problem in report["problems"])


def test_variants_shards_and_pickles_count(model_folder, capsys):
    unet, text = model_folder / "unet" / NAMES["unet"][0], model_folder / "text_encoder" / NAMES["text_encoder"][0]
    unet.rename(unet.with_suffix(".fp16.safetensors"))
    torch.save(load_file(text), text.with_name(NAMES["text_encoder"][1]))
    text.unlink()
    status, out = said(capsys, "--models", model_folder)
    assert status == 0 and ", complete" in out
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in out and "text_encoder/pytorch_model.bin" in out


def test_the_guide_is_looked_at(model_folder, capsys, tmp_path):
    shutil.move(model_folder / "image_encoder", tmp_path / "clip")
    assert said(capsys, "--models", model_folder)[0] == 1
    status, out = said(capsys, "--models", model_folder, "--guide", tmp_path / "clip")
    assert status == 0 and "image_encoder: clip/model.safetensors" in out
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "vit"}')
    status, out = said(capsys, "--models", model_folder, "--guide", tmp_path / "clip")
    assert status == 1 and "must be a CLIP vision model, got 'vit'" in out


@pytest.mark.parametrize("models", ["nothing/here/at/all", "owner/not-fetched", "x.safetensors"])
def test_models_that_are_not_there(models, capsys, tmp_path, hub_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    status, text = said(capsys, "--models", models)
    assert status == 1
    assert "0.0 MB, incomplete" in text and f"got {'the file ' if 'x.' in models else ''}{models}" in text


def test_files_are_judged_without_torch(monkeypatch, model_folder):
    """An installation whose torch is broken is what a doctor is asked about."""
    monkeypatch.setitem(sys.modules, "napari_neuraldiffuser.core.networks.opening", None)
    (problem,) = check_models(model_folder)["problems"]
    assert problem.startswith("Weights must be compared with their configurations, and torch or diffusers fail")
    (model_folder / "unet" / NAMES["unet"][0]).write_text(POINTER)
    assert "Git LFS" in "".join(check_models(model_folder)["problems"])


def test_absent_packages_are_reported_not_raised(monkeypatch, model_folder):
    real_version, real_spec = metadata.version, util.find_spec

    def version(name):
        if name in ("torch", "napari"):
            raise metadata.PackageNotFoundError(name)
        return real_version(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(module.util, "find_spec", lambda name: None if name == "torch" else real_spec(name))
    report = doctor(model_folder)
    assert report["packages"]["napari"] is None
    assert report["kernels"]["backend"] is None
    assert any("missing: torch. Run: make install" in problem for problem in report["problems"])
    assert not any("napari" in problem for problem in report["problems"])  # optional
    assert "not installed" in as_text(report)


def test_broken_torch_is_reported(monkeypatch, model_folder):
    def broken():
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(module, "backend_info", broken)
    report = doctor(model_folder)
    assert "libcudart" in report["kernels"]["reason"]
    assert report["kernels"]["reason"] in report["problems"]


def test_built_kernels_are_described(monkeypatch, model_folder):
    kernels = backend_info() | {
        "backend": "cpu",
        "reason": "C++ kernels run.",
        "extension": "/somewhere/_kernels.so",
        "built_architectures": ["sm_80", "sm_90", "compute_90"],
        "built_cuda": "13.0",
        "built_torch": "2.13.0",
        "isa": "v3",
        "sanitize": "address",
    }
    monkeypatch.setattr(module, "backend_info", lambda: kernels)
    report = doctor(model_folder)
    text = as_text(report)
    assert "kernels: cpu: C++ kernels run." in text
    assert "/somewhere/_kernels.so, compiled against torch 2.13.0, sanitizers address" in text
    assert "CPU instruction set v3, GPU architectures sm_80, sm_90, compute_90 (CUDA 13.0)" in text
    assert json.loads(as_json(report))["kernels"]["built_architectures"] == ["sm_80", "sm_90", "compute_90"]


def test_a_bad_kernel_variable_is_a_problem_not_a_crash(monkeypatch, model_folder):
    def bad():
        raise BackendError("NEURALDIFFUSER_KERNELS must be auto or reference, got 'x'. Unset it for auto.")

    monkeypatch.setattr(module, "backend_info", bad)
    report = doctor(model_folder)
    assert report["kernels"]["backend"] is None
    assert "NEURALDIFFUSER_KERNELS must be auto or reference" in "".join(report["problems"])
