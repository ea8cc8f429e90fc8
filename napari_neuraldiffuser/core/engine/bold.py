"""The engine's calls from BOLD to the files of own scans."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.core.base.names import bids_label
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.bold import find_runs, make_betas, participants
from napari_neuraldiffuser.core.bold.bids import derivatives_root
from napari_neuraldiffuser.core.params import BoldParams

BELOW = "derivatives/neuraldiffuser"
"""Where betas go below a BIDS folder, if no other folder is named."""


def subjects(args: dict[str, Any]) -> dict[str, Any]:
    """Labels of the subjects of `folder`, and the folder that betas go to if no other is named."""
    folder = Path(located(args["folder"]))
    return {"subjects": participants(folder), "out_dir": str(data_set(folder) / BELOW)}


def betas(args: dict[str, Any], events: Events) -> dict[str, Any]:
    """Betas of one subject of `folder`: the Source of what was written, the report and notes.

    The engine keeps betas of finished runs beside them, so that a stopped call goes on where it was.
    """
    folder, label = Path(located(args["folder"])), bids_label(args["subject"])
    runs = find_runs(
        folder,
        label,
        events_dir=args.get("events_dir") or "",
        space=args.get("space") or "",
        task=args.get("task") or "",
    )
    out = Path(located(args["out_dir"])) if args.get("out_dir") else data_set(folder) / BELOW
    params = BoldParams.from_dict(args.get("params") or {})
    written = make_betas(runs, out, label, params, events.told)
    made = {name: str(getattr(written, name)) for name in ("betas", "mask", "trials")}
    source = Source.from_dict({"subject": label.removeprefix("sub-"), **made, **stimuli_of(data_set(folder))})
    return {"source": source.to_dict(), "page": str(written.page), "notes": written.notes}


def data_set(folder: Path) -> Path:
    """The BIDS folder that some derivatives lie in, else the folder itself."""
    root = derivatives_root(folder)
    return root.parents[1] if root.parent.name == "derivatives" else root


def stimuli_of(folder: Path) -> dict[str, str]:
    """Pictures and captions where BIDS keeps stimuli, as far as they are there."""
    images, captions = folder / "stimuli", folder / "stimuli" / "captions.json"
    found = {"images": str(images)} if images.is_dir() else {}
    return found | ({"captions": str(captions)} if captions.is_file() else {})
