"""A small simulated subject, small random models and a recipe for them: what tests of the engine start from."""

import threading
from pathlib import Path

from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, Settings, SimulationParams
from tests.support.small_models import save_small_models

SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
DIFFUSION = DiffusionParams(n_steps=6, repeats=2, batch_size=4)
GUIDANCE = GuidanceParams(guidance_scale=1.0, guidance_strength=0.5, normalise="rms")


def write_inputs(folder: Path) -> Recipe:
    """Write subject and models below `folder`; the recipe has no stimuli yet."""
    simulate.write_subjects(folder / "nsd", SMALL)
    save_small_models(folder / "models")
    settings = Settings(diffusion=DIFFUSION, guidance=GUIDANCE)
    return Recipe(Source(nsd_dir=str(folder / "nsd")), settings, models=str(folder / "models"))


class Log:
    """Collects a call's messages, and cancels it when `stop(name, payload)` says so."""

    def __init__(self, stop=lambda name, payload: False) -> None:
        self.stop, self.flag, self.messages = stop, threading.Event(), []
        self.events = Events(self._add, self.flag)

    def _add(self, name, payload):
        self.messages.append((name, payload))
        if self.stop(name, payload):
            self.flag.set()

    def of(self, name):
        """Payloads of one kind."""
        return [payload for known, payload in self.messages if known == name]
