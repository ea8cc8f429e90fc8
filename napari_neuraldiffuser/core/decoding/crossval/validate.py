"""Fits a decoder without each fold and decodes the fold with it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from napari_neuraldiffuser.core.base.memory import check_fits
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding import store
from napari_neuraldiffuser.core.decoding.crossval.folds import deal
from napari_neuraldiffuser.core.decoding.crossval.scores import TargetScore, score_target
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.targets import gather, match_rows, target_names, target_shape
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, Targets
from napari_neuraldiffuser.core.nsd import Betas
from napari_neuraldiffuser.core.params import CrossvalParams, DecodingParams

Fold = tuple[Embeddings, Embeddings]
"""What was decoded of one fold: without alignment, for the scores, and as the params say."""
CHOSEN = "chosen"
"""Attribute of the embeddings of a fold: JSON of target to what its decoder chose (a penalty, an epoch)."""
FLOAT = 4


@dataclass(frozen=True)
class CrossValidation:
    """Every stimulus decoded by a decoder that has not seen it.

    Attributes
    ----------
    decoded : Embeddings
        One row per row of the betas, sorted by stimulus, aligned as the decoding params say.
    folds : ndarray (n,) int
        Fold of every row, from 0.
    categories : ndarray (n,) of str, or None
    scores : dict of str to TargetScore
    chosen : dict of str to list of float
        What the decoder of every fold chose for a target: a penalty, an epoch.
    """

    decoded: Embeddings
    folds: np.ndarray
    categories: np.ndarray | None
    scores: dict[str, TargetScore]
    chosen: dict[str, list[float]]


def cross_validate(
    betas: Betas,
    targets: Targets,
    decoding: DecodingParams | None = None,
    params: CrossvalParams | None = None,
    categories: Mapping[int, str] | None = None,
    progress: Progress | None = None,
    keep: Callable[[int, Callable[[], Fold]], Fold] = lambda k, work: work(),
) -> CrossValidation:
    """Nested cross-validation of a decoder of any kind.

    Stimuli are dealt into folds, all trials of one into the same.  Whatever the decoder chooses (penalty, epoch) and
    measures (means, alignment) is found on the other folds alone.  Which stimuli are marked as test plays no part.

    Parameters
    ----------
    betas : Betas
        Data (n, p) of all stimuli, z-scored per session with the stimuli of every fold among them, as for a run.
    targets : Targets
        Targets of at least these stimuli.
    decoding : DecodingParams, optional
        Kind and parameters of the decoder.
    params : CrossvalParams, optional
    categories : mapping of stimulus id to str, optional
        Spread evenly over the folds; identification is scored within them, too.
    progress : callable, optional
        Told after every fold, and during the fit of one; what it raises ends the work.
    keep : callable, optional
        Called as keep(fold, work): gives what `work()` gives, which may be there already.

    Raises
    ------
    DecodingError
        If there are too few stimuli for the folds, or a decoder cannot be fitted.
    MemoryNeeded
        If the decoded embeddings do not fit into memory.
    """
    decoding, params = decoding or DecodingParams(), params or CrossvalParams()
    stimuli = np.unique(betas.stimulus_ids)
    named = None if categories is None else _named(stimuli, categories)
    dealt = deal(len(stimuli), params, named)
    _check_memory(len(betas), targets)
    decoded = []
    for k in range(params.folds):
        work = _Work(betas, targets, decoding, stimuli[dealt == k], _within(progress, k, params.folds))
        decoded.append(keep(k, work))
        if progress:
            progress(k + 1, params.folds, "cross-validation")
    plain, aligned = (_joined([fold[which] for fold in decoded]) for which in (0, 1))
    place = np.searchsorted(stimuli, plain.stimulus_ids)
    of_row = None if named is None else np.array(named)[place]
    scores = _scores(plain, targets, dealt[place], of_row, params)
    chosen = _chosen([fold[0] for fold in decoded])
    return CrossValidation(replace(aligned, labels=_labels(betas, aligned)), dealt[place], of_row, scores, chosen)


def _named(stimuli: np.ndarray, categories: Mapping[int, str]) -> list[str]:
    if missing := [int(one) for one in stimuli if int(one) not in categories]:
        raise DecodingError(
            f"categories must have every stimulus, got none for {len(missing)}, first {missing[0]}. Name them all, or "
            "leave categories out."
        )
    return [str(categories[int(one)]) for one in stimuli]


def _check_memory(n: int, targets: Targets) -> None:
    sizes = [int(np.prod(target_shape(targets, name))) for name in target_names(targets)]
    # decoded twice, without alignment and with it; the largest target with its truth, in float64 for a moment
    check_fits(FLOAT * n * (2 * sum(sizes) + 6 * max(sizes)), f"{n} decoded rows of {sum(sizes)} numbers")


@dataclass(frozen=True)
class _Work:
    """The decoding of one fold."""

    betas: Betas
    targets: Targets
    params: DecodingParams
    left_out: np.ndarray
    progress: Progress | None

    def __call__(self) -> Fold:
        others = np.setdiff1d(self.betas.stimulus_ids, self.left_out)
        decoder = store.new(self.params).fit(self.betas.subset(others), self.targets, self.progress)
        test = self.betas.subset(self.left_out)
        plain = decoder.predict(test, align="none")
        aligned = plain if self.params.align == "none" else decoder.predict(test)
        chosen = json.dumps({name: fit.chosen for name, fit in decoder.accuracy.items()})
        return replace(plain, attrs=plain.attrs | {CHOSEN: chosen}), aligned


def _within(progress: Progress | None, k: int, folds: int) -> Progress | None:
    """Progress of the fit of one fold as a detail of the whole; folds are what is counted."""
    if progress is None:
        return None
    return lambda done, total, what: progress(k, folds, f"cross-validation, fold {k + 1}, {what} {done}/{total}")


def _joined(parts: list[Embeddings]) -> Embeddings:
    """The folds as one, sorted by stimulus; repeats of one stimulus keep their order."""
    ids = np.concatenate([part.stimulus_ids for part in parts])
    order = np.argsort(ids, kind="stable")
    z, c, *layers = (np.concatenate([part[name] for part in parts])[order] for name in parts[0])
    attrs = {name: value for name, value in parts[0].attrs.items() if name != CHOSEN}
    names = list(parts[0])[2:]
    return Embeddings(z, c, dict(zip(names, layers, strict=True)), ids[order], attrs)


def _labels(betas: Betas, rows: Embeddings) -> list[str]:
    names = betas.stimulus_names
    return [names[int(one)] for one in rows.stimulus_ids] if names else []


def _scores(
    plain: Embeddings, targets: Targets, folds: np.ndarray, categories: np.ndarray | None, params: CrossvalParams
) -> dict[str, TargetScore]:
    rows, scores = match_rows(targets.stimulus_ids, plain.stimulus_ids), {}
    for name in plain:
        truth = gather(targets, name, rows, np.float32)
        decoded = plain[name].reshape(len(plain), -1)
        more = (plain.stimulus_ids, folds, categories, params.permutations, params.fold_seed)
        scores[name] = score_target(truth, decoded, *more)
    return scores


def _chosen(folds: list[Embeddings]) -> dict[str, list[float]]:
    found = [json.loads(fold.attrs[CHOSEN]) for fold in folds]
    return {name: [fold[name] for fold in found] for name in found[0]}
