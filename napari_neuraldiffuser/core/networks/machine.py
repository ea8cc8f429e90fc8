"""What computes: another device, precision or library rounds differently, so all of it is part of what is cached."""

import platform
from typing import TYPE_CHECKING

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
    """Device, precision, threads and version of torch that the networks run with."""
    import torch

    names = [device_name(models.device), str(models.device), str(models.dtype)]
    return [*names, torch.get_num_threads(), torch.__version__]
