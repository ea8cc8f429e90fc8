"""What a trust sheet asks of ridge that is fitted anew: from few numbers of the voxels, without a kind of images."""

from dataclasses import replace
from typing import Any

import numpy as np

from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.base.files import array_digest, read_json, write_json
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION
from napari_neuraldiffuser.core.decoding.targets import blocks, match_rows, target_names
from napari_neuraldiffuser.core.evaluation.scores import difference_of, mean_of
from napari_neuraldiffuser.core.evaluation.trust import held_out
from napari_neuraldiffuser.core.job.stages import opened
from napari_neuraldiffuser.core.job.trust.parts import TrustParts
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile, Targets
from napari_neuraldiffuser.core.params import DecodingParams

MOST_COLUMNS = 512
"""Columns of a target that are decoded, drawn at random."""
LEAST = 4 * held_out.KINDS
"""Fewer training images are not split into kinds."""


def judge(parts: TrustParts, training: Targets, left_out: list[str], progress: Progress) -> dict[str, Any]:
    """ "bottleneck" and "clusters" of the sheet; made once for the same betas, targets and parameters."""
    if parts.betas is None or parts.targets is None:
        left_out.append("the bottleneck and kinds of images, as betas or true targets were not given")
        return {}
    if parts.uncaptioned:
        left_out.append("the bottleneck and kinds of images, as the test images have no captions")
        return {}
    train, test = parts.betas[0], parts.betas[1].subset(parts.stimulus_ids)
    if len(train) < LEAST:
        left_out.append(f"the bottleneck and kinds of images, as there are fewer than {LEAST} training images")
        return {}
    fit = _params(parts)
    path = parts.kept.folder / "trust-decoded-figures.json"
    made_from = [
        [ALGORITHM_VERSION, parts.models.digest, parts.settings.features, fit, held_out.NUMBERS, held_out.KINDS],
        array_digest(train.data, train.stimulus_ids, test.data, test.stimulus_ids),
    ]

    def work() -> None:
        with TargetFile(parts.targets or "") as true:
            both = sampled(training, train), sampled(true, test)
        found = {"bottleneck": bottleneck((train, test), both, fit, progress)}
        write_json(path, found | {"clusters": clusters(train, both[0], fit, progress)})

    parts.kept.make("trust-decoded", made_from, [path], work)
    return dict(read_json(path))


def _params(parts: TrustParts) -> DecodingParams:
    """Ridge with the penalties of the run's decoder, without a spread that is matched."""
    known = parts.settings.decoding
    if parts.decoder is not None:
        with opened(parts.decoder) as decoder:
            known = decoder.params
    return DecodingParams(alphas=known.alphas, seed=known.seed, align="none")


def sampled(targets: Targets, betas: nsd.Betas) -> Embeddings:
    """Up to `MOST_COLUMNS` columns of every target, the same for all stimuli, in the order of the betas."""
    rows = match_rows(targets.stimulus_ids, betas.stimulus_ids)
    found = {}
    for k, name in enumerate(target_names(targets)):
        size = int(np.prod(targets[name].shape[1:]))
        columns = np.sort(np.random.default_rng([0, k]).choice(size, min(size, MOST_COLUMNS), replace=False))
        out = np.empty((len(betas), len(columns)), np.float32)
        for positions, values in blocks(targets, name, rows, np.float32):
            out[positions] = values[:, columns]
        found[name] = out
    z, c = found.pop("z"), found.pop("c")
    return Embeddings(z, c, found, np.asarray(betas.stimulus_ids))


def of_numbers(betas: nsd.Betas, data: np.ndarray) -> nsd.Betas:
    """Betas whose columns are numbers that lie nowhere."""
    return replace(betas, data=np.ascontiguousarray(data, np.float32), voxels=None, affine=None, shape=None)


