"""The design report: one page and one JSON that say how the betas were made and how well the design allows it."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.files import make_folder, write_json
from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.bold.design import RunDesign
from napari_neuraldiffuser.core.bold.linear import variance_inflation
from napari_neuraldiffuser.core.bold.survey import Survey
from napari_neuraldiffuser.core.bold.write import BetaFiles
from napari_neuraldiffuser.core.outputs.description import generated_by
from napari_neuraldiffuser.core.outputs.report.page import write_template
from napari_neuraldiffuser.core.outputs.report.parts import png_uri

DESCRIPTION = {"Name": "Single-trial betas", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
HIGH_INFLATION = 5.0
"""Variance inflation above which a trial is listed."""


def write_reports(found: Survey, files: BetaFiles, tsnr: np.ndarray, notes: list[str], command: str) -> None:
    """Write page, its JSON, the sidecar of the betas, and `dataset_description.json` where there is none.

    Parameters
    ----------
    found : Survey
    files : BetaFiles
    tsnr : (n_runs, n_voxels) float
        Temporal signal-to-noise ratio at the voxels that have betas.
    notes : list of str
    command : str
        What the user typed.
    """
    inflation = [_inflation(found, design) for design in found.designs]
    runs = [_run_facts(*one) for one in zip(found.designs, inflation, tsnr, strict=True)]
    facts = _facts(found, runs, notes, int(tsnr.shape[1]))
    write_json(files.design, facts)
    write_json(files.about, sidecar(found, notes))
    description = make_folder(files.folder) / KINDS["description"].path
    if not description.is_file():
        write_json(description, DESCRIPTION | {"GeneratedBy": generated_by(kernels=False)})
    values = {
        "label": files.label,
        "facts": facts,
        "runs": runs,
        "pictures": [png_uri(design_picture(one)) for one in found.designs],
        "inflation_plot": png_uri(inflation_picture(inflation)) if inflation[0] is not None else "",
        "poor": _poor(found, inflation),
        "dropped": found.dropped.to_dict("records"),
        "parameters": found.params.to_dict(),
        "command": command,
        "files": {name: getattr(files, name).name for name in ("betas", "mask", "trials")},
        "versions": generated_by(kernels=False)[0]["Versions"],
    }
    write_template("design.html", values, files.page)


def sidecar(found: Survey, notes: list[str]) -> dict[str, Any]:
    """JSON beside the betas: what they are and what they were made from."""
    unit = "percent signal change at the peak of the response" if found.params.scale == "percent" else "arbitrary"
    return {
        "Description": "Single-trial betas: one volume per row of the table of trials",
        "Units": unit,
        "SkullStripped": True,
        "Estimator": found.estimator.name,
        "EstimationParameters": found.params.to_dict(),
        "RepetitionTimes": [one.timing.tr for one in found.designs],
        "RawSources": [Path(one.run.bold).name for one in found.designs],
        "Sources": [Path(file).name for one in found.designs for file in (one.run.events, one.run.confounds) if file],
        "Notes": notes,
        "GeneratedBy": generated_by(kernels=False),
    }


def _facts(found: Survey, runs: list[dict[str, Any]], notes: list[str], n_voxels: int) -> dict[str, Any]:
    trials = found.trials
    return {
        "estimator": found.estimator.name,
        "n_runs": len(runs),
        "n_sessions": int(trials["session"].nunique()),
        "n_trials": len(trials),
        "n_dropped": len(found.dropped),
        "n_stimuli": int(trials["stimulus"].nunique()),
        "n_test_stimuli": int(trials.loc[trials["test"] == 1, "stimulus"].nunique()),
        "test_rule": found.test_rule,
        "n_voxels": n_voxels,
        "parameters": found.params.to_dict(),
        "runs": runs,
        "dropped": found.dropped.to_dict("records"),
        "notes": notes,
    }


def _inflation(found: Survey, design: RunDesign) -> np.ndarray | None:
    weights = found.estimator.weights
    return None if weights is None else variance_inflation(design, weights(design))


def _run_facts(design: RunDesign, inflation: np.ndarray | None, tsnr: np.ndarray) -> dict[str, Any]:
    nuisance = [str(name) for name in design.nuisance]
    drift = [name for name in nuisance if name.startswith("drift_") or name == "constant"]
    motion = design.displacement
    known = motion is not None and np.isfinite(motion).any()
    return {
        "name": design.run.name,
        "bold": Path(design.run.bold).name,
        "n_volumes": design.timing.n,
        "repetition_time": design.timing.tr,
        "first_volume_at": design.timing.start,
        "n_trials": len(design.trials),
        "n_dropped": len(design.dropped),
        "n_drift": len(drift),
        "confounds": [name for name in nuisance if name not in drift],
        "left_out": np.flatnonzero(~design.keep).tolist(),
        "mean_displacement": round(float(np.nanmean(motion)), 4) if motion is not None and known else None,
        "largest_displacement": round(float(np.nanmax(motion)), 4) if motion is not None and known else None,
        "mean_tsnr": round(float(tsnr.mean()), 2),
        "inflation": None if inflation is None else _quantiles(inflation),
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {name: round(float(np.quantile(values, q)), 3) for name, q in (("median", 0.5), ("q95", 0.95), ("max", 1.0))}


def _poor(found: Survey, inflation: list[np.ndarray | None]) -> list[dict[str, Any]]:
    """Trials whose betas have a far larger variance than one alone would have, the worst first."""
    rows = [
        {"run": design.run.name, "row": int(row), "stimulus": stimulus, "inflation": float(value)}
        for design, values in zip(found.designs, inflation, strict=True)
        if values is not None
        for row, stimulus, value in zip(design.trials["row"], design.trials["stimulus"], values, strict=True)
        if value > HIGH_INFLATION
    ]
    return sorted(rows, key=lambda row: -row["inflation"])


def design_picture(design: RunDesign) -> bytes:
    """PNG of a run's design matrix, time downwards, each column scaled to its largest value; omitted volumes absent."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = design.matrix.to_numpy(dtype=np.float64)
    size = np.abs(matrix).max(axis=0)
    figure = Figure(figsize=(9, 3.4), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = matrix / np.where(size > 0, size, 1)
    axes.imshow(shown, aspect="auto", cmap="RdGy_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.axvline(len(design.trials) - 0.5, color="#1f6f8b", linewidth=1)
    axes.set(xlabel=f"{len(design.trials)} trials | drift, confounds, others", ylabel="fitted volume")
    return _png(figure)


def inflation_picture(inflation: list[np.ndarray | None]) -> bytes:
    """PNG of the variance inflation of every trial, run after run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes, start = figure.subplots(), 0
    for k, values in enumerate(inflation):
        if values is not None:
            axes.plot(np.arange(start, start + len(values)), values, ".", ms=3, color=("#1f6f8b", "#b23b3b")[k % 2])
            start += len(values)
    axes.set(xlabel="trial (colours change with the run)", ylabel="variance inflation", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    # no time of writing: the same design is the same picture
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
