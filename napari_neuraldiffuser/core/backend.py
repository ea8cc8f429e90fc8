"""Which implementation of the operations in `ops` is active, and why."""

from typing import Any

NOT_WRITTEN = (
    "no compiled kernels exist in this version (csrc/ holds none yet), so the plain-PyTorch reference runs "
    "on the device of its tensors"
)


def backend_info() -> dict[str, Any]:
    """The active kernel backend, the reason, and the devices torch sees.

    Returns
    -------
    dict
        backend : "reference", the plain-PyTorch path
        reason : a sentence
        torch : version of torch
        threads : threads torch uses on the CPU
        cuda : version of CUDA that torch was built for, or None
        cuda_devices : list of {"index", "name", "capability", "memory_gb"}, empty without a usable GPU
    """
    import torch

    return {
        "backend": "reference",
        "reason": NOT_WRITTEN + ".",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "cuda_devices": _cuda_devices(torch),
    }


def _cuda_devices(torch) -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "index": index,
                "name": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "memory_gb": round(properties.total_memory / 1e9, 1),
            }
        )
    return devices
