"""What weights a model folder holds, told without torch: front ends ask before anything is computed."""

from functools import lru_cache
from pathlib import Path

from napari_neuraldiffuser.core.base.files import file_digest, fingerprint, located

DEMO_FOLDER = Path(__file__).parents[2] / "demo_models"
BUNDLED = "demo"
"""What the bundled models are called; a folder of that name is ./demo."""
PARTS = ("vae", "unet", "scheduler", "text_encoder", "tokenizer", "image_encoder")
"""Folders of a model folder."""
OPTIONAL_PARTS = ("vae_tiny",)
"""Folders that it may have besides."""
DECISIVE = {".safetensors", ".json", ".bin", ".txt"}
CHOSEN = "neuraldiffuser.json"
"""In a model folder: settings that were chosen for its weights, which it is no part of."""


def model_source(path: str | Path) -> str:
    """The folder or hub id that `"demo"`, a folder or a hub id stands for."""
    return str(DEMO_FOLDER if str(path) == BUNDLED else path)


def located_models(text: str) -> str:
    """A folder by its whole path; the bundled models, hub ids and what is not there as they are."""
    return located(text) if text not in ("", BUNDLED) and Path(located(text)).is_dir() else text


def is_bundled(path: str | Path) -> bool:
    """Whether these are the small models that come with the package."""
    return Path(model_source(path)).resolve() == DEMO_FOLDER.resolve()


def folder_digest(source: str, guide: str | Path | None = None) -> str:
    """SHA-256 over names and contents of the folders' weights and configurations; a hub id stands for itself."""
    guided = _contents(Path(guide)) if guide and Path(guide).is_dir() else str(guide)
    folder = Path(source)
    return fingerprint([source, guided] if not folder.is_dir() else [*_contents(folder), guided])


def _contents(folder: Path) -> list[list[str]]:
    """Name and digest of every file that decides what a model folder computes."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in DECISIVE and p != folder / CHOSEN)
    return [[str(p.relative_to(folder)), _digest(str(p), p.stat().st_size, p.stat().st_mtime_ns)] for p in files]


@lru_cache(maxsize=256)
def _digest(path: str, size: int, changed: int) -> str:
    """Of one file; size and time are there so that a file that was written again is read again."""
    return file_digest(path)
