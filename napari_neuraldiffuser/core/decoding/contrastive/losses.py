"""Contrastive losses between predicted and true scores of a batch of stimuli."""

from typing import TYPE_CHECKING

from napari_neuraldiffuser.core.params import DecodingParams

if TYPE_CHECKING:
    from torch import Tensor


def wanted(true: "Tensor", stimuli: "Tensor", params: DecodingParams) -> "Tensor":
    """The probabilities (b, b) with which row i should be taken for row j (method.md eq. 17).

    Parameters
    ----------
    true : Tensor (b, k)
        Scores of the targets.
    stimuli : Tensor (b,)
        Stimulus of every row; rows of one stimulus are each other's.
    """
    import torch

    if params.contrastive_loss == "infonce":
        same = (stimuli[:, None] == stimuli).to(true.dtype)
        return same / same.sum(1, keepdim=True)
    unit = torch.nn.functional.normalize(true, dim=1)
    return torch.softmax(unit @ unit.T / params.contrastive_soft_temperature, dim=1)


def contrast(predicted: "Tensor", true: "Tensor", probabilities: "Tensor", log_scale: "Tensor") -> "Tensor":
    """Cross-entropy of cosines between predicted and true scores (b, k), both ways (method.md eq. 18)."""
    import torch

    a, b = (torch.nn.functional.normalize(values, dim=1) for values in (predicted, true))
    logits = a @ b.T * log_scale.exp()
    ways = torch.log_softmax(logits, dim=1) + torch.log_softmax(logits.T, dim=1)
    return -(probabilities * ways).sum(1).mean() / 2


def error(predicted: "Tensor", true: "Tensor") -> "Tensor":
    """Mean squared error per row of scores, predictions at their best common scale (method.md eq. 19)."""
    scale = (predicted * true).sum() / (predicted * predicted).sum().clamp_min(1e-12)
    return ((scale.detach() * predicted - true) ** 2).sum(1).mean()
