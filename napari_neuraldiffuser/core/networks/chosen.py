"""The settings that were chosen for a model folder: `neuraldiffuser.json` in it, or beside the user's own state.

Told without torch, as front ends ask for it when no preset is named.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import OutputError, json_object, write_json
from napari_neuraldiffuser.core.networks.digest import CHOSEN, DEMO_FOLDER, folder_digest, is_bundled, model_source
from napari_neuraldiffuser.core.networks.folder import ModelFolder
from napari_neuraldiffuser.core.networks.source import ModelError, model_place
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, preset

DEFAULT = "scale-free"
"""Preset of models that nothing was chosen for."""
FORMAT = 1
TUNE = "neuraldiffuser tune"
KNOWN = ("format", "preset", "diffusion", "guidance", "digest", "guide", "chosen")
SD1 = {"cross_attention_dim": 768, "in_channels": 4, "sample_size": 64}
B32 = {"patch_size": 32, "hidden_size": 768}


@dataclass(frozen=True)
class Chosen:
    """What a run uses where no preset is named.

    Attributes
    ----------
    diffusion, guidance : params
    preset : str
        The one that they are, or are changes of.
    place : Path or None
        File that says so; None where there is none.
    about : dict
        How it was chosen: command, data, gain, criterion, when, versions.
    said : str
        A sentence for the user: what is used and why.
    """

    diffusion: DiffusionParams
    guidance: GuidanceParams
    preset: str = DEFAULT
    place: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)
    said: str = ""


def chosen(models: str | Path, guide: str | Path | None = None) -> Chosen:
    """Settings chosen for these very weights, else the scale-free default; `said` tells which, and why.

    The user's own choice counts before the one that came with the folder.

    Parameters
    ----------
    models, guide : as in `models.load`
    """
    places = [path for path in (*_own_files(), _beside(models)) if path is not None and path.is_file()]
    if not places:
        return _default(f"nothing was chosen for these models ({TUNE} would)")
    digest, wrong = folder_digest(model_source(models), guide or None), ""
    for path in places:
        record = json_object(path) or {}
        if path.parent == state_folder() and record.get("digest") != digest:
            continue  # of other models
        try:
            return read(path, digest)
        except UserError as error:
            wrong = str(error)
    return _default(wrong or f"nothing was chosen for these models ({TUNE} would)")


def of_bundled() -> Chosen:
    """Those that came with the bundled models, whatever their weights are now: for help texts."""
    try:
        return read(DEMO_FOLDER / CHOSEN)
    except UserError:
        return Chosen(*preset(DEFAULT))


def read(path: str | Path, digest: str | None = None) -> Chosen:
    """The settings that a file records; without a digest, whatever weights they are of.

    Raises
    ------
    UserError
        If the file is none, is of other weights, or has values that cannot be.
    """
    path = Path(path)
    record = json_object(path)
    if record is None or record.get("format") != FORMAT or not set(record) <= set(KNOWN):
        raise UserError(f"{path} must be a record of chosen settings of format {FORMAT}, got another. Run {TUNE} anew.")
    if digest is not None and record.get("digest") != digest:
        raise UserError(
            f"{path} must be of these models' weights ({digest[:12]}), got {str(record.get('digest'))[:12]}. "
            f"Run {TUNE} for them."
        )
    try:
        diffusion, guidance = preset(str(record.get("preset")))
        diffusion = diffusion.from_dict({**diffusion.to_dict(), **record.get("diffusion", {})})
        guidance = guidance.from_dict({**guidance.to_dict(), **record.get("guidance", {})})
    except (UserError, TypeError) as error:
        raise UserError(f"{path} must have parameters that can be, got: {error} Run {TUNE} anew.") from error
    found = Chosen(diffusion, guidance, str(record["preset"]), path, dict(record.get("chosen") or {}))
    return Chosen(**{**vars(found), "said": f"{_in_words(found)}, chosen for these models ({path})"})


def write(
    models: str | Path,
    guide: str | Path | None,
    name: str,
    changes: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    to: Path | None = None,
) -> Path:
    """Record settings as chosen for the weights that a model folder holds now.

    Parameters
    ----------
    models, guide : as in `models.load`
    name : str
        Preset, of which `changes` are {"diffusion": ..., "guidance": ...}.
    about : mapping
        How they were chosen.
    to : Path, optional
        Another file than the folder's own.

    Returns
    -------
    Path
        The folder's `neuraldiffuser.json`; for the bundled models, a hub's cache and a folder that cannot be written,
        a file of the user's state folder, which is found by the weights' digest.
    """
    digest = folder_digest(model_source(models), guide or None)
    record = {
        "format": FORMAT,
        "preset": name,
        **{stage: dict(changes.get(stage, {})) for stage in ("diffusion", "guidance")},
        "digest": digest,
        "guide": str(guide) if guide else None,
        "chosen": dict(about),
    }
    own = state_folder() / f"{digest[:32] if len(digest) == 64 else _safe(digest)}.json"
    if to is None and Path(model_source(models)).is_dir() and not is_bundled(models):
        try:
            path = Path(model_source(models)) / CHOSEN
            write_json(path, record)
            own.unlink(missing_ok=True)  # which would count before it
            return path
        except OutputError:
            pass
    write_json(to or own, record)
    return to or own


def state_folder() -> Path:
    """Where this user's choices for models lie whose folder is not for writing."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "napari-neuraldiffuser"


def foreign_strength(guidance: GuidanceParams, models: str | Path, guide: str | Path | None = None) -> str:
    """A sentence where a strength that is not relative stands beside other models than those it was found for."""
    if guidance.normalise != "none" or not guidance.guidance_scale or guidance.rule != "noise":
        return ""
    if _is_sd1(models, guide):
        return ""
    name = Path(models).name if Path(models).is_dir() else models
    return (
        f"guidance_scale {guidance.guidance_scale:g} with normalise none (presets neuraldiffuser and published) was "
        f"found for Stable Diffusion 1.4 with CLIP ViT-B/32, which {name} is not: on other models it destroys the "
        f"image or does nothing. Choose normalise rms (preset {DEFAULT}), or a strength for these models: {TUNE}"
    )


def _is_sd1(models: str | Path, guide: str | Path | None) -> bool:
    """Whether UNet and guide have the shapes of those; also where that cannot be told, as silence is then no fault."""
    try:
        place = ModelFolder.of(models, guide)
        unet, vision = place.part("unet").config, place.part("image_encoder").config
    except ModelError:
        return True
    return fits({"unet": unet, "image_encoder": vision.get("vision_config", vision)})


def fits(configs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether configurations of UNet and image encoder are those of Stable Diffusion 1 and CLIP ViT-B/32."""
    wanted = {"unet": SD1, "image_encoder": B32}
    return all(configs[part].get(name) == value for part, own in wanted.items() for name, value in own.items())


def _own_files() -> list[Path]:
    return sorted(state_folder().glob("*.json"))


def _beside(models: str | Path) -> Path | None:
    try:
        return model_place(models) / CHOSEN
    except ModelError:
        return None


def _default(why: str) -> Chosen:
    found = Chosen(*preset(DEFAULT))
    return Chosen(**{**vars(found), "said": f"{_in_words(found)}, preset {DEFAULT}: {why}"})


def _in_words(one: Chosen) -> str:
    d, g = one.diffusion, one.guidance
    kappa = f"κ {g.guidance_scale:g} ({g.normalise})" if g.guidance_scale else "no guidance"
    return f"settings: {kappa}, η {g.guidance_strength:g}, {d.n_steps} steps, s {d.cfg_scale:g}"


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)
