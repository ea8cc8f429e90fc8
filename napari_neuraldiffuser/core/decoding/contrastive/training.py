"""Training of the map between directions, on scores of training stimuli that ridge predicted without themselves.

On its own training stimuli ridge is nearly right, and there is nothing to learn from its errors there.  Left-out
predictions have the noise of new stimuli, so the k x k map that is put behind ridge learns what helps with those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_neuraldiffuser.core.decoding.contrastive.losses import contrast, error, wanted
from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.decoding.products import checked_device
from napari_neuraldiffuser.core.params import DecodingParams

if TYPE_CHECKING:
    from torch import Tensor

FEWEST_HELD_OUT = 2
LEAST_SPREAD = 1e-3
"""A direction predicted with less than this share of the largest spread counts as one with that share."""


@dataclass(frozen=True)
class Trained:
    """A map of left-out scores, and how held-out stimuli were predicted along the way.

    Attributes
    ----------
    change : ndarray (k, k) float64
        Scores times this are the trained scores, scaled so that held-out ones need what those of the start need.
    epoch : int
        The pass after which held-out stimuli had the smallest loss; 0 is the start.
    r2 : tuple of float
        R² of held-out stimuli at the start and after every pass.
    """

    change: np.ndarray
    epoch: int
    r2: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """Scores that are predicted and true, (n, k) each, squares of the whole targets (n,) and their stimuli (n,)."""

    left_out: np.ndarray
    scores: np.ndarray
    energy: np.ndarray
    stimuli: np.ndarray


def hold_out(stimuli: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which rows (n,) are held out: all those of a share of the stimuli, at least two, at most all but two.

    Raises
    ------
    DecodingError
        If there are fewer than four stimuli.
    """
    ids = np.unique(stimuli)
    if len(ids) < 2 * FEWEST_HELD_OUT:
        raise DecodingError(
            f"betas must have at least {2 * FEWEST_HELD_OUT} different training stimuli to be contrasted, got "
            f"{len(ids)}. Read more sessions, or choose decoder ridge."
        )
    count = min(max(round(share * len(ids)), FEWEST_HELD_OUT), len(ids) - FEWEST_HELD_OUT)
    return np.isin(stimuli, rng.choice(ids, count, replace=False))


def train(
    problem: Problem, params: DecodingParams, seed: list[int], told: Callable[[int], None], steps: int
) -> Trained:
    """Train for at most `steps` passes, and keep the map of the best one (method.md eq. 16-20).

    Parameters
    ----------
    problem : Problem
    params : DecodingParams
    seed : list of int
        Of held-out stimuli and order of the batches.
    told : callable
        Called with the number of every pass that is done; what it raises ends training.
    steps : int
    """
    import torch

    held = hold_out(problem.stimuli, params.contrastive_held_out, np.random.default_rng(seed))
    state = _State(problem, held, params, seed)
    curve, best, kept = [], (np.inf, 0), state.change()
    for epoch in range(steps + 1):
        if epoch:
            state.run_pass()
        with torch.no_grad():
            loss, r2, change = state.judged()
        curve.append(r2)
        if loss < best[0]:
            best, kept = (loss, epoch), change
        told(epoch)
        if epoch - best[1] >= params.contrastive_patience:
            break
    return Trained(kept, best[1], tuple(curve))


class _State:
    """What is learnt: a gain e^d_j of every direction, the mixing D of directions, and the temperature."""

    def __init__(self, problem: Problem, held: np.ndarray, params: DecodingParams, seed: list[int]) -> None:
        import torch

        self.params, self.problem, self.held = params, problem, held
        self.device = checked_device(params.decoder_device)
        self.order = np.random.default_rng([*seed, 1])
        spread = np.sqrt(np.mean(problem.left_out**2, axis=0))
        self.spread = np.maximum(spread, LEAST_SPREAD * spread.max())
        self.size = float(np.sqrt(np.mean((problem.scores**2).sum(1))))
        k = len(spread)
        self.gain, self.mixing = (torch.zeros(shape, device=self.device) for shape in ((k,), (k, k)))
        self.log_scale = torch.tensor(-np.log(params.contrastive_temperature), dtype=torch.float32, device=self.device)
        learnt = [(self.gain, 1.0), (self.log_scale, 1.0), (self.mixing, 1.0 / k)]
        for values, _ in learnt:
            values.requires_grad_()
        # a direction has k entries of the mixing: their steps are as much smaller
        groups = [{"params": [values], "lr": params.contrastive_rate * share} for values, share in learnt]
        self.optimiser = torch.optim.Adam(groups)
        self.inputs = self._tensor(problem.left_out / self.spread)
        self.true = self._tensor(problem.scores / self.size)
        self.out = self._tensor(self.spread / self.size)
        self.stimuli = torch.as_tensor(problem.stimuli, device=self.device)

    def _tensor(self, values: np.ndarray) -> "Tensor":
        import torch

        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def _parts(self, rows: np.ndarray) -> tuple["Tensor", "Tensor"]:
        """Contrastive loss and squared error of some rows."""
        import torch

        index = torch.as_tensor(rows, device=self.device)
        inputs, true = self.inputs[index], self.true[index]
        predicted = (inputs + inputs @ self.mixing) * (self.out * self.gain.exp())
        probabilities = wanted(true, self.stimuli[index], self.params)
        return contrast(predicted, true, probabilities, self.log_scale), error(predicted, true)

    def run_pass(self) -> None:
        """One pass over the rows that are not held out, in batches."""
        rows = self.order.permutation(np.flatnonzero(~self.held))
        # as equal as can be: a last batch of a few would contrast with few
        for batch in np.array_split(rows, max(1, round(len(rows) / self.params.contrastive_batch))):
            contrastive, squared = self._parts(batch)
            loss = contrastive + self.params.contrastive_regression * squared
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    def judged(self) -> tuple[float, float, np.ndarray]:
        """Loss and R² of the held-out rows, and the scaled map."""
        held = np.flatnonzero(self.held)
        contrastive, squared = self._parts(held)
        change = self.change()
        true, start = self.problem.scores[held], self.problem.left_out[held]
        # the scale of a contrastive loss is arbitrary: let held-out stimuli need the gain that they need at the start
        change = change * (_needed(start @ change, true) / _needed(start, true))
        residual = ((start @ change - true) ** 2).sum() + (self.problem.energy[held] - (true**2).sum(1)).sum()
        loss = float(contrastive) + self.params.contrastive_regression * float(squared)
        return loss, float(1 - residual / self.problem.energy[held].sum()), change

    def change(self) -> np.ndarray:
        """The map (k, k) of scores, unscaled; the identity at the start."""
        gain, mixing = (values.detach().cpu().numpy().astype(np.float64) for values in (self.gain, self.mixing))
        mixed = (np.eye(len(gain)) + mixing) / self.spread[:, None]
        return mixed * (self.spread * np.exp(gain))


def _needed(predicted: np.ndarray, true: np.ndarray) -> float:
    """The factor that predictions are best multiplied by."""
    return float((predicted * true).sum() / max((predicted * predicted).sum(), 1e-300))
