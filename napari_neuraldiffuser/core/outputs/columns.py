"""What the columns of the tables mean, as BIDS sidecars say it.  Standard library only."""

import csv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

ONE = "1"
"""Unit of a number without one."""
COLUMNS: dict[str, tuple[str, str]] = {
    # name -> description, unit
    "stim": (
        "0-based id of the stimulus: NSD's 73k id (from 73000 NSD-synthetic, from 74000 NSD-imagery), "
        "or the index of own scans' label.",
        "",
    ),
    "stimulus": ("Own scans' label of the stimulus, as the trials table has it.", ""),
    "rep": ("Repeat, from 1: the same stimulus from other noise.", ""),
    "arm": (
        "unguided: diffusion alone; guided: with the pull toward the decoded features, from the same noise; start: "
        "what the decoded z alone shows; mean: the mean training image, the same for every stimulus.",
        "",
    ),
    "reason": ("Why there is no reconstruction, and what helps.", ""),
    "roi": ("Region; 'outside <family>' is every other voxel that was used.", ""),
    "target": ("Decoded target: z, c, or the guide network's layers g02 to g12.", ""),
    "share": ("Share of the region's voxels in the prediction of the target; kind says of what.", ONE),
    "se": ("Standard error of the value before it.", ONE),
    "n_voxels": ("Voxels of the region that were used.", "voxels"),
    "family": ("Family of regions; shares of one family sum to the total where the kind is of shares.", ""),
    "total": ("What the shares of one family and target sum to.", ONE),
    "kind": (
        "product-measure: shares of the explained variance, whose total is R²; prediction-share: shares of the "
        "prediction, whose total is 1; pattern-energy: shares of the squared covariance of voxels with the prediction, "
        "whose total is 1; roi-only: R² of ridge fitted to the region alone, and lost-without: R² that is lost without "
        "it, whose total is the R² of all voxels.",
        "",
    ),
    "shared": ("R² that the region alone decodes beyond what is lost without it: other voxels have it, too.", ONE),
    "random_mean": ("Mean of the share over random sets of as many voxels.", ONE),
    "random_sd": ("Standard deviation of the share over random sets of as many voxels.", ONE),
    "random_z": ("Share minus that mean, in these standard deviations.", ONE),
    "random_p": ("Share of random sets, the region among them, whose share is as large.", ONE),
    "p": (
        "Share of permutations, the real order among them, whose statistic is as large. Dealt out anew are the true "
        "targets of the test stimuli; of lost-without, the region's responses, with a new fit.",
        ONE,
    ),
    "p_fdr": ("p adjusted for the false discovery rate over the regions of a target (Benjamini-Hochberg).", ONE),
    "p_max": ("p of the largest statistic over the regions of a target, which bounds any false finding.", ONE),
    "participant_id": ("Subject.", ""),
    "metric": ("Score of reconstructions against seen images, or between repeats.", ""),
    "mean": ("Mean over stimuli.", ONE),
    "n": ("How many the mean is of.", ""),
    "n_subjects": ("Subjects in which the region has voxels.", "subjects"),
}


def columns(names: Iterable[str], definitions: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Description and unit of each column; `definitions` are those of scores, by name of the column."""
    return {name: _column(name, definitions or {}) for name in names}


def _column(name: str, definitions: Mapping[str, str]) -> dict[str, str]:
    description, unit = COLUMNS.get(name, (definitions.get(name, f"Score {name} of a reconstruction."), ONE))
    return {"Description": description, "Units": unit} if unit else {"Description": description}


def first_line(path: Path) -> tuple[str, ...]:
    """Names of a table's columns; none where it cannot be read."""
    with suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file, delimiter="\t"), ()))
    return ()


def row_of(path: Path, **wanted: str) -> dict[str, str]:
    """The first row whose columns have the values `wanted`; empty where there is none."""
    with suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if all(row.get(name) == value for name, value in wanted.items()):
                return dict(row)
    return {}
