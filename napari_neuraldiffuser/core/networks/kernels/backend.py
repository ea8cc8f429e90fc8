"""Loads the compiled kernels when they are first needed, decides where they run, and says why not where they do not.

Importing this module imports neither torch nor the extension.  The binary is built against the stable ABI of torch
2.11 and runs in every later version; where it cannot be loaded the plain-PyTorch reference runs instead.
"""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.networks.kernels import extension_file

if TYPE_CHECKING:
    import torch

_reference_only: ContextVar[bool] = ContextVar("neuraldiffuser_reference_only", default=False)


class KernelWarning(UserWarning):
    """Plain PyTorch runs where compiled kernels were to be expected; the message says why and what to do."""


class BackendError(UserError):
    """An environment variable that chooses the kernels has none of its values."""


@dataclass
class _Loaded:
    """The extension module with what it says about itself, or the reason why there is none."""

    module: ModuleType | None
    why_not: str
    info: dict[str, Any] = field(default_factory=dict)
    chosen: bool = False  # plain PyTorch was asked for: no warning


class _Process:
    """A shared library is loaded once in a process, and a warning given once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loaded: _Loaded | None = None
        self.gaps: dict[int, str] = {}  # CUDA device -> why the kernels do not run on it, "" if they do
        self.announced: set[str] = set()
        self.reference_blocks = 0  # open in any thread


_process = _Process()


def extension() -> ModuleType | None:
    """The extension module `_kernels`, loaded at the first call; None where plain PyTorch is to run.

    Returns
    -------
    module or None
        None inside `reference_only`, with NEURALDIFFUSER_KERNELS=reference, and when it is absent or unusable.

    Raises
    ------
    BackendError
        If NEURALDIFFUSER_KERNELS is neither auto nor reference.
    """
    return None if _reference_chosen() else _load().module


def why_not() -> str:
    """Why `extension` returns None, in a sentence with the remedy; empty when it does not."""
    if _reference_chosen():
        return "reference_only() asks for plain PyTorch."
    return _load().why_not


@contextmanager
def reference_only() -> Iterator[None]:
    """Plain PyTorch inside the `with` block, in this thread or task only.

    A backward pass that autograd runs in a thread of its own (CUDA) uses what the forward pass chose.  A function
    compiled by torch.compile follows a block that is open in any thread, and must not open one itself.
    """
    token = _reference_only.set(True)
    with _process.lock:
        _process.reference_blocks += 1
    try:
        yield
    finally:
        with _process.lock:
            _process.reference_blocks -= 1
        _reference_only.reset(token)


def _reference_chosen() -> bool:
    if _process.reference_blocks == 0:
        return False  # the usual answer, at no cost: this is asked before every operation
    import torch

    # torch.compile can neither read a context variable nor see it change; a plain number it does, and compiles again
    return True if torch.compiler.is_compiling() else _reference_only.get()


def kernels_for(device: "torch.device") -> ModuleType | None:
    """The extension module if its kernels run on `device`, else None.

    For a CUDA device without kernels a KernelWarning says so, once per process, unless plain PyTorch was asked for.

    Parameters
    ----------
    device : torch.device

    Raises
    ------
    BackendError
        If NEURALDIFFUSER_KERNELS is neither auto nor reference.
    """
    module = extension()
    if device.type == "cpu":
        return module
    if device.type != "cuda" or _reference_chosen():
        return None
    gap = _process.gaps.get(device.index) if device.index is not None else None
    if gap is None:
        gap = _device_gap(device)
    if gap and not _load().chosen:
        _announce(f"Operations on {device.type} tensors run as plain PyTorch: {gap}")
    return None if gap else module


def ready_on_cpu() -> bool:
    """Whether the CPU kernels are loaded and nobody asks for plain PyTorch: the quick part of `kernels_for`."""
    return _process.reference_blocks == 0 and _process.loaded is not None and _process.loaded.module is not None


def backend_info() -> dict[str, Any]:
    """The active kernel backend, the reason, what was built, and the devices torch sees.

    Returns
    -------
    dict
        backend : "cuda" (kernels for a GPU that torch sees, and for the CPU), "cpu", or "reference", plain PyTorch
        reason : a sentence
        built_architectures : list such as ["sm_80", "sm_90", "compute_90"], empty without CUDA kernels
        built_cuda : version of the CUDA toolkit, or None
        built_torch : version of torch that the extension was compiled against, or None
        isa : instruction set of the CPU kernels on this processor, or None
        sanitize : sanitizers that the extension was compiled with, usually ""
        extension : path of the extension, or None
        torch : version of torch
        threads : threads torch uses on the CPU
        cuda : version of CUDA that torch was built for, or None
        cuda_devices : list of {"index", "name", "capability", "memory_gb"}, empty without a usable GPU

    Raises
    ------
    BackendError
        If NEURALDIFFUSER_KERNELS is neither auto nor reference.
    """
    import torch

    module = extension()
    info = _load().info if module else {}
    devices = _cuda_devices(torch)
    backend, reason = _active(torch, info, devices) if module else ("reference", why_not())
    return {
        "backend": backend,
        "reason": reason,
        "built_architectures": list(info.get("architectures", ())),
        "built_cuda": info.get("cuda"),
        "built_torch": info.get("torch_built"),
        "isa": info.get("isa"),
        "sanitize": info.get("sanitize", ""),
        "extension": getattr(module, "__file__", None),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cuda_devices": devices,
    }


def _load() -> _Loaded:
    if _process.loaded is None:
        with _process.lock:
            if _process.loaded is None:
                _process.loaded = _load_once()
    return _process.loaded


def _load_once() -> _Loaded:
    wanted = os.environ.get("NEURALDIFFUSER_KERNELS", "").strip().lower() or "auto"
    if wanted not in ("auto", "reference"):
        raise BackendError(f"NEURALDIFFUSER_KERNELS must be auto or reference, got {wanted!r}. Unset it for auto.")
    if wanted == "reference":
        return _Loaded(None, "NEURALDIFFUSER_KERNELS=reference asks for plain PyTorch.", chosen=True)
    try:
        path = extension_file.find(os.environ)
        if path is None:
            return _Loaded(None, extension_file.not_built())
        module = extension_file.load(path)
        return _Loaded(module, "", dict(module.build_info()))
    except Exception as error:  # whatever a foreign binary raises: the reference still computes
        known = isinstance(error, extension_file.NotLoadable)
        words = str(error) if known else said(error)
        remedy = f"To compile them for this environment, in the source folder: {extension_file.INSTALL_AGAIN}"
        why = f"The compiled kernels cannot be used: {words.rstrip('.')}. {remedy}"
        _announce(why)
        return _Loaded(None, why)


def _announce(message: str) -> None:
    if message not in _process.announced:
        _process.announced.add(message)
        warnings.warn(message, KernelWarning, stacklevel=3)


def _device_gap(device: "torch.device") -> str:
    import torch

    loaded = _load()
    index = torch.cuda.current_device() if device.index is None else device.index
    gap = _gap(torch, loaded.info, torch.cuda.get_device_capability(index)) if loaded.module else loaded.why_not
    _process.gaps[index] = gap
    return gap


def _gap(torch: ModuleType, info: dict[str, Any], capability: tuple[int, int]) -> str:
    """Why the CUDA kernels do not run on a GPU of this capability; empty if they do."""
    if getattr(torch.version, "hip", None):
        return "the kernels are for NVIDIA GPUs, and this torch is built for ROCm."
    if not info.get("cuda"):
        return (
            "the kernels were compiled without CUDA. Install the CUDA toolkit (nvcc), then, in the source folder: "
            f"NEURALDIFFUSER_BUILD=cuda {extension_file.INSTALL_AGAIN}"
        )
    if extension_file.covers(info["architectures"], capability):
        return ""
    have = "{}.{}".format(*capability)
    return (
        f"the CUDA kernels were compiled for {', '.join(info['architectures'])}, and this GPU has compute capability "
        f"{have}. Compile for it: TORCH_CUDA_ARCH_LIST={have} {extension_file.INSTALL_AGAIN}"
    )


def _active(torch: ModuleType, info: dict[str, Any], devices: list[dict[str, Any]]) -> tuple[str, str]:
    cpu = f"C++ kernels run on the CPU (instruction set {info.get('isa')})"
    built = ", ".join(info.get("architectures", ()))
    if not devices:
        cuda = f"CUDA kernels for {built} are built" if info.get("cuda") else "no CUDA kernels are built"
        return "cpu", f"{cpu}; {cuda}, and torch sees no GPU."
    capabilities = (device["capability"].split(".") for device in devices)
    gaps = [_gap(torch, info, (int(major), int(minor))) for major, minor in capabilities]
    reached = [device["name"] for device, gap in zip(devices, gaps, strict=True) if not gap]
    missed = "".join(f" On {d['name']} plain PyTorch runs: {gap}" for d, gap in zip(devices, gaps, strict=True) if gap)
    if not reached:
        return "cpu", f"{cpu}.{missed}"
    return "cuda", f"{cpu}, CUDA kernels for {built} on {', '.join(reached)}.{missed}"


def _cuda_devices(torch: ModuleType) -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        {
            "index": index,
            "name": one.name,
            "capability": f"{one.major}.{one.minor}",
            "memory_gb": round(one.total_memory / 1e9, 1),
        }
        for index, one in enumerate(properties)
    ]
