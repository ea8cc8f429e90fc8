"""Folders of reconstructed and seen pictures, from any tool, matched by their file names and scored."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import SHOWN, entity
from napari_neuraldiffuser.core.base.pictures import SUFFIXES, picture_files, read_picture
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.evaluation.scores import Encoder, Scores, evaluate, scores_table, summarise
from napari_neuraldiffuser.core.params import EvaluationParams

Arms = dict[str, dict[Path, dict[int, Path]]]  # arm -> seen image -> repeat -> reconstruction


class ImageFolderError(UserError):
    """Image folders that cannot be read or matched; the message names the file and the remedy."""


@dataclass(frozen=True)
class FolderScores:
    """Scores of a folder of reconstructions.

    Attributes
    ----------
    arms : dict of arm name to Scores
        One entry per `desc-` entity in the file names; "recon" where there is none.
    stimuli : list of str
        Names of the stimuli that were scored, in the order of the scores.
    notes : list of str
        Files that were left out, and why.
    """

    arms: dict[str, Scores]
    stimuli: list[str]
    notes: list[str]

    def summary(self) -> dict[str, Any]:
        """The content of ``desc-summary_scores.json``, see `evaluation.summarise`."""
        return summarise(self.arms)

    def table(self) -> pd.DataFrame:
        """The long table of every score, see `evaluation.scores_table`."""
        return scores_table(self.arms, self.stimuli)


def evaluate_folders(
    recon_dir: str | Path,
    seen_dir: str | Path,
    encoder: Encoder | Mapping[str, Encoder] | None = None,
    params: EvaluationParams | None = None,
    progress: Progress | None = None,
) -> FolderScores:
    """Score a folder of reconstructions against a folder of seen images.

    Our own names (``sub-01_stim-00013_rep-1_desc-guided_recon.png``) are read by their entities.  Other names
    match a seen image by equal stem, or by the first integer in the name; a second integer is the repeat.

    Parameters
    ----------
    recon_dir, seen_dir : path
        Sub-folders are searched too.
    encoder, params, progress
        As in `evaluation.evaluate`.

    Raises
    ------
    ImageFolderError
        If a folder has no images, nothing matches, an image cannot be read, two files stand for the same
        repeat, or stimuli differ in their number of repeats.
    """
    seen_files = _seen_index(_image_files(seen_dir, "seen_dir"))
    arms, notes = _matched(_image_files(recon_dir, "recon_dir"), seen_files)
    if not arms:
        raise ImageFolderError(
            f"recon_dir must have images named after those of seen_dir, got no match in {recon_dir} for {seen_dir}. "
            "Use the stem or the number of the seen image, such as 00013.png or stim-00013_rep-1_recon.png."
        )
    stimuli = _common_stimuli(arms)
    seen = _load(stimuli)
    images = {arm: _load_repeats(files, stimuli) for arm, files in arms.items()}
    scores = {arm: evaluate(recon, seen, encoder, params, progress) for arm, recon in images.items()}
    return FolderScores(scores, [entity(path.stem, "stim") or path.stem for path in stimuli], notes)


def _image_files(folder: str | Path, name: str) -> list[Path]:
    files = picture_files(folder)
    if not files:
        raise ImageFolderError(f"{name} must be a folder with images ({', '.join(sorted(SUFFIXES))}), got {folder}.")
    return files


def _integers(stem: str) -> list[int]:
    # the subject number in front of our own names is no stimulus
    return [int(number) for number in re.findall(r"\d+", re.sub(r"^sub-[0-9a-zA-Z]+_", "", stem))]


def _names(stem: str) -> list[str | int]:
    """What a file can be matched by, most specific first: its stem, its stim entity, the first integer in it."""
    stim = entity(stem, "stim")
    number = int(stim) if stim and stim.isdigit() else next(iter(_integers(stem)), None)
    return [name for name in (stem, stim, number) if name is not None]


def _seen_index(files: list[Path]) -> dict[str | int, list[Path]]:
    """Seen files by each of their names; a list, so that ambiguity is an error only where it matters."""
    index: dict[str | int, list[Path]] = {}
    for path in files:
        for name in set(_names(path.stem)):
            index.setdefault(name, []).append(path)
    return index


def _seen_file(stem: str, seen: dict[str | int, list[Path]]) -> Path | None:
    """The seen image that a reconstruction's name stands for, or None."""
    files = next((seen[name] for name in _names(stem) if name in seen), [])
    if len(files) > 1:
        raise ImageFolderError(
            f"seen_dir must have one image per stimulus, got {files[0].name} and {files[1].name} for {stem}. "
            "Name reconstructions by the full stem of their seen image."
        )
    return files[0] if files else None


def _repeat(stem: str, seen: Path) -> int:
    rep = entity(stem, "rep")
    if rep and rep.isdigit():
        return int(rep)
    return 1 if stem == seen.stem else (_integers(stem)[1:2] or [1])[0]


def _matched(files: list[Path], seen_files: dict[str | int, list[Path]]) -> tuple[Arms, list[str]]:
    """Reconstructions by arm, and notes on files without a seen image."""
    arms: Arms = {}
    notes = []
    for path in files:
        if entity(path.stem, "desc") in SHOWN:
            continue
        seen = _seen_file(path.stem, seen_files)
        if seen is None:
            notes.append(f"{path.name}: no seen image of that name or number; not scored.")
            continue
        repeats = arms.setdefault(entity(path.stem, "desc") or "recon", {}).setdefault(seen, {})
        repeat = _repeat(path.stem, seen)
        if repeat in repeats:
            raise ImageFolderError(
                f"recon_dir must have one file per stimulus, repeat and arm, got {repeats[repeat].name} and "
                f"{path.name}. Tell them apart with rep-1, rep-2 or desc-NAME in the name."
            )
        repeats[repeat] = path
    return arms, notes


def _common_stimuli(arms: Arms) -> list[Path]:
    """Seen images that every arm reconstructs, all with the same number of repeats."""
    stimuli = sorted(set.intersection(*(set(files) for files in arms.values())))
    if not stimuli:
        raise ImageFolderError(f"arms must share stimuli, got none in common between {sorted(arms)}.")
    counts = {len(files[seen]): f"{seen.stem} ({arm})" for arm, files in arms.items() for seen in stimuli}
    if len(counts) > 1:
        shown = ", ".join(f"{n} for {stimulus}" for n, stimulus in sorted(counts.items()))
        raise ImageFolderError(f"repeats must be equally many for every stimulus, got {shown}. Add or remove files.")
    return stimuli


def _load_repeats(files: dict[Path, dict[int, Path]], stimuli: list[Path]) -> np.ndarray:
    paths = [path for stimulus in stimuli for _, path in sorted(files[stimulus].items())]
    images = _load(paths)
    return images.reshape(len(stimuli), -1, *images.shape[1:])


def _load(paths: list[Path]) -> np.ndarray:
    """uint8 (n, H, W, 3); all files must have one size."""
    images = [read_picture(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise ImageFolderError(
                f"{path} must have the size of {paths[0].name}, {images[0].shape[:2]}, got {image.shape[:2]}."
            )
    return np.stack(images)
