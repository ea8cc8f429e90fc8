"""The files of one run, its volumes and when each was taken."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import json_object
from napari_neuraldiffuser.core.base.names import stem
from napari_neuraldiffuser.core.nsd.reading.volumes import open_image, open_volume

TR_TOLERANCE = 1e-3
"""Seconds by which two statements of the repetition time may differ: headers are float32."""
Grid = tuple[tuple[int, ...], np.ndarray]
"""Shape (X, Y, Z), and 4x4 voxel to mm."""
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


class BoldError(UserError):
    """A run, table or choice is not what single-trial betas need; the message names it, the rule and the remedy."""


@dataclass(frozen=True)
class Run:
    """Files of one run.

    Attributes
    ----------
    bold : str
        4-D NIfTI of preprocessed BOLD (x, y, z, volume); a JSON of its name is read where it is beside it.
    events : str
        BIDS events table: onset, duration (s) and a column that names what was seen.
    confounds : str
        Table with a row per volume; empty where there is none.
    mask : str
        NIfTI on the grid of the BOLD; voxels above 0 are used.
    session, run, task : str
        Labels without their entity.
    more : tuple of str
        JSON files of metadata that the run inherits, the nearest first.
    """

    bold: str
    events: str
    confounds: str = ""
    mask: str = ""
    session: str = "1"
    run: str = "1"
    task: str = ""
    more: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """As messages and tables name it."""
        return f"ses-{self.session} run-{self.run}"

    @property
    def files(self) -> list[str]:
        """Every file that decides its betas."""
        sidecar = Path(self.bold).with_name(stem(Path(self.bold).name) + ".json")
        return [file for file in (self.bold, self.events, self.confounds, self.mask, str(sidecar), *self.more) if file]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "more": list(self.more)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Run":
        """The object that `to_dict` described."""
        return cls(**{**values, "more": tuple(values.get("more", ()))})


@dataclass(frozen=True)
class Timing:
    """`n` volumes, the first at `start` s after the run's time zero, one every `tr` s."""

    n: int
    tr: float
    start: float

    @property
    def frames(self) -> np.ndarray:
        """(n,) s of every volume."""
        return self.start + self.tr * np.arange(self.n)


def open_run(run: Run) -> nib.spatialimages.SpatialImage:
    """The BOLD of a run, its data unread; kept open, so that a gzip stream is unpacked once.

    Raises
    ------
    BoldError
        If it has one volume only.
    NSDError
        If it cannot be read, or is no series of volumes.
    """
    image = open_volume(run.bold, f"BOLD of {run.name}", 4, keep_file_open=True)
    if image.shape[3] < 2:
        raise BoldError(
            f"BOLD of {run.name} must have two volumes at least, got shape {image.shape} in {run.bold}. Give the "
            "preprocessed series, not its reference or mean."
        )
    return image


def grid_of(image: nib.spatialimages.SpatialImage) -> Grid:
    """Shape (X, Y, Z) and affine."""
    return tuple(image.shape[:3]), image.affine


def timing(run: Run, image: nib.spatialimages.SpatialImage, tr: float = 0.0) -> Timing:
    """When the volumes were taken, by `tr` (s) where it is given, else by the JSON beside the BOLD, else by its header.

    Slice-timing correction moves a volume to a time after its start, which the JSON's StartTime says.

    Raises
    ------
    BoldError
        If no file says the repetition time, two say different ones, or volumes do not come at one pace.
    """
    about = metadata(run)
    if about.get("VolumeTiming") is not None:
        raise BoldError(
            f"volumes of {run.name} must come one repetition time after another, got VolumeTiming in the JSON of "
            f"{run.bold}. Sparse or uneven series cannot be fitted: leave the run out, or correct the JSON."
        )
    # the header as it is on disk: an image in millimetres has lost the unit of time
    stated = 0.0 if tr else _seconds(about, "RepetitionTime", run, ", or give it with --tr")
    header = header_tr(open_image(run.bold, "BOLD"))
    if stated and header and abs(stated - header) > TR_TOLERANCE:
        raise BoldError(
            f"repetition time of {run.name} must be one, got {stated:g} s in its JSON and {header:g} s in the header "
            f"of {run.bold}. Correct the wrong one, or give the true one with --tr."
        )
    found = tr or stated or header
    if not found:
        raise BoldError(
            f"repetition time of {run.name} must be known, got none in the JSON beside {run.bold} nor in its header. "
            "Write RepetitionTime (s) to the JSON, or give it with --tr."
        )
    return Timing(int(image.shape[3]), float(found), _seconds(about, "StartTime", run))


def header_tr(image: nib.spatialimages.SpatialImage) -> float:
    """Repetition time by the NIfTI header, s; 0 where it says none (nibabel writes 1 without a unit for none)."""
    zooms = image.header.get_zooms()
    unit = image.header.get_xyzt_units()[1] if hasattr(image.header, "get_xyzt_units") else "unknown"
    # series come as (x, y, z, 1, n), too
    step = zooms[4] if len(zooms) > 4 and image.shape[3] == 1 else zooms[3] if len(zooms) > 3 else 0.0
    return float(step) * SECONDS[unit] if unit in SECONDS and np.isfinite(step) and step > 0 else 0.0


def metadata(run: Run) -> dict[str, Any]:
    """What the JSON beside the BOLD says and, where that is silent, those that the run inherits."""
    beside = Path(run.bold).with_name(stem(Path(run.bold).name) + ".json")
    found: dict[str, Any] = {}
    for path in (beside, *map(Path, run.more)):
        if path.is_file():
            found = read_object(path) | found
    return found


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON of metadata says; a BoldError where it is damaged or no object."""
    content = json_object(path)
    if content is None:
        raise BoldError(
            f"{path} must be a JSON object of metadata, got another value or a damaged file. Correct it, or remove it."
        )
    return content


def _seconds(about: dict[str, Any], key: str, run: Run, remedy: str = "") -> float:
    value = about.get(key, 0.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 100:
        raise BoldError(f"{key} of {run.name} must be seconds, got {value!r} in its JSON. Correct it{remedy}.")
    return float(value)
