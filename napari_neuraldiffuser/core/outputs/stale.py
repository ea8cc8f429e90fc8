"""Files of an earlier run that the last one did not make: they would pass for its results."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from napari_neuraldiffuser.core.outputs.names import ARMS, SHOWN, Derivatives


def names_of(places: Derivatives, targets: Iterable[str], stimulus_ids: Iterable[int], repeats: int) -> set[str]:
    """Names of maps, their pictures, and images of a run with these targets, stimuli and repeats."""
    names = {path.name for target in targets for path in (places.contribution(target), places.slices(target))}
    for stimulus in map(int, stimulus_ids):
        names |= {places.shown(stimulus, what).name for what in SHOWN}
        names |= {places.image(stimulus, k, arm).name for k in range(1, repeats + 1) for arm in ARMS}
    return names


def remove_stale(places: Derivatives, kept: Collection[str]) -> list[Path]:
    """Remove one subject's maps, their pictures and sidecars, and images that are not among the names `kept`.

    Sidecars are written with the parameters of the last run, which did not make those files.

    Returns
    -------
    list of Path
        What was removed.
    """
    stale = [path for path in _files(places) if path.name not in kept]
    for path in stale:
        path.unlink(missing_ok=True)
        if path.name.endswith(".nii.gz"):
            path.with_name(path.name.removesuffix(".nii.gz") + ".json").unlink(missing_ok=True)
    return stale


def _files(places: Derivatives) -> Iterator[Path]:
    label = places.label
    yield from places.folder.glob(f"{label}_space-*_target-*_contribution.nii.gz")
    yield from places.folder.glob(f"figures/{label}_target-*_contribution.png")
    yield from places.recon.glob(f"{label}_stim-*_recon.png")
