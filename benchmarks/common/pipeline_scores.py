"""Scores of the arms of the pipeline's benchmark on decoded stimuli of a simulated subject, paired by stimulus."""

from pathlib import Path

import numpy as np
import torch

from common import pipeline_arms as arms
from napari_neuraldiffuser.core import decoding, evaluation, nsd
from napari_neuraldiffuser.core.networks import embeddings, models
from napari_neuraldiffuser.core.params import EvaluationParams

METRICS = ("pixcorr", "ssim", "edges", "twoway_edges")
REPEATS = 2


def score_differences(
    folder: Path, names: list[str], n_stimuli: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, dict]:
    """Of every arm: mean difference from the exact one in float32 and its standard error, by metric."""
    networks = models.load("demo", device=device)
    decoded, seen = decoded_stimuli(folder, networks, n_stimuli)
    params = EvaluationParams(metrics=METRICS)

    def scored(name: str) -> dict[str, np.ndarray]:
        images = arms.draw(name, "demo", networks, decoded, REPEATS)
        found = evaluation.evaluate(images, seen, {}, params)
        return {metric: found.per_stimulus(metric) for metric in METRICS}

    exact = scored(arms.EXACT)
    networks.to(device, dtype)
    return {name: {"scores": compared(scored(name), exact)} for name in names}


def compared(own: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Mean paired difference over stimuli and its standard error."""
    differences = {metric: own[metric] - exact[metric] for metric in exact}
    return {metric: (float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5)) for metric, d in differences.items()}


def decoded_stimuli(folder: Path, networks: models.Models, n: int) -> tuple[embeddings.Embeddings, np.ndarray]:
    """Ridge's z, c and g of the first test stimuli, and the seen images; decoded once, then from a file."""
    subject, kept = nsd.Subject(folder, "subj01"), folder / f"pipeline-{networks.digest[:12]}.h5"
    train, test = subject.betas().split()
    if not kept.exists():
        with embeddings.extract(networks, subject.stimuli, train.stimulus_ids, folder / "pipeline-targets.h5") as rows:
            decoding.RidgeDecoder().fit(train, rows).predict(test).save(kept)
    decoded = embeddings.Embeddings.load(kept)
    decoded = decoded.subset(decoded.stimulus_ids[:n])
    return decoded, subject.stimuli[decoded.stimulus_ids]
