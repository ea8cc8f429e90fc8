"""The trust sheet on a page: its tables, and one chart of the run between its baselines and ceilings."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from napari_neuraldiffuser.core.evaluation.differences import ERRORS, Difference
from napari_neuraldiffuser.core.evaluation.levels import ceiling_of
from napari_neuraldiffuser.core.evaluation.metric import label, main_figures
from napari_neuraldiffuser.core.evaluation.trust.sources import SOURCES
from napari_neuraldiffuser.core.outputs.report.parts import png_uri

RUN = "guided"
SINGLE, BEST = "guided, first repeat", "guided, best by fMRI"
BELOW, OWN, ABOVE = "#6b7684", "#1f6f8b", "#a8641b"
"""Of baselines, of the run and of ceilings; they differ in lightness, too."""
Row = Mapping[str, Any]


def trust_values(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a summary's trust sheet; nothing of a summary that has none."""
    trust = summary.get("trust")
    if not trust:
        return {}
    metrics = _metrics(summary)
    return {
        "paragraph": trust["paragraph"],
        "metrics": [label(m) for m in metrics],
        "rows": [_cells(row, metrics) for row in table_rows(summary)],
        "nearness": [_part(part, metrics) for part in trust.get("nearness", {}).get("parts", ())],
        "consistency": [_between(name, about) for name, about in trust.get("consistency", {}).items()],
        "directions": [
            {"target": one["target"], **{k: _number(one[k], 1) for k in ("decoded", "true")}}
            | {"ratio": _interval(one["ratio"], one["se"], 2)}
            for one in trust.get("directions", ())
        ],
        "bottleneck": _bottleneck(trust.get("bottleneck", {})),
        "clusters": [_kind_of_image(one) for one in trust.get("clusters", {}).get("targets", ())],
        "sizes": ", ".join(map(str, trust.get("clusters", {}).get("sizes", ()))),
        "texts": [trust["sources"][row["name"]] for row in trust["rows"] if row["name"] in trust.get("sources", {})],
        "selector": trust.get("best", {}).get("selector", ""),
        "chart": interval_chart(summary),
    }


def _metrics(summary: Mapping[str, Any]) -> list[str]:
    known = list(summary["arms"].get(RUN, {}))
    return [m for m in main_figures(known) if not m.startswith("repeat_")]


def table_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows from knowing nothing to knowing everything: "name", "n", "scores", "paired" (guided minus row), "kind"."""
    trust = summary["trust"]
    rows = [{**row, "label": _plain(row["name"]), "kind": _kind(row["name"])} for row in trust["rows"]]
    own = [{"name": RUN, "label": "guided, mean of repeats", "n": trust["n"], "scores": summary["arms"].get(RUN, {})}]
    for name, key in ((SINGLE, "single"), (BEST, "best")):
        if trust.get(key):
            own.append({"name": name, "label": name, "n": trust["n"], "scores": trust[key]["guided"]})
    levels = {m: {"mean": v, "se": None} for m in _metrics(summary) if (v := ceiling_of(summary, m)) is not None}
    above = [{"name": "ceiling", "label": "seen image through the autoencoder", "n": trust["n"], "scores": levels}]
    below, true = ([row for row in rows if row["kind"] == kind] for kind in ("baseline", "ceiling"))
    ends = [{**row, "kind": "ceiling", "paired": row.get("paired", {})} for row in (*true, *(above if levels else ()))]
    return [*below, *({**row, "kind": "run", "paired": {}} for row in own), *ends]


def _plain(name: str) -> str:
    return SOURCES[name].label.removeprefix("the ") if name in SOURCES else name


def _kind(name: str) -> str:
    return "ceiling" if name in SOURCES and SOURCES[name].ceiling else "baseline"


def _cells(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    cells = []
    for metric in metrics:
        values, paired = row["scores"].get(metric, {}), row["paired"].get(metric, {})
        difference = Difference.of_summary(paired) if paired.get("mean") is not None else None
        cells.append({"score": _interval(values.get("mean"), values.get("se")), "difference": difference})
    return {"label": row["label"], "kind": row["kind"], "n": row["n"], "cells": cells}


def _part(part: Row, metrics: Sequence[str]) -> dict[str, Any]:
    low, high = part["similarity"]
    cells = [
        {
            "score": _interval(part["guided"].get(m, {}).get("mean"), part["guided"].get(m, {}).get("se")),
            "difference": Difference.of_summary(part["paired"].get(m, {})),
        }
        for m in metrics
    ]
    return {"name": part["name"], "n": part["n"], "similarity": f"{low:.2f} to {high:.2f}", "cells": cells}


def _between(name: str, about: Row) -> dict[str, Any]:
    told = {arm: _interval(about[arm].get("mean"), about[arm].get("se")) for arm in ("guided", "unguided")}
    paired = Difference.of_summary(about["paired"])
    return {"name": label(name), **told, "constant": f"{about['constant']:g}", "difference": paired}


def _bottleneck(curve: Row) -> dict[str, Any]:
    """A row per target: pattern correlation from so many numbers of the voxels, and from all of them."""
    if not curve:
        return {}
    known = {(row["target"], row["numbers"]): row for row in curve["rows"]}
    rows = [
        {
            "target": target,
            "cells": [
                {"score": _of(known[target, k]["pattern_r"]), "difference": _difference(known[target, k]["minus_all"])}
                for k in curve["numbers"]
            ],
            "whole": _of(whole),
        }
        for target, whole in curve["all"].items()
    ]
    return {"numbers": curve["numbers"], "rows": rows}


def _kind_of_image(row: Row) -> dict[str, Any]:
    told = {name: _of(row[name]) for name in ("inside", "outside")}
    return {"target": row["target"], **told, "difference": _difference(row["inside_minus_outside"])}


def _of(values: Row) -> str:
    return _interval(values.get("mean"), values.get("se"))


def _difference(values: Row) -> Difference | None:
    return Difference.of_summary(values) if values.get("mean") is not None else None


def _number(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _interval(mean: float | None, se: float | None, digits: int = 3) -> str:
    return _number(mean, digits) + ("" if se is None else f" ± {se:.{digits}f}")


def interval_chart(summary: Mapping[str, Any]) -> str | None:
    """Every row's mean and two standard errors, one panel per main figure; None without a score."""
    metrics, rows = _metrics(summary), table_rows(summary)
    metrics = [m for m in metrics if any(row["scores"].get(m, {}).get("mean") is not None for row in rows)][:4]
    if not metrics:
        return None
    from matplotlib.figure import Figure

    colours = {"baseline": BELOW, "run": OWN, "ceiling": ABOVE}
    marks = {"baseline": "o", "run": "D", "ceiling": "^"}
    size = (2.4 + 2.3 * len(metrics), 0.9 + 0.27 * len(rows))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for place, row in enumerate(rows):
            values = row["scores"].get(metric, {})
            if values.get("mean") is None:
                continue
            error = ERRORS * (values.get("se") or 0)
            style = {"color": colours[row["kind"]], "fmt": marks[row["kind"]], "ms": 5, "lw": 1.6}
            axis.errorbar(values["mean"], place, xerr=error, **style)
            if row["name"] == RUN:
                axis.axvline(values["mean"], color=OWN, lw=0.8, ls=":")
        axis.set_title("\n(".join(label(metric).split(" (")), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92", lw=0.8)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(rows)), [row["label"] for row in rows])
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return png_uri(stream.getvalue())
