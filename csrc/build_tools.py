"""What the build of the kernels asks of the machine: settings, compilers, CUDA toolkit, architectures.

Used by setup.py only; imports nothing but the standard library, so that a broken machine can be described.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUILDS = ("auto", "cpu", "cuda", "off")
SANITIZERS = ("address", "undefined")
# Ampere and Hopper as machine code; PTX of the newest serves the GPUs after it
DEFAULT_ARCHITECTURES = ("sm_80", "sm_90", "compute_90")
STANDARD_TOOLKIT = Path("/usr/local/cuda")
CUDA_SUFFIXES = (".cu", ".cuh", ".h")
PROBE = "#include <Python.h>\n#include <bit>\nint main() { return std::popcount(0u); }\n"


class BuildProblem(Exception):
    """Kernels cannot be built here; the message says why and what to do."""


class NoCuda(BuildProblem):
    """CUDA kernels are not asked for, or there is no CUDA compiler: no fault of the machine."""


class SettingError(ValueError):
    """An environment variable has a value that is not one of its values."""


@dataclass(frozen=True)
class Settings:
    """NEURALDIFFUSER_BUILD, NEURALDIFFUSER_STRICT and NEURALDIFFUSER_SANITIZE."""

    build: str = "auto"
    strict: bool = False
    sanitize: str = ""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its compiler, version ("13.0") and the folder of its static runtime library."""

    nvcc: Path
    version: str
    libraries: Path


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of a build.

    Raises
    ------
    SettingError
        If a variable has none of its values.
    """
    build = environ.get("NEURALDIFFUSER_BUILD", "").strip().lower() or "auto"
    if build not in BUILDS:
        known = ", ".join(BUILDS)
        raise SettingError(f"NEURALDIFFUSER_BUILD must be one of {known}, got {build!r}. Unset it for auto.")
    strict = environ.get("NEURALDIFFUSER_STRICT", "").strip() or "0"
    if strict not in ("0", "1"):
        raise SettingError(f"NEURALDIFFUSER_STRICT must be 0 or 1, got {strict!r}. Unset it for 0.")
    sanitize = [name.strip() for name in environ.get("NEURALDIFFUSER_SANITIZE", "").split(",") if name.strip()]
    for name in sanitize:
        if name not in SANITIZERS:
            raise SettingError(
                f"NEURALDIFFUSER_SANITIZE must be a comma-separated list of {', '.join(SANITIZERS)}, got {name!r}. "
                "Unset it for a build without sanitizers."
            )
    return Settings(build, strict == "1", ",".join(sanitize))


def find_compiler(environ: Mapping[str, str]) -> str:
    """The C++ compiler command, proven on a small program with Python.h.

    Raises
    ------
    BuildProblem
        If there is none, or it fails.
    """
    wanted = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    found = [command for command in wanted if shutil.which((shlex.split(command) or [""])[0])]
    if not found:
        raise BuildProblem(
            f"no C++ compiler was found (looked for {', '.join(wanted)}). "
            "Install one, for instance: apt-get install g++, or set CXX."
        )
    problem = _probe(found[0])
    if problem:
        raise BuildProblem(
            f"the C++ compiler {found[0]!r} cannot compile a small C++20 program with Python.h: {problem}. "
            "Install g++ 10 or newer and the Python headers (python3-dev), or set CXX."
        )
    return found[0]


def _probe(compiler: str) -> str:
    """Empty, or what the compiler said."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROBE, encoding="utf-8")
        command = [*shlex.split(compiler), "-std=c++20", f"-I{sysconfig.get_path('include')}", "-c", str(source)]
        done = _run([*command, "-o", str(source.with_suffix(".o"))])
        if done.returncode == 0 and source.with_suffix(".o").exists():
            return ""
        return _first_error(done.stderr + done.stdout) or f"exit status {done.returncode} without a message"


def compiler_version(compiler: str) -> str:
    """First line of `compiler --version`."""
    return next(iter(_run([*shlex.split(compiler), "--version"]).stdout.splitlines()), compiler)


def find_toolkit(environ: Mapping[str, str]) -> Toolkit:
    """The CUDA toolkit of CUDA_HOME, CUDA_PATH, PATH (also behind a wrapper script) or /usr/local/cuda.

    Raises
    ------
    BuildProblem
        If none has a working nvcc and the static CUDA runtime.
    """
    tried = []
    for nvcc in _nvcc_candidates(environ):
        tried.append(str(nvcc))
        toolkit = _toolkit(nvcc)
        if toolkit:
            return toolkit
    if not tried:
        raise NoCuda("no CUDA compiler was found. Put nvcc on PATH, or set CUDA_HOME to the CUDA toolkit.")
    raise BuildProblem(
        f"no CUDA toolkit is complete: {', '.join(tried)} does not run or has no libcudart_static.a beside it. "
        "Set CUDA_HOME to a CUDA toolkit with nvcc and cudart (development files)."
    )


