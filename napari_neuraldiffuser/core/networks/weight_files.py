"""Files that a part's weights are read from, and whether they are weights at all; told without torch."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import HEAD, PAGE, POINTERS, file_fault, json_object
from napari_neuraldiffuser.core.networks.architecture import AGAIN
from napari_neuraldiffuser.core.networks.source import ModelError

DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")
NAMES = {"vae": DIFFUSERS, "unet": DIFFUSERS, "text_encoder": TRANSFORMERS, "image_encoder": TRANSFORMERS}
NAMES |= {"vae_tiny": DIFFUSERS}
"""Part -> names of its weights, the preferred first."""
FIRST_VARIANTS = ("fp16", "bf16", "fp32")
XML = b"<?xml"
"""How the errors of storage servers begin."""


@dataclass(frozen=True)
class Weights:
    """Where the weights of a part are.

    Attributes
    ----------
    files : tuple of Path
        One file, or all shards.
    variant : str or None
        Such as fp16, where the files' names have it.
    safe : bool
        Whether they are safetensors; else pickles, of which nothing but tensors is read.
    index : Path or None
        Table of the shards.
    """

    files: tuple[Path, ...]
    variant: str | None
    safe: bool
    index: Path | None = None

    @property
    def name(self) -> str:
        """The file, or the table of the shards."""
        return (self.index or self.files[0]).name


def find_weights(part: str, folder: Path) -> Weights:
    """The weights that are read for a part: whole before variants, safetensors before pickles.

    A file that only stands for another (Git LFS) is passed over where there is a real one.

    Raises
    ------
    ModelError
        If there are none, or the file is not what its name says.
    """
    found = list(_candidates(part, folder))
    if not found:
        raise ModelError(_absent(part, folder))
    chosen = next((w for w in found if not any(is_pointer(file) for file in w.files)), found[0])
    for file in chosen.files:
        if fault := damage(file):
            what, remedy = fault
            raise ModelError(f"Model part {part} must have weights in {file}, got {what}. {remedy}")
    if chosen.index and chosen.safe:
        _check_index(part, chosen.index)
    return chosen


def damage(path: Path) -> tuple[str, str] | None:
    """What a file is instead of weights, and the remedy; None where it is weights, as far as a header tells."""
    if (fault := not_itself(path)) is not None:
        return fault
    about = path.stat()
    if _whole(str(path), about.st_size, about.st_mtime_ns):
        return None
    return f"{about.st_size} bytes that are cut short or no weights", AGAIN


def not_itself(path: Path) -> tuple[str, str] | None:
    """What stands in the place of any downloaded file, and the remedy; None where it may be the file."""
    if fault := file_fault(path):
        return fault if path.exists() else (fault[0], AGAIN)
    return PAGE if _head(path).lstrip().startswith(XML) else None


def is_pointer(path: Path) -> bool:
    """Whether a file only stands for another that was not fetched."""
    return (path.is_symlink() and not path.exists()) or (path.is_file() and _head(path).startswith(tuple(POINTERS)))


@lru_cache(maxsize=256)
def _whole(path: str, size: int, changed: int) -> bool:
    """Of one file; size and time are there so that a file that was written again is looked at again."""
    return _names(path) is not None if path.endswith(".safetensors") else _is_pickle(path)


def _head(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(HEAD)


def _is_pickle(path: str) -> bool:
    """Whether this is an archive with its end, or the older form, which has no end to look for."""
    head = _head(Path(path))
    return zipfile.is_zipfile(path) if head.startswith(b"PK") else head.startswith(b"\x80")


def _names(path: str) -> set[str] | None:
    """Names in a safetensors header; None where header or length is wrong."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return set(file.keys())
    except SafetensorError:
        return None


def _candidates(part: str, folder: Path) -> Iterator[Weights]:
    """Everything that could be read as the part's weights, the preferred first."""
    there = {path.name for path in folder.iterdir()}
    for variant in (None, *_variants(part, there)):
        for name in NAMES[part]:
            safe = name.endswith(".safetensors")
            if (whole := with_variant(name, variant)) in there:
                yield Weights((folder / whole,), variant, safe)
            for index in _index_names(name, variant):
                if index in there:
                    yield Weights(_shards(part, folder / index), variant, safe, folder / index)


def with_variant(name: str, variant: str | None) -> str:
    """`model.safetensors` to `model.fp16.safetensors`."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}" if variant else name


def _index_names(name: str, variant: str | None) -> Sequence[str]:
    """Today's name of the table of shards, and that of older diffusers."""
    return [f"{name}.index.{variant}.json", f"{name}.{variant}.index.json"] if variant else [f"{name}.index.json"]


def _variants(part: str, there: set[str]) -> list[str]:
    """Variants that the names in a folder have, the usual ones first."""
    found = set()
    for name in NAMES[part]:
        stem, _, suffix = map(re.escape, name.rpartition("."))
        forms = (
            rf"{stem}\.([\w-]+?)(?:-\d+-of-\d+)?\.{suffix}",
            rf"{stem}\.{suffix}\.(?:index\.)?(\w+)(?:\.index)?\.json",
        )
        found |= {hit[1] for form in forms for text in there if (hit := re.fullmatch(form, text))}
    usual = [variant for variant in FIRST_VARIANTS if variant in found]
    return [*usual, *sorted(found - {*usual, "index"})]


def _shards(part: str, index: Path) -> tuple[Path, ...]:
    return tuple(index.parent / name for name in sorted(set(_table(part, index).values())))


def _table(part: str, index: Path) -> dict[str, Any]:
    """Name of every tensor to its shard."""
    table = (json_object(index) or {}).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"Model part {part} must have a table of its shards in {index}, got something else. {AGAIN}")
    return table


def _check_index(part: str, index: Path) -> None:
    """The libraries believe the table of shards; so the shards must hold what it says."""
    table = _table(part, index)
    held = {shard: _names(str(index.parent / shard)) or set() for shard in set(table.values())}
    lost = sorted(name for name, shard in table.items() if name not in held[shard])
    if lost:
        raise ModelError(
            f"Model part {part} must have in its shards what {index} lists, missing {len(lost)}, first: {lost[0]}. "
            f"{AGAIN}"
        )


def _absent(part: str, folder: Path) -> str:
    """Sentence for a folder without weights that can be read."""
    there = sorted(
        path.name for path in folder.iterdir() if path.is_file() and path.suffix not in (".json", ".txt", ".md")
    )
    shards = [name for name in there if re.search(r"-\d+-of-\d+\.", name)]
    if shards:
        return f"Model part {part} must have a table of its shards in {folder}, got only {shards[0]}. {AGAIN}"
    got = ", ".join(there[:3]) or "none"
    return f"Model part {part} must have its weights {' or '.join(NAMES[part])} in {folder}, got {got}. {AGAIN}"
