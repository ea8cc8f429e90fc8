"""One arm of a run: batches of whole stimuli, told about step by step, and kept on disk for the next run."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.files import atomic_path, fingerprint
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.diffusion.guidance import n_guided_steps
from napari_neuraldiffuser.core.diffusion.pipeline import (
    Reconstruction,
    StepEvent,
    batches,
    reconstruct_batch,
    to_images,
)
from napari_neuraldiffuser.core.engine.cache import array_digest, keep_newest, read_npz
from napari_neuraldiffuser.core.job.run import ALGORITHM_VERSION
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.kernels.ops import backend_info
from napari_neuraldiffuser.core.networks.machine import machine
from napari_neuraldiffuser.core.params import GuidanceParams

KEPT_ARMS = 200
"""Arms that stay in the cache: a few megabytes each."""


@dataclass(frozen=True)
class Arm:
    """The images of one arm.

    Attributes
    ----------
    name : str
        "guided" or "unguided".
    result : Reconstruction
        Fewer stimuli than asked for where the arm was cancelled.
    seconds : float
        Computing time; of the first computation where the arm was cached.
    steps_done : int
        Executed diffusion steps, over all batches.
    """

    name: str
    result: Reconstruction
    seconds: float
    steps_done: int
    cached: bool = False
    complete: bool = True


def guidance_of(recipe: Recipe, name: str) -> GuidanceParams:
    """The guidance parameters of an arm."""
    guidance = recipe.settings.guidance
    return guidance if name == "guided" else guidance.but(guidance_scale=0.0)


class ArmRun:
    """Computes one arm and knows, when it is stopped, what there is.

    Parameters
    ----------
    name : str
    recipe : Recipe
    rows : Embeddings
        Decoded embeddings of the recipe's stimuli.
    models : Models
    shown : Shown
    """

    def __init__(self, name: str, recipe: Recipe, rows: Embeddings, models: Any, shown: "Shown") -> None:
        self.name, self.recipe, self.rows, self.models, self.shown = name, recipe, rows, models, shown
        self.guidance = guidance_of(recipe, name)
        self.parts: list[Reconstruction] = []
        self.last: StepEvent | None = None
        self.losses: list[np.ndarray] = []
        self.started = time.perf_counter()

    def compute(self) -> Arm:
        """All batches; what the listener raises ends it."""
        diffusion = self.recipe.settings.diffusion
        for batch in batches(self.rows, diffusion):
            self.losses.clear()
            self.parts.append(reconstruct_batch(batch, self.models, diffusion, self.guidance, self._after_step))
            self.last = None
        return self._arm(diffusion.executed_steps * len(self.parts), complete=True)

    def _after_step(self, event: StepEvent) -> None:
        self.last = event
        if event.loss is not None:
            self.losses.append(event.loss)
        self.shown.step(self, event)

    def rescue(self) -> Arm | None:
        """The arm as far as it came: its last latents decoded; None where no step was done."""
        steps = self.recipe.settings.diffusion.executed_steps * len(self.parts)
        if self.last is not None:
            self.parts.append(self._present(self.last))
            steps += self.last.done
        return self._arm(steps, complete=False) if self.parts else None

    def _present(self, event: StepEvent) -> Reconstruction:
        images = to_images(self.models, event.latents)
        shape = len(event.stimulus_ids), self.recipe.settings.diffusion.repeats
        losses = np.stack(self.losses, axis=1) if self.losses else np.zeros((len(images), 0))
        finite = torch.isfinite(event.latents).flatten(1).all(dim=1).cpu().numpy()
        return Reconstruction(
            images.reshape(*shape, *images.shape[1:]),
            losses.reshape(*shape, losses.shape[1]).astype(np.float32),
            finite.reshape(shape).all(axis=1),
            np.array(event.stimulus_ids),
        )

    def _arm(self, steps: int, complete: bool) -> Arm:
        if len({p.losses.shape[-1] for p in self.parts}) > 1:  # the last batch was stopped while it was guided
            most = max(p.losses.shape[-1] for p in self.parts)
            for p in self.parts:
                missing = most - p.losses.shape[-1]
                p.losses = np.pad(p.losses, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
        names = ("images", "losses", "finite", "stimulus_ids")
        whole = Reconstruction(*(np.concatenate([getattr(p, name) for p in self.parts]) for name in names))
        return Arm(self.name, whole, time.perf_counter() - self.started, steps, complete=complete)


class Shown:
    """Turns the steps of all arms into messages.

    Parameters
    ----------
    recipe : Recipe
    events : Events
    preview_every : int
        A preview after every so many steps; none where 0.
    start : ndarray (n, H, W, 3) uint8
        The decoded starting points, which stand for a stimulus until its batch is reached.
    """

    def __init__(self, recipe: Recipe, events: Events, preview_every: int, start: np.ndarray) -> None:
        self.recipe, self.events, self.preview_every, self.start = recipe, events, preview_every, start
        diffusion = recipe.settings.diffusion
        self.per_arm = diffusion.executed_steps * diffusion.n_batches(len(start))
        self.done_before = 0
        self.clock = time.perf_counter()
        self.images = np.empty(0)

    def begin_arm(self, name: str) -> None:
        """Before the first step of an arm."""
        repeats = self.recipe.settings.diffusion.repeats
        self.images = np.repeat(self.start[:, None], repeats, axis=1)
        self.clock = time.perf_counter()
        self.events.told(self.done_before, self._total, f"{name}, step 0 of {self.per_arm}")

    def end_arm(self) -> None:
        """After an arm, computed or cached."""
        self.done_before += self.per_arm

    @property
    def _total(self) -> int:
        return self.per_arm * len(self.recipe.arms)

    def step(self, arm: ArmRun, event: StepEvent) -> None:
        """One step of one batch."""
        done = len(arm.parts) * event.total + event.done
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        about = {"arm": arm.name, "done": done, "total": self.per_arm}
        loss = None if event.loss is None else [float(v) for v in event.loss]
        step = {**about, "timestep": event.timestep, "loss": loss, "seconds_per_step": seconds}
        self.events.event("step", {**step, "stimulus_ids": list(event.stimulus_ids)})
        self.events.told(self.done_before + done, self._total, f"{arm.name}, step {done} of {self.per_arm}")
        if self.preview_every and event.done % self.preview_every == 0 and event.done < event.total:
            self._preview(arm, event, about)
            self.clock = time.perf_counter()

    def _preview(self, arm: ArmRun, event: StepEvent, about: dict[str, Any]) -> None:
        images = to_images(arm.models, event.clean())
        for place, stimulus in enumerate(self.recipe.stimulus_ids):
            if stimulus in event.stimulus_ids:
                row = event.stimulus_ids.index(stimulus)
                repeats = self.images.shape[1]
                self.images[place] = images[row * repeats : (row + 1) * repeats]
        self.events.event("preview", {**about, "images": self.images.copy()})


@dataclass(frozen=True)
class ArmCache:
    """Finished arms on disk, each under a fingerprint of everything that decides its bits."""

    folder: Path

    def path(self, name: str, recipe: Recipe, rows: Embeddings, models: Any) -> Path:
        """Where an arm of these inputs is, or would be."""
        diffusion, guidance = recipe.settings.diffusion, guidance_of(recipe, name)
        guided = n_guided_steps(diffusion.executed_steps, guidance) > 0
        # no guided step: neither g nor any parameter of the guidance matters
        used = ["z", "c", *(guidance.layers if guided else ())]
        embedded = [array_digest(rows[target]) for target in used]
        how = [guidance, rows.attrs.get("feature_normalisation")] if guided else "unguided"
        code = [ALGORITHM_VERSION, napari_neuraldiffuser.__version__, backend_info()["backend"]]
        key = fingerprint([rows.stimulus_ids, embedded, diffusion, how, models.digest, machine(models), code])
        return self.folder / f"{key}.npz"

    def read(self, name: str, path: Path) -> Arm | None:
        """The arm of an earlier run, or None."""
        found = read_npz(path)
        if found is None:
            return None
        result = Reconstruction(*(found[key] for key in ("images", "losses", "finite", "stimulus_ids")))
        return Arm(name, result, float(found["seconds"]), int(found["steps"]), cached=True)

    def write(self, arm: Arm, path: Path) -> None:
        """Keep a finished arm; the longest unused ones make room."""
        with atomic_path(path) as temporary:
            np.savez(temporary, **vars(arm.result), seconds=arm.seconds, steps=arm.steps_done)
        keep_newest(self.folder, KEPT_ARMS)
