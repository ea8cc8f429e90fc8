"""Builds of the kernels: what is compiled where, what happens when it cannot be, what wheel and sdist hold.

One build compiles the real sources (sdist, then the wheel from it); the others a stand-in that takes a second.
"""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.build_help import (
    PACKAGE,
    ROOT,
    build_ext,
    copy_sources,
    environment,
    fake_toolkit,
    pip_install,
    run,
    script,
    stand_in,
)

sys.path.insert(0, str(ROOT / "csrc"))
import build_tools  # noqa: E402

STRICT = {"NEURALDIFFUSER_STRICT": "1"}


def report_of(folder: Path) -> dict:
    return json.loads((folder / PACKAGE / "_build_report.json").read_text())


def libraries(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / PACKAGE).glob("_kernels*.so"))


# ---- builds of the stand-in ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A source tree with kernels that compile in a second, and no CUDA toolkit in sight."""
    return stand_in(copy_sources(tmp_path_factory.mktemp("small") / "source"))


@pytest.fixture
def clean(small, tmp_path):
    """The environment of its builds."""
    return lambda **changes: environment(tmp_path, **changes)


@pytest.mark.slow
def test_auto_without_nvcc_is_the_cpu_and_no_failure(small, clean, tmp_path):
    done = build_ext(small, clean(**STRICT), f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    assert done.returncode == 0, done.stdout[-3000:]
    report = report_of(tmp_path)
    assert (report["backend"], report["warnings"]) == ("cpu", [])
    assert "no CUDA compiler was found" in report["reason"]
    assert len(libraries(tmp_path)) == 1


@pytest.mark.slow
def test_off_is_a_pure_wheel_that_runs_on_the_reference(small, clean, tmp_path):
    env = clean(NEURALDIFFUSER_BUILD="off", **STRICT)
    done = pip_install(small, tmp_path / "site", env)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "py3-none-any.whl" in done.stdout
    assert libraries(tmp_path / "site") == []
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch\n"
        "from napari_neuraldiffuser.core.networks.kernels import backend, ops\n"
        "assert backend.__file__.startswith(sys.argv[1]), backend.__file__\n"
        "assert backend.extension() is None\n"
        "loss, _ = ops.feature_loss_grad([torch.ones(1, 4)], [torch.zeros(1, 4)], torch.ones(1, 1))\n"
        "print(loss.item(), backend.why_not())\n"
    )
    done = run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "site")], tmp_path, env)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("1.0 No kernels were compiled: NEURALDIFFUSER_BUILD=off")


