"""The loader of the compiled kernels: what it loads, when it refuses, what it says, and where the kernels run."""

import json
import math
import subprocess
import sys
import threading
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from types import SimpleNamespace

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import extension_file
from napari_neuraldiffuser.core.networks.kernels.backend import (
    BackendError,
    KernelWarning,
    backend_info,
    extension,
    kernels_for,
    reference_only,
    why_not,
)

FILE = f"_kernels{EXTENSION_SUFFIXES[0]}"
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BUILT = {
    "version": "0.1.0",
    "compiler": "12.2.0",
    "cuda": "13.0",
    "architectures": ["sm_80", "sm_90", "compute_90"],
    "torch_target": "2.11",
    "torch_built": "2.13.0",
    "sanitize": "",
    "isa": "v3",
    "isas": ["baseline", "v3", "v4"],
}


pytestmark = pytest.mark.usefixtures("process")


@pytest.fixture
def built(monkeypatch, process):
    """A package with an extension that says it was built as BUILT; a function changes that."""
    (process / FILE).touch()
    info = dict(BUILT)
    module = SimpleNamespace(build_info=lambda: info, __file__=str(process / FILE))
    monkeypatch.setattr(extension_file, "load", lambda path: module)
    return SimpleNamespace(module=module, change=info.update)


@pytest.fixture
def gpu(monkeypatch):
    """torch sees a GPU of a compute capability that a function sets."""
    capability = [9, 0]

    def properties(index):
        return SimpleNamespace(name="Test GPU", major=capability[0], minor=capability[1], total_memory=8e9)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: tuple(capability))
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    return lambda major, minor: capability.__setitem__(slice(None), (major, minor))


