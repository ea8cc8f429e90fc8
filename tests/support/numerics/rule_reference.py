"""One guided step of each rule as its paper's algorithm has it: one image at a time, plain autograd, float64.

Shares no code with the package.  A problem says what the model predicts, what the loss is, and which noise is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Problem:
    """A step from abar `a` to `b`.

    `predict` gives (eps_u, eps_c) of z_t, `loss` one number of clean latents, `draw` the noise of (round, number);
    number 0 is that of the step that is taken again, 1, 2, ... of the copies.
    """

    a: float
    b: float
    predict: Callable
    loss: Callable
    draw: Callable
    cfg: float = 1.0
    rho: float = 1.0
    mu: float = 0.0
    m: int = 1
    copies: int = 1
    gamma: float = 0.0
    rounds: int = 1


def ddim(z, eps, a, b):
    """Song et al. 2021, equation 12, without noise."""
    return b**0.5 * (z - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps


class Look:
    """What the model says of one z_t: noise, clean estimate, both differentiable in z."""

    def __init__(self, p: Problem, z: torch.Tensor) -> None:
        self.z = z.detach().clone().requires_grad_()
        uncond, cond = p.predict(self.z)
        self.spread = float((cond - uncond).detach().pow(2).mean().sqrt())
        self.eps = (uncond + p.cfg * (cond - uncond)).detach()
        self.x0 = (self.z - (1 - p.a) ** 0.5 * cond) / p.a**0.5

    def through(self, energy) -> torch.Tensor:
        return torch.autograd.grad(energy(self.x0), self.z, retain_graph=True)[0]


def leaf(energy, x) -> torch.Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(energy(x), x)[0]


def smoothed(p: Problem, round_: int):
    """-log E exp(-loss(x + gamma sqrt(1-abar) noise)) over the copies; the loss itself without noise."""
    if p.gamma == 0:
        return p.loss
    noises = [p.draw(round_, k) for k in range(1, p.copies + 1)]

    def energy(x):
        losses = torch.stack([p.loss(x + p.gamma * (1 - p.a) ** 0.5 * noise) for noise in noises])
        return -torch.log(torch.exp(-losses).mean())

    return energy


def neuraldiffuser(p, z, round_):
    seen = Look(p, z)
    return ddim(z, seen.eps + (1 - p.a) ** 0.5 * p.rho * seen.through(p.loss), p.a, p.b)


def dps(p, z, round_):
    seen = Look(p, z)
    return ddim(z, seen.eps, p.a, p.b) - p.rho * seen.through(p.loss)


def lgd(p, z, round_):
    seen = Look(p, z)
    return ddim(z, seen.eps, p.a, p.b) - p.rho * seen.through(smoothed(p, round_))


def freedom(p, z, round_):
    seen = Look(p, z)
    g = seen.through(p.loss)
    rho_t = p.rho * seen.spread / float(g.pow(2).mean().sqrt())
    return ddim(z, seen.eps, p.a, p.b) - rho_t * g


def mpgd(p, z, round_):
    seen = Look(p, z)
    x = seen.x0.detach()
    for _ in range(p.m):
        x = x - p.rho * leaf(p.loss, x)
    return ddim(z, seen.eps, p.a, p.b) + p.b**0.5 * (x - seen.x0.detach())


def ugd(p, z, round_):
    seen = Look(p, z)
    eps = seen.eps + p.rho * (1 - p.a) ** 0.5 * seen.through(p.loss)
    moved = torch.zeros_like(z)
    for _ in range(p.m):
        moved = moved - p.mu * leaf(p.loss, seen.x0 + moved)
    return ddim(z, eps - (p.a / (1 - p.a)) ** 0.5 * moved, p.a, p.b)


def tfg(p, z, round_):
    seen, energy = Look(p, z), smoothed(p, round_)
    delta_t = -p.rho * seen.through(energy)
    delta_0 = torch.zeros_like(z)
    for _ in range(p.m):
        delta_0 = delta_0 - p.mu * leaf(energy, seen.x0 + delta_0)
    return ddim(z, seen.eps, p.a, p.b) + delta_t / (p.a / p.b) ** 0.5 + p.b**0.5 * delta_0


RULES = {
    "noise": neuraldiffuser,
    "dps": dps,
    "lgd": lgd,
    "freedom": freedom,
    "mpgd": mpgd,
    "ugd": ugd,
    "tfg": tfg,
}


def step(rule: str, p: Problem, z: torch.Tensor) -> torch.Tensor:
    """z_{t-1} of one image, after `rounds` rounds."""
    for round_ in range(p.rounds):
        after = RULES[rule](p, z, round_)
        if round_ < p.rounds - 1:
            alpha = p.a / p.b
            z = alpha**0.5 * after + (1 - alpha) ** 0.5 * p.draw(round_, 0)
    return after