@pytest.mark.slow
@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_broken_compiler(small, clean, tmp_path, strict):
    broken = script(tmp_path / "bad-c++", "#!/bin/sh\necho 'cc1plus: error: out of order' >&2\nexit 1\n")
    env = clean(CXX=str(broken), NEURALDIFFUSER_STRICT=strict)
    done = pip_install(small, tmp_path / "site", env)
    assert "bad-c++' cannot compile a small C++20 program" in done.stdout
    assert "out of order" in done.stdout
    if strict == "1":
        assert done.returncode != 0
        assert "error: NEURALDIFFUSER_STRICT=1, and the C++ compiler" in done.stdout
        return
    assert done.returncode == 0, done.stdout[-3000:]
    report = report_of(tmp_path / "site")
    assert report["backend"] == "reference"
    assert "out of order" in report["reason"] and report["warnings"] == [report["reason"]]
    assert libraries(tmp_path / "site") == []


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["torch", "pybind11"])
def test_a_build_that_does_not_see_torch_or_pybind11(small, clean, tmp_path, missing):
    blocker = tmp_path / "blocker" / missing / "__init__.py"
    blocker.parent.mkdir(parents=True)
    blocker.write_text(f'raise ImportError("No module named {missing}")\n')
    env = clean(PYTHONPATH=str(tmp_path / "blocker"))
    done = pip_install(small, tmp_path / "site", env)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"warning: {PACKAGE}: No kernels were compiled: {missing} cannot be imported by the build" in done.stdout
    assert "--no-build-isolation" in report_of(tmp_path / "site")["reason"]
    strict = build_ext(small, env | STRICT, f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    assert strict.returncode != 0
    assert f"error: NEURALDIFFUSER_STRICT=1, and {missing} cannot be imported" in strict.stdout


@pytest.mark.slow
def test_a_torch_that_is_too_old_or_broken(small, clean, tmp_path):
    fake = tmp_path / "fake" / "torch" / "__init__.py"
    fake.parent.mkdir(parents=True)
    options = (f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    for text, said in [
        ("__version__ = '2.10.0'", "torch must be 2.11 or newer, got 2.10.0"),
        ("raise OSError('libtorch.so: cannot open')", "torch cannot be imported by the build (libtorch.so"),
    ]:
        fake.write_text(text + "\n")
        done = build_ext(small, clean(PYTHONPATH=str(tmp_path / "fake")), *options)
        assert done.returncode == 0, done.stdout[-3000:]
        assert said in report_of(tmp_path)["reason"]


@pytest.mark.slow
def test_sources_that_do_not_compile(clean, tmp_path):
    source = stand_in(copy_sources(tmp_path / "source"))
    (source / "csrc" / "module.cpp").write_text("int main( {\n")
    options = (f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    done = build_ext(source, clean(), *options)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "compiling or linking the C++ kernels" in report_of(tmp_path)["reason"]
    assert build_ext(source, clean(**STRICT), *options).returncode != 0


@pytest.mark.slow
def test_nvcc_that_fails_leaves_the_cpu_kernels(small, clean, tmp_path):
    env = clean(CUDA_HOME=str(fake_toolkit(tmp_path / "cuda")))
    options = (f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    done = build_ext(small, env, *options)
    assert done.returncode == 0, done.stdout[-3000:]
    report = report_of(tmp_path)
    assert report["backend"] == "cpu"
    assert "unsupported host compiler" in report["warnings"][0]
    assert len(libraries(tmp_path)) == 1
    done = build_ext(small, env | STRICT, *options)
    assert done.returncode != 0
    assert "error: NEURALDIFFUSER_STRICT=1, and nvcc could not compile kernels.cu" in done.stdout
    assert libraries(tmp_path) == [], "the library of the build before must not survive"


@pytest.mark.slow
def test_cuda_without_nvcc_is_a_warning_or_with_strict_an_error(small, clean, tmp_path):
    options = (f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    done = build_ext(small, clean(NEURALDIFFUSER_BUILD="cuda"), *options)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "warning: napari_neuraldiffuser: No CUDA kernels were compiled: no CUDA compiler was found" in done.stdout
    assert report_of(tmp_path)["backend"] == "cpu"
    done = build_ext(small, clean(NEURALDIFFUSER_BUILD="cuda", **STRICT), *options)
    assert done.returncode != 0
    assert "error: NEURALDIFFUSER_STRICT=1, and no CUDA compiler was found" in done.stdout


@pytest.mark.slow
def test_nothing_stale_survives_in_the_source_tree(clean, tmp_path):
    source = stand_in(copy_sources(tmp_path / "source"))
    for changes, backend in [
        ({}, "cpu"),
        ({"CXX": "/bin/false"}, "reference"),
        ({"NEURALDIFFUSER_BUILD": "cpu"}, "cpu"),
        ({"NEURALDIFFUSER_BUILD": "off"}, "reference"),
    ]:
        done = build_ext(source, clean(**changes), "--inplace")
        assert done.returncode == 0, done.stdout[-3000:]
        assert report_of(source)["backend"] == backend
        assert len(libraries(source)) == (backend == "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_an_editable_install_compiles_into_the_source_tree(clean, tmp_path, mode):
    source = stand_in(copy_sources(tmp_path / "source"))
    code = (
        "import sys\nfrom setuptools.build_meta import build_editable\n"
        "build_editable(sys.argv[1], {'editable_mode': sys.argv[2]})"
    )
    builds = [({}, "cpu"), ({"CXX": "/bin/false"}, "reference")]
    for changes, backend in builds if mode == "lenient" else builds[::-1]:
        done = run([sys.executable, "-c", code, str(tmp_path), mode], source, clean(**changes))
        assert done.returncode == 0, done.stdout[-3000:]
        assert report_of(source)["backend"] == backend
        assert len(libraries(source)) == (backend == "cpu")


@pytest.mark.slow
def test_a_bad_setting_stops_the_install_with_its_sentence(small, clean, tmp_path):
    done = build_ext(small, clean(NEURALDIFFUSER_BUILD="gpu"), f"--build-lib={tmp_path}")
    assert done.returncode != 0
    assert "error: NEURALDIFFUSER_BUILD must be one of auto, cpu, cuda, off, got 'gpu'." in done.stdout
    assert "Traceback" not in done.stdout


# ---- the real sources: sdist, the wheel from it, and what it computes ------------------------------


@pytest.mark.slow
def test_the_sdist_holds_what_a_build_needs(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    sources = {str(f.relative_to(ROOT)) for f in (ROOT / "csrc").rglob("*") if f.is_file() and f.suffix != ".pyc"}
    assert {"csrc/binding.cpp", "csrc/kernels.cu", "csrc/formulas.h", "csrc/build_kernels.py"} <= sources
    assert sources <= names
    assert {
        "setup.py",
        "pyproject.toml",
        "napari.yaml",
        "tests/package/test_build.py",
        "tests/support/build_help.py",
    } <= names
    assert not [name for name in names if name.endswith((".so", ".o", "_build_report.json"))]


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_its_report(dist):
    wheel = next(dist.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert "linux" in wheel.name
    assert len([name for name in names if name.startswith(f"{PACKAGE}/_kernels") and name.endswith(".so")]) == 1
    assert f"{PACKAGE}/_build_report.json" in names
    assert f"{PACKAGE}/napari.yaml" in names
    assert not [name for name in names if name.startswith(("csrc/", "tests/"))]


@pytest.mark.slow
def test_the_wheel_computes(site):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch\n"
        "from napari_neuraldiffuser.core.networks.kernels import backend\n"
        "module = backend.extension()\n"
        "assert module is not None, backend.why_not()\n"
        "assert module.__file__.startswith(sys.argv[1]), module.__file__\n"
        "terms = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])]\n"
        "assert torch.ops.neuraldiffuser.guided_step(terms, [2.0, -1.0]).tolist() == [-1.0, -1.0]\n"
        "import json; print(json.dumps(module.build_info()))\n"
    )
    env = environment(site)
    done = subprocess.run(
        [sys.executable, "-c", code, str(site)], cwd=site, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    info, report = json.loads(done.stdout), report_of(site)
    assert (info["cuda"], tuple(info["architectures"])) == (report["cuda"], tuple(report["architectures"]))
    assert report["torch"].startswith(info["torch_built"])


@pytest.mark.slow
def test_the_wheel_has_cuda_kernels_where_nvcc_is(site):
    try:
        toolkit = build_tools.find_toolkit(os.environ)
    except build_tools.BuildProblem as problem:
        pytest.skip(str(problem))
    report = report_of(site)
    assert (report["backend"], report["cuda"]) == ("cuda", toolkit.version)
    assert report["architectures"] == list(build_tools.DEFAULT_ARCHITECTURES)
