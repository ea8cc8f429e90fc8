"""One arm of a run: batches of whole stimuli, told about step by step, and kept on disk for the next run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_neuraldiffuser.core.base.files import json_object, make_folder, write_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe, guidance_of
from napari_neuraldiffuser.core.diffusion.pipeline import (
    Reconstruction,
    StepEvent,
    latent_figures,
    start_images,
    to_images,
)
from napari_neuraldiffuser.core.diffusion.start import StartEvent
from napari_neuraldiffuser.core.engine.cache import keep_newest_folders
from napari_neuraldiffuser.core.job import made_from
from napari_neuraldiffuser.core.job.images import ImageJob
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.machine import machine
from napari_neuraldiffuser.core.networks.models import Models

KEPT_ARMS = 200
"""Arms that stay in the cache: a few megabytes each."""
USED = "arm.json"
"""In the folder of an arm: when it was used last, and for how long it was computed."""


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
        Computing time, of earlier calls where batches come from the cache.
    steps_done : int
        Executed diffusion steps, over all batches.
    """

    name: str
    result: Reconstruction
    seconds: float
    steps_done: int
    cached: bool = False
    complete: bool = True


class ArmRun:
    """Makes one arm and knows, when it is stopped, what there is.

    Parameters
    ----------
    name : str
    recipe : Recipe
    rows : Embeddings
        Decoded embeddings of the recipe's stimuli.
    models : Models
    shown : Shown
    cache : Path
        Folder of arms, each under a fingerprint of everything that decides its bits.
    """

    def __init__(
        self, name: str, recipe: Recipe, rows: Embeddings, models: Models, shown: "Shown", cache: Path
    ) -> None:
        self.name, self.models, self.shown = name, models, shown
        self.diffusion = recipe.settings.diffusion
        guidance = guidance_of(name, recipe.settings.guidance)
        key = made_from.images(rows, models.digest, self.diffusion, guidance, tuple(machine(models)))
        self.folder = make_folder(cache / key)
        # the name of the subject decides no bit
        places = Derivatives(self.folder, "arm")
        self.job = ImageJob(rows, models, recipe.settings, places, Records(self.folder), (name,))
        self.parts: list[Reconstruction] = []
        self.last: StepEvent | None = None
        self.losses: list[np.ndarray] = []
        self.seconds = float((json_object(self.folder / USED) or {}).get("seconds", 0.0))
        self.clock = time.perf_counter()

    def make(self) -> Arm:
        """All batches, those from the cache that are there; what the listener raises ends it.

        The arms that were not used for longest make room.
        """
        self.shown.begin_arm()
        self._note()
        computed = False
        for part in self.job.parts():
            self.losses.clear()
            self.clock = time.perf_counter()
            if part.make(self._after_step):
                computed = True
                self.seconds += time.perf_counter() - self.clock
                self._note()
            self.parts.append(part.read())
            self.last = None
            self.shown.end_batch(self.parts[-1])
        keep_newest_folders(self.folder.parent.iterdir(), USED, KEPT_ARMS)
        return Arm(self.name, _joined(self.parts), self.seconds, self._steps(), cached=not computed)

    def _note(self) -> None:
        """That the arm is used now, and how long it took so far."""
        write_json(self.folder / USED, {"seconds": self.seconds})

    def _after_step(self, event: StepEvent) -> None:
        self.last = event if event.done else self.last
        if event.done == 1:  # again, where memory did not suffice for so many images at once
            self.losses.clear()
        if event.loss is not None:
            self.losses.append(event.loss)
        self.shown.step(self, event)

    def rescue(self) -> Arm | None:
        """The arm as far as it came, as a preview shows it; None where no step was done."""
        steps, seconds = self._steps(), self.seconds
        if self.last is not None:
            self.parts.append(self._present(self.last))
            steps += self.last.done
            seconds += time.perf_counter() - self.clock
        return Arm(self.name, _joined(self.parts), seconds, steps, complete=False) if self.parts else None

    def _present(self, event: StepEvent) -> Reconstruction:
        latents = event.shown()
        images = to_images(self.models, latents)
        shape = len(event.stimulus_ids), self.diffusion.repeats
        losses = np.stack(self.losses, axis=1) if self.losses else np.zeros((len(images), 0))
        finite = torch.isfinite(event.latents).flatten(1).all(dim=1).cpu().numpy()
        return Reconstruction(
            images.reshape(*shape, *images.shape[1:]),
            losses.reshape(*shape, losses.shape[1]).astype(np.float32),
            np.all(finite.reshape(shape), axis=1),
            np.array(event.stimulus_ids),
            latent_figures(latents).reshape(*shape, -1),
        )

    def _steps(self) -> int:
        return self.diffusion.executed_steps * len(self.parts)


