"""The table of what decoded values are worth: its columns, what each means, and what is said of a row.

Standard library only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS: dict[str, tuple[str, str]] = {
    # name -> description, unit
    "target": ("Decoded target: z, c, or the guide network's layers g02 to g12.", ""),
    "n_test": ("Held-out test stimuli that all figures of the row are of.", "stimuli"),
    "r": (
        "Correlation over test stimuli of decoded with true values, of every column by itself, mean over columns that "
        "vary. Chance: 0.",
        "1",
    ),
    "pattern_r": (
        "Correlation over columns of a decoded with the true pattern, both minus the training mean, mean over test "
        "stimuli. Chance: 0.",
        "1",
    ),
    "pattern_r_se": ("Standard error of pattern_r over stimuli.", "1"),
    "r2": (
        "Share of the variance of the true values about the training mean that is explained, all columns together, "
        "before the spread is matched. Chance: 0 or less.",
        "1",
    ),
    "r2_se": ("Standard error of r2, by bootstrap over stimuli.", "1"),
    "r2_ceiling": (
        "R2 that this decoder would have with betas of no trial noise: r2 and the share of variance by which its "
        "predictions for single trials of one image differ, less what their mean leaves. It bounds this decoder for "
        "these voxels, not another one nor the brain. n/a where test images were shown once.",
        "1",
    ),
    "r2_over_ceiling": ("r2 over r2_ceiling; n/a where either is not above 0.", "1"),
    "two_way": (
        "Share of other test stimuli whose true pattern correlates less with the decoded pattern than the own one "
        "does, mean over stimuli. Chance: .5.",
        "1",
    ),
    "two_way_se": ("Standard error of two_way over stimuli.", "1"),
    "two_way_p": ("Share of random assignments of decoded to true patterns that are as good, by permutation.", "1"),
    "n_train": ("Training stimuli n.", "stimuli"),
    "n_columns": ("Columns d of the target.", ""),
    "n_over_d": (
        "n / d. Below 1 every prediction of a linear decoder lies in the span of the n training targets, whatever the "
        "scans say (output-dimension collapse, arXiv 2509.15832).",
        "1",
    ),
    "mse_mean": ("Mean squared error of true values against the training mean.", ""),
    "mse_decoded": ("Mean squared error of true against decoded values, before the spread is matched.", ""),
    "mse_projected": (
        "Mean squared error of true values against their projection on the span of the training targets: the least "
        "that any linear decoder of these training stimuli can have. n/a where it was not computed.",
        "",
    ),
}
REGION_COLUMNS: dict[str, tuple[str, str]] = {
    # name -> description, unit
    "roi": ("Region whose voxels alone are decoded from; 'all voxels' is the whole mask.", ""),
    "target": COLUMNS["target"],
    "r2": (
        "Share of the variance of the scored columns about the training mean, on the test stimuli, that ridge fitted "
        "to these voxels alone explains. Chance: 0 or less.",
        "1",
    ),
    "r2_se": ("Standard error of r2, by bootstrap over stimuli.", "1"),
    "pattern_r": (
        "Correlation over the scored columns of a decoded with the true pattern, both minus the training mean, mean "
        "over test stimuli. Chance: 0.",
        "1",
    ),
    "pattern_r_se": ("Standard error of pattern_r over stimuli.", "1"),
    "n_voxels": ("Voxels of the set.", "voxels"),
    "family": ("Family of regions; mask for the whole mask.", ""),
    "penalty": ("Ridge penalty that predicts left-out training stimuli best from these voxels.", ""),
    "n_columns": ("Columns of the target that are scored, the same for all sets.", ""),
    "n_test": ("Held-out test stimuli.", "stimuli"),
}
WHOLE, MASK = "all voxels", "mask"
"""Region and family of the set of all voxels in that table."""
FEW, CHANCE_P = 1.0, 0.05
N_A = "n/a"


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on a table's rows: targets at chance, more columns than training stimuli, and what was left out."""
    judged = [row for row in rows if row["r2"] == row["r2"]]
    chance = [row["target"] for row in judged if row["two_way_p"] > CHANCE_P]
    few = [row for row in judged if row["n_over_d"] < FEW]
    found = []
    if chance:
        found.append(f"{', '.join(chance)}: test stimuli are told apart no better than by chance (p > {CHANCE_P:g})")
    if few:
        least = min(few, key=lambda row: row["n_over_d"])
        found.append(
            f"{', '.join(row['target'] for row in few)}: fewer training stimuli than columns (n/d down to "
            f"{least['n_over_d']:.2g} in {least['target']}), so that a linear prediction stays in the span of the "
            "training targets"
        )
    if judged and all(row["mse_projected"] != row["mse_projected"] for row in judged):
        found.append(
            "true targets were not projected on the span of the training targets: it was turned off, takes minutes "
            "(projection=on does it), or the decoder is not linear"
        )
    if judged and all(row["r2_ceiling"] != row["r2_ceiling"] for row in judged):
        found.append("no ceiling of R²: single trials were not read, or no test image was shown twice")
    return found
