"""Stimuli of own scans: a folder of image files and a JSON of captions, both by the labels of the trials table."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.files import file_digest
from napari_neuraldiffuser.core.base.pictures import common_side, picture_files, picture_size, read_square
from napari_neuraldiffuser.core.nsd.reading.captions import ByLabel, label_parts, read_label_captions
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError


class OwnStimuli(SeenImages):
    """Images by index of their label: `stimuli[ids]` is uint8 (n, side, side, 3), `stimuli[id]` one of them.

    All come out square and of one size, see `base.pictures.read_square`.

    Parameters
    ----------
    images, captions : str
        Folder of `<label>.png` (.jpg ...) and JSON of label to captions; nothing is opened here.
    names : list of str
        Label of each index.
    """

    def __init__(self, images: str, captions: str, names: list[str]) -> None:
        self._folder, self._captions_file, self.names = images, captions, list(names)
        self._digests: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, ids: int | StimulusIds) -> np.ndarray:
        wanted = np.asarray(ids)
        files = self.files(np.atleast_1d(wanted))
        images = np.empty((len(files), self.side, self.side, 3), dtype=np.uint8)
        for k, path in enumerate(files):
            images[k] = read_square(path, self.side)
        return images if wanted.ndim else images[0]

    def files(self, ids: StimulusIds) -> list[Path]:
        """Image file of each index.

        Raises
        ------
        NSDError
            If an index has no label, or a label not exactly one file.
        """
        candidates = [self._index.get(name) for name in self.labels(ids)]
        absent = [name for name, files in zip(self.labels(ids), candidates, strict=True) if not files]
        if absent:
            raise NSDError(
                f"{self._folder} must hold an image <label>.png (.jpg ...) per stimulus of the trials table, "
                f"got none for {len(absent)}: {', '.join(absent[:5])}. There are: "
                f"{', '.join(self._index.labels()[:3]) or 'no images'} ... {self._remedy(absent)}"
            )
        double = next((files for files in candidates if len(files) > 1), None)
        if double:
            raise NSDError(
                f"{self._folder} must hold one image per label, got {double[0].name} and {double[1].name}. "
                "Remove one, or write the label with its suffix in the trials table."
            )
        return [files[0] for files in candidates]

    def _remedy(self, absent: list[str]) -> str:
        """What helps where labels have no image: the one folder below that has all of them, if there is one."""
        below = set.intersection(*(self._folders_of(name) for name in absent))
        if len(below) == 1:
            return f"They are in {Path(self._folder, *below)}: give that folder (--images)."
        return "Name the files by the labels, or give the folder that they are named in (--images)."

    def _folders_of(self, name: str) -> set[str]:
        """Folders below the given one that have an image of a label."""
        label, _ = label_parts(name)
        return {one.removesuffix(label) for one in self._index.labels() if one.endswith(f"/{label}")}

    def check(self, ids: StimulusIds) -> None:
        """Raise an NSDError unless every index has one image file and captions; no image is read."""
        self.files(ids)
        super().check(ids)

    @cached_property
    def side(self) -> int:
        """Side of every image that comes out, px."""
        return common_side(self._sizes)

    @property
    def notes(self) -> list[str]:
        """What was done to the images, for the page."""
        changed = [size for size in self._sizes if size != (self.side, self.side)]
        told = f"{len(changed)} stimulus images cropped to their centre square and reduced to {self.side} px"
        return [told] if changed else []

    def captions(self, stimulus_id: int) -> list[str]:
        """The captions of one image; an NSDError if the file or its captions are missing."""
        (name,) = self.labels([stimulus_id])
        entries = self._captions.get(name)
        if len(entries) != 1 or not entries[0]:
            got = f"{len(entries)} entries" if entries else "none"
            there = ", ".join(self._captions.labels()[:3]) or "no captions"
            raise NSDError(
                f"{self._captions_file} must have one entry of captions of stimulus {name}, got {got}. "
                f"There are: {there} ... Name the captions by the labels of the trials table, or give another file "
                "(--captions)."
            )
        return list(entries[0])

    def fingerprint(self, ids: StimulusIds) -> str:
        """Digest of the labels, images and captions of some indices: an index alone does not say what was seen."""
        digest = hashlib.sha256(str(self.side).encode())
        for stimulus_id, path in zip(ids, self.files(ids), strict=True):
            if path not in self._digests:
                self._digests[path] = file_digest(path)
            about = [self.names[stimulus_id], self._digests[path], self.captions(stimulus_id)]
            digest.update(json.dumps(about).encode())
        return digest.hexdigest()

    def labels(self, ids: StimulusIds) -> list[str]:
        """Label of each index; an NSDError for one that has none."""
        if not all(isinstance(one, (int, np.integer)) for one in ids):
            raise NSDError(f"stimulus ids must be whole numbers, got {list(ids)[:5]}.")
        outside = [one for one in ids if not 0 <= one < len(self.names)]
        if outside:
            raise NSDError(
                f"stimulus ids must be 0 ... {len(self.names) - 1} (own scans: label by label), got {outside[:5]}."
            )
        return [self.names[one] for one in ids]

    @cached_property
    def _index(self) -> ByLabel:
        """Image files by their path below the folder, with and without suffix."""
        folder = Path(self._folder)
        if not self._folder or not folder.is_dir():
            raise NSDError(
                f"images must be a folder with one image per stimulus label, got {self._folder or 'none'}. "
                "Choose the folder of the images that were shown (--images DIR)."
            )
        index = ByLabel()
        for path in picture_files(folder):
            index.add(path.relative_to(folder).as_posix(), path)
        return index

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """(width, height) of every label's image, from the headers."""
        return [picture_size(path) for name in self.names for path in self._index.get(name)[:1]]

    @cached_property
    def _captions(self) -> ByLabel:
        if not self._captions_file:
            raise NSDError(
                "captions must be given to encode what the images show, got none. "
                'Write a JSON such as {"<label>": ["a dog on a lawn"]} and choose it (--captions FILE).'
            )
        return read_label_captions(self._captions_file)
