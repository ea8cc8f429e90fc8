"""Captions from JSON files as people have them: by label or file name, as texts, lists or records, and COCO's own."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from napari_neuraldiffuser.core.base.pictures import SUFFIXES
from napari_neuraldiffuser.core.base.tables import read_text, spelled
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

TEXTS = ("caption", "captions", "text", "sentence", "description")
NAMES = ("image", "file_name", "filename", "file", "image_path", "path", "stimulus", "label", "image_id", "id")
WRITE = 'Write {"<label>": ["a dog on a lawn"]}.'


class ByLabel:
    """What belongs to stimuli, found by label: as it stands, else but for the ending of a picture's file name.

    Labels are compared in one spelling of accents.  Names with two different endings are two labels.
    """

    def __init__(self) -> None:
        self._exact: dict[str, list[Any]] = {}
        self._bare: dict[str, list[tuple[str, Any]]] = {}

    def add(self, label: str, value: Any) -> None:
        """Keep a value under a label."""
        stem, ending = label_parts(label)
        self._exact.setdefault(spelled(label), []).append(value)
        self._bare.setdefault(stem, []).append((ending, value))

    def get(self, label: str) -> list[Any]:
        """All values of a label, none if it has none; several where more than one could be meant."""
        stem, ending = label_parts(label)
        loose = [value for other, value in self._bare.get(stem, []) if not (ending and other and ending != other)]
        return self._exact.get(spelled(label)) or loose

    def labels(self) -> list[str]:
        """The labels without endings."""
        return list(self._bare)


def label_parts(label: str) -> tuple[str, str]:
    """A label without the ending of a picture's file name, and that ending in lower case."""
    path = PurePosixPath(spelled(label).replace("\\", "/"))
    ending = path.suffix.lower() if path.suffix.lower() in SUFFIXES else ""
    return (str(path.with_suffix("")) if ending else str(path)), ending


def read_label_captions(path: str | Path) -> ByLabel:
    """Captions of each label.

    Parameters
    ----------
    path : path
        JSON of `{label: captions}`, a list of records such as `{"image": name, "caption": text}`, or COCO's
        annotations (by the images' file names where the file has them).  Captions are a text, a record with one of
        `TEXTS`, or a list of these.

    Returns
    -------
    ByLabel
        `get(label)` is a list of one list of captions.

    Raises
    ------
    NSDError
        If it is not such a file, a caption is empty, or a label stands in it twice.
    """
    found = ByLabel()
    for name, texts in _gathered(_entries(_content(path), path)).items():
        found.add(name, _checked(name, texts, path))
    return found


def read_coco_captions(path: str | Path) -> dict[int, list[str]]:
    """Captions of each COCO id, from `{"id": ["...", ...]}` or from COCO's own annotations; NSDError as above."""
    content = _content(path)
    if isinstance(content, dict) and "annotations" in content:
        content = {"annotations": content["annotations"]}  # by the ids of the images, not their names
    try:
        gathered = {int(name): texts for name, texts in _gathered(_entries(content, path)).items()}
    except ValueError as error:
        if isinstance(error, NSDError):
            raise
        raise NSDError(f"{path} must be a JSON of COCO id (a number) to captions, got: {error}. {WRITE}") from error
    return {one: _checked(str(one), texts, path) for one, texts in gathered.items()}


def _content(path: str | Path) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        unique = dict(pairs)
        if len(unique) < len(pairs):
            names = [name for name, _ in pairs]
            double = next(name for name in names if names.count(name) > 1)
            raise NSDError(f"{path} must hold each label once, got {double!r} twice. Remove one of them.")
        return unique

    text = read_text(path, "a JSON file of captions", NSDError)
    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise NSDError(f"{path} must be a JSON of stimulus label to captions, got: {error}. {WRITE}") from error


def _entries(content: Any, path: str | Path) -> Iterator[tuple[str, Any]]:
    """Pairs of a label and what is said of it."""
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        files = {str(one.get("id")): one.get("file_name") for one in content.get("images", []) if isinstance(one, dict)}
        yield from ((str(files.get(name) or name), said) for name, said in _records(content["annotations"], path))
    elif isinstance(content, dict):
        yield from content.items()
    elif isinstance(content, list):
        yield from _records(content, path)
    else:
        raise NSDError(f"{path} must be a JSON of stimulus label to captions, got a single value. {WRITE}")


def _records(records: list[Any], path: str | Path) -> Iterator[tuple[str, Any]]:
    for k, record in enumerate(records):
        keys = [key for key in NAMES if isinstance(record, dict) and isinstance(record.get(key), (str, int))]
        if not keys:
            raise NSDError(
                f"{path} must be a JSON of stimulus label to captions, got an entry {k + 1} that names no image "
                f"({', '.join(NAMES[:3])} ...). {WRITE}"
            )
        # COCO's annotations have an id of their own beside that of the image
        yield str(record[keys[0]]), record


def _gathered(entries: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {}
    for name, said in entries:
        table.setdefault(name, []).extend(said if isinstance(said, list) else [said])
    return table


def _checked(name: str, said: list[Any], path: str | Path) -> list[str]:
    """The captions among what is said of one label: texts, and what records say under one of TEXTS."""
    captions: list[str] = []
    for one in said:
        key = next((key for key in TEXTS if key in one), "") if isinstance(one, dict) else ""
        value = one[key] if key else one
        captions += value if key and isinstance(value, list) else [value]
    wrong = [one for one in captions if not isinstance(one, str) or not one.strip()]
    if wrong:
        raise NSDError(
            f"{path} must hold captions that are texts and not empty, got {_said(wrong[0])} for {name}. {WRITE}"
        )
    return captions


def _said(wrong: Any) -> str:
    """What stands in the place of a caption."""
    if isinstance(wrong, dict):
        return f"an entry of {', '.join(wrong) or 'nothing'} without {' or '.join(TEXTS[:3])}"
    return repr(wrong)
