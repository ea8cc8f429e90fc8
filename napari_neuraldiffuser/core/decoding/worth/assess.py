"""What every target of a decoder is worth on held-out stimuli, as one table and the sentences that go with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding.decoder import Decoder, LinearDecoder
from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.decoding.targets import gather, is_constant, match_rows
from napari_neuraldiffuser.core.decoding.worth import collapse, figures, reliability
from napari_neuraldiffuser.core.decoding.worth.columns import COLUMNS, N_A, notes
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, Targets
from napari_neuraldiffuser.core.params import ContributionParams

MOST_OPERATIONS = 4e12
"""Beyond so many the projection is made only when it is asked for: a minute of one processor."""


@dataclass(frozen=True)
class WorthParts:
    """What is judged, and by what.

    Attributes
    ----------
    decoder : Decoder
        Fitted.
    test : Betas
        Held-out stimuli (m, p), of the decoder's voxels.
    targets : Targets
        True targets of these stimuli.
    trials : Betas, optional
        Single trials of the same voxels, some of the test stimuli; gives the ceiling.
    """

    decoder: Decoder
    test: Responses
    targets: Targets
    trials: Responses | None = None


@dataclass(frozen=True)
class Worth:
    """Table of `COLUMNS`, a row per target; the projected true targets where they were asked for."""

    table: pd.DataFrame
    projected: Embeddings | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences on targets at chance, with few training stimuli, or without a value."""
        return notes(self.table.to_dict("records"))

    def save(self, path: str | Path) -> Path:
        """Write the table, n/a where there is no value, atomically."""
        with atomic_path(path) as temporary:
            self.table.to_csv(temporary, sep="\t", index=False, na_rep=N_A, float_format="%.6g")
        return Path(path)


def read(path: str | Path) -> pd.DataFrame:
    """The table that `Worth.save` wrote."""
    return pd.read_csv(path, sep="\t", na_values=N_A, keep_default_na=False)


def assess(parts: WorthParts, params: ContributionParams | None = None, progress: Progress = silent) -> Worth:
    """Figures of every target on held-out stimuli (method.md eq. 55-59).

    Raises
    ------
    DecodingError
        If there is no stimulus, the voxels are not the decoder's, or a stimulus has no true targets.
    """
    params = params or ContributionParams()
    if not len(parts.test):
        raise DecodingError("test stimuli must be at least one to judge a decoder by, got none. Check the split.")
    one = _Assessment(parts, params)
    rows, projected = [], {}
    for k, name in enumerate(parts.decoder.names):
        progress(k, len(parts.decoder.names), f"worth of {name}")
        row, projection = one.row(name)
        rows.append(row)
        if projection is not None and params.save_projected:
            fit = parts.decoder.accuracy[name]
            projected[name] = (projection + fit.mean).astype(np.float32).reshape(-1, *fit.shape)
    progress(len(rows), len(rows), "worth of targets")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return Worth(table, _embeddings(projected, parts))


def _embeddings(projected: dict[str, np.ndarray], parts: WorthParts) -> Embeddings | None:
    if not {"z", "c"} <= set(projected):
        return None
    attrs = {**parts.decoder.attrs, "projected": "true targets on the span of the training targets"}
    ids = np.array(parts.test.stimulus_ids)
    return Embeddings(projected.pop("z"), projected.pop("c"), projected, ids, attrs)


