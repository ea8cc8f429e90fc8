"""What reconstructions have to beat: pictures that take no diffusion, and sentences on where they do not."""

from collections.abc import Mapping
from typing import Any

from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.metric import label, lower_is_better, main_figures
from napari_neuraldiffuser.core.evaluation.scores import Scores, difference_of, mean_of

START, MEAN = "start", "mean"
CONTROLS = {
    # as tables name them -> label, definition
    START: ("decoded start", "Decoded start: the image that the decoded z alone shows, before any diffusion."),
    MEAN: (
        "mean training image",
        "Mean training image: one picture for every stimulus, the pixelwise mean of up to {n} training images. It "
        "knows nothing of the stimulus; what it scores comes from how alike the images are.",
    ),
}


def summarise_controls(controls: Mapping[str, Scores], guided: Scores) -> dict[str, Any]:
    """Means of each control, and guided minus control paired by stimulus.

    Parameters
    ----------
    controls : mapping of a name in `CONTROLS` to Scores
    guided : Scores
        Of the same stimuli.

    Returns
    -------
    dict
        By control: "label"; "scores" and "paired", by metric, as `summarise` has the arms and their differences.
    """
    return {
        name: {
            "label": CONTROLS[name][0],
            "scores": {m: mean_of(scores.per_stimulus(m)) for m in scores.values},
            "paired": {
                m: difference_of(guided.per_stimulus(m) - scores.per_stimulus(m), lower_is_better(m))
                for m in scores.values
                if m in guided.values
            },
        }
        for name, scores in controls.items()
    }


def control_of(summary: Mapping[str, Any], control: str, metric: str) -> dict[str, Any]:
    """Mean, standard error and number of one score of a control; empty where it was not scored."""
    return summary.get("controls", {}).get(control, {}).get("scores", {}).get(metric, {})


def gain_over(summary: Mapping[str, Any], control: str, metric: str) -> Difference | None:
    """Guided minus control of one score; None where there is none."""
    paired = summary.get("controls", {}).get(control, {}).get("paired", {}).get(metric, {})
    return Difference.of_summary(paired) if paired.get("mean") is not None else None


def not_beaten(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for every control that is clearly better than the guided images in one of the main figures."""
    found = []
    for control, about in summary.get("controls", {}).items():
        gains = {m: gain_over(summary, control, m) for m in main_figures(list(about["scores"]))}
        worse = [f"{label(m)} {gain}" for m, gain in gains.items() if gain and gain.clear and (gain.mean or 0) < 0]
        if worse:
            found.append(
                f"The {about['label']}, which takes no diffusion, is closer to the seen images than the guided ones "
                f"(guided minus {about['label']}: {', '.join(worse)})"
            )
    return found
