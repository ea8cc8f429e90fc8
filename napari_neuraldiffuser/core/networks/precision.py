"""In how many bits networks compute: weights, latents and sums stay float32, and autocast halves what it can."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolved(precision: str, device: torch.device) -> str:
    """What "auto" is on a device: bf16 on a GPU that has it, else float32; other names are themselves."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "float32"


def memory_format(half: bool, device: torch.device) -> torch.memory_format:
    """In which order a convolution's weights lie: channels last on a GPU in half precision, whose cores take that."""
    return torch.channels_last if half and device.type == "cuda" else torch.contiguous_format


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Networks compute in a precision inside the block, forward and backward.

    Parameters
    ----------
    precision : str
        auto, float32, bf16 or fp16.
    device : torch.device
    """
    half = HALVES.get(resolved(precision, device))
    with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False):
        yield
