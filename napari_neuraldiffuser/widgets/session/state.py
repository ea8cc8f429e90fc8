"""What is remembered between sessions (controls, presets), napari's Preferences page, and where files are kept."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from qtpy.QtCore import QStandardPaths

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import OutputError, write_json
from napari_neuraldiffuser.core.networks.chosen import Chosen, chosen, read
from napari_neuraldiffuser.core.networks.digest import CHOSEN, model_source
from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams, ParamError

PLUGIN = "napari-neuraldiffuser"
KEY = "neuraldiffuser"
"""Of a layer's metadata: what it tells the panels (`files.layer_info.about`)."""
DEFAULTS = {
    "device": "cpu",
    "models": "demo",
    "guide": "",
    "preset": "for these models",
    "n_steps": 0,
    "preview_every": 2,
    "cache_folder": "",
    "convention": "neurological",
}
"""Of the Preferences page, where it cannot be asked; napari.yaml has the same (a test compares them)."""


FOR_MODELS = str(DEFAULTS["preset"])
"""The preset that is what was chosen for the present models, else the scale-free default."""
LARGE = 300e6
"""Bytes of a model folder whose weights a window does not read to compare them with the record of the choice."""
TAKEN = "preferences"
"""Under which the preferences that were taken up last are remembered."""


class PresetError(UserError):
    """A preset cannot be stored or deleted."""


def config_folder() -> Path:
    """The plugin's folder below the user's configuration folder."""
    parent = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericConfigLocation)
    return Path(parent) / PLUGIN


def preferences_page() -> Any:
    """napari's Preferences page of this plugin; None where it is not installed as one, but used from a script."""
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings(PLUGIN).general
    except (KeyError, AttributeError):
        return None


def preferences() -> dict[str, Any]:
    """What that page says: device, models, guide, preset, preview_every, cache_folder, ..."""
    page = preferences_page()
    return {name: getattr(page, name, default) for name, default in DEFAULTS.items()}


def preferred_preset() -> str:
    """The preset of that page, or the plugin's own where that is one of the user's that was deleted since."""
    wished = str(preferences()["preset"])
    return wished if wished in presets() else FOR_MODELS


def changed_preferences() -> dict[str, Any]:
    """Preferences that are others than when they were last taken up: these win over what panels remember."""
    taken = DEFAULTS | remembered(TAKEN)
    return {name: value for name, value in preferences().items() if taken[name] != value}


def take_preferences() -> None:
    """From now on the present preferences are taken up."""
    remember(TAKEN, preferences())


def _read(name: str) -> dict[str, Any]:
    """A JSON object; a missing or damaged file is an empty one, as a panel must open whatever is there."""
    try:
        values = json.loads((config_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def remembered(panel: str) -> dict[str, Any]:
    """What `remember` stored for one panel."""
    values = _read("panels.json").get(panel, {})
    return values if isinstance(values, dict) else {}


def remember(panel: str, values: dict[str, Any]) -> None:
    """Store JSON values for one panel; a folder that cannot be written costs the memory, not the work."""
    try:
        write_json(config_folder() / "panels.json", _read("panels.json") | {panel: values})
    except OutputError:
        pass


def presets() -> dict[str, dict[str, dict[str, Any]]]:
    """The named settings that come with the project, then the user's own, each as changes of the defaults."""
    own = {name: changes for name, changes in _read("presets.json").items() if _usable(changes)}
    return {**PRESETS, **{name: changes for name, changes in own.items() if name not in PRESETS}}


def for_models(models: str = "", guide: str = "") -> Chosen:
    """What was chosen for models, those of the Preferences where none are named."""
    models = models or str(preferences()["models"])
    place = Path(model_source(models)) / CHOSEN
    if place.is_file() and sum(f.stat().st_size for f in place.parent.rglob("*") if f.is_file()) > LARGE:
        with suppress(UserError):
            return read(place)
    return chosen(models, guide or None)


def params_of_preset(name: str, models: str = "", guide: str = "") -> tuple[DiffusionParams, GuidanceParams]:
    """The params objects that a preset stands for, with these models; PresetError if there is none of that name."""
    if name == FOR_MODELS:
        found = for_models(models, guide)
        return found.diffusion, found.guidance
    known = presets()
    if name not in known:
        raise PresetError(f"preset must be one of {list(known)}, got {name!r}.")
    return _params(known[name])


def _params(changes: dict[str, Any]) -> tuple[DiffusionParams, GuidanceParams]:
    diffusion, guidance = (changes.get(stage, {}) for stage in ("diffusion", "guidance"))
    return DiffusionParams.from_dict(diffusion), GuidanceParams.from_dict(guidance)


def _usable(changes: Any) -> bool:
    """Whether a stored preset still makes params; a field may have gone since it was stored."""
    try:
        _params(changes)
    except (ParamError, AttributeError, TypeError):
        return False
    return True


def save_preset(name: str, diffusion: DiffusionParams, guidance: GuidanceParams) -> None:
    """Store a preset of the user's own.

    Raises
    ------
    PresetError
        For an empty name or one of the project's own presets.
    """
    name = name.strip()
    if not name or name in (FOR_MODELS, *PRESETS):
        raise PresetError(f"preset name must be new and not empty, got {name!r}. Choose another name.")
    stored = {"diffusion": diffusion.to_dict(), "guidance": guidance.to_dict()}
    write_json(config_folder() / "presets.json", _read("presets.json") | {name: stored})


def delete_preset(name: str) -> None:
    """Delete a preset of the user's own; PresetError for any other."""
    own = _read("presets.json")
    if name not in own:
        raise PresetError(f"preset must be one of your own ({', '.join(own) or 'none yet'}), got {name!r}.")
    del own[name]
    write_json(config_folder() / "presets.json", own)


def cache_folder() -> Path:
    """Folder of the simulated subject, targets, decoders and runs.

    The one of the Preferences page; where that is empty, `napari-neuraldiffuser` below the user's cache folder.
    """
    chosen = preferences()["cache_folder"].strip()
    if chosen:
        return Path(chosen).expanduser()
    parent = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericCacheLocation)
    return Path(parent) / PLUGIN
