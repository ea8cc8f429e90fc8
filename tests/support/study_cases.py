"""A small simulated subject, small random models and a recipe for them: what tests of the engine start from."""

import threading
from pathlib import Path

from skimage import io

from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, Settings, SimulationParams
from tests.support.small_models import save_small_models

SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
DIFFUSION = DiffusionParams(n_steps=6, repeats=2, batch_size=4)
GUIDANCE = GuidanceParams(guidance_scale=1.0, guidance_strength=0.5, normalise="rms")
N_STEPS = int(DIFFUSION.strength * DIFFUSION.n_steps)


def write_inputs(folder: Path) -> Recipe:
    """Write subject and models below `folder`; the recipe has no stimuli yet."""
    simulate.write_subjects(folder / "nsd", SMALL)
    save_small_models(folder / "models")
    return recipe_of(folder)


def recipe_of(folder: Path) -> Recipe:
    """The recipe of what `write_inputs` wrote to `folder`."""
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


def call(made, name, recipe, log=None, **args):
    """One of the engine's calls for a recipe."""
    return made.call(name, {"recipe": recipe.to_dict(), **args}, (log or Log()).events)


def images_of(result):
    """(arm, stimulus, repeat) -> pixels of the files."""
    rows = result["provenance"]["images"]
    return {(r["arm"], r["stim"], r["rep"]): io.imread(f"{result['folder']}/{r['file']}") for r in rows}


def guided_more(recipe):
    """The same with another guidance scale."""
    return recipe.with_stage("guidance", GUIDANCE.but(guidance_scale=3.0))
