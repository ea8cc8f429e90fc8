"""GLMsingle as an estimator, where it is installed: a response library, GLMdenoise and fractional ridge per voxel.

Prince et al. 2022, doi:10.7554/eLife.77599.
"""

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.bold.design import RunDesign
from napari_neuraldiffuser.core.bold.linear import Estimator
from napari_neuraldiffuser.core.bold.runs import BoldError
from napari_neuraldiffuser.core.params import BoldParams

FINEST, ON_TIME = 4, 0.1
"""Volumes are interpolated to TR, TR/2 ... TR/4, the first at which all trials start within 0.1 s of a sample."""


def need_glmsingle() -> None:
    """Say what to install where GLMsingle is absent."""
    if importlib.util.find_spec("glmsingle") is None:
        raise BoldError(
            "estimator glmsingle needs the package GLMsingle, not installed here. Run: pip install "
            "git+https://github.com/cvnlab/GLMsingle.git, or choose the estimator lss."
        )


def fit(
    designs: Sequence[RunDesign], data: Sequence[np.ndarray], params: BoldParams, progress: Progress
) -> list[np.ndarray]:
    """Betas of the runs of one session, `linear.Fit`.

    Raises
    ------
    BoldError
        If GLMsingle is not installed, the runs have different repetition times, or trials fall between samples.
    """
    need_glmsingle()
    step, duration = common_step(designs), _duration(designs)
    labels = sorted({label for design in designs for label in design.trials["stimulus"]})
    conditions = [condition_matrix(design, labels, step) for design in designs]
    series = [resampled(values, design, step).T for values, design in zip(data, designs, strict=True)]
    confounds = [resampled(_confounds(design), design, step) for design in designs]
    progress(0, 1, "GLMsingle")
    betas = run_glmsingle(conditions, series, confounds, duration, step, params)
    progress(1, 1, "GLMsingle")
    ends = np.cumsum([len(design.trials) for design in designs])[:-1]
    return [np.ascontiguousarray(part.T, dtype=np.float32) for part in np.split(betas, ends, axis=1)]


def run_glmsingle(
    conditions: list[np.ndarray],
    series: list[np.ndarray],
    confounds: list[np.ndarray],
    duration: float,
    step: float,
    params: BoldParams,
) -> np.ndarray:
    """Call GLMsingle on one session and return (n_voxels, n_trials), the trials in order of time."""
    from glmsingle.glmsingle import GLM_single

    repeated = (np.array([one.any(axis=0) for one in conditions]).sum(axis=0) > 1).any()
    options: dict[str, Any] = {
        "wantlibrary": 1,
        # both are tuned by predicting repeats of a stimulus in other runs
        "wantglmdenoise": int(repeated),
        "wantfracridge": int(repeated),
        "wantfileoutputs": [0, 0, 0, 0],
        "wantmemoryoutputs": [0, 0, 0, 1] if repeated else [0, 1, 0, 0],
        "wantpercentbold": int(params.scale == "percent"),
        "chunklen": params.chunk_voxels,
    }
    if confounds[0].shape[1]:
        options["extra_regressors"] = confounds
    # it makes folders where it is called, and prints; stdout has the paths of what was written
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(sys.stderr):
        results = GLM_single(options).fit(conditions, series, duration, step, outputdir=None, figuredir=None)
    kind = "typed" if repeated else "typeb"
    betas = np.asarray(results[kind]["betasmd"])
    return betas.reshape(len(series[0]), -1)


def common_step(designs: Sequence[RunDesign]) -> float:
    """Seconds between the samples that GLMsingle is given, on which every trial starts.

    Raises
    ------
    BoldError
        If there is none, or a trial starts before the first or after the last sample.
    """
    rates = {round(design.timing.tr, 6) for design in designs}
    if len(rates) > 1:
        raise BoldError(f"GLMsingle must have one repetition time per session, got {sorted(rates)} s. Choose lss.")
    tr = designs[0].timing.tr
    off = {parts: np.concatenate([_off_samples(one, tr / parts) for one in designs]) for parts in range(1, FINEST + 1)}
    if found := next((parts for parts, far in off.items() if far.max() <= ON_TIME), None):
        return tr / found
    starts = [(one.run, onset) for one in designs for onset in one.trials["onset"]]
    worst = int(off[FINEST].argmax())
    run, onset = starts[worst]
    raise BoldError(
        f"trials must start within {ON_TIME:g} s of a volume, or of a {FINEST}th between two, for GLMsingle, got one "
        f"at {onset:g} s in {run.events}, {off[FINEST][worst]:.2g} s off. Choose lss."
    )


def _off_samples(design: RunDesign, step: float) -> np.ndarray:
    """(n_trials,) s from the onset of each trial to the nearest sample of its run."""
    onsets = design.trials["onset"].to_numpy() - design.timing.start
    return np.abs(onsets - np.clip(np.round(onsets / step), 0, n_samples(design, step) - 1) * step)


def condition_matrix(design: RunDesign, labels: list[str], step: float) -> np.ndarray:
    """(n_samples, n_labels) with 1 where a stimulus comes on."""
    matrix = np.zeros((n_samples(design, step), len(labels)))
    rows = np.round((design.trials["onset"].to_numpy() - design.timing.start) / step).astype(int)
    rows = np.clip(rows, 0, len(matrix) - 1)
    if len(set(rows)) < len(rows):
        raise BoldError(f"trials of {design.run.name} must be at least {step:g} s apart for GLMsingle. Choose lss.")
    matrix[rows, [labels.index(label) for label in design.trials["stimulus"]]] = 1
    return matrix


def n_samples(design: RunDesign, step: float) -> int:
    """Samples of a run that is interpolated to `step` s."""
    return int(np.floor((design.timing.n - 1) * design.timing.tr / step + 1e-6)) + 1


def resampled(values: np.ndarray, design: RunDesign, step: float) -> np.ndarray:
    """Rows of the fitted volumes (n_fitted, k) at every sample, by cubic splines: volumes left out are filled, too."""
    from scipy.interpolate import CubicSpline

    known = design.timing.frames[design.keep] - design.timing.start
    wanted = np.clip(np.arange(n_samples(design, step)) * step, known[0], known[-1])
    if len(known) == len(wanted) and np.allclose(known, wanted):
        return values
    return CubicSpline(known, values, axis=0)(wanted).astype(values.dtype)


def _confounds(design: RunDesign) -> np.ndarray:
    """Confounds and other events; GLMsingle has its own polynomials and constant."""
    own = [name for name in design.nuisance if name != "constant" and not str(name).startswith(("drift_", "cosine"))]
    return design.nuisance[own].to_numpy(dtype=np.float64)


def _duration(designs: Sequence[RunDesign]) -> float:
    durations = np.concatenate([design.trials["duration"].to_numpy() for design in designs])
    if np.ptp(durations) > 0.5:
        raise BoldError(
            f"GLMsingle must have trials of one duration, got {durations.min():g} to {durations.max():g} s. Choose lss."
        )
    return float(max(np.median(durations), 0.1))


GLMSINGLE = Estimator("GLMsingle", fit, by_session=True)
