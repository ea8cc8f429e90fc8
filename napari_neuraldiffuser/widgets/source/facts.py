"""A source in words."""

from typing import Any

from napari_neuraldiffuser.core.base.recipe import Source


def place(source: Source) -> str:
    """Subject and where it is."""
    return f"{source.subject} of {source.betas or source.nsd_dir}"


def facts(found: dict[str, Any]) -> str:
    """What a source holds, in a few lines."""
    sizes = " × ".join(f"{size:.3g}" for size in found["voxel_sizes_mm"])
    lines = [
        f"{found['trials']:,} trials in {len(found['sessions'])} sessions",
        f"{len(found['test_ids'])} test stimuli, {found['n_train']:,} for training",
        f"{sizes} mm voxels, {found['space']}",
    ]
    return "\n".join([*lines, *found["notes"]])
