"""A better start: the latents whose decoded picture has the decoded guidance features, near the decoded z.

The decoder of z hedges, so that its picture is blurred; g says more about edges and parts.  From z, a few gradient
steps through VAE decoder and guide network minimise, for each image by itself,

    L(z') / L(z) + start_prior mean(((z' - z) / s)^2),     s the standard deviation of z over its numbers,

with L the feature loss of the guided steps (method.md eq. 32-33, 70).  Adam (Kingma and Ba, ICLR 2015, arXiv
1412.6980) steps in units of s, number by number, so that one image does not depend on the others.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from napari_neuraldiffuser.core.base.files import array_digest, fingerprint
from napari_neuraldiffuser.core.diffusion.critic import Critic
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams

BETAS, EPSILON = (0.9, 0.999), 1e-8
KEPT = 1024
"""Stimuli whose starts are remembered, 64 kB each at full size: both arms, and what is shown, have the same."""


@dataclass(frozen=True)
class StartEvent:
    """What a listener is told after every gradient step.

    Attributes
    ----------
    done, total : int
    loss : Tensor (n,)
        Feature loss of each image before this step.
    latents : Tensor (n, 4, h, w)
        After it.
    """

    done: int
    total: int
    loss: torch.Tensor
    latents: torch.Tensor


Listener = Callable[[StartEvent], None]


def invert(z: torch.Tensor, critic: Critic, params: DiffusionParams, listener: Listener | None = None) -> torch.Tensor:
    """The latents near z whose decoded picture has the critic's features.

    Parameters
    ----------
    z : Tensor (n, 4, h, w)
        Decoded latents, one per stimulus.
    critic : callable
        Judges clean latents; its loss and gradient are per image.
    listener : callable, optional
        Told after every step; what it raises ends the run.

    Returns
    -------
    Tensor (n, 4, h, w)
        z itself for images whose loss or spread is 0 or not finite.
    """
    spread = z.flatten(1).float().std(dim=1).view(-1, 1, 1, 1)
    moved = torch.zeros_like(z, dtype=torch.float32)
    first, second = torch.zeros_like(moved), torch.zeros_like(moved)
    began, found = None, z
    for step in range(1, params.start_steps + 1):
        pull = critic(found)
        began = pull.loss.detach().clone() if began is None else began
        gradient = spread * pull.gradient.float() / (pull.scale * began.view(-1, 1, 1, 1))
        gradient = gradient + 2 * params.start_prior / moved[0].numel() * moved
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        size = (second / (1 - BETAS[1] ** step)).sqrt() + EPSILON / moved[0].numel()
        moved = moved - params.start_rate * first / (1 - BETAS[0] ** step) / size
        found = (z.float() + spread * moved.nan_to_num(0, 0, 0)).to(z.dtype)
        if listener is not None:
            listener(StartEvent(step, params.start_steps, pull.loss.detach(), found))
    return found


_KEPT: OrderedDict[str, np.ndarray] = OrderedDict()
"""Starts of the last stimuli, by what decides them."""


def started(
    decoded: Embeddings,
    made_by: object,
    params: tuple[DiffusionParams, GuidanceParams],
    solve: Callable[[Embeddings], torch.Tensor],
) -> Embeddings:
    """Embeddings whose z is the start: as they are, or with inverted latents, computed once for each stimulus.

    Parameters
    ----------
    decoded : Embeddings
    made_by : object
        Digest, device and precision of the models.
    params : pair of params
    solve : callable
        Gives the inverted latents (n, 4, h, w) of some of the stimuli.
    """
    if params[0].start != "inverted":
        return decoded
    rows = [decoded.subset([stimulus]) for stimulus in decoded.stimulus_ids]
    keys = [fingerprint([made_by, what_decides(row, *params)]) for row in rows]
    missing = [place for place, key in enumerate(keys) if key not in _KEPT]
    if missing:
        found = solve(decoded.subset(decoded.stimulus_ids[missing])).float().cpu().numpy()
        _KEPT.update({keys[place]: z for place, z in zip(missing, found, strict=True)})
    z = np.stack([_KEPT[key] for key in keys])
    for key in keys:
        _KEPT.move_to_end(key)
    while len(_KEPT) > KEPT:
        _KEPT.popitem(last=False)
    return replace(decoded, z=z)


def what_decides(row: Embeddings, diffusion: DiffusionParams, guidance: GuidanceParams) -> list[object]:
    """What inverted latents depend on, beside the models."""
    layers = [row[name] for name in ("z", *guidance.layers)]
    how = [diffusion.start_steps, diffusion.start_rate, diffusion.start_prior, guidance.layers, guidance.layer_weights]
    how.append(guidance.guide_decoder)
    return [array_digest(*layers), *how, *features_of(row)]


def features_of(decoded: Embeddings) -> list[str]:
    """How the features were computed that these embeddings are of."""
    return [str(decoded.attrs.get(name)) for name in ("feature_normalisation", "antialias")]
