"""How many images memory has room for, by what one of them takes."""

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_neuraldiffuser.core.base import memory
from napari_neuraldiffuser.core.networks.precision import memory_format, resolved

SHARE = 0.8
"""Part of the free memory that images may take: what oneDNN and cuDNN work in is not counted."""
MOST = {"cpu": 16, "cuda": 64}
"""Images at once beyond which hardly anything is gained."""


class Peak(TorchDispatchMode):
    """Bytes of tensors made inside the block that were alive at once, at most; what was there before is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.bytes = max(self.bytes, sum(size for _, size in self._alive.values()))
        return out


def images_with_room(compute: Callable[[], Any], device: torch.device) -> int:
    """Images that fit into the free memory of a device, at least one and at most `MOST`.

    Parameters
    ----------
    compute : callable
        The dearest step of one image.
    """
    most = MOST.get(device.type, MOST["cpu"])
    free = free_bytes(device)
    if free is None:
        return most
    taken = bytes_of(compute, device)
    return max(1, min(most, int(SHARE * free / max(taken, 1))))


def bytes_of(compute: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that `compute` takes at once: as CUDA's allocator says, or of all tensors together."""
    if device.type != "cuda":
        with Peak() as peak:
            compute()
        return peak.bytes
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    compute()
    return torch.cuda.max_memory_allocated(device) - before


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device, of a GPU also those that torch holds unused; None where nobody says."""
    if device.type != "cuda":
        return memory.available()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def choices() -> dict[str, str]:
    """What is chosen by device, a phrase for the CPU and each GPU that torch sees."""
    devices = [torch.device("cpu"), *(torch.device("cuda", k) for k in range(torch.cuda.device_count()))]
    return {str(device): _chosen(device) for device in devices}


def _chosen(device: torch.device) -> str:
    free, precision = free_bytes(device), resolved("auto", device)
    room = "unknown" if free is None else memory.size(free)
    steady = device.type == "cpu" and precision == "float32" and torch.backends.mkldnn.is_available()
    same = "images are the same in any batch" if steady else "images of other batch sizes differ by rounding"
    most = MOST.get(device.type, MOST["cpu"])
    last = memory_format(precision != "float32", device) == torch.channels_last
    layout = "channels last" if last else "channels first"
    return f"precision auto is {precision}, batch_size 0 at most {most} images ({room} free), {layout}, {same}"