def quiet(function, *arguments):
    """The result of a call that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)


def test_importing_the_loader_imports_no_torch():
    code = "import sys, napari_neuraldiffuser.core.networks.kernels.backend; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ---- what is loaded -----------------------------------------------------------------------------


def test_nothing_built_is_the_reference_with_the_reason_of_the_build(process):
    report = {"reason": "No kernels were compiled: no C++ compiler was found."}
    (process / "_build_report.json").write_text(json.dumps(report))
    assert quiet(extension) is None
    assert "no C++ compiler was found" in why_not()
    assert "pip install --no-build-isolation" in why_not()
    info = backend_info()
    assert (info["backend"], info["reason"], info["extension"]) == ("reference", why_not(), None)
    assert info["built_architectures"] == []


@pytest.mark.parametrize("content", [None, "not JSON", "[]", "{}"])
def test_a_missing_or_damaged_report_is_no_obstacle(process, content):
    if content is not None:
        (process / "_build_report.json").write_text(content)
    assert quiet(extension) is None
    assert "No kernels were compiled for this installation" in why_not()


def test_the_kernels_run_when_they_are_built(built):
    assert quiet(extension) is built.module
    assert why_not() == ""
    assert quiet(kernels_for, CPU) is built.module
    assert quiet(kernels_for, torch.device("meta")) is None
    info = backend_info()
    assert info["extension"] == built.module.__file__
    assert (info["isa"], info["built_torch"], info["built_cuda"]) == ("v3", "2.13.0", "13.0")
    assert info["built_architectures"] == BUILT["architectures"]


def test_a_registration_that_fails_is_the_reference(process, monkeypatch):
    (process / FILE).touch()

    def load(path):
        raise RuntimeError("Tried to register an operator twice")

    monkeypatch.setattr(extension_file, "load", load)
    with pytest.warns(KernelWarning, match="register an operator twice"):
        assert extension() is None


def test_threads_load_once(process, monkeypatch):
    (process / FILE).touch()
    calls, start = [], threading.Barrier(8)
    module = SimpleNamespace(build_info=lambda: BUILT)

    def load(path):
        calls.append(path)
        start_late.wait(0.05)
        return module

    start_late = threading.Event()
    monkeypatch.setattr(extension_file, "load", load)
    found = []
    threads = [threading.Thread(target=lambda: (start.wait(), found.append(extension()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert found == [module] * 8


# ---- variables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["reference", " Reference "])
def test_the_reference_can_be_asked_for(built, gpu, monkeypatch, value):
    monkeypatch.setenv("NEURALDIFFUSER_KERNELS", value)
    assert quiet(extension) is None
    assert quiet(kernels_for, CPU) is None
    assert quiet(kernels_for, GPU) is None, "who asked for it needs no warning"
    assert backend_info()["reason"] == "NEURALDIFFUSER_KERNELS=reference asks for plain PyTorch."


def test_an_unknown_value_is_an_error(built, monkeypatch):
    monkeypatch.setenv("NEURALDIFFUSER_KERNELS", "fast")
    with pytest.raises(BackendError, match="must be auto or reference, got 'fast'. Unset it for auto."):
        extension()


def test_the_extension_can_be_named(process, monkeypatch):
    other = process / "elsewhere" / "_kernels.so"
    other.parent.mkdir()
    other.touch()
    monkeypatch.setenv("NEURALDIFFUSER_EXTENSION", str(other))
    monkeypatch.setattr(extension_file, "load", lambda path: SimpleNamespace(build_info=dict, path=path))
    assert extension().path == other.resolve()


def test_a_named_extension_that_is_absent_is_announced(built, monkeypatch):
    monkeypatch.setenv("NEURALDIFFUSER_EXTENSION", "/nowhere/_kernels.so")
    with pytest.warns(KernelWarning, match="must be an existing file, got '/nowhere/_kernels.so'"):
        assert extension() is None


def test_a_named_file_that_is_no_module_by_its_name(process, monkeypatch):
    (process / "kernels.txt").touch()
    monkeypatch.setenv("NEURALDIFFUSER_EXTENSION", str(process / "kernels.txt"))
    with pytest.warns(KernelWarning, match="must end in .so"):
        assert extension() is None


# ---- reference_only -----------------------------------------------------------------------------


def test_reference_only_ends_with_its_block_also_after_an_error(built):
    with reference_only():
        with reference_only():
            assert extension() is None
        assert kernels_for(CPU) is None
        assert "reference_only()" in why_not()
        assert backend_info()["backend"] == "reference"
    assert extension() is built.module
    with pytest.raises(ZeroDivisionError), reference_only():
        math.fmod(1 // 0, 1)
    assert extension() is built.module


def test_reference_only_does_not_reach_other_threads(built):
    found = []
    with reference_only():
        thread = threading.Thread(target=lambda: found.append(extension()))
        thread.start()
        thread.join()
        assert extension() is None
    assert found == [built.module]


@pytest.mark.slow
def test_a_compiled_function_sees_the_block_around_its_call(built):
    def twice_or_thrice(x):
        return x * 2 if kernels_for(x.device) is not None else x * 3

    extension()
    compiled = torch.compile(twice_or_thrice, fullgraph=True, backend="eager")
    one = torch.ones(1)
    assert compiled(one) == 2
    with reference_only():
        assert compiled(one) == 3
    assert compiled(one) == 2


# ---- devices ------------------------------------------------------------------------------------


def test_cuda_kernels_run_where_they_fit(built, gpu):
    assert quiet(kernels_for, GPU) is built.module
    assert quiet(kernels_for, torch.device("cuda")) is built.module
    info = quiet(backend_info)
    assert info["backend"] == "cuda"
    assert "sm_80, sm_90, compute_90 on Test GPU" in info["reason"]
    assert info["cuda_devices"] == [{"index": 0, "name": "Test GPU", "capability": "9.0", "memory_gb": 8.0}]


def test_no_gpu_is_the_cpu_without_a_warning(built, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    info = quiet(backend_info)
    assert info["backend"] == "cpu"
    assert "instruction set v3" in info["reason"]
    assert "CUDA kernels for sm_80, sm_90, compute_90 are built, and torch sees no GPU" in info["reason"]


def test_a_gpu_without_cuda_kernels_is_announced_once(built, gpu):
    built.change({"cuda": None, "architectures": []})
    assert quiet(kernels_for, CPU) is built.module
    with pytest.warns(KernelWarning, match="plain PyTorch.*compiled without CUDA.*NEURALDIFFUSER_BUILD=cuda"):
        assert kernels_for(GPU) is None
    assert quiet(kernels_for, GPU) is None
    info = backend_info()
    assert info["backend"] == "cpu"
    assert "On Test GPU plain PyTorch runs: the kernels were compiled without CUDA" in info["reason"]


def test_a_gpu_of_another_architecture_is_announced_with_its_remedy(built, gpu):
    gpu(7, 5)
    with pytest.warns(KernelWarning, match="compute capability 7.5.*TORCH_CUDA_ARCH_LIST=7.5"):
        assert kernels_for(GPU) is None
    assert backend_info()["backend"] == "cpu"


def test_a_gpu_without_any_kernels_is_announced(gpu):
    assert quiet(kernels_for, CPU) is None, "plain PyTorch on the CPU is what was installed"
    with pytest.warns(KernelWarning, match="on cuda tensors run as plain PyTorch: No kernels were compiled"):
        assert kernels_for(GPU) is None
    assert quiet(kernels_for, GPU) is None


def test_reference_only_on_a_gpu_is_not_announced(gpu):
    with reference_only():
        assert quiet(kernels_for, GPU) is None


def test_rocm_is_not_taken_for_cuda(built, gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0", raising=False)
    with pytest.warns(KernelWarning, match="ROCm"):
        assert kernels_for(GPU) is None
