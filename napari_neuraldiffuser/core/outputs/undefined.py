"""What of a result has no value, and why, in words: a table's n/a does not say."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from napari_neuraldiffuser.core.evaluation.metric import label, of_column

EQUAL = {
    "c": "captions are equal, or have only words that the text encoder does not know",
    "": "pictures are equal",
}
"""Target -> why it does not vary; that of all others is by ""."""


NO_CAPTIONS = (
    "c: the test images have no captions, so that its true value is not known; c is decoded and used, and how well, "
    "its shares and its maps are left out"
)


def undefined(
    summary: Mapping[str, Any],
    shares: pd.DataFrame,
    accuracy: Mapping[str, float] | None = None,
    captioned: bool = True,
) -> list[str]:
    """Sentences on targets and scores that are not defined.

    Parameters
    ----------
    summary : mapping
        Content of `desc-summary_scores.json`.
    shares : DataFrame
        The table of shares: target and share are read.
    accuracy : mapping of target to R², optional
        Cross-validated; NaN where the training targets do not vary.
    captioned : bool
        Whether the test images have captions.
    """
    learned = [target for target, r2 in (accuracy or {}).items() if r2 != r2]
    split = [str(target) for target, own in shares.groupby("target", sort=False).share if own.isna().all()]
    told = [] if captioned or "c" not in split else [NO_CAPTIONS]
    split = [name for name in split if not (told and name == "c")]
    return [
        *told,
        *_targets(learned, "not decoded, as their training", "the mean stands for them and R² is not defined"),
        *_targets(split, "regions have no share and there is no map, as their test"),
        *_scores(summary),
    ]


def _targets(names: Sequence[str], what: str, *more: str) -> list[str]:
    """A sentence for every reason that some targets do not vary."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        by_reason.setdefault(EQUAL.get(name, EQUAL[""]), []).append(name)
    return [f"{', '.join(some)}: {'; '.join([f'{what} {why}', *more])}" for why, some in by_reason.items()]


def _scores(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for every reason that scores have no value at all in some arm."""
    protocol, reasons = summary["protocol"], dict[str, list[str]]()
    for arm in summary["arms"].values():
        for column in (column for column, figures in arm.items() if not figures["n"]):
            names = reasons.setdefault(_reason(column, protocol), [])
            if label(column) not in names:
                names.append(label(column))
    return [f"{', '.join(names)}: not defined, {reason}" for reason, names in reasons.items()]


def _reason(column: str, protocol: Mapping[str, Any]) -> str:
    if column.startswith("repeat_") and protocol["repeats"] < 2:
        return "as there is one repeat"
    metric = of_column(column)[0]
    if protocol["n_test_images"] < 2 and metric is not None and metric.chance is not None:
        return "as there is one stimulus"
    return "as pictures are the same all over"