class _Assessment:
    """One decoder's predictions for the test stimuli and their single trials."""

    def __init__(self, parts: WorthParts, params: ContributionParams) -> None:
        self.parts, self.params = parts, params
        self.rows = match_rows(parts.targets.stimulus_ids, parts.test.stimulus_ids)
        self.decoded = _predictor(parts.decoder, parts.test)
        self.repeated: dict[int, np.ndarray] = {}
        if parts.trials is not None:
            self.repeated = reliability.repeated(parts.trials, np.asarray(parts.test.stimulus_ids))
            self.of_trials = _predictor(parts.decoder, parts.trials)

    def row(self, name: str) -> tuple[dict[str, Any], np.ndarray | None]:
        """The table's row of a target, and the projection of its true values where it was made."""
        fit = self.parts.decoder.accuracy[name]
        if name not in set(self.parts.targets):
            sizes = self._sizes((len(self.parts.test), len(fit.mean)))
            return {**dict.fromkeys(COLUMNS, np.nan), **sizes, "target": name}, None
        decoded = self.decoded(name, slice(None))
        truth = gather(self.parts.targets, name, self.rows, decoded.dtype) - fit.mean.astype(decoded.dtype)
        whole = float(figures.row_energies(truth).sum())
        sizes = self._sizes(truth.shape)
        if is_constant(whole, fit.mean, len(truth)) or fit.constant:
            return {**dict.fromkeys(COLUMNS, np.nan), **sizes, "target": name}, None
        agreement = figures.pattern_agreement(truth, decoded)
        own, told = agreement.diagonal(), figures.two_way(agreement, self.params.permutations, self.params.seed)
        r2, r2_se = figures.explained(truth, decoded, self.params.bootstrap, self.params.seed)
        ceiling = r2 + self._noise(name) * len(truth) / whole
        projection = self._projection(name, truth)
        row = {
            "target": name,
            "r": figures.column_correlation(truth, decoded),
            "pattern_r": float(own.mean()),
            "pattern_r_se": float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else np.nan,
            "r2": r2,
            "r2_se": r2_se,
            "r2_ceiling": ceiling,
            "r2_over_ceiling": r2 / ceiling if r2 > 0 and ceiling > 0 else np.nan,
            "two_way": told.mean,
            "two_way_se": told.se,
            "two_way_p": told.p,
            "mse_mean": whole / truth.size,
            "mse_decoded": float(figures.row_energies(truth - decoded).sum()) / truth.size,
            "mse_projected": np.nan
            if projection is None
            else float(figures.row_energies(truth - projection).sum()) / truth.size,
        }
        return {**sizes, **row}, projection

    def _sizes(self, shape: tuple[int, ...]) -> dict[str, Any]:
        ids = self._train_ids()
        n = None if ids is None else len(np.unique(ids))
        sizes = {"n_test": shape[0], "n_columns": shape[1]}
        return {**sizes, "n_train": n if n else np.nan, "n_over_d": n / shape[1] if n else np.nan}

    def _train_ids(self) -> np.ndarray | None:
        return getattr(self.parts.decoder, "stimulus_ids", None)

    def _noise(self, name: str) -> float:
        if not self.repeated:
            return float("nan")
        return reliability.trial_noise(self.repeated, lambda rows: self.of_trials(name, rows))

    def _projection(self, name: str, truth: np.ndarray) -> np.ndarray | None:
        """True values on the span of the training targets; None where that is not computed."""
        targets, ids = getattr(self.parts.decoder, "targets", None), self._train_ids()
        if self.params.projection == "off" or targets is None or ids is None:
            return None
        if not isinstance(self.parts.decoder, LinearDecoder):
            return None
        ids = np.unique(ids)
        if self.params.projection == "auto" and collapse.operations(len(ids), *truth.shape) > MOST_OPERATIONS:
            return None
        train = gather(targets, name, match_rows(targets.stimulus_ids, ids), targets[name].dtype)
        return collapse.project(train, self.parts.decoder.accuracy[name].mean, truth)


def _predictor(decoder: Decoder, betas: Responses) -> Callable[[str, Any], np.ndarray]:
    """Predictions minus the training mean, before alignment, of rows of betas for a target."""
    if isinstance(decoder, LinearDecoder):
        similarity = decoder.similarity(decoder.centre(betas))
        return lambda name, rows: decoder.deviations(name, similarity[rows])
    # other kinds give all targets at once
    whole = decoder.predict(betas, align="none")
    return lambda name, rows: whole[name].reshape(len(whole), -1)[rows] - decoder.accuracy[name].mean