def agreement(
    train: nsd.Betas, test: nsd.Betas, targets: tuple[Embeddings, Embeddings], fit: DecodingParams, means: Embeddings
) -> dict[str, np.ndarray]:
    """Pattern correlation (m,) by target of ridge that is fitted to `train`; `means` (1, d) are taken off."""
    decoded = decoding.new(fit).fit(train, targets[0]).predict(test, align="none")
    return {name: held_out.pattern_r(decoded[name], targets[1][name], means[name][0]) for name in targets[1]}


def _means(targets: Embeddings) -> Embeddings:
    z, c, *g = (targets[name].mean(axis=0, keepdims=True) for name in targets)
    return Embeddings(z, c, dict(zip(targets.g, g, strict=True)), np.zeros(1, int))


def bottleneck(
    betas: tuple[nsd.Betas, nsd.Betas], targets: tuple[Embeddings, Embeddings], fit: DecodingParams, progress: Progress
) -> dict[str, Any]:
    """Decoding accuracy from 1, 5, 10 ... principal components of the voxels, beside that from all voxels."""
    train, test = betas
    means, most = _means(targets[0]), max(held_out.NUMBERS)
    progress(0, len(held_out.NUMBERS) + 1, "bottleneck, all voxels")
    whole = agreement(train, test, targets, fit, means)
    scores = held_out.components(train.data, test.data, most)
    numbers = [k for k in held_out.NUMBERS if k <= scores[0].shape[1]]
    curves: dict[str, dict[int, np.ndarray]] = {name: {} for name in whole}
    for i, k in enumerate(numbers):
        progress(i + 1, len(numbers) + 1, f"bottleneck, {k} numbers")
        own = [of_numbers(b, values[:, :k]) for b, values in zip(betas, scores, strict=True)]
        for name, r in agreement(own[0], own[1], targets, fit, means).items():
            curves[name][k] = r
    progress(len(numbers) + 1, len(numbers) + 1, "bottleneck")
    rows = [
        {"target": name, "numbers": k, "pattern_r": mean_of(r), "minus_all": difference_of(r - whole[name])}
        for name, curve in curves.items()
        for k, r in curve.items()
    ]
    least = {name: held_out.enough(curve, whole[name]) for name, curve in curves.items()}
    all_voxels = {name: mean_of(r) for name, r in whole.items()}
    return {"numbers": numbers, "rows": rows, "all": all_voxels, "enough": least if numbers else {}}


def clusters(train: nsd.Betas, targets: Embeddings, fit: DecodingParams, progress: Progress) -> dict[str, Any]:
    """Every training image decoded without its kind, and without as many images at random."""
    labels = held_out.kinds(targets.c)
    splits = {"kind": labels, "random": held_out.dealt(labels)}
    means, total = _means(targets), 2 * (int(labels.max()) + 1)
    found = {split: {name: np.full(len(train), np.nan) for name in targets} for split in splits}
    done = 0
    for split, of in splits.items():
        for rows in held_out.folds(of):
            progress(done, total, "kinds of images")
            done += 1
            rest = np.setdiff1d(np.arange(len(train)), rows)
            if not len(rest):
                continue
            own = [(_at(train, k), _take(targets, k)) for k in (rest, rows)]
            both = (own[0][1], own[1][1])
            for name, r in agreement(own[0][0], own[1][0], both, fit, means).items():
                found[split][name][rows] = r
    progress(total, total, "kinds of images")
    told = [
        {
            "target": name,
            "inside": mean_of(found["kind"][name]),
            "outside": mean_of(found["random"][name]),
            "inside_minus_outside": difference_of(found["kind"][name] - found["random"][name]),
        }
        for name in targets
    ]
    return {"sizes": np.bincount(labels).tolist(), "targets": told}


def _at(betas: nsd.Betas, rows: np.ndarray) -> nsd.Betas:
    return betas.subset(np.asarray(betas.stimulus_ids)[rows])


def _take(targets: Embeddings, rows: np.ndarray) -> Embeddings:
    return targets.subset(targets.stimulus_ids[rows])
