"""Stimuli of the Algonauts challenge: pictures of its folders by NSD's id, and captions of a JSON by id or name."""

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.pictures import common_side, picture_size, read_square
from napari_neuraldiffuser.core.nsd.reading.captions import read_label_captions
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

CAPTIONS = "captions.json"
"""In the folder of all subjects: not part of the challenge."""
LABEL = re.compile(r"(?:.*nsd-?)?(\d+)")
"""Of a caption's image: 13, 00013, nsd-00013, train-0001_nsd-00013."""


class ChallengeStimuli(SeenImages):
    """Images by 0-based 73k id: `stimuli[ids]` is uint8 (n, side, side, 3), `stimuli[id]` one of them.

    Parameters
    ----------
    files : dict of int to Path
        Picture of each id.
    captions : str
        JSON of id or picture's name to captions; not opened here.
    """

    def __init__(self, files: dict[int, Path], captions: str) -> None:
        self._files, self._captions_file = files, captions

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, ids: int | StimulusIds) -> np.ndarray:
        wanted = np.asarray(ids)
        paths = [self._path(int(one)) for one in np.atleast_1d(wanted)]
        images = np.empty((len(paths), self.side, self.side, 3), dtype=np.uint8)
        for k, path in enumerate(paths):
            images[k] = read_square(path, self.side)
        return images if wanted.ndim else images[0]

    def _path(self, stimulus_id: int) -> Path:
        if stimulus_id not in self._files:
            raise NSDError(f"stimulus ids must be those of the folder's images, got {stimulus_id}. Choose among them.")
        return self._files[stimulus_id]

    @cached_property
    def side(self) -> int:
        """Side of every image that comes out, px."""
        return common_side(map(picture_size, self._files.values()))

    def check(self, ids: StimulusIds) -> None:
        """Raise an NSDError unless every id has a picture and captions; no picture is read."""
        for one in ids:
            self._path(int(one))
        super().check(ids)

    def captions(self, stimulus_id: int) -> list[str]:
        """The captions of one image; an NSDError if the file or its captions are missing."""
        entries = self._captions.get(int(stimulus_id), [])
        if len(entries) != 1 or not entries[0]:
            got = f"{len(entries)} entries" if entries else "none"
            raise NSDError(
                f"{self._captions_file} must have one entry of captions of NSD's image {stimulus_id}, got {got}. Name "
                f'it by its id, such as {{"{stimulus_id}": ["a dog on a lawn"]}}, or by its picture\'s name.'
            )
        return list(entries[0])

    def caption_files(self) -> list[Path]:
        """The file of captions, where there is one."""
        return [Path(self._captions_file)] if self._captions_file else []

    def fingerprint(self, ids: StimulusIds) -> str:
        """Digest of captions and of the pictures' sizes in bytes, which the ids alone do not say."""
        digest = hashlib.sha256(str(self.side).encode())
        for one in ids:
            about = [int(one), self._path(int(one)).stat().st_size, self.captions(int(one))]
            digest.update(json.dumps(about).encode())
        return digest.hexdigest()

    @cached_property
    def _captions(self) -> dict[int, list[list[str]]]:
        if not self._captions_file:
            raise NSDError(
                "captions must be given for a folder of the Algonauts challenge, which has none, got none. Write "
                f'COCO\'s as a JSON of NSD\'s id, {{"13": ["a dog on a lawn"]}}, and choose it (--captions FILE), or '
                f"save it there as {CAPTIONS}."
            )
        found: dict[int, list[list[str]]] = {}
        by_label = read_label_captions(self._captions_file)
        for label in by_label.labels():
            if match := LABEL.fullmatch(label.rpartition("/")[2]):
                found.setdefault(int(match[1]), []).extend(by_label.get(label))
        return found