def _nvcc_candidates(environ: Mapping[str, str]) -> list[Path]:
    homes = [Path(environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    nvccs = [home / "bin" / "nvcc" for home in homes]
    on_path = shutil.which("nvcc", path=environ.get("PATH"))
    nvccs += [Path(on_path)] if on_path else []
    return [nvcc for nvcc in [*nvccs, STANDARD_TOOLKIT / "bin" / "nvcc"] if nvcc.is_file()]


def _toolkit(nvcc: Path) -> Toolkit | None:
    """The toolkit an nvcc, or a script around one, belongs to."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.cu")
        source.touch()
        # a wrapper lies anywhere; nvcc itself says where it lives
        dryrun = _run([str(nvcc), "--dryrun", str(source)]).stderr
    here = re.search(r"^#\$ _HERE_=(.+)$", dryrun, re.MULTILINE)
    real = Path(here[1].strip(), "nvcc") if here else nvcc.resolve()
    release = re.search(r"release (\d+\.\d+)", _run([str(real), "--version"]).stdout)
    libraries = _cudart_folder(real.parent.parent)
    return Toolkit(real, release[1], libraries) if release and libraries else None


def _cudart_folder(home: Path) -> Path | None:
    folders = [home / "lib64", *sorted(home.glob("targets/*/lib")), home / "lib", Path("/usr/lib/x86_64-linux-gnu")]
    return next((folder for folder in folders if (folder / "libcudart_static.a").is_file()), None)


def architectures(environ: Mapping[str, str], toolkit: Toolkit) -> tuple[list[str], list[str]]:
    """Architectures to compile for, and those of TORCH_CUDA_ARCH_LIST that this nvcc does not know.

    Returns
    -------
    chosen : list of str
        Machine code "sm_90" and PTX "compute_90".
    dropped : list of str

    Raises
    ------
    BuildProblem
        If TORCH_CUDA_ARCH_LIST is not a list such as "8.0;9.0+PTX", or nothing of it is known.
    """
    text = environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    wanted = parse_architectures(text) if text else list(DEFAULT_ARCHITECTURES)
    known = set(_run([str(toolkit.nvcc), "--list-gpu-code"]).stdout.split())
    dropped = [name for name in wanted if known and name.replace("compute_", "sm_") not in known]
    chosen = [name for name in wanted if name not in dropped]
    if not chosen:
        raise BuildProblem(f"nvcc {toolkit.version} knows none of {', '.join(wanted)}. Change TORCH_CUDA_ARCH_LIST.")
    return chosen, dropped


def parse_architectures(text: str) -> list[str]:
    """ "8.0;9.0+PTX" -> ["sm_80", "sm_90", "compute_90"]."""
    machine, ptx = [], []
    for entry in re.split(r"[;,\s]+", text.strip(" ;,")):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if not match:
            raise BuildProblem(
                f"TORCH_CUDA_ARCH_LIST must be a list such as '8.0;9.0+PTX', got {entry!r}. Unset it for "
                f"{' '.join(DEFAULT_ARCHITECTURES)}."
            )
        code = match[1] + match[2] + match[3]
        machine.append(f"sm_{code}")
        ptx += [f"compute_{code}"] if match[4] else []
    return list(dict.fromkeys(machine + ptx))


def nvcc_command(toolkit: Toolkit, chosen: list[str], environ: Mapping[str, str]) -> list[str]:
    """nvcc with everything but the source, the object and the include folders."""
    command = [str(toolkit.nvcc), "-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    for name in chosen:
        command.append(f"-gencode=arch={name.replace('sm_', 'compute_')},code={name}")
    if environ.get("CXX") and not environ.get("NVCC_CCBIN"):
        command += ["-ccbin", shlex.split(environ["CXX"])[-1]]  # "ccache g++": the compiler is last
    return command


def compile_cuda(command: list[str], source: Path, target: Path) -> None:
    """Compile one CUDA source, unless the object is there and was made from the same text by the same command.

    Raises
    ------
    BuildProblem
        If nvcc fails; its output is on stderr.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [*command, f"-I{source.parent}", "-c", str(source), "-o", str(target)]
    texts = [path.read_bytes() for path in sorted(source.parent.rglob("*")) if path.suffix in CUDA_SUFFIXES]
    inputs = hashlib.sha256(b"\0".join([shlex.join(command).encode(), *texts])).hexdigest()
    stamp = target.with_suffix(".sha256")
    if target.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == inputs:
        return
    stamp.unlink(missing_ok=True)
    print(shlex.join(command), file=sys.stderr)
    done = _run(command)
    print(done.stdout + done.stderr, file=sys.stderr, end="")
    if done.returncode != 0:
        said = _first_error(done.stderr + done.stdout) or f"exit status {done.returncode}"
        raise BuildProblem(f"nvcc could not compile {source.name}: {said}. Check that nvcc accepts this C++ compiler.")
    stamp.write_text(inputs, encoding="ascii")


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    chosen = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return chosen[:200].rstrip(".")


def _run(command: list[str]) -> subprocess.CompletedProcess:
    """Run a tool in a language we can read; a tool that cannot start has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
