"""What a benchmark of an operation needs: the contenders at one size, and the result they must agree with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[], tuple[Tensor, ...]]  # returns tensors with the images along the first axis


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    `best` builds eager formulations and `compiled` makes calls with a compile function; the fastest of each is
    taken.  `exact` is the result for the last image in float64; `moved` are the bytes of all inputs and outputs.
    """

    benchmark: str
    label: str
    batch: int
    moved: int
    ours: Call
    eager: Call
    best: dict[str, Callable[[], Call]]
    compiled: dict[str, Callable[[Callable], Call]]
    exact: Call
    note: str = ""  # on the baselines


def size_of(*tensors: Tensor) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def describe(batch: int, dtype: torch.dtype, extra: str = "") -> str:
    """The label of a case."""
    return f"B={batch} {str(dtype).removeprefix('torch.')}{extra}"


def forward_backward(function: Callable[[Tensor], Tensor], image: Tensor, upstream: Tensor) -> Call:
    """`function` and the gradient with respect to its input, through autograd."""
    leaf = image.detach().requires_grad_()

    def call():
        out = function(leaf)
        return out, *torch.autograd.grad(out, leaf, upstream)

    return call
