"""Features of g of training, seen, decoded and reconstructed pictures, and how alike they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.decoding.targets import Rows, blocks, match_rows
from napari_neuraldiffuser.core.evaluation.trust import nearest
from napari_neuraldiffuser.core.job.pictures import ArmPictures
from napari_neuraldiffuser.core.job.trust.parts import TrustParts
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, Targets, rows_of


@dataclass(frozen=True)
class Nearness:
    """What training images are like the decoded and the seen ones.

    Attributes
    ----------
    means : dict of layer to ndarray (d,)
        Mean features of the training images.
    retrieved : int array (n,)
        Training stimulus whose true features correlate best with the decoded ones.
    nearest : ndarray (n,), optional
        Highest correlation of the seen image's true features with those of a training image; None without true ones.
    """

    means: dict[str, np.ndarray]
    retrieved: np.ndarray
    nearest: np.ndarray | None


def compare(parts: TrustParts, training: Targets, progress: Progress) -> Nearness | None:
    """Compare decoded and true features with those of every training image; None where layers are missing."""
    ids = np.unique(np.asarray(parts.train_ids))
    ids = ids[np.isin(ids, training.stimulus_ids)]
    rows = match_rows(training.stimulus_ids, ids)
    with TargetFile(parts.embeddings) as decoded:
        layers = [layer for layer in parts.layers if layer in set(decoded) & set(training)]
        if not layers or not len(ids):
            return None
        means, found = {}, []
        for k, layer in enumerate(layers):
            progress(k, len(layers), f"nearest training images, {layer}")
            means[layer] = _mean(training, layer, rows)
            queries = [_rows(decoded, layer, parts), *_true(parts, layer)]
            parts_of = blocks(training, layer, rows, np.float32)
            similar = nearest.similarity(np.concatenate(queries), parts_of, len(ids), means[layer])
            found.append(similar.reshape(len(queries), -1, len(ids)))
    progress(len(layers), len(layers), "nearest training images")
    of_decoded, *of_seen = (nearest.mean_similarity([one[q] for one in found]) for q in range(len(found[0])))
    chosen, _ = nearest.best_rows(of_decoded)
    return Nearness(means, ids[chosen], nearest.best_rows(of_seen[0])[1] if of_seen else None)


def _true(parts: TrustParts, layer: str) -> list[np.ndarray]:
    """True features of the seen images, in a list; none where they are not there."""
    if parts.targets is None or not parts.targets.is_file():
        return []
    with TargetFile(parts.targets) as own:
        return [_rows(own, layer, parts)] if layer in set(own) else []


def _rows(targets: TargetFile, layer: str, parts: TrustParts) -> np.ndarray:
    places = rows_of(targets.stimulus_ids, parts.stimulus_ids)
    data = targets[layer]
    return np.stack([np.asarray(data[row], np.float32).ravel() for row in places])


def training_mean(parts: TrustParts, training: Targets, name: str) -> np.ndarray:
    """Mean of a target over the training stimuli, in its own shape."""
    ids = np.unique(np.asarray(parts.train_ids))
    rows = match_rows(training.stimulus_ids, ids[np.isin(ids, training.stimulus_ids)])
    return _mean(training, name, rows).reshape(training[name].shape[1:])


def _mean(training: Targets, layer: str, rows: Rows) -> np.ndarray:
    total: np.ndarray | float = 0.0
    for _, values in blocks(training, layer, rows, np.float32):
        total = total + values.sum(axis=0, dtype=np.float64)
    return np.asarray(total / len(rows.order), np.float32)


def agreement(parts: TrustParts, known: Nearness, progress: Progress) -> dict[str, np.ndarray]:
    """Correlation (n, repeats) of each picture's features with the decoded g, of both arms; see `select.SELECTOR`."""
    layers, n = list(known.means), len(parts.stimulus_ids)
    pictures = {arm: ArmPictures(parts.places, parts.stimulus_ids, parts.repeats, arm) for arm in ARMS}
    found = {arm: np.empty((n, parts.repeats)) for arm in ARMS}
    with TargetFile(parts.embeddings) as decoded:
        rows = rows_of(decoded.stimulus_ids, parts.stimulus_ids)
        for i, place in enumerate(rows):
            progress(i, n, "features of repeats")
            wanted = {layer: np.asarray(decoded[layer][place], np.float32).ravel() for layer in layers}
            for arm, own in pictures.items():
                found[arm][i] = _correlations(parts, decoded, own[i], wanted, known.means)
    progress(n, n, "features of repeats")
    return found


def _correlations(
    parts: TrustParts,
    decoded: TargetFile,
    images: np.ndarray,
    wanted: dict[str, np.ndarray],
    means: dict[str, np.ndarray],
) -> np.ndarray:
    """Mean over layers of the correlation (m,) of pictures' features with wanted ones, both minus the training mean."""
    features = encode(parts, decoded, images, list(wanted))
    of_layers = [
        nearest.unit_rows(one - means[layer]) @ nearest.unit_rows((wanted[layer] - means[layer])[None])[0]
        for layer, one in features.items()
    ]
    return nearest.mean_similarity(of_layers)


def encode(parts: TrustParts, decoded: TargetFile, images: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Features (m, d) of pictures (m, H, W, 3) uint8, computed as the targets of the decoder were."""
    normalisation = str(decoded.attrs.get("feature_normalisation", "imagenet"))
    antialias = decoded.attrs.get("antialias") != "no"
    with torch.no_grad():
        pixels = parts.models.guide_input(images, normalisation, antialias)
        found = parts.models.features(pixels, layers)
    return {layer: f.float().cpu().numpy().reshape(len(images), -1) for layer, f in zip(layers, found, strict=True)}
