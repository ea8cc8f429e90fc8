"""Parameters of the cross-validation of a small set of stimuli.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params, param


@dataclass(frozen=True)
class CrossvalParams(Params):
    """Which stimuli are left out together, and how much is chance."""

    folds: int = param(
        10,
        "Parts that the stimuli are dealt into; each is decoded by a decoder that was fitted to the others. As many as "
        "there are stimuli leaves one out at a time, and then there is no two-way identification.",
        unit="folds",
        low=2,
    )
    fold_seed: int = param(0, "Seed of which stimulus goes into which fold, and of the permutations.", low=0)
    permutations: int = param(
        1000,
        "Times that stimuli are exchanged within their fold, for the p-value of two-way identification; 0 for none.",
        low=0,
    )
    category: str = param(
        "",
        "Categories of own scans, spread evenly over the folds and compared within: a column of the trials table, or "
        "prefix for what stands before the last _ of a label. Empty: the column category, where there is one.",
    )
