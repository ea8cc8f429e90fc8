"""Builds of the kernels: what is compiled where, what happens when it cannot be, what wheel and sdist hold.

One build compiles the real sources (sdist, then the wheel from it); the others a stand-in that takes a second.
"""

import json
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.build_help import (
    PACKAGE,
    ROOT,
    build_ext,
    copy_sources,
    environment,
    pip_install,
    run,
    stand_in,
)

sys.path.insert(0, str(ROOT / "csrc"))
import build_tools  # noqa: E402

STRICT = {"NEURALDIFFUSER_STRICT": "1"}
FAKE_NVCC = """#!/bin/sh
case "$1" in
--dryrun) echo '#$ _HERE_={here}' >&2 ;;
--version) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;;
--list-gpu-code) echo sm_80; echo sm_90 ;;
*) echo 'kernels.cu(1): error: unsupported host compiler' >&2; exit 2 ;;
esac
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def fake_toolkit(home: Path) -> Path:
    """A CUDA toolkit whose compiler answers questions and compiles nothing."""
    script(home / "bin" / "nvcc", FAKE_NVCC.format(here=home / "bin"))
    (home / "lib64").mkdir()
    (home / "lib64" / "libcudart_static.a").touch()
    return home


def report_of(folder: Path) -> dict:
    return json.loads((folder / PACKAGE / "_build_report.json").read_text())


def libraries(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / PACKAGE).glob("_kernels*.so"))


# ---- settings and tools -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, ("auto", False, "")),
        ({"NEURALDIFFUSER_BUILD": "", "NEURALDIFFUSER_STRICT": ""}, ("auto", False, "")),
        ({"NEURALDIFFUSER_BUILD": " CPU ", "NEURALDIFFUSER_STRICT": "0"}, ("cpu", False, "")),
        ({"NEURALDIFFUSER_BUILD": "cuda", "NEURALDIFFUSER_STRICT": "1"}, ("cuda", True, "")),
        ({"NEURALDIFFUSER_SANITIZE": "address, undefined"}, ("auto", False, "address,undefined")),
    ],
)
def test_settings(environ, expected):
    assert build_tools.read_settings(environ) == build_tools.Settings(*expected)


@pytest.mark.parametrize(
    "name, value", [("BUILD", "gpu"), ("STRICT", "yes"), ("SANITIZE", "address,memory"), ("SANITIZE", "-O3")]
)
def test_a_bad_setting_is_named_with_its_values(name, value):
    with pytest.raises(build_tools.SettingError, match=f"NEURALDIFFUSER_{name} must be .*got .*Unset it"):
        build_tools.read_settings({f"NEURALDIFFUSER_{name}": value})


@pytest.mark.parametrize(
    "text, expected",
    [
        ("8.0;9.0+PTX", ["sm_80", "sm_90", "compute_90"]),
        ("8.6 12.0", ["sm_86", "sm_120"]),
        (" 9.0a, 10.0f+PTX;", ["sm_90a", "sm_100f", "compute_100f"]),
        ("9.0;9.0", ["sm_90"]),
    ],
)
def test_architecture_lists(text, expected):
    assert build_tools.parse_architectures(text) == expected


@pytest.mark.parametrize("text", ["Hopper", "9", "sm_90", "9.0+ptx", "9.0;;x"])
def test_a_bad_architecture_is_named(text):
    with pytest.raises(build_tools.BuildProblem, match="TORCH_CUDA_ARCH_LIST must be a list such as"):
        build_tools.parse_architectures(text)


def test_no_compiler_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build_tools.BuildProblem, match="no C.. compiler was found.*apt-get install g"):
        build_tools.find_compiler({})
    with pytest.raises(build_tools.BuildProblem, match="looked for my-compiler"):
        build_tools.find_compiler({"CXX": "my-compiler -m64"})


def test_a_compiler_that_fails_or_makes_nothing_is_said(tmp_path):
    broken = script(tmp_path / "broken", "#!/bin/sh\necho 'internal compiler error: sorry' >&2\nexit 1\n")
    with pytest.raises(build_tools.BuildProblem, match="cannot compile.*internal compiler error: sorry.*g.. 10"):
        build_tools.find_compiler({"CXX": str(broken)})
    silent = script(tmp_path / "silent", "#!/bin/sh\nexit 0\n")
    with pytest.raises(build_tools.BuildProblem, match="exit status 0 without a message"):
        build_tools.find_compiler({"CXX": str(silent)})


def test_the_toolkit_is_found_behind_a_wrapper_on_path(monkeypatch, tmp_path):
    monkeypatch.setattr(build_tools, "STANDARD_TOOLKIT", tmp_path / "none")
    home = fake_toolkit(tmp_path / "cuda-13.0")
    wrapper = script(tmp_path / "bin" / "nvcc", f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
    found = build_tools.find_toolkit({"PATH": str(wrapper.parent)})
    assert found == build_tools.Toolkit(home / "bin" / "nvcc", "13.0", home / "lib64")
    assert build_tools.find_toolkit({"PATH": "", "CUDA_HOME": str(home)}) == found
    assert build_tools.find_toolkit({"PATH": "", "CUDA_PATH": str(home)}) == found


def test_no_toolkit_is_no_fault_and_half_a_toolkit_is(monkeypatch, tmp_path):
    monkeypatch.setattr(build_tools, "STANDARD_TOOLKIT", tmp_path / "none")
    with pytest.raises(build_tools.NoCuda, match="no CUDA compiler was found. Put nvcc on PATH"):
        build_tools.find_toolkit({"PATH": str(tmp_path)})
    home = fake_toolkit(tmp_path / "cuda")
    (home / "lib64" / "libcudart_static.a").unlink()
    monkeypatch.setattr(build_tools, "_cudart_folder", lambda home: None)
    with pytest.raises(build_tools.BuildProblem, match="no libcudart_static.a") as caught:
        build_tools.find_toolkit({"PATH": "", "CUDA_HOME": str(home)})
    assert not isinstance(caught.value, build_tools.NoCuda)


def test_architectures_that_nvcc_does_not_know_are_left_out(tmp_path):
    toolkit = build_tools.find_toolkit({"PATH": "", "CUDA_HOME": str(fake_toolkit(tmp_path / "cuda"))})
    assert build_tools.architectures({}, toolkit) == (["sm_80", "sm_90", "compute_90"], [])
    chosen = build_tools.architectures({"TORCH_CUDA_ARCH_LIST": "5.2 9.0 12.0+PTX"}, toolkit)
    assert chosen == (["sm_90"], ["sm_52", "sm_120", "compute_120"])
    with pytest.raises(build_tools.BuildProblem, match="nvcc 13.0 knows none of sm_52"):
        build_tools.architectures({"TORCH_CUDA_ARCH_LIST": "5.2"}, toolkit)


def test_nvcc_is_asked_for_every_architecture(tmp_path):
    toolkit = build_tools.Toolkit(Path("/cuda/bin/nvcc"), "13.0", Path("/cuda/lib64"))
    command = build_tools.nvcc_command(toolkit, ["sm_80", "compute_90"], {"CXX": "ccache g++-12"})
    assert "-gencode=arch=compute_80,code=sm_80" in command
    assert "-gencode=arch=compute_90,code=compute_90" in command
    assert command[-2:] == ["-ccbin", "g++-12"]
    assert "-ccbin" not in build_tools.nvcc_command(toolkit, ["sm_80"], {"CXX": "g++", "NVCC_CCBIN": "g++-12"})


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
        "from napari_neuraldiffuser.core import backend, ops\n"
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


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """sdist, and the wheel built from it with what this machine has."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    source = copy_sources(folder / "source")
    (source / PACKAGE / "napari.yaml").unlink(missing_ok=True)  # the build has to make it
    env = environment(folder, **STRICT)
    env["PATH"] = os.environ.get("PATH", os.defpath)
    done = run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), "."], source, env)
    assert done.returncode == 0, done.stdout[-5000:]
    return folder / "dist"


@pytest.fixture(scope="module")
def site(dist, tmp_path_factory):
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(next(dist.glob("*.whl"))).extractall(folder)
    return folder


@pytest.mark.slow
def test_the_sdist_holds_what_a_build_needs(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    sources = {str(f.relative_to(ROOT)) for f in (ROOT / "csrc").rglob("*") if f.is_file() and f.suffix != ".pyc"}
    assert {"csrc/binding.cpp", "csrc/kernels.cu", "csrc/formulas.h", "csrc/build_kernels.py"} <= sources
    assert sources <= names
    assert {"setup.py", "pyproject.toml", "napari.yaml", "tests/test_build.py", "tests/build_help.py"} <= names
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
        "from napari_neuraldiffuser.core import backend\n"
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
