"""From betas to decoded embeddings, every stage kept on disk under a fingerprint of what it was made from."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.contracts import StimulusIds
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import array_digest, file_digest, read_json, write_json
from napari_neuraldiffuser.core.base.hdf5 import is_whole
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.decoding import Decoder, DecodingError
from napari_neuraldiffuser.core.decoding.network.files import CHECKPOINT
from napari_neuraldiffuser.core.engine.cache import keep_newest, keep_newest_folders
from napari_neuraldiffuser.core.engine.warm import Warm
from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.job.inputs import Inputs
from napari_neuraldiffuser.core.job.made_from import Origin
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks.machine import machine
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.nsd import ceiling_text
from napari_neuraldiffuser.core.nsd.describe import captions
from napari_neuraldiffuser.core.outputs.report.plot import accuracy_plot

KEPT_TARGETS, KEPT_DECODERS, KEPT_DECODED = 6, 8, 24
"""Files that stay in the cache: at full size targets and decoders, which copy theirs, take gigabytes.  Of what was
decoded there are two files each."""


@dataclass(frozen=True)
class Decoded:
    """The decoded test stimuli of a recipe.

    Attributes
    ----------
    path, decoder : Path
        Embeddings of all test stimuli; the decoder that made them.
    fits : dict
        accuracy, chosen and curves of every target, decoder_digest, loaded.
    inputs : Inputs
    models : Models
    cached : bool
        Whether nothing had to be computed.
    """

    path: Path
    decoder: Path
    fits: dict[str, Any]
    inputs: Inputs
    models: Models
    cached: bool

    def rows(self, stimulus_ids: Sequence[int]) -> embeddings.Embeddings:
        """Embeddings of some test stimuli, in this order."""
        known = set(self.inputs.test.stimulus_ids.tolist())
        absent = [s for s in stimulus_ids if s not in known]
        if absent or not stimulus_ids:
            got = f"{absent[0]}" if absent else "none"
            raise UserError(
                f"stimuli must be test stimuli of {self.inputs.subject.name}, got {got}. Choose from the test set."
            )
        with embeddings.TargetFile(self.path) as file:
            rows = embeddings.rows_of(file.stimulus_ids, stimulus_ids)
            values = {name: np.stack([file[name][row] for row in rows]) for name in file}
            return embeddings.Embeddings(
                values.pop("z"), values.pop("c"), values, file.stimulus_ids[rows], dict(file.attrs)
            )


@dataclass
class Decoding:
    """The stages before reconstruction of one Study.

    Attributes
    ----------
    cache : Path
    warm : Warm
    loaded : dict
        (digest of the betas, digest of the models) -> decoder file that the user loaded for them.
    """

    cache: Path
    warm: Warm
    loaded: dict[tuple[str, str], Path]

    def decode(self, recipe: Recipe, events: Events) -> Decoded:
        """Fit or load the decoder, and decode all test stimuli at once.

        All at once, because a product of matrices rounds differently with another number of rows: the bits of one
        stimulus must not depend on which others were chosen.
        """
        inputs = self.warm.inputs(recipe, events)
        models = self.warm.models(recipe, events)
        path, key = self._decoder_file(recipe, inputs, models)
        loaded = (inputs.digest, models.digest) in self.loaded
        decoded, fits = self.cache / "decoded" / f"{key}.h5", self.cache / "decoded" / f"{key}.json"
        cached = path.is_file() and fits.is_file() and is_whole(decoded)
        if cached:
            for used in (decoded, fits, *(() if loaded else (path,))):
                used.touch()
        else:
            with stages.opened(self.decoder(recipe, inputs, models, events)) as decoder:
                decoder.check(inputs.test)
                events.told(0, 0, "decoding the test stimuli")
                stages.decode(decoder, inputs.test, decoded, events.told)
                keep_newest(decoded.parent, KEPT_DECODED)
                write_json(fits, {**_fits(decoder), "loaded": loaded})
        return Decoded(decoded, path, read_json(fits), inputs, models, cached)

    def origin(self, inputs: Inputs, models: Models) -> Origin:
        """What files of the cache are made from: the bits are those of this machine."""
        return Origin(inputs.digest, inputs.stimuli, models.digest, tuple(machine(models)))

    def decoder(self, recipe: Recipe, inputs: Inputs, models: Models, events: Events) -> Path:
        """The decoder file of a recipe, fitted where it is not there yet."""
        path, _ = self._decoder_file(recipe, inputs, models)
        if path not in self.loaded.values() and not is_whole(path):
            targets = self.targets(recipe, inputs, models, inputs.train_ids, events)
            fitting = lambda k, n, what: events.told(k, n, f"fitting {what}")  # noqa: E731
            stages.fit(inputs.train, targets, path, recipe.settings.decoding, fitting)
            # a log that nobody asked for, in a cache
            shutil.rmtree(stages.training_folder(path), ignore_errors=True)
            keep_newest(path.parent, KEPT_DECODERS)
            keep_newest_folders(path.parent.glob("*_training"), CHECKPOINT, KEPT_DECODERS)
        return path

    def targets(
        self, recipe: Recipe, inputs: Inputs, models: Models, stimulus_ids: StimulusIds, events: Events
    ) -> Path:
        """Target embeddings of some stimuli; no region or session in their name but for the stimuli it has."""
        features = recipe.settings.features
        key = self.origin(inputs, models).targets(features, stimulus_ids)
        path = self.cache / "targets" / f"{key}.h5"
        stages.targets(models, inputs.subject.stimuli, stimulus_ids, path, features, events.told)
        path.touch()
        keep_newest(path.parent, KEPT_TARGETS)
        return path

    def load(self, recipe: Recipe, name: str, events: Events) -> dict[str, Any]:
        """Take a saved decoder instead of fitting one, for betas and models like these; an empty name ends that."""
        inputs, models = self.warm.inputs(recipe, events), self.warm.models(recipe, events)
        if not name:
            self.loaded.pop((inputs.digest, models.digest), None)
            return {"decoder": "", "accuracy": {}}
        path = Path(name).resolve()
        with stages.opened(path) as decoder:
            decoder.check(inputs.test)
            _check_models(decoder, models, path)
            accuracy = _fits(decoder)["accuracy"]
        self.loaded[inputs.digest, models.digest] = path
        return {"decoder": str(path), "accuracy": accuracy}

    def is_loaded(self, recipe: Recipe, events: Events) -> bool:
        """Whether a loaded decoder stands in for the one of a recipe."""
        if not self.loaded:
            return False
        return (self.warm.inputs(recipe, events).digest, self.warm.models(recipe, events).digest) in self.loaded

    def _decoder_file(self, recipe: Recipe, inputs: Inputs, models: Models) -> tuple[Path, str]:
        """Place of the decoder, and the fingerprint of what it decodes."""
        loaded, origin = self.loaded.get((inputs.digest, models.digest)), self.origin(inputs, models)
        if loaded is not None:
            if not loaded.is_file():
                raise UserError(f"{loaded} must be the decoder that was loaded, got no file. Load another, or fit one.")
            return loaded, origin.decoded(file_digest(loaded), inputs.test.stimulus_ids)
        key = origin.decoder(recipe.settings)
        return self.cache / "decoders" / f"{key}.h5", origin.decoded(key, inputs.test.stimulus_ids)


def _check_models(decoder: Decoder, models: Models, path: Path) -> None:
    known = str(decoder.attrs.get("model_digest", ""))
    if known and known != models.digest:
        raise DecodingError(
            f"{path} must be a decoder of {models.name} (digest {models.digest[:12]}), got one of other models "
            f"({known[:12]}). Choose the models that its targets were made with, or fit a decoder."
        )


def _fits(decoder: Decoder) -> dict[str, Any]:
    fits = decoder.accuracy
    return {
        "accuracy": {name: fit.best_r2 for name, fit in fits.items()},
        "chosen": {name: fit.chosen for name, fit in fits.items()},
        "curves": {
            name: {"tried": list(fit.tried), "r2": list(fit.r2), "axis": fit.axis} for name, fit in fits.items()
        },
        "decoder_digest": array_digest(*decoder.arrays()),
    }


def describe(decoded: Decoded) -> dict[str, Any]:
    """What the front end shows of a decoder."""
    inputs, fits = decoded.inputs, decoded.fits
    test_ids = [int(s) for s in inputs.test.stimulus_ids]
    return {
        **{name: fits[name] for name in ("accuracy", "chosen", "curves")},
        "plot": np.frombuffer(accuracy_plot(fits["accuracy"], fits["curves"]), np.uint8),
        "test_ids": test_ids,
        "captions": captions(inputs.subject.stimuli, test_ids),
        "n_voxels": int(inputs.train.data.shape[1]),
        "n_train": len(inputs.train_ids),
        "n_test": len(test_ids),
        "repeats_mean": float(np.mean(inputs.test.repeats)),
        "noise_ceiling": ceiling_text(
            inputs.train.noise_ceiling, inputs.train.n_voxels, float(np.mean(inputs.test.repeats))
        ),
        "notes": inputs.notes,
        "decoder": str(decoded.decoder),
        "embeddings": str(decoded.path),
        "spread": embeddings.spread_of(decoded.path),
        "loaded": bool(fits["loaded"]),
        "cached": decoded.cached,
    }
