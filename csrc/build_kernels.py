"""The `build_ext` command of setup.py: C++ kernels, CUDA kernels where there is nvcc, and no failed install.

PyTorch's BuildExtension compiles the C++ files.  kernels.cu includes no torch header and is compiled by nvcc in a
step of its own, because torch's CUDAExtension cannot be made beside a torch without CUDA.
"""

import importlib
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from build_tools import (
    CUDA_SUFFIXES,
    BuildProblem,
    NoCuda,
    Settings,
    Toolkit,
    architectures,
    compile_cuda,
    compiler_version,
    find_compiler,
    find_toolkit,
    nvcc_command,
    read_settings,
)
from setuptools import Extension
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "napari_neuraldiffuser"
REPORT = "_build_report.json"
TORCH_TARGET = "0x020b000000000000"  # the stable ABI of torch 2.11: the oldest torch the binary runs in
CXX_FLAGS = ["-O3", "-std=c++20", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wno-unknown-pragmas"]
SANITIZE_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class Report:
    """What a build made, kept beside the package as JSON for `neuraldiffuser doctor`."""

    backend: str
    reason: str
    warnings: tuple[str, ...] = ()
    compiler: str = ""
    torch: str = ""
    cuda: str | None = None
    architectures: tuple[str, ...] = ()
    sanitize: str = ""


@dataclass(frozen=True)
class CudaObject:
    """kernels.cu, compiled."""

    path: Path
    toolkit: Toolkit
    architectures: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def extensions(settings: Settings) -> list[Extension]:
    """The extension module, or none with NEURALDIFFUSER_BUILD=off: then the wheel is pure Python."""
    if settings.build == "off":
        return []
    sources = [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")]
    depends = [path for path in ROOT.glob("csrc/**/*") if path.suffix in CUDA_SUFFIXES]
    return [Extension(f"{PACKAGE}._kernels", _relative(sources), depends=_relative(depends), language="c++")]


def _relative(paths: Iterable[Path]) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


class Build(build):
    """The standard build, with `build_ext` also when there is nothing to compile: it clears what is left over."""

    sub_commands = [(name, None if name == "build_ext" else when) for name, when in build.sub_commands]


class BuildKernels(build_ext):
    """Compiles the kernels; writes a report either way."""

    def run(self) -> None:
        settings = read_settings(os.environ)
        self._clear()
        try:
            report = self._build(settings)
        except BuildProblem as problem:
            if settings.strict:
                raise BaseError(f"NEURALDIFFUSER_STRICT=1, and {problem}") from problem
            reason = f"No kernels were compiled: {problem}"
            report = Report("reference", reason, warnings=(reason,))
            self.extensions = []
        for warning in report.warnings:
            print(f"warning: {PACKAGE}: {warning}", file=sys.stderr)
        print(f"{PACKAGE}: {report.reason}", file=sys.stderr)
        self._write(report)

    def _folders(self) -> list[Path]:
        """Where the package goes: the build folder, and the sources for an editable install."""
        folders = [Path(self.build_lib, PACKAGE)]
        return [*folders, ROOT / PACKAGE] if self.inplace else folders

    def _clear(self) -> None:
        # kernels of an earlier build must not outlive one that failed or was switched off
        for folder in self._folders():
            for old in [*folder.glob("_kernels*.so"), folder / REPORT]:
                old.unlink(missing_ok=True)

    def _write(self, report: Report) -> None:
        for folder in self._folders():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / REPORT).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")

    def _build(self, settings: Settings) -> Report:
        if settings.build == "off":
            return Report("reference", "No kernels were compiled: NEURALDIFFUSER_BUILD=off. Install without it.")
        torch = _import_torch()
        compiler = find_compiler(os.environ)
        done = Report("cpu", "", (), compiler_version(compiler), torch.__version__, sanitize=settings.sanitize)
        try:
            cuda = self._compile_cuda(settings)
            self._compile_cpp(compiler, settings, cuda)
            return _with_cuda(done, cuda)
        except BuildProblem as problem:
            expected = isinstance(problem, NoCuda) and settings.build != "cuda"
            if settings.strict and not expected:
                raise
            why = f"No CUDA kernels were compiled: {problem}"
        self._compile_cpp(compiler, settings, None)
        return replace(done, reason=f"CPU kernels were compiled. {why}", warnings=() if expected else (why,))

    def _compile_cuda(self, settings: Settings) -> CudaObject:
        if settings.build == "cpu":
            raise NoCuda("NEURALDIFFUSER_BUILD=cpu. Install without it where nvcc is.")
        if settings.sanitize:
            raise NoCuda("NEURALDIFFUSER_SANITIZE is for the CPU kernels. Install without it where nvcc is.")
        toolkit = find_toolkit(os.environ)
        chosen, dropped = architectures(os.environ, toolkit)
        target = Path(self.build_temp, "kernels_cuda.o").absolute()
        compile_cuda(nvcc_command(toolkit, chosen, os.environ), ROOT / "csrc" / "kernels.cu", target)
        unknown = f"nvcc {toolkit.version} does not know {', '.join(dropped)} of TORCH_CUDA_ARCH_LIST: left out."
        return CudaObject(target, toolkit, tuple(chosen), (unknown,) if dropped else ())

    def _compile_cpp(self, compiler: str, settings: Settings, cuda: CudaObject | None) -> None:
        """Compile the C++ files with PyTorch's BuildExtension and link them with the CUDA object."""
        _set_environment(compiler)
        from torch.utils import cpp_extension

        for extension in self.extensions:
            _configure(extension, settings, cuda)
        # a command of its own: setup() must be able to name its class where torch is missing
        inner = cpp_extension.BuildExtension(self.distribution)
        for name in ("build_lib", "build_temp", "inplace", "editable_mode", "debug", "force", "parallel"):
            setattr(inner, name, getattr(self, name))
        inner.ensure_finalized()
        inner.force = True  # ninja knows what is up to date; without ninja flags may have changed
        try:
            inner.run()
        except (Exception, SystemExit) as error:
            self._clear()
            raise BuildProblem(
                f"compiling or linking the C++ kernels with {compiler!r} failed ({_one_line(error)}). "
                "The output of `pip install -v --no-build-isolation .` names the error."
            ) from error

    def get_outputs(self) -> list[str]:
        """Files that the build has made: fewer than planned when nothing could be compiled."""
        planned = [*super().get_outputs(), str(Path(self.build_lib, PACKAGE, REPORT))]
        return [name for name in planned if Path(name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        """File of the build folder -> file of the sources, for editable installs."""
        planned = super().get_output_mapping()
        if self.inplace:
            planned[str(Path(self.build_lib, PACKAGE, REPORT))] = str(Path(PACKAGE, REPORT))
        return {built: source for built, source in planned.items() if Path(source).exists()}


def _import_torch():
    if sys.platform != "linux":
        raise BuildProblem(f"they are written for Linux, and this is {sys.platform}. Plain PyTorch runs instead.")
    for name in ("pybind11", "torch"):
        try:
            torch = importlib.import_module(name)
        except Exception as error:  # a broken torch raises anything, and must not fail the install
            raise BuildProblem(
                f"{name} cannot be imported by the build ({_one_line(error)}); pip builds in an isolated environment "
                "unless told otherwise. Install torch, pybind11 and ninja, then: pip install --no-build-isolation ."
            ) from error
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 11):
        raise BuildProblem(f"torch must be 2.11 or newer, got {torch.__version__}. Install a newer torch.")
    return torch


def _set_environment(compiler: str) -> None:
    os.environ["CXX"] = compiler  # setuptools links with it, torch compiles with it
    try:
        import ninja
    except ImportError:
        return  # torch then compiles file by file
    # pip does not put the environment's own programs on PATH
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ.get("PATH", os.defpath)])


