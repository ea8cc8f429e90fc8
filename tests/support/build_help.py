"""Copies of the source tree to build in, and the builds."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

PACKAGE = "napari_neuraldiffuser"
VARIABLES = ("BUILD", "STRICT", "SANITIZE", "KERNELS", "EXTENSION", "ISA")
# an extension module that compiles in a second; with CUDA it needs the object that nvcc makes
MODULE = """
#include <Python.h>
#ifdef ND_CUDA
extern "C" int nd_stand_in();
#else
static int nd_stand_in() { return 0; }
#endif
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", nullptr, -1, nullptr};
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__kernels() {
  PyObject* module = PyModule_Create(&definition);
  PyModule_AddIntConstant(module, "cuda", nd_stand_in());
  return module;
}
"""
KERNEL = """
__global__ void nothing() {}
extern "C" __attribute__((visibility("default"))) int nd_stand_in() { return 1; }
"""
FAKE_NVCC = """#!/bin/sh
case "$1" in
--dryrun) echo '#$ _HERE_={here}' >&2 ;;
--version) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;;
--list-gpu-code) echo sm_80; echo sm_90 ;;
*) echo 'kernels.cu(1): error: unsupported host compiler' >&2; exit 2 ;;
esac
"""


def copy_sources(folder: Path) -> Path:
    """The files that git knows or would add, copied; without git, what is no build product."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        hidden = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "demo_output", "__pycache__", "*.so")
        return Path(shutil.copytree(ROOT, folder, ignore=hidden))
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def stand_in(source: Path, hide_cuda: bool = True) -> Path:
    """Replace the kernels of a copied tree by ones that compile in seconds."""
    for old in [*source.glob("csrc/*.cpp"), *source.glob("csrc/cpu/*.cpp")]:
        old.unlink()
    (source / "csrc" / "module.cpp").write_text(MODULE)
    (source / "csrc" / "kernels.cu").write_text(KERNEL)
    if hide_cuda:
        tools = source / "csrc" / "build_tools.py"
        text = tools.read_text()
        assert 'Path("/usr/local/cuda")' in text
        tools.write_text(text.replace('Path("/usr/local/cuda")', 'Path("/nowhere/cuda")'))
    return source


def script(path: Path, text: str) -> Path:
    """An executable file."""
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


def environment(folder: Path, **changes: str) -> dict[str, str]:
    """The environment of a build without our variables and, unless `changes` say otherwise, without nvcc."""
    env = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC", "CUDA_HOME", "CUDA_PATH")}
    env.pop("TORCH_CUDA_ARCH_LIST", None)
    for name in VARIABLES:
        env.pop(f"NEURALDIFFUSER_{name}", None)
    env["PATH"] = path_without("nvcc", folder)
    return env | changes


def path_without(program: str, folder: Path) -> str:
    """PATH, with links to all other programs in place of the folders that hold `program`."""
    places = []
    for number, place in enumerate(os.environ.get("PATH", os.defpath).split(os.pathsep)):
        if shutil.which(program, path=place):
            links = folder / f"path{number}"
            links.mkdir(parents=True, exist_ok=True)
            for file in Path(place).iterdir():
                if file.name != program and not (links / file.name).is_symlink():
                    (links / file.name).symlink_to(file)
            place = str(links)
        places.append(place)
    return os.pathsep.join(places)


def pip_install(source: Path, target: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """`pip install --no-build-isolation` of a tree into a folder; stdout and stderr are one text."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "-v"]
    return run([sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)], source, env)


def build_ext(source: Path, env: dict[str, str], *options: str) -> subprocess.CompletedProcess:
    """`setup.py build_ext` in a tree; stdout and stderr are one text."""
    return run([sys.executable, "setup.py", "build_ext", *options], source, env)


def run(command: list, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Run with stdout and stderr as one text."""
    return subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2500
    )
