"""Scores of one setting on held-out training stimuli, kept on disk so that a stopped search goes on where it was."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.contracts import SeenImages
from napari_neuraldiffuser.core.base.files import fingerprint, json_object, write_json
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.diffusion.pipeline import StepEvent, reconstruct
from napari_neuraldiffuser.core.evaluation.ruin import FIGURES
from napari_neuraldiffuser.core.job import made_from
from napari_neuraldiffuser.core.job.scores import score
from napari_neuraldiffuser.core.job.tune_choice import SCORES, Setting, Tried
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.params import EvaluationParams


@dataclass(frozen=True)
class HeldOut:
    """Held-out training stimuli of one subject.

    Attributes
    ----------
    decoded : Embeddings
        By a decoder that has not seen them.
    stimuli : SeenImages
    digest : str
        Of their images.
    """

    decoded: Embeddings
    stimuli: SeenImages
    digest: str = ""

    def halves(self) -> tuple[Embeddings, Embeddings]:
        """The first half, which screens, and the rest."""
        ids = self.decoded.stimulus_ids
        cut = (len(ids) + 1) // 2
        return self.decoded.subset(ids[:cut]), self.decoded.subset(ids[cut:])


@dataclass
class Measured:
    """Reconstructs and scores settings; an instance is the `Measure` of a search.

    Attributes
    ----------
    subjects : sequence of HeldOut
    models : Models
    evaluation : EvaluationParams
        Its size and batch size; the scores are `tune_choice.SCORES`.
    folder : Path
        Where the scores of every setting are kept, under a fingerprint of all that they depend on.
    progress : callable
    total : int
        Images that the search may take, for progress.
    """

    subjects: Sequence[HeldOut]
    models: Models
    evaluation: EvaluationParams
    folder: Path
    progress: Progress
    total: int
    done: int = 0
    computed: int = 0

    def __call__(self, setting: Setting, whole: bool) -> Tried:
        """Scores on the first half of every subject's stimuli, or on all."""
        found = []
        for subject in self.subjects:
            first, rest = subject.halves()
            found += [self._part(setting, part, subject) for part in ((first, rest) if whole else (first,))]
        scores = {name: np.concatenate([one.scores[name] for one in found]) for name in SCORES}
        seconds = float(np.mean([one.seconds for one in found]))
        latents = np.concatenate([one.latents for one in found])
        return Tried(setting, scores, seconds, sum(one.failed for one in found), latents)

    def _part(self, setting: Setting, decoded: Embeddings, subject: HeldOut) -> Tried:
        how = made_from.images(decoded, self.models.digest, setting.diffusion, setting.guidance)
        path = self.folder / f"{fingerprint([how, subject.digest, self.evaluation.size])}.json"
        kept, images = json_object(path), len(decoded) * setting.diffusion.repeats
        if kept is None:
            kept = self._compute(setting, decoded, subject)
            write_json(path, kept)
            self.computed += images
        self.done += images
        scores = {name: np.array([np.nan if v is None else v for v in kept["scores"][name]]) for name in SCORES}
        # scores of earlier versions tell of no latents
        latents = np.array(kept.get("latents", []), dtype=float).reshape(-1, len(FIGURES))
        return Tried(setting, scores, kept["seconds"], kept["failed"], latents)

    def _compute(self, setting: Setting, decoded: Embeddings, subject: HeldOut) -> dict[str, Any]:
        images, began = len(decoded) * setting.diffusion.repeats, time.perf_counter()
        first = {int(s): k for k, s in enumerate(decoded.stimulus_ids)}

        def tell(event: StepEvent) -> None:
            before = first[event.stimulus_ids[0]] * setting.diffusion.repeats
            now = len(event.stimulus_ids) * setting.diffusion.repeats * event.done // event.total
            self.progress(self.done + before + now, max(self.total, self.done + images), f"tuning, {setting}")

        result = reconstruct(decoded, self.models, setting.diffusion, setting.guidance, tell)
        seconds = (time.perf_counter() - began) / images
        params = self.evaluation.but(metrics=SCORES)
        seen = subject.stimuli[decoded.stimulus_ids]
        scores = score(result.images, seen, self.models, params, lambda *_: None, with_chance=False)
        values = {name: [None if v != v else float(v) for v in scores.per_stimulus(name)] for name in SCORES}
        return {
            "setting": str(setting),
            **{"diffusion": setting.diffusion.to_dict(), "guidance": setting.guidance.to_dict()},
            "stimulus_ids": [int(s) for s in decoded.stimulus_ids],
            "scores": values,
            "seconds": seconds,
            "failed": int((~result.finite).sum()),
            "latents": [[float(v) if np.isfinite(v) else None for v in row] for row in np.concatenate(result.latents)],
        }
