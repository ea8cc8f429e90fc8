"""Folders of reconstructed and seen pictures, from any tool, paired by their names and scored."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.names import KINDS, entity
from napari_neuraldiffuser.core.base.pictures import (
    SUFFIXES,
    common_side,
    picture_files,
    picture_size,
    read_picture,
    read_square,
)
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.evaluation.alignment import warnings
from napari_neuraldiffuser.core.evaluation.pairing import LISTED, ImageFolderError, Pairs, pair, some
from napari_neuraldiffuser.core.evaluation.scores import Scores, evaluate, scores_table, summarise
from napari_neuraldiffuser.core.evaluation.scoring import Encoder
from napari_neuraldiffuser.core.evaluation.work import nth
from napari_neuraldiffuser.core.params import EvaluationParams

Arms = dict[str, dict[Path, dict[int, Path]]]  # arm -> seen image -> repeat -> reconstruction


@dataclass(frozen=True)
class FolderScores:
    """Scores of a folder of reconstructions.

    Attributes
    ----------
    arms : dict of arm name to Scores
        One entry per `desc-` entity in the file names; "recon" where there is none.
    stimuli : list of str
        Names of the stimuli that were scored, in the order of the scores.
    paired_by : str
        The rule that paired names with seen pictures.
    notes : list of str
        Files that were left out or spelled otherwise, and what was done to pictures.
    """

    arms: dict[str, Scores]
    stimuli: list[str]
    paired_by: str
    notes: list[str]

    @property
    def warnings(self) -> list[str]:
        """A sentence for every arm whose pairing the pictures do not bear out, see `core.evaluation.alignment`."""
        return warnings({arm: scores.alignment for arm, scores in self.arms.items()})

    def summary(self) -> dict[str, Any]:
        """The content of ``desc-summary_scores.json``, see `evaluation.summarise`."""
        told = {"stimuli": self.stimuli, "paired_by": self.paired_by, "warnings": self.warnings}
        return {**summarise(self.arms), **told}

    def table(self) -> pd.DataFrame:
        """The long table of every score, see `evaluation.scores_table`."""
        return scores_table(self.arms, self.stimuli)


def evaluate_folders(
    recon_dir: str | Path,
    seen_dir: str | Path,
    encoder: Encoder | Mapping[str, Encoder] | None = None,
    params: EvaluationParams | None = None,
    progress: Progress | None = None,
    pattern: str = "",
    seen_pattern: str = "",
    device: str = "cpu",
) -> FolderScores:
    """Score a folder of reconstructions against a folder of seen images.

    Our own names (``sub-01_stim-00013_rep-1_desc-guided_recon.png``) are read by their entities: own scans' labels,
    which the sidecar beside them lists, or NSD's ids.  Other names must be those of the seen pictures as a whole, but
    for `rep-` and `desc-`, or be made as the patterns say.

    Parameters
    ----------
    recon_dir, seen_dir : path
        Sub-folders are searched too.
    encoder, params, progress, device
        As in `evaluation.evaluate`.
    pattern, seen_pattern : str
        How names are made, see `name_patterns.NamePattern`.

    Raises
    ------
    ImageFolderError
        If a folder has no images, a reconstruction has not exactly one seen picture, two files stand for the same
        repeat, arms differ in their stimuli or stimuli in their number of repeats, or sizes differ.
    PictureError
        If a picture cannot be read.
    PatternError
        If a pattern cannot be used.
    """
    found = find_folders(recon_dir, seen_dir, pattern, seen_pattern)
    told = [nth(progress or silent, k, len(found.arms)) for k in range(len(found.arms))]
    scores = {
        arm: evaluate(recon, found.seen, encoder, params, told[k], device=device)
        for k, (arm, recon) in enumerate(found.arms.items())
    }
    return FolderScores(scores, found.names, found.paired_by, found.notes)


@dataclass(frozen=True)
class FolderPictures:
    """Pictures of a folder and what was seen, paired and not read yet.

    Attributes
    ----------
    arms : dict of arm name to PictureFiles
    seen : PictureFiles
    names : list of str
        Of the stimuli, in the order of the pictures.
    paired_by : str
    notes : list of str
    """

    arms: dict[str, "PictureFiles"]
    seen: "PictureFiles"
    names: list[str]
    paired_by: str
    notes: list[str]


def find_folders(
    recon_dir: str | Path, seen_dir: str | Path, pattern: str = "", seen_pattern: str = ""
) -> FolderPictures:
    """Pair the pictures of two folders; arguments and errors as `evaluate_folders` has them."""
    recon_dir, seen_dir = Path(recon_dir), Path(seen_dir)
    files = _image_files(recon_dir, "recon_dir"), _image_files(seen_dir, "seen_dir")
    folders, patterns = (recon_dir, seen_dir), (pattern, seen_pattern)
    try:
        pairs, arms, stimuli = _paired(files, folders, patterns)
    except ImageFolderError as error:
        raise _better_told(files, folders, patterns) or error from None
    images = {arm: _repeats(files, stimuli) for arm, files in arms.items()}
    seen, notes = _seen(stimuli, all(one.square for one in images.values()))
    labels = {path: named.label for named, path in pairs.pairs}
    names = [labels[path] or entity(path.stem, "stim") or path.stem for path in stimuli]
    return FolderPictures(images, seen, names, pairs.rule, [*pairs.notes, *notes])


def _image_files(folder: Path, name: str) -> list[Path]:
    if not folder.is_dir():
        got = "a file. Give its folder" if folder.exists() else "which is not there. Check the path"
        raise ImageFolderError(f"{name} must be a folder with images, got {folder}, {got}.")
    files = picture_files(folder)
    if not files:
        raise ImageFolderError(
            f"{name} must be a folder with images ({', '.join(sorted(SUFFIXES))}), got none in {folder}. Give the "
            "folder of the picture files: reconstructions of a run, and what was seen, are in OUT_DIR/sub-XX/recon."
        )
    return files


def _paired(
    files: tuple[list[Path], list[Path]], folders: tuple[Path, Path], patterns: tuple[str, str]
) -> tuple[Pairs, Arms, list[Path]]:
    """Pairs of reconstructions and seen pictures, the same by arm, and the stimuli."""
    pairs = pair(*files, folders, patterns)
    arms = _by_arm(pairs)
    return pairs, arms, _common_stimuli(arms)


def _better_told(
    files: tuple[list[Path], list[Path]], folders: tuple[Path, Path], patterns: tuple[str, str]
) -> ImageFolderError | None:
    """Why folders do not pair where it is not their names: a whole output folder, or the two in the wrong order."""
    subjects = [subject for subject in sorted(folders[0].glob("sub-*")) if KINDS["image"].find(subject)]
    if subjects:
        places = [str(KINDS["image"].find(subject)[0][0].parent) for subject in subjects]
        return ImageFolderError(
            f"recon_dir must hold the reconstructions of one subject, got {folders[0]}, a run's whole output, which "
            f"may hold copies in its work folder too. Give {' or '.join(places[:LISTED])}."
        )
    with suppress(ImageFolderError):
        _paired(files[::-1], folders[::-1], patterns)
        return ImageFolderError(
            f"recon_dir and seen_dir must be given in this order, got {folders[0]} and {folders[1]}, which pair the "
            "other way round only: swapped? Give the reconstructions first."
        )
    return None


def _by_arm(pairs: Pairs) -> Arms:
    """Reconstructions by arm, seen picture and repeat."""
    arms: Arms = {}
    for named, seen in pairs.pairs:
        repeats = arms.setdefault(named.arm, {}).setdefault(seen, {})
        if named.repeat in repeats:
            raise ImageFolderError(
                f"recon_dir must have one file per stimulus, repeat and arm, got {repeats[named.repeat]} and "
                f"{named.path}. Tell them apart with rep-1, rep-2 or desc-NAME in the name, or score a part of them."
            )
        repeats[named.repeat] = named.path
    return arms


def _common_stimuli(arms: Arms) -> list[Path]:
    """Seen images of the reconstructions; the same for every arm, all with the same number of repeats."""
    stimuli = sorted(set().union(*arms.values()))
    lacking = [f"{seen.stem} ({arm})" for arm, files in arms.items() for seen in stimuli if seen not in files]
    if lacking:
        raise ImageFolderError(
            f"arms {', '.join(arms)} must have the same stimuli, got none of {some(lacking)}. Add or remove files, or "
            "score each arm in a folder of its own."
        )
    counts = {len(files[seen]): f"{seen.stem} ({arm})" for arm, files in arms.items() for seen in stimuli}
    if len(counts) > 1:
        shown = ", ".join(f"{n} for {stimulus}" for n, stimulus in sorted(counts.items()))
        raise ImageFolderError(f"repeats must be equally many for every stimulus, got {shown}. Add or remove files.")
    return stimuli


@dataclass(frozen=True)
class PictureFiles:
    """Pictures of stimuli in files of one size, read when they are asked for.

    Attributes
    ----------
    paths : list of list of Path
        Of every stimulus, one file per repeat.
    single : bool
        Whether an item is one picture (H, W, 3) and not (repeats, H, W, 3).
    side : int
        Side to which the centre square is reduced; 0 leaves pictures as they are.
    """

    paths: list[list[Path]]
    single: bool = False
    side: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: int | tuple[int, int]) -> np.ndarray:
        if isinstance(key, tuple):
            return self._read(self.paths[key[0]][key[1]])
        pictures = [self._read(path) for path in self.paths[key]]
        return pictures[0] if self.single else np.stack(pictures)

    def _read(self, path: Path) -> np.ndarray:
        return read_square(path, self.side) if self.side else read_picture(path)

    @property
    def square(self) -> bool:
        """Whether they are as wide as high."""
        height, width = read_picture(self.paths[0][0]).shape[:2]
        return height == width

    def checked(self) -> "PictureFiles":
        """The same, once it is known that all have one size; pictures are only read where their headers differ."""
        first, *others = (path for paths in self.paths for path in paths)
        stored = picture_size(first)
        for path in others:
            if picture_size(path) != stored and read_picture(path).shape != read_picture(first).shape:
                got, wanted = read_picture(path).shape[:2], read_picture(first).shape[:2]
                raise ImageFolderError(f"{path} must have the size of {first.name}, {wanted}, got {got}.")
        return self


def _repeats(files: dict[Path, dict[int, Path]], stimuli: list[Path]) -> PictureFiles:
    return PictureFiles([[path for _, path in sorted(files[stimulus].items())] for stimulus in stimuli]).checked()


def _seen(paths: Sequence[Path], square: bool) -> tuple[PictureFiles, list[str]]:
    """Seen pictures; made square and of one size, as a run does, where only that compares them with square ones."""
    sizes, files = {picture_size(path) for path in paths}, [[path] for path in paths]
    if not square or (len(sizes) == 1 and all(width == height for width, height in sizes)):
        return PictureFiles(files, single=True).checked(), []
    side = common_side(sizes)
    note = f"seen pictures cropped to their centre square and reduced to {side} px, as a run does with own stimuli"
    return PictureFiles(files, single=True, side=side), [note]
