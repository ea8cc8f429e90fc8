"""What computes: devices, and all that rounds differently on another machine."""

import gc
import platform
from typing import TYPE_CHECKING

from napari_neuraldiffuser.core.base.errors import UserError

if TYPE_CHECKING:
    import torch

    from napari_neuraldiffuser.core.networks.models import Models


def device_name(device: "torch.device") -> str:
    """`cpu (x86_64)`, or the GPU's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def machine(models: "Models") -> list[str | int]:
    """Device, precision, threads, version of torch and kernels that the networks run with."""
    import torch

    from napari_neuraldiffuser.core.networks.kernels.backend import backend_info

    names = [device_name(models.device), str(models.device), str(models.dtype)]
    return [*names, torch.get_num_threads(), torch.__version__, str(backend_info()["backend"])]


def check_device(name: str) -> None:
    """Raise UserError for a name that torch does not know, or a GPU that is not there beside others."""
    import torch

    n = torch.cuda.device_count()
    known = ", ".join(["cpu", *(f"cuda:{k}" for k in range(n))])
    remedy = "Choose another." if n else "The word for a GPU is cuda, but torch sees none here: choose cpu."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device must be one of {known}, got {name!r}. {remedy}") from error
    if device.type == "cuda" and n and (device.index or 0) >= n:
        raise UserError(f"device must be one of {known}, got {name!r}. {remedy}")


def check_gpu(name: str) -> None:
    """Raise UserError for a name that torch does not know, or a GPU where torch sees none."""
    import torch

    check_device(name)
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device must be available, got {name!r}: torch sees no CUDA GPU. Choose cpu as the device.")


def free_memory() -> None:
    """Collect what nothing refers to, and return a GPU's cached blocks."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
