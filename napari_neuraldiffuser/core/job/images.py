"""Both arms' images on disk: written batch after batch, so that a killed run continues where it stopped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skimage import io

from napari_neuraldiffuser.core.base.files import atomic_path, read_json, write_json
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.diffusion.pipeline import StepEvent, batches, check_fit, reconstruct_batch
from napari_neuraldiffuser.core.job.resume import Stages
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.outputs.description import generated_by, model_name
from napari_neuraldiffuser.core.outputs.names import Derivatives
from napari_neuraldiffuser.core.params import Settings


@dataclass(frozen=True)
class ReconJob:
    """What the reconstruction stage needs.

    Attributes
    ----------
    decoded : Embeddings
    models : Models
    settings : Settings
    places : Derivatives
    stages : Stages
    made_from : str
        Fingerprint of the decoded embeddings and everything before them.
    arms : tuple of str
    """

    decoded: Embeddings
    models: Models
    settings: Settings
    places: Derivatives
    stages: Stages
    made_from: str
    arms: tuple[str, ...] = ARMS


def reconstruct_arms(job: ReconJob, progress: Progress) -> list[int]:
    """Write the arms' images, all from the same noise; returns the stimuli that failed.

    A batch is the unit of resuming and its composition depends on the parameters only, so that a continued run computes
    the same batches, and so the same bits, as an undisturbed one.
    """
    diffusion = job.settings.diffusion
    check_fit(job.decoded, job.models, diffusion, job.settings.guidance)
    parts = [(arm, i, batch) for i, batch in enumerate(batches(job.decoded, diffusion)) for arm in job.arms]
    done = 0
    for arm, index, batch in parts:
        # every image counts as one, whatever share of its steps is done
        images = len(batch) * diffusion.repeats
        tell = _step_progress(progress, done, images, len(job.decoded) * diffusion.repeats * len(job.arms), arm)
        _reconstruct_part(job, arm, index, batch, tell)
        done += images
    return _write_sidecar(job)


def _step_progress(progress: Progress, done: int, images: int, total: int, arm: str) -> Callable[[StepEvent], None]:
    def tell(event: StepEvent) -> None:
        progress(done + images * event.done // event.total, total, f"images, {arm} step {event.done}/{event.total}")

    return tell


def _guidance(job: ReconJob, arm: str):
    guidance = job.settings.guidance
    return guidance if arm == "guided" else guidance.but(guidance_scale=0.0)


def _losses_path(job: ReconJob, arm: str, index: int) -> Path:
    return job.stages.folder / f"recon-{arm}-{index:04d}_losses.json"


def _reconstruct_part(job: ReconJob, arm: str, index: int, batch: Embeddings, tell: Callable) -> None:
    diffusion, guidance = job.settings.diffusion, _guidance(job, arm)
    repeats = range(1, diffusion.repeats + 1)
    images = [job.places.image(int(s), r, arm) for s in batch.stimulus_ids for r in repeats]
    losses = _losses_path(job, arm, index)

    def work() -> None:
        result = reconstruct_batch(batch, job.models, diffusion, guidance, tell)
        flat = result.images.reshape(-1, *result.images.shape[2:])
        for path, image in zip(images, flat, strict=True):
            write_png(path, image)
        rows = {
            str(s): {"finite": bool(ok), "losses": result.losses[i].tolist()}
            for i, (s, ok) in enumerate(zip(batch.stimulus_ids, result.finite, strict=True))
        }
        write_json(losses, rows)

    made_from = [job.made_from, diffusion, guidance, job.models.digest, batch.stimulus_ids]
    job.stages.run(f"recon-{arm}-{index:04d}", made_from, [*images, losses], work)


def _write_sidecar(job: ReconJob) -> list[int]:
    """One sidecar for the folder: parameters and the feature losses of each image; returns the failed stimuli."""
    n_batches = sum(1 for _ in batches(job.decoded, job.settings.diffusion))
    arms: dict[str, Any] = {}
    failed: set[int] = set()
    for arm in job.arms:
        rows: dict[str, Any] = {}
        for index in range(n_batches):
            rows |= read_json(_losses_path(job, arm, index))
        failed |= {int(s) for s, row in rows.items() if not row["finite"]}
        losses = {s: row["losses"] for s, row in rows.items()}
        arms[arm] = {"GuidanceParams": _guidance(job, arm).to_dict(), "FeatureLossPerGuidedStep": losses}
    sidecar = {
        "GeneratedBy": generated_by(),
        "Sources": [job.places.uri(job.places.embeddings)],
        "Model": model_name(job.models.name),
        "ModelDigest": job.models.digest,
        "DiffusionParams": job.settings.diffusion.to_dict(),
        "Arms": arms,
    }
    write_json(job.places.recon_sidecar, sidecar)
    return sorted(failed)


def merge_sidecars(paths: Sequence[Path], path: Path) -> None:
    """One sidecar of all images from those of chunks of stimuli, which differ in the losses alone."""
    merged = read_json(paths[0])
    for other in map(read_json, paths[1:]):
        for arm, about in other["Arms"].items():
            merged["Arms"][arm]["FeatureLossPerGuidedStep"] |= about["FeatureLossPerGuidedStep"]
    write_json(path, merged)


def write_failed(path: Path, failed: Sequence[int]) -> None:
    """The table of stimuli that failed; no file where none did."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    table = pd.DataFrame({"stim": failed, "reason": "a latent overflowed: lower guidance_scale or cfg_scale"})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)


def write_png(path: Path, image: np.ndarray) -> None:
    """One image (H, W, 3) uint8 as PNG, atomically."""
    with atomic_path(path) as temporary:
        io.imsave(temporary, image, check_contrast=False)


def read_arm(places: Derivatives, stimulus_ids: np.ndarray, repeats: int, arm: str) -> np.ndarray:
    """One arm's images (n, repeats, H, W, 3) uint8 from disk."""
    return np.stack(
        [np.stack([io.imread(places.image(int(s), r, arm)) for r in range(1, repeats + 1)]) for s in stimulus_ids]
    )
