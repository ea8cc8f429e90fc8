"""Where NSD keeps the files of its further sessions, and how many trials and images they have."""

from dataclasses import dataclass
from pathlib import Path

from napari_neuraldiffuser.core.base.files import Place
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SURFACES
from napari_neuraldiffuser.core.nsd.layout import SUFFIX_ORDER, Layout
from napari_neuraldiffuser.core.nsd.reading.design import N_STIMULI
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

TRIALS = {"synthetic": 744, "imagery": 720}
"""Rows of a session's betas: 93 trials in each of 8 runs; 48 events in each of 3 vision and 6 imagery runs, and 96, cue
and detection apart, in each of 3 attention runs (NSD data manual)."""
N_SHARED_PICTURES, N_COLOUR_PICTURES = 220, 64
"""Images of NSD-synthetic that are the same for all subjects, and those whose colours were fitted to each subject."""
N_SYNTHETIC = N_SHARED_PICTURES + N_COLOUR_PICTURES
FIRST_ID = {"synthetic": N_STIMULI, "imagery": N_STIMULI + 1000}
"""Stimulus id of a test set's first image: ids go on behind NSD's 73,000."""


@dataclass(frozen=True)
class FurtherFiles:
    """Paths of one subject's further session, in the space and version of a layout."""

    layout: Layout
    test_set: str

    design = Place("nsddata/experiments/{session}/{session}_expdesign.mat")
    pictures = Place("nsddata_stimuli/stimuli/{session}/{session}_stimuli.hdf5")
    colour_pictures = Place("nsddata_stimuli/stimuli/{session}/{session}_colorstimuli_{subject}.hdf5")
    folder = Place("nsddata_betas/ppdata/{subject}/{space}/{session}{version}")
    valid = Place("nsddata/ppdata/{subject}/{space}/valid_{session}.nii.gz")

    @property
    def session(self) -> str:
        """NSD's name of the experiment."""
        return f"nsd{self.test_set}"

    @property
    def title(self) -> str:
        """Name of the experiment for readers."""
        return f"NSD-{self.test_set}"

    def place(self, pattern: str) -> Path:
        """Path of this subject, space, version and session."""
        return self.layout.place(pattern.replace("{session}", self.session))

    def betas(self) -> list[Path]:
        """The file of betas, or on a surface that of each hemisphere.

        Raises
        ------
        NSDError
            If there is none.
        """
        if self.layout.space in SURFACES:
            files = [self.folder / f"{side}.betas_{self.session}.mgh" for side in HEMISPHERES]
            found = files if all(path.is_file() for path in files) else []
            wanted = " and ".join(path.name for path in files)
        else:
            files = [self.folder / f"betas_{self.session}.{suffix}" for suffix in SUFFIX_ORDER]
            found = [path for path in files if path.is_file()][:1]
            wanted = f"betas_{self.session}.hdf5, .nii or .nii.gz"
        if not found:
            raise NSDError(
                f"{self.folder} must hold {wanted} for test set {self.test_set}, got none. Download that session of "
                "this subject, space and version, or leave --test-set out."
            )
        return found
