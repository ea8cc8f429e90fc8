"""What the build asks of the machine: settings, compilers, CUDA toolkits and architectures."""

import sys
from pathlib import Path

import pytest

from tests.support.build_help import ROOT, fake_toolkit, script

sys.path.insert(0, str(ROOT / "csrc"))
import build_tools  # noqa: E402


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
