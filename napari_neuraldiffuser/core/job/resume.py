"""Resuming: a stage that is complete, from the same inputs and parameters, is not run again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import file_versions, fingerprint, read_json, write_json


@dataclass(frozen=True)
class Records:
    """Records of finished stages in the work folder.

    Attributes
    ----------
    folder : Path
        One JSON record per stage: what it was made from, and its files with their sizes and times.
    resume : bool
        False runs every stage again.
    """

    folder: Path
    resume: bool = True

    def make(self, name: str, made_from: Any, files: Iterable[Path], work: Callable[[], Any]) -> bool:
        """Do `work` unless a record says that `files` were made from `made_from`; True if it was done.

        The record is written after the work, so an interrupted stage has none.
        """
        files, digest = [Path(f) for f in files], fingerprint(made_from)
        if self.resume and self.is_complete(name, digest, files):
            return False
        self._record(name).unlink(missing_ok=True)
        work()
        write_json(self._record(name), {"made_from": digest, "files": _versions(files)})
        return True

    def is_complete(self, name: str, digest: str, files: list[Path]) -> bool:
        """Whether the record is of `digest` and every file is there as it was left.

        Its size alone would not tell: embeddings of one shape that a run from another work folder decoded are as large.
        """
        try:
            known = read_json(self._record(name))
        except (OSError, ValueError):  # no record, or a damaged one
            return False
        if known["made_from"] != digest:
            return False
        found = _versions(files)
        return all(f.name in found and found[f.name] == known["files"].get(f.name) for f in files)

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _versions(files: Iterable[Path]) -> dict[str, list[int]]:
    """Size and time of change of every file that is there, by its name."""
    return {Path(path).name: about for path, *about in file_versions(files)}
