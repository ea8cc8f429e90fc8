"""The calls of the engine: from a source to images, with everything that was computed before taken from a cache.

A call is `call(args, events) -> dict`: JSON values in, JSON values and NumPy arrays at the top level out.  torch is
imported by the calls that compute.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.base.files import make_folder
from napari_neuraldiffuser.core.base.memory import lacks_memory
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.engine.cache import folder_size, sweep
from napari_neuraldiffuser.core.engine.warm import Warm
from napari_neuraldiffuser.core.nsd import open_source
from napari_neuraldiffuser.core.nsd.describe import describe, thumbnails
from napari_neuraldiffuser.core.params import SimulationParams, TuneParams

CACHED = (
    "betas",
    "targets",
    "decoders",
    "decoded",
    "arms",
    "ceilings",
    "means",
    "contributions",
    "worths",
    "tune",
    "runs",
)
"""Folders below the cache that `clear` empties."""
NETWORKED = (
    *(
        "decode",
        "save_decoder",
        "load_decoder",
        "worth",
        "reconstruct",
        "strip",
        "tune",
        "contribution",
        "report",
        "devices",
    ),
)
"""Calls that import torch and the network libraries, the first of which takes seconds, on a busy machine a minute."""


class Study:
    """The calls, over one cache folder.

    Parameters
    ----------
    cache : Path
        Betas, targets, decoders, decoded embeddings, arms, contribution maps and runs.
    """

    CALLS = (
        *("describe", "voxels", "thumbnails", "simulate", "bold_subjects", "betas", "cache_size", "clear"),
        *NETWORKED,
    )

    def __init__(self, cache: Path) -> None:
        self.cache = Path(cache)
        self.warm = Warm(self.cache)
        self.loaded: dict[tuple[str, str], Path] = {}
        for name in CACHED:
            sweep(self.cache / name)
        for arm in (self.cache / "arms").glob("*.npz"):  # as an earlier version kept them
            arm.unlink(missing_ok=True)

    def call(self, name: str, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """One call by its name.

        Raises
        ------
        UserError
            For what the user can mend, memory that did not suffice included.
        Cancelled
            With the result so far.
        """
        if name not in self.CALLS:
            raise UserError(f"call must be one of {', '.join(self.CALLS)}, got {name!r}.")
        if name in NETWORKED and "torch" not in sys.modules:
            events.told(0, 0, "loading PyTorch and the network libraries")
        try:
            return getattr(self, name)(args, events)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            message = memory_message(args, error)
        # outside the handler, for the exception holds the frames, and they the tensors
        self.warm.free_models()
        raise UserError(message)

    def describe(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """What a source holds: subjects, sessions, regions, test stimuli."""
        return describe(Source.from_dict(args["source"]), events)

    def voxels(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """How many voxels the recipe's ROI expression selects."""
        recipe = Recipe.from_dict(args["recipe"])
        subject = open_source(recipe.source, recipe.settings.betas)
        return {"n_voxels": len(subject.voxels(recipe.settings.betas.roi))}

    def thumbnails(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Small seen images and their captions."""
        return thumbnails(Source.from_dict(args["source"]), args["ids"], int(args.get("size") or 64), events)

    def decode(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Fit or load the decoder; its accuracy, and what it decodes."""
        from napari_neuraldiffuser.core.engine.decoder import describe as describe_decoder

        return describe_decoder(self._decoding().decode(Recipe.from_dict(args["recipe"]), events))

    def save_decoder(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Copy the recipe's decoder to a file of the user's choice."""
        from napari_neuraldiffuser.core.base.files import atomic_path

        decoded = self._decoding().decode(Recipe.from_dict(args["recipe"]), events)
        with atomic_path(args["path"]) as temporary:
            shutil.copyfile(decoded.decoder, temporary)
        return {"path": str(args["path"])}

    def load_decoder(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Use a saved decoder for such betas and models; an empty path goes back to fitting."""
        return self._decoding().load(Recipe.from_dict(args["recipe"]), str(args.get("path") or ""), events)

    def reconstruct(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Images of the recipe's stimuli, in the order of its arms."""
        from napari_neuraldiffuser.core.engine.runs import run

        recipe = Recipe.from_dict(args["recipe"])
        every = int(args.get("preview_every") or 0) if args.get("preview", True) else 0
        return run(recipe, self._decoding().decode(recipe, events), self.cache, events, every)

    def strip(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """One stimulus at several guidance strengths."""
        from napari_neuraldiffuser.core.engine.strip import strip

        recipe = Recipe.from_dict(args["recipe"])
        return strip(recipe, args["strengths"], self._decoding().decode(recipe, events), self.cache, events)

    def tune(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Guidance strength and schedule for the recipe's models, chosen on its training stimuli."""
        from napari_neuraldiffuser.core.engine.tune import tune

        params = TuneParams.from_dict(args.get("params") or {})
        return tune(self._decoding(), Recipe.from_dict(args["recipe"]), params, events)

    def worth(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """What the decoded targets are worth on all test stimuli."""
        from napari_neuraldiffuser.core.engine.worth import worth

        return worth(self._decoding(), Recipe.from_dict(args["recipe"]), events)

    def contribution(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Contribution maps of all test stimuli."""
        from napari_neuraldiffuser.core.engine.maps import contribution

        return contribution(self._decoding(), Recipe.from_dict(args["recipe"]), events)

    def report(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """The whole job of one subject, continued where it was stopped."""
        from napari_neuraldiffuser.core.engine.maps import report

        recipe = Recipe.from_dict(args["recipe"])
        if self._decoding().is_loaded(recipe, events):
            raise UserError(
                "the report must fit its own decoder, got data with a loaded one. Press Fit anew on the Decode page, "
                "or reconstruct with the loaded decoder on the Reconstruct page."
            )
        return report(self._decoding(), recipe, Path(args["out_dir"]), args.get("n_stimuli"), events)

    def bold_subjects(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Which subjects of a BIDS folder have preprocessed BOLD."""
        from napari_neuraldiffuser.core.engine.bold import subjects

        return subjects(args)

    def betas(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Single-trial betas from BOLD, as own scans."""
        from napari_neuraldiffuser.core.engine.bold import betas

        return betas(args, events)

    def simulate(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Write simulated subjects in NSD's formats."""
        from napari_neuraldiffuser.core.nsd import simulate

        simulate.write_subjects(args["folder"], SimulationParams.from_dict(args.get("params") or {}), events.told)
        return {"folder": str(args["folder"])}

    def devices(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Where the networks can run, and whether the kernels are compiled."""
        import torch

        from napari_neuraldiffuser.core.networks.kernels.backend import backend_info

        n = torch.get_num_threads()
        found = [{"name": "cpu", "label": f"CPU, {n} thread{'' if n == 1 else 's'}"}]
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            label = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
            found.append({"name": f"cuda:{index}", "label": label})
        return {"devices": found, "backend": str(backend_info()["backend"])}

    def cache_size(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Bytes in the cache."""
        return {"bytes": sum(folder_size(self.cache / name) for name in CACHED)}

    def clear(self, args: dict[str, Any], events: Events) -> dict[str, Any]:
        """Delete what can be computed again, and the runs with it; `keep_runs` spares those."""
        before = self.cache_size(args, events)["bytes"]
        self.warm.clear()
        for name in CACHED:
            if not (name == "runs" and args.get("keep_runs")):
                shutil.rmtree(self.cache / name, ignore_errors=True)
        return {"bytes_freed": before - self.cache_size(args, events)["bytes"]}

    def _decoding(self) -> Any:
        from napari_neuraldiffuser.core.engine.decoder import Decoding

        make_folder(self.cache)
        return Decoding(self.cache, self.warm, self.loaded)


def memory_message(args: dict[str, Any], error: BaseException) -> str:
    """What was asked of which device, and what to ask for instead."""
    if "recipe" not in args:
        return f"memory must suffice for this, got: {error}. Close other programs and try again."
    recipe = Recipe.from_dict(args["recipe"])
    diffusion, guidance = recipe.settings.diffusion, recipe.settings.guidance
    first = said(error)
    return (
        f"{recipe.device} must have memory for one image at least (batch_size {diffusion.batch_size}, "
        f"{len(guidance.layers)} guidance layers) of models {recipe.models}, got: {first} "
        "Close what else uses the device, or choose another device."
    )
