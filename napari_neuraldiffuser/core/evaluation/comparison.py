"""Two folders of reconstructions of the same stimuli, compared by the stimulus."""

from typing import Any

from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.folders import FolderScores
from napari_neuraldiffuser.core.evaluation.metric import lower_is_better
from napari_neuraldiffuser.core.evaluation.pairing import ImageFolderError, some
from napari_neuraldiffuser.core.evaluation.scores import difference_of

PAIRED = "First minus second folder, paired by stimulus, each the mean of its repeats; mean, standard error and number."


def compare(first: FolderScores, second: FolderScores) -> dict[str, dict[str, dict[str, Any]]]:
    """Differences of scores, first minus second, paired by stimulus.

    Parameters
    ----------
    first, second : FolderScores
        Scored against the same seen pictures.

    Returns
    -------
    dict
        Arm -> column -> "mean", "se", "n", "worse" (share of stimuli on which the first is worse) and "clear".  Arms
        of one name are compared; where each folder has a single arm, these.

    Raises
    ------
    ImageFolderError
        If the folders have other stimuli, as identification depends on them, or no arm in common.
    """
    arms = check_alike((first.stimuli, list(first.arms)), (second.stimuli, list(second.arms)))
    order = [second.stimuli.index(name) for name in first.stimuli]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, (mine, theirs) in arms.items():
        a, b = first.arms[mine], second.arms[theirs]
        found[name] = {}
        for column in (column for column in a.values if column in b.values):
            d = difference_of(a.per_stimulus(column) - b.per_stimulus(column)[order], lower_is_better(column))
            found[name][column] = {**d, "clear": Difference.of_summary(d).clear}
    return found


Names = tuple[list[str], list[str]]
"""Stimuli and arms of a folder."""


def check_alike(first: Names, second: Names) -> dict[str, tuple[str, str]]:
    """Name of a comparison -> arm of the first and of the second folder.

    Raises
    ------
    ImageFolderError
        If they cannot be compared.
    """
    if set(first[0]) != set(second[0]):
        one, other = set(first[0]) - set(second[0]), set(second[0]) - set(first[0])
        raise ImageFolderError(
            "both folders must have the same stimuli, got "
            f"{some(sorted(one)) or 'none'} in the first and {some(sorted(other)) or 'none'} in the second alone. "
            "Score the stimuli that both have."
        )
    mine, theirs = first[1], second[1]
    if len(mine) == len(theirs) == 1 and mine != theirs:
        return {f"{mine[0]} - {theirs[0]}": (mine[0], theirs[0])}
    shared = [arm for arm in mine if arm in theirs]
    if not shared:
        raise ImageFolderError(
            f"both folders must have an arm of one name, got {', '.join(mine)} and {', '.join(theirs)}. Compare "
            "folders of one arm each."
        )
    return {arm: (arm, arm) for arm in shared}