def _configure(extension: Extension, settings: Settings, cuda: CudaObject | None) -> None:
    """Flags, macros and libraries of the extension module."""
    import pybind11
    from torch.utils import cpp_extension

    sanitize = [f"-fsanitize={settings.sanitize}"] if settings.sanitize else []
    extension.include_dirs = [str(ROOT / "csrc"), pybind11.get_include(), *cpp_extension.include_paths()]
    extension.library_dirs = cpp_extension.library_paths()
    extension.define_macros = _macros(settings, cuda)
    extension.extra_compile_args = [*CXX_FLAGS, *(SANITIZE_FLAGS + sanitize if sanitize else ["-g0"])]
    # no torch library but libtorch, and none of its C++ symbols: one binary for torch 2.11 and newer
    extension.extra_link_args = [*sanitize, "-Wl,--no-as-needed", "-ltorch"]
    extension.extra_objects = []
    if cuda:
        extension.extra_objects = [str(cuda.path)]
        static = ["-lcudart_static", "-Wl,--exclude-libs,libcudart_static.a", "-ldl", "-lrt", "-lpthread"]
        extension.extra_link_args += [f"-L{cuda.toolkit.libraries}", *static]


def _macros(settings: Settings, cuda: CudaObject | None) -> list[tuple[str, str | None]]:
    import torch

    version = re.search(r'__version__ = "(.+)"', (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    texts = {
        "ND_VERSION": version[1] if version else "unknown",
        "ND_SANITIZE": settings.sanitize,
        "ND_TORCH_BUILT": torch.__version__.split("+")[0],
    }
    if cuda:
        texts |= {"ND_CUDA_VERSION": cuda.toolkit.version, "ND_CUDA_ARCHITECTURES": " ".join(cuda.architectures)}
    macros = [(name, f'"{text}"') for name, text in texts.items()]
    return [("TORCH_TARGET_VERSION", TORCH_TARGET), *macros, *([("ND_CUDA", "1")] if cuda else [])]


def _with_cuda(report: Report, cuda: CudaObject) -> Report:
    names, version = cuda.architectures, cuda.toolkit.version
    reason = f"CPU and CUDA kernels were compiled, for {', '.join(names)}, with CUDA {version}."
    return replace(report, backend="cuda", reason=reason, warnings=cuda.warnings, cuda=version, architectures=names)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
