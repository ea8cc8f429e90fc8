"""What a model folder must hold, part by part, told without torch: front ends ask before anything is computed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import json_object
from napari_neuraldiffuser.core.networks import architecture
from napari_neuraldiffuser.core.networks.architecture import AGAIN
from napari_neuraldiffuser.core.networks.digest import OPTIONAL_PARTS, PARTS
from napari_neuraldiffuser.core.networks.source import CHECKPOINTS, ModelError, as_folder, model_place
from napari_neuraldiffuser.core.networks.weight_files import NAMES, Weights, find_weights, not_itself

CONFIGS = {part: "config.json" for part in NAMES} | {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}
"""Part -> its configuration file."""
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of a tokenizer's words; one of the sets must be there."""
OTHERS = {"text_encoder_2": "Stable Diffusion XL or 3", "transformer": "a diffusion transformer, and not a UNet"}
"""Folders that only models of another kind have."""


@dataclass(frozen=True)
class Part:
    """One part of a model, found and not opened.

    Attributes
    ----------
    name : str
        One of PARTS.
    folder : Path
    config : dict
        What its configuration file says.
    weights : Weights or None
        None for the scheduler and the tokenizer.
    preprocessing : tuple of Path
        Folders that may say how the image encoder's pixels are normalised, the first that does counts.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    weights: Weights | None
    preprocessing: tuple[Path, ...] = ()

    @property
    def read(self) -> str:
        """Folder and name of the file that is read: weights or their table, or the configuration."""
        return f"{self.folder.name}/{self.weights.name if self.weights else CONFIGS[self.name]}"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder, and that of the guide where one was given."""

    folder: Path
    guide: Path | None = None

    @classmethod
    def of(cls, models: str | Path, guide: str | Path | None = None) -> "ModelFolder":
        """Find both.

        Raises
        ------
        ModelError
            If one of them is not there, or a guide would not be used.
        """
        folder, other = model_place(models), model_place(guide, "Guide") if guide else None
        if other and (folder / "image_encoder").is_dir():
            raise ModelError(
                f"Guide must be given only where the models have no image_encoder, got {guide} beside "
                f"{folder / 'image_encoder'}. Leave the guide out, or remove that folder."
            )
        return cls(folder, other)

    def place(self, part: str) -> Path:
        """Folder of a part."""
        return self.guide if part == "image_encoder" and self.guide else self.folder / part

    def part(self, name: str) -> Part:
        """Find one part's files.

        Raises
        ------
        ModelError
            If the folder is of another kind of model, or the part is missing or no part of this kind.
        """
        self._check_kind()
        folder = self.place(name)
        config = _config(name, folder)
        if wrong := architecture.wrong_kind(name, config):
            raise ModelError(f"Model part {name} in {folder} {wrong}")
        if name == "tokenizer":
            _check_vocabulary(folder)
        return Part(
            name, folder, config, find_weights(name, folder) if name in NAMES else None, self._told(name, folder)
        )

    def _told(self, name: str, folder: Path) -> tuple[Path, ...]:
        """Folders that say how the image encoder's pixels are normalised: a guide's own before the models'."""
        if name != "image_encoder":
            return ()
        beside = self.folder / "feature_extractor"
        return (folder, beside) if folder == self.guide else (beside, folder)

    def _check_kind(self) -> None:
        for name, what in OTHERS.items():
            if (self.folder / name).is_dir():
                raise ModelError(
                    f"Model folder {self.folder} must be of Stable Diffusion 1.x or 2.x, got {what} (it has {name}). "
                    f"{architecture.USE_SD}"
                )
        missing = [part for part in PARTS if not self.place(part).is_dir()]
        if missing:
            needed = [part for part in PARTS if not (part == "image_encoder" and self.guide)]
            raise ModelError(
                f"Model folder {self.folder} must have the parts {', '.join(needed)}, missing: {', '.join(missing)}."
                f"{_hint(self.folder, missing)}"
            )


def check_folder(models: str | Path, guide: str | Path | None = None) -> dict[str, Part]:
    """Every part of a model folder, optional ones where there are any, found and fitting as far as files and
    configurations tell; in milliseconds.

    Parameters
    ----------
    models, guide : as in `models.load`

    Raises
    ------
    ModelError
        For the first thing that is wrong.
    """
    place = ModelFolder.of(models, guide)
    there = [name for name in OPTIONAL_PARTS if place.place(name).is_dir()]
    parts = {name: place.part(name) for name in (*PARTS, *there)}
    for _, problem in fit_problems({name: part.config for name, part in parts.items()}, parts):
        raise ModelError(problem)
    return parts


def fit_problems(configs: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    """Part and sentence for every configuration that does not fit the method or another part's."""
    for name, wrong in architecture.misfits(configs):
        yield name, f"Model part {name} in {parts[name].folder} {wrong}"


def folder_problem(models: str | Path, guide: str | Path | None = None) -> str:
    """Why models cannot be used, as far as `check_folder` tells; nothing otherwise."""
    try:
        check_folder(models, guide)
    except ModelError as error:
        return str(error)
    return ""


def _hint(folder: Path, missing: list[str]) -> str:
    """What to do about parts that are not there."""
    if missing == ["image_encoder"]:
        return " Give the CLIP vision model as guide."
    single = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINTS and path.is_file())
    if single and "unet" in missing:
        return f" It has {single[0].name}. {as_folder(single[0])}"
    return " Save or download the whole pipeline."


def _config(part: str, folder: Path) -> dict[str, Any]:
    path = folder / CONFIGS[part]
    found = json_object(path)
    if found is None:
        what, remedy = not_itself(path) or no_object(path)
        raise ModelError(f"Model part {part} must have its configuration in {path}, got {what}. {remedy}")
    return found


def no_object(path: Path) -> tuple[str, str]:
    """What a file is instead of a JSON object in UTF-8, which the libraries read alone, and the remedy."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except UnicodeDecodeError:
        return "text of another encoding than UTF-8", "Save it as UTF-8, or download it again."
    except ValueError as error:
        return f"no JSON ({error})", AGAIN
    return f"JSON of another kind than an object ({type(found).__name__})", AGAIN


def _check_vocabulary(folder: Path) -> None:
    """Raise ModelError unless one set of files of words is there, and none of it a pointer."""
    there = next((names for names in VOCABULARIES if all((folder / name).exists() for name in names)), None)
    if there is None:
        raise ModelError(
            f"Model part tokenizer must have tokenizer.json, or vocab.json and merges.txt, in {folder}, "
            f"got neither. {AGAIN}"
        )
    for path in (folder / name for name in there):
        if fault := not_itself(path):
            raise ModelError(f"Model part tokenizer must have its words in {path}, got {fault[0]}. {fault[1]}")
