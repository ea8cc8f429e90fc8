"""The page of a search for guidance strength: a table of what was tried, and the gains by strength as a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.metric import label as score_label
from napari_neuraldiffuser.core.outputs.report.page import write_template
from napari_neuraldiffuser.core.outputs.report.parts import png_uri
from napari_neuraldiffuser.core.params import preset

INK, CHOSEN = "#1f6f8b", "#b23b3b"


def write_tune(
    folder: Path, name: str, chosen: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], words: str
) -> Path:
    """Write `tune-NAME.html` and the picture beside it as `tune-NAME.png`; returns the page.

    Parameters
    ----------
    folder : Path
    name : str
        Of the models.
    chosen : mapping
        "about", and the changes of the preset.
    rows : sequence of mapping
        As `job.tune.rows_of` gives them.
    words : str
        What was chosen.
    """
    picture = gains_by_strength(rows, words)
    with atomic_path(folder / f"tune-{name}.png") as temporary:
        temporary.write_bytes(picture)
    scores = list(rows[0]["gain"])
    values = {
        "name": name,
        "words": words,
        "about": chosen["about"],
        "scores": [score_label(one) for one in scores],
        "rows": [{**row, "gains": [str(Difference(**row["gain"][one])) for one in scores]} for row in rows],
        "own": {score_label(one): str(Difference(**gain)) for one, gain in chosen["about"]["gain"].items()},
        "picture": png_uri(picture),
    }
    page = folder / f"tune-{name}.html"
    write_template("tune.html", values, page)
    return page


def gains_by_strength(rows: Sequence[Mapping[str, Any]], words: str) -> bytes:
    """PNG: gain in each score over no guidance, against guidance_scale; the chosen setting in red."""
    from matplotlib.figure import Figure

    scores = list(rows[0]["gain"])
    figure = Figure(figsize=(3.4 * len(scores), 3.2), layout="constrained", dpi=110)
    for axis, name in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        for row in rows:
            gain = row["gain"][name]
            if gain["mean"] is None:
                continue
            mine = row["setting"] == words and row["stage"] == "final"
            style = {"color": CHOSEN if mine else INK, "alpha": 1.0 if row["stage"] == "final" else 0.55}
            axis.errorbar(
                _kappa(row), gain["mean"], yerr=gain["se"] or 0.0, fmt="o", ms=7 if mine else 4, lw=1, **style
            )
        axis.axhline(0, color="0.6", lw=1)
        axis.set(title=score_label(name), xlabel="guidance_scale κ", ylabel="gain over no guidance", xscale="log")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _kappa(row: Mapping[str, Any]) -> float:
    default = preset("scale-free")[1].guidance_scale
    return float(row["guidance"].get("guidance_scale", default))