def shown_start(recipe: Recipe, rows: Embeddings, models: Models, events: Events) -> np.ndarray:
    """What the recipe's images begin from, (n, H, W, 3) uint8; told of where it takes gradient steps."""

    def tell(event: StartEvent) -> None:
        events.told(event.done, event.total, f"start, gradient step {event.done} of {event.total}")

    return start_images(rows, models, recipe.settings.diffusion, recipe.settings.guidance, tell)


def _joined(parts: list[Reconstruction]) -> Reconstruction:
    """Batches as one; losses that a batch lacks, as it was stopped while it was guided, are NaN."""
    most = max(part.losses.shape[-1] for part in parts)
    for part in parts:
        missing = most - part.losses.shape[-1]
        part.losses = np.pad(part.losses, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
    names = ("images", "losses", "finite", "stimulus_ids", "latents")
    return Reconstruction(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


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
    titles : sequence of str
        What each arm is called in messages.
    """

    def __init__(
        self, recipe: Recipe, events: Events, preview_every: int, start: np.ndarray, titles: Sequence[str]
    ) -> None:
        self.recipe, self.events, self.preview_every, self.start = recipe, events, preview_every, start
        self.titles, self.place = titles, 0
        diffusion = recipe.settings.diffusion
        self.per_arm = diffusion.executed_steps * diffusion.n_batches(len(start))
        self.clock = time.perf_counter()
        self.images = np.empty(0)

    def begin_arm(self) -> None:
        """Before the first step of an arm."""
        repeats = self.recipe.settings.diffusion.repeats
        self.images = np.repeat(self.start[:, None], repeats, axis=1)
        self.clock = time.perf_counter()
        self._tell(0)

    def end_arm(self) -> None:
        """After an arm, computed or cached."""
        self.place += 1

    def _tell(self, done: int) -> None:
        """So many steps of the present arm are done."""
        total, title = self.per_arm * len(self.titles), self.titles[self.place]
        self.events.told(self.place * self.per_arm + done, total, f"{title}, step {done} of {self.per_arm}")

    def step(self, arm: ArmRun, event: StepEvent) -> None:
        """One step of one batch."""
        done = len(arm.parts) * event.total + event.done
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        about = {"arm": arm.name, "done": done, "total": self.per_arm}
        loss = None if event.loss is None else [float(v) for v in event.loss]
        step = {**about, "timestep": event.timestep, "loss": loss, "seconds_per_step": seconds}
        self.events.event("step", {**step, "stimulus_ids": list(event.stimulus_ids)})
        self._tell(done)
        if self.preview_every and event.done and event.done % self.preview_every == 0 and event.done < event.total:
            self._preview(arm, event, about)
            self.clock = time.perf_counter()

    def end_batch(self, batch: Reconstruction) -> None:
        """After a batch, computed or cached: its images stand for it from now on."""
        self._put(batch.stimulus_ids.tolist(), batch.images)

    def _preview(self, arm: ArmRun, event: StepEvent, about: dict[str, Any]) -> None:
        images = to_images(arm.models, event.shown())
        self._put(event.stimulus_ids, images.reshape(-1, *self.images.shape[1:]))
        self.events.event("preview", {**about, "images": self.images.copy()})

    def _put(self, stimulus_ids: Sequence[int], images: np.ndarray) -> None:
        for stimulus, repeats in zip(stimulus_ids, images, strict=True):
            self.images[self.recipe.stimulus_ids.index(stimulus)] = repeats
