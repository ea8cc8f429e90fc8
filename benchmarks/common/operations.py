"""Counting floating-point operations, backward passes included, of anything that runs in PyTorch."""

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Counts inside the block: `total` operations of matrix products, convolutions and attention, two for each
    multiplication with its sum.

    The formulas are those of torch's `FlopCounterMode`, which itself refuses gradients with respect to a leaf that
    goes into a module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        if formula := flop_registry.get(operation._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def counted(call: Callable[[], object]) -> int:
    """Operations of one call; on torch's meta device it computes nothing."""
    with Operations() as operations:
        call()
    return operations.total
