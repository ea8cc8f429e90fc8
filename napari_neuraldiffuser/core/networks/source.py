"""Where models lie: the bundled folder, a folder of the user's, or the hub's local cache; told without torch."""

import difflib
import os
import re
from pathlib import Path

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks.digest import PARTS, model_source

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Endings of files that hold a whole pipeline, as other programs share them."""


class ModelError(UserError):
    """A model folder lacks a part, or a part cannot be used; the message names it and the remedy."""


def is_hub_id(text: str) -> bool:
    """Whether a text can be owner/name on the hub, and is no path below a folder that is here."""
    return bool(HUB_ID.fullmatch(text)) and not Path(text).parent.is_dir()


def model_place(models: str | Path, what: str = "Models") -> Path:
    """Folder that `"demo"`, a folder or a hub id stands for; nothing is ever downloaded.

    Parameters
    ----------
    models : str or Path
    what : str
        What a message calls it.

    Raises
    ------
    ModelError
        If there is no such folder, or a hub id is not in the local cache.
    """
    text = model_source(models)
    if text and Path(text).is_dir():
        return Path(text)
    if Path(text).is_file():
        raise ModelError(f"{what} must be a folder, got the file {text}. {as_folder(Path(text))}")
    if is_hub_id(text):
        return _cached(text, what)
    known = "'demo', an" if what == "Models" else "an"
    raise ModelError(
        f"{what} must be {known} existing folder or a hub id owner/name, got {text or 'nothing'}. "
        f"{_nearest(Path(text))}"
    )


def as_folder(checkpoint: Path) -> str:
    """How a single file becomes a folder."""
    if checkpoint.suffix not in CHECKPOINTS:
        return "Give the folder that has unet, vae and the other parts."
    return (
        "If it is a whole Stable Diffusion 1.x or 2.x checkpoint, convert it once, with internet: "
        'python -c "from diffusers import StableDiffusionPipeline as P; '
        f"P.from_single_file('{checkpoint}').save_pretrained('{checkpoint.with_suffix('')}')\""
    )


def _cached(hub_id: str, what: str) -> Path:
    """Snapshot of a hub id in the local cache, where the hub's own programs put it."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    main = repository / "refs" / "main"
    snapshot = repository / "snapshots" / main.read_text(encoding="utf-8").strip() if main.is_file() else None
    if snapshot is None or not snapshot.is_dir():
        raise ModelError(
            f"{what} must be an existing folder or in the hub's local cache {cache}, got {hub_id}, which is neither. "
            f"Check the path, or fetch it: hf download {hub_id}"
        )
    return snapshot


def _nearest(path: Path) -> str:
    """What to do about a folder that is not there."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    beside = {name.lower(): name for name in names if any((path.parent / name / part).is_dir() for part in PARTS)}
    near = difflib.get_close_matches(path.name.lower(), beside, n=1)
    return f"Did you mean {path.parent / beside[near[0]]}?" if near else "Check the path."
