"""Where the Algonauts 2023 challenge keeps its files, and its arrays with clear errors."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.base.files import file_trouble
from napari_neuraldiffuser.core.base.recipe import challenge_subjects
from napari_neuraldiffuser.core.nsd.reading.images import DAMAGED, whole_numbers
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, unreadable

PICTURE = re.compile(r"(train|test)-(\d+)_nsd-(\d+)\.png", re.IGNORECASE)
FAMILY = re.compile(r"[lr]h\.(.+)_(?:challenge|fsaverage)_space\.npy")
SPLITS = ("training", "test")


@dataclass(frozen=True)
class ChallengeFiles:
    """Paths of one subject: `root/subj01/training_split/...`."""

    root: Path
    subject: str

    @property
    def folder(self) -> Path:
        return self.root / self.subject

    @property
    def masks(self) -> Path:
        return self.folder / "roi_masks"

    def mask(self, side: str, name: str) -> Path:
        return self.masks / f"{side}.{name}.npy"

    def mapping(self, family: str) -> Path:
        """Names of a family's labels."""
        return self.masks / f"mapping_{family}.npy"

    def responses(self, side: str, test: bool = False) -> Path:
        split = SPLITS[test]
        return self.folder / f"{split}_split/{split}_fmri/{side}_{split}_fmri.npy"

    def pictures(self, test: bool = False) -> Path:
        split = SPLITS[test]
        return self.folder / f"{split}_split/{split}_images"

    @property
    def has_test(self) -> bool:
        """Whether the responses to test images, published after the challenge, are there."""
        return self.responses("lh", True).parent.is_dir()

    def families(self) -> list[str]:
        """Families of regions in roi_masks, without the mask of all vertices."""
        matches = (FAMILY.fullmatch(path.name) for path in self.masks.glob("*.npy"))
        return sorted({match[1] for match in matches if match and match[1] != "all-vertices"})

    def images(self) -> tuple[dict[int, Path], dict[int, Path]]:
        """Training and test pictures by NSD's 0-based id, in the order of their numbers; test ones if they are used.

        Raises
        ------
        NSDError
            If numbers are not 1, 2, 3 ..., or two pictures have one id.
        """
        train, test = _numbered(self.pictures()), _numbered(self.pictures(True)) if self.has_test else {}
        if twice := sorted(set(train) & set(test)):
            raise NSDError(
                f"{self.folder} must have an image once, got NSD's {twice[:5]} among training and test images. "
                "Download its images again."
            )
        return train, test

    def check(self) -> None:
        """Raise NSDError unless this is a subject's folder with responses, images and the mask of vertices."""
        if (self.root / "training_split").is_dir():
            raise NSDError(
                f"nsd_dir must hold the subjects' folders, got {self.root}, the folder of one. Give "
                f"{self.root.absolute().parent} and --participant-label {self.root.absolute().name}."
            )
        have = challenge_subjects(self.root)
        if self.subject not in have:
            raise NSDError(f"subject must be one of {have} in {self.root}, got {self.subject!r}.")
        needed = [self.responses(side) for side in ("lh", "rh")] + [self.pictures()]
        needed += [self.mask(side, "all-vertices_fsaverage_space") for side in ("lh", "rh")]
        for path in needed:
            if not path.exists():
                raise NSDError(
                    f"{self.folder} must hold {path.relative_to(self.folder)}, got none. Unpack training_split and "
                    "roi_masks of the challenge there."
                )


def _numbered(folder: Path) -> dict[int, Path]:
    """Pictures of a folder by NSD's id, in the order of their numbers."""
    matches = ((PICTURE.fullmatch(path.name), path) for path in folder.glob("*"))
    found = sorted((int(match[2]), int(match[3]), path) for match, path in matches if match)
    numbers = [number for number, _, _ in found]
    if not found or numbers != list(range(1, len(found) + 1)):
        gap = next((k for k, number in enumerate(numbers, 1) if number != k), 1)
        raise NSDError(
            f"{folder} must hold {folder.name.split('_')[0]} images numbered 1, 2, 3 ... "
            f"(train-0001_nsd-00013.png), got {len(found)}, of which none or several have number {gap}. "
            "Unpack them again."
        )
    by_id = {stimulus: path for _, stimulus, path in found}
    if len(by_id) < len(found):
        raise NSDError(f"{folder} must have each of NSD's images once, got two of one id. Unpack them again.")
    return by_id


def read_matrix(path: Path) -> np.ndarray:
    """Responses (images, vertices), mapped and not read; NSDError where they are none."""
    array = _load(path, "responses", mapped=True)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise NSDError(
            f"{path} must hold responses (images, vertices) as floats, got {array.dtype} of shape {array.shape}. "
            "Download it again."
        )
    return array


def read_vector(path: Path, name: str) -> np.ndarray:
    """Labels (vertices,) int32; NSDError where they are none."""
    array = _load(path, name)
    labels = whole_numbers(array) if array.dtype.kind in "biuf" else None
    if array.ndim != 1 or labels is None:
        raise NSDError(
            f"{path} must hold a whole-number label for each vertex, got {array.dtype} of shape {array.shape}. "
            "Download it again."
        )
    return labels.astype(np.int32)


def _load(path: Path, name: str, mapped: bool = False) -> np.ndarray:
    if trouble := file_trouble(path):
        raise NSDError(f"{name} {path} must be a NumPy file, got {trouble}")
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except DAMAGED as error:
        raise unreadable(path, name, error) from error
