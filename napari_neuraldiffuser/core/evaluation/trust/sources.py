"""What a run is compared with on its trust sheet: the names of the rows, and what each of them is."""

from dataclasses import dataclass
from typing import Any

from napari_neuraldiffuser.core.evaluation.controls import CONTROLS, MEAN, START

UNGUIDED, RETRIEVAL, OTHER = "unguided", "retrieval", "other"
PRIOR, ORACLE = "prior", "oracle"


@dataclass(frozen=True)
class Source:
    """One thing that a run is compared with.

    Attributes
    ----------
    label : str
        In sentences: "the guided pictures score higher than {label}".
    text : str
        What it is, one sentence.
    ceiling : bool
        Whether it is to be reached rather than to be beaten.
    """

    label: str
    text: str
    ceiling: bool = False


SOURCES = {
    OTHER: Source(
        "the pictures of another stimulus",
        "Another stimulus: the guided picture (repeat 1) that the betas of another stimulus gave, stimuli dealt out at "
        "random. It has everything but the right scan.",
    ),
    PRIOR: Source(
        "the prior alone",
        "Prior alone: diffusion over the whole schedule from the mean z and the mean c of the training images, without "
        "guidance; repeat 1. It knows the training set and nothing of the scan.",
    ),
    MEAN: Source(f"the {CONTROLS[MEAN][0]}", CONTROLS[MEAN][1]),
    RETRIEVAL: Source(
        "the best training image",
        "Best training image: the picture that the person saw in training whose true features correlate best with the "
        "decoded ones (guide network, all layers of the run, both minus the training mean, mean over layers), as if it "
        "were the reconstruction. What it scores takes no generator.",
    ),
    START: Source(f"the {CONTROLS[START][0]}", CONTROLS[START][1]),
    UNGUIDED: Source(
        "the diffusion without guidance",
        "Without guidance: the same start, text and noise without the pull toward g, all repeats.",
    ),
    ORACLE: Source(
        "the reconstruction from true targets",
        "True targets: z, c and g of the seen image itself through the same generator and guidance; repeat 1. So "
        "much a perfect decoder would score with this generator.",
        ceiling=True,
    ),
}
"""In the order of the sheet: from knowing nothing to knowing everything."""


def label(name: str) -> str:
    """How a row is called in sentences."""
    return SOURCES[name].label if name in SOURCES else name


def baselines(trust: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows that a run has to beat."""
    return [row for row in trust.get("rows", ()) if row["name"] in SOURCES and not SOURCES[row["name"]].ceiling]
