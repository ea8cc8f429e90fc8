"""Categories of own scans' stimuli: a column of the trials table, or the beginning of their labels."""

from napari_neuraldiffuser.core.base.tables import column_names, read_table, spelled
from napari_neuraldiffuser.core.nsd.brain_source import BrainSource
from napari_neuraldiffuser.core.nsd.own import OwnScans
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

PREFIX = "prefix"
COLUMN = "category"
"""The column that is taken where none is asked for."""


def stimulus_categories(subject: BrainSource, asked: str = "") -> dict[int, str] | None:
    """Category of every stimulus id.

    Parameters
    ----------
    subject : BrainSource
    asked : str
        As `CrossvalParams.category`.

    Returns
    -------
    dict or None
        None where there are none: of NSD, and of own scans without the column where nothing was asked for.

    Raises
    ------
    NSDError
        If what was asked for is not there, or a stimulus has no category or two.
    """
    if not isinstance(subject, OwnScans):
        if asked:
            raise NSDError(f"category must be empty for an NSD folder, whose images have none, got {asked!r}.")
        return None
    names = subject.stimuli.names
    if asked == PREFIX:
        return {k: _prefix(name) for k, name in enumerate(names)}
    path, column = subject.source.trials, asked or COLUMN
    if not asked and COLUMN not in {name.strip().lower() for name in column_names(path, ("stimulus",), NSDError)}:
        return None
    table = read_table(path, ("stimulus", column), (), NSDError)
    told: dict[str, str] = {}
    for label, category in table[["stimulus", column]].dropna().itertuples(index=False):
        if told.setdefault(spelled(label), category) != category:
            raise NSDError(
                f"a stimulus must have one {column}, got {told[spelled(label)]!r} and {category!r} of {label!r} in "
                f"{path}. Correct the table."
            )
    if missing := [name for name in names if name not in told]:
        raise NSDError(f"{path} must have a {column} of every stimulus, got none of {missing[0]!r}. Fill it in.")
    return {k: told[name] for k, name in enumerate(names)}


def _prefix(label: str) -> str:
    beginning, line, _ = label.rpartition("_")
    if not line or not beginning:
        raise NSDError(
            f"category {PREFIX} must have labels such as cat_012, got {label!r} without a _. Name a column of the "
            "trials table."
        )
    return beginning
