"""csrc/kernels.cu compiles for the architectures that are shipped, and no register is spilled."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow
SOURCE = ROOT / "csrc" / "kernels.cu"
TARGETS = {"80": "sm_80", "90": "sm_90,compute_90"}
KERNELS = {  # instantiations of each kernel
    "feature_loss_kernel": 7,  # four types, and float32 targets beside three of them
    "guided_step_kernel": 4,
    "prepare_image_kernel": 8,  # two directions
    "norm_partial_kernel": 8,  # packs of one and of four channels
    "norm_apply_kernel": 8,
    "norm_backward_partial_kernel": 8,
    "norm_backward_apply_kernel": 8,
}


def find_nvcc() -> str | None:
    """CUDA_HOME first: an nvcc on PATH may be a wrapper outside its toolkit."""
    places = [Path(os.environ["CUDA_HOME"], "bin")] if os.environ.get("CUDA_HOME") else []
    found = [shutil.which("nvcc", path=place) for place in (*places, None, "/usr/local/cuda/bin")]
    return next((nvcc for nvcc in found if nvcc), None)


def compiled(folder: Path) -> str:
    """Compile for all targets; returns what the compiler said."""
    nvcc = find_nvcc()
    if nvcc is None:
        loud = "ON CI, THE CUDA KERNELS WERE NOT COMPILED: " if os.environ.get("CI") == "true" else ""
        pytest.skip(f"{loud}no nvcc in CUDA_HOME, PATH or /usr/local/cuda")
    command = [nvcc, "-std=c++17", "-O3", "-Xptxas", "-v", "-Xcompiler", "-Wall,-Wextra", "-c", str(SOURCE)]
    command += [f"-gencode=arch=compute_{arch},code=[{code}]" for arch, code in TARGETS.items()]
    done = subprocess.run([*command, "-o", folder / "kernels.o"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def parse(report: str) -> list[tuple[str, str, list[str]]]:
    """(mangled kernel, architecture, its lines and those of the functions it calls)."""
    parts = re.split(r"Compiling entry function '(\w+)' for '(sm_\d+)'", report)[1:]
    return [(parts[i], parts[i + 1], parts[i + 2].splitlines()) for i in range(0, len(parts), 3)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("nvcc"))


def test_no_warning(report):
    assert "warning" not in report.lower(), report


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_every_kernel_is_there(report, architecture):
    names = [name for name, target, _ in parse(report) if target == architecture]
    for kernel, count in KERNELS.items():
        # a mangled name holds its length: norm_apply_kernel is not part of norm_backward_apply_kernel
        assert sum(f"{len(kernel)}{kernel}" in name for name in names) == count, kernel
    assert len(names) == sum(KERNELS.values())


def test_no_local_memory(report):
    """No spill and no stack, in the kernels and in the functions that they call."""
    for name, architecture, lines in parse(report):
        frames = [line for line in lines if "stack frame" in line]
        assert frames, name
        for line in frames:
            assert re.findall(r"\d+", line) == ["0", "0", "0"], (name, architecture, line)
        assert not any("lmem" in line for line in lines), name


def test_a_spill_would_be_seen():
    """The parser, on a report with a spill in a called function."""
    text = (
        "ptxas info    : Compiling entry function '_Zk' for 'sm_80'\nptxas info    : Function properties for _Zk\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : Used 8 registers\n"
        "ptxas info    : Function properties for _Zf\n"
        "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
    )
    with pytest.raises(AssertionError, match="8 bytes stack frame"):
        test_no_local_memory(text)
