"""One resumable training loop for all stages: cosine rate tied to the budget, EMA, atomic checkpoints."""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Budget:
    """When a stage ends: after ``steps`` or ``minutes`` (summed over resumed runs), whichever comes first."""

    steps: int = 10**9
    minutes: float = 1e9

    def progress(self, step, seconds):
        """Fraction of the budget used, 0 to 1."""
        return min(1.0, max(step / self.steps, seconds / 60 / self.minutes))


@dataclass
class Recipe:
    """How a stage is trained."""

    name: str
    rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    ema: float = 0.998
    save_every_s: float = 120.0


def batch_on(device, batch):
    """Samples of one step: ``batch`` on a CPU, 16 times as many on a GPU, which smaller ones would not fill."""
    return batch * (16 if torch.device(device).type == "cuda" else 1)


def half_precision(device):
    """Autocast to bfloat16 where it pays: GPUs, and CPUs with bfloat16 matrix units (twice as fast there).

    Returns
    -------
    context manager
    """
    kind = torch.device(device).type
    pays = torch.cuda.is_bf16_supported() if kind == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(kind, torch.bfloat16, enabled=pays)


def save_atomically(state, path):
    """``torch.save`` to a temporary name, then rename: a killed run leaves the last whole file."""
    temporary = Path(f"{path}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


class Trainer:
    """Runs ``loss_of(step) -> (loss, note)`` until the budget is used.

    Parameters
    ----------
    model : torch.nn.Module
        Everything that learns.
    recipe : Recipe
    work : path
        Holds ``<name>.pt``.
    """

    def __init__(self, model, recipe, work):
        self.model, self.recipe = model, recipe
        self.path = Path(work) / f"{recipe.name}.pt"
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            [weight for weight in model.parameters() if weight.requires_grad],
            lr=recipe.rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.99),
        )
        self.step, self.seconds = 0, 0.0
        if self.path.exists():
            self._load()

    def _load(self):
        state = torch.load(self.path, map_location=next(self.model.parameters()).device, weights_only=True)
        self.average.load_state_dict(state["average"])
        self.model.load_state_dict(state.get("model", state["average"]))
        if "optimiser" not in state:  # a start taken from an exported folder
            return
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self):
        """Checkpoint to ``<name>.pt``."""
        parts = {"model": self.model, "average": self.average, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in parts.items()}
        save_atomically({**state, "step": self.step, "seconds": self.seconds}, self.path)

    def run(self, loss_of, budget, on_save=None):
        """Train; ``on_save(trainer)`` is called after each checkpoint."""
        started, before, saved, shown = time.time(), self.seconds, time.time(), time.time()
        while (progress := budget.progress(self.step, self.seconds)) < 1:
            note = self._update(loss_of, progress)
            now = time.time()
            self.seconds = before + now - started
            if now - shown > 10:
                shown = now
                self._show(note, budget)
            if now - saved > self.recipe.save_every_s:
                saved = now
                self.save()
                if on_save:
                    on_save(self)
        self.save()

    def _update(self, loss_of, progress):
        warm = min(1.0, (self.step + 1) / self.recipe.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        loss, note = loss_of(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        return note

    @torch.no_grad()
    def _follow(self):
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1 - decay) if slow.is_floating_point() else slow.copy_(fast)

    def _show(self, note, budget):
        progress = budget.progress(self.step, self.seconds)
        left = self.seconds * (1 - progress) / max(progress, 1e-9)
        text = f"{self.recipe.name}: step {self.step} ({100 * progress:.1f} %, {left / 60:.1f} min left) {note}"
        print(text, file=sys.stderr, flush=True)
