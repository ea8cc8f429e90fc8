"""What computes: another device, precision or library rounds differently, so all of it is part of what is cached."""

import platform
from typing import Any


def device_name(device: Any) -> str:
    """`cpu (x86_64)`, or the GPU's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def machine(models: Any) -> list[str | int]:
    """Device, precision, threads and version of torch that the networks run with."""
    import torch

    place = [device_name(models.device), str(models.device), str(models.dtype)]
    return [*place, torch.get_num_threads(), torch.__version__]
