"""Losses of the network decoder, of predictions and targets (B, d); every one is a mean over the batch.

Written from the equations of MindEye (Scotti et al. 2023, arXiv 2305.18274): BiMixCo (Kim et al. 2020, in both
directions) for the first part of the training, SoftCLIP after it.  Targets come centred, so that cosines are
correlations and one temperature serves every target.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import log_softmax, normalize, softmax

MIXING = 0.15
"""Both parameters of the Beta distribution of mixing shares."""


@dataclass(frozen=True)
class Mix:
    """How a batch was mixed: row i is `share` i of itself and the rest of row `partner` i; (B,) each."""

    share: torch.Tensor
    partner: torch.Tensor

    @classmethod
    def draw(cls, n: int, generator: torch.Generator) -> "Mix":
        """Shares from Beta(MIXING, MIXING), and a random partner for each of n rows."""
        gamma = torch._standard_gamma(torch.full((2, n), MIXING), generator=generator).clamp_min(1e-30)
        return cls(gamma[0] / gamma.sum(0), torch.randperm(n, generator=generator))

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """The mixed rows of values (B, ...) (method.md eq. 64)."""
        share = self.share.to(values).reshape(-1, *[1] * (values.ndim - 1))
        return share * values + (1 - share) * values[self.partner.to(values.device)]


def similarity(predicted: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cosines of every prediction with every target over the temperature, (B, B), in float32."""
    return normalize(predicted.float(), dim=1) @ normalize(target.float(), dim=1).T / temperature


def bimixco(predicted: torch.Tensor, target: torch.Tensor, mix: Mix, temperature: float) -> torch.Tensor:
    """Contrast of predictions from mixed betas with the targets that were mixed, both ways (method.md eq. 65).

    Parameters
    ----------
    predicted : Tensor (B, d)
        From betas `mix.of(betas)`.
    target : Tensor (B, d)
        Of the stimuli, not mixed.
    """
    n, logits = len(predicted), similarity(predicted, target, temperature)
    rows = torch.arange(n, device=predicted.device)
    share, partner = mix.share.to(logits), mix.partner.to(logits.device)
    wanted = torch.zeros(n, n, device=predicted.device)
    wanted.index_put_((rows, rows), share, accumulate=True)
    wanted.index_put_((rows, partner), 1 - share, accumulate=True)
    both = log_softmax(logits, 1) + log_softmax(logits, 0)
    return -(wanted * both).sum() / (2 * n)


def softclip(predicted: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Contrast whose labels are the targets' own similarities, both ways (method.md eq. 66)."""
    wanted = softmax(similarity(target, target, temperature), 1)
    logits = similarity(predicted, target, temperature)
    both = log_softmax(logits, 1) + log_softmax(logits, 0)
    return -(wanted * both).sum() / (2 * len(predicted))


def squared(predicted: torch.Tensor, target: torch.Tensor, size: float) -> torch.Tensor:
    """Squared error of a stimulus over the variance of a stimulus' target, `size`: 1 for predicting the mean."""
    return (predicted - target).float().square().sum(1).mean() / size


def absolute(predicted: torch.Tensor, target: torch.Tensor, size: float) -> torch.Tensor:
    """Absolute error of a column over the root of a column's mean variance, `size` being that of all columns."""
    return (predicted - target).float().abs().mean() / (size / predicted.shape[1]) ** 0.5
