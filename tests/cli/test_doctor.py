"""The doctor never fails, names what is missing, and says nothing that is not so."""

import json
from importlib import metadata, util

import pytest

from napari_neuraldiffuser import doctor as module
from napari_neuraldiffuser.core.networks.kernels.backend import BackendError, backend_info
from napari_neuraldiffuser.doctor import as_json, as_text, check_model_folder, doctor


@pytest.fixture
def model_folder(tmp_path):
    """An empty model folder with every file that is looked for."""
    for part, (config, weights) in module.MODEL_PARTS.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / config).write_text("{}")
        if weights:
            (tmp_path / part / f"{weights}.safetensors").write_bytes(b"\0" * 1000)
    return tmp_path


def test_report_of_a_complete_installation(model_folder):
    report = doctor(model_folder)
    assert report["problems"] == []
    assert report["packages"]["numpy"] == metadata.version("numpy")
    assert report["kernels"] == backend_info()
    assert report["kernels"]["reason"] in as_text(report)
    assert json.loads(as_json(report)) == report
    assert "complete" in as_text(report)


@pytest.mark.parametrize("part", list(module.MODEL_PARTS))
def test_missing_part_is_named(model_folder, part):
    config, weights = module.MODEL_PARTS[part]
    (model_folder / part / config).unlink()
    found = check_model_folder(model_folder)
    assert not found["complete"]
    assert found["missing"] == [f"{part}/{config}"]
    if weights:
        (model_folder / part / f"{weights}.safetensors").unlink()
        assert check_model_folder(model_folder)["missing"][1] == f"{part}/{weights}.safetensors"


def test_sharded_and_bin_weights_count(model_folder):
    unet = model_folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model-00001-of-00002.safetensors")
    text = model_folder / "text_encoder"
    (text / "model.safetensors").rename(text / "model.bin")
    assert check_model_folder(model_folder)["complete"]


def test_a_folder_that_does_not_exist(tmp_path):
    found = check_model_folder(tmp_path / "nothing")
    assert not found["complete"]
    assert found["megabytes"] == 0
    assert any("must hold every model part" in problem for problem in doctor(tmp_path / "nothing")["problems"])


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
