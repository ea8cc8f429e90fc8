"""Where NSD keeps its files: with `further.files` the only module that knows paths of the NSD tree."""

import re
from dataclasses import dataclass
from pathlib import Path

from napari_neuraldiffuser.core.base.files import Place
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SPACES
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

SESSION_FILE = re.compile(r"betas_session(\d+)\.(hdf5|nii\.gz|nii)$")
SURFACE_FILE = re.compile(r"(lh|rh)\.betas_session(\d+)\.mgh$")
SUFFIX_ORDER = ("hdf5", "nii", "nii.gz")
"""Which file of a session is read when several exist: the quickest to read a masked part of comes first."""
DEPTHS = ("layerB1", "layerB2", "layerB3")
"""NSD's names of 25, 50 and 75 % of the depth of grey matter, from outside."""


@dataclass(frozen=True)
class Layout:
    """Paths of one subject in an NSD tree, in one space and beta version."""

    root: Path
    subject: str
    space: str = SPACES[0]
    version: str = "betas_fithrf_GLMdenoise_RR"

    design = Place("nsddata/experiments/nsd/nsd_expdesign.mat")
    stim_info = Place("nsddata/experiments/nsd/nsd_stim_info_merged.csv")
    stimuli = Place("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5")
    captions = Place("nsddata_stimuli/captions.json")
    """Not part of NSD: COCO's captions as `{cocoId: [caption, ...]}` or as COCO's own annotation file."""

    ppdata = Place("nsddata/ppdata/{subject}")
    responses = Place("nsddata/ppdata/{subject}/behav/responses.tsv")
    volumes = Place("nsddata/ppdata/{subject}/{space}")
    anatomy = Place("nsddata/ppdata/{subject}/{space}/T1_to_{space}.nii.gz")
    roi_folder = Place("nsddata/ppdata/{subject}/{space}/roi")
    beta_folder = Place("nsddata_betas/ppdata/{subject}/{space}/{version}")
    ncsnr = Place("nsddata_betas/ppdata/{subject}/{space}/{version}/ncsnr.nii.gz")
    atlas_folder = Place("nsddata/freesurfer/fsaverage/label")
    """Regions that are the same for all subjects, on fsaverage."""
    native_folder = Place("nsddata/freesurfer/{subject}/label")
    """Regions on the subject's own surface."""
    truth = Place("nsddata/ppdata/{subject}/simulation_truth.json")
    """Written by the simulator only."""

    @property
    def number(self) -> int:
        """1-based subject number: the row of `subjectim`."""
        match = re.fullmatch(r"subj0([1-8])", self.subject)
        if match is None:
            raise NSDError(f"subject must be subj01 ... subj08 (NSD's own names), got {self.subject!r}.")
        return int(match.group(1))

    def place(self, pattern: str) -> Path:
        """Path of this subject, space and version."""
        return self.root / pattern.format(subject=self.subject, space=self.space, version=self.version)

    def valid_session(self, session: int) -> Path:
        return self.volumes / f"valid_session{session:02d}.nii.gz"

    def session_file(self, session: int, suffix: str = "hdf5") -> Path:
        return self.beta_folder / f"betas_session{session:02d}.{suffix}"

    def label_tables(self, name: str) -> tuple[Path, ...]:
        """Colour tables of an ROI family: the subject's own (prf and floc families), then fsaverage's."""
        return tuple(folder / f"{name}.mgz.ctab" for folder in (self.native_folder, self.atlas_folder))

    def surface_file(self, hemisphere: str, session: int) -> Path:
        return self.beta_folder / f"{hemisphere}.betas_session{session:02d}.mgh"

    def surface_ncsnr(self, hemisphere: str) -> Path:
        return self.beta_folder / f"{hemisphere}.ncsnr.mgh"

    def to_fsaverage(self, hemisphere: str) -> Path:
        """Which vertex of the subject's own surface, counted from 1, is nearest to each vertex of fsaverage."""
        return self.ppdata / "transforms" / f"{hemisphere}.white-to-fsaverage.mgz"

    def depths(self, hemisphere: str) -> list[Path]:
        """Where each vertex of the subject's own surface lies in the volumes of this space, at three depths of grey
        matter; a file each.  None in a space that is a surface."""
        space = {"func1pt8mm": "func1pt8", "func1mm": "func1pt0"}.get(self.space)
        if space is None:
            return []
        return [self.ppdata / "transforms" / f"{hemisphere}.{space}-to-{depth}.mgz" for depth in DEPTHS]

    def surface_sessions(self) -> tuple[dict[int, list[Path]], list[int]]:
        """Both hemispheres' files of each session that has them, by session number, and sessions that have one alone.

        Raises
        ------
        NSDError
            If no session has both.
        """
        matches = map(SURFACE_FILE.fullmatch, sorted(path.name for path in self.beta_folder.glob("*.mgh")))
        there = [(match[1], int(match[2])) for match in matches if match]
        known = sorted({session for _, session in there})
        both = [session for session in known if all((side, session) in there for side in HEMISPHERES)]
        halves = [session for session in known if session not in both]
        if not both:
            got = f"one alone of sessions {', '.join(map(str, halves))}" if halves else "none"
            raise NSDError(
                f"{self.beta_folder} must hold lh.betas_sessionNN.mgh and rh.betas_sessionNN.mgh of a session, got "
                f"{got}. Download both hemispheres of this subject and version, or choose another version or space."
            )
        return {session: [self.surface_file(side, session) for side in HEMISPHERES] for session in both}, halves

    def sessions(self) -> dict[int, Path]:
        """File of each session whose betas are on disk, by session number.

        Raises
        ------
        NSDError
            If there is none.
        """
        ranked: dict[int, tuple[int, Path]] = {}
        for path in sorted(self.beta_folder.glob("betas_session*")):
            if match := SESSION_FILE.fullmatch(path.name):
                session, candidate = int(match[1]), (SUFFIX_ORDER.index(match[2]), path)
                ranked[session] = min(candidate, ranked.get(session, candidate))
        if not ranked:
            raise NSDError(
                f"{self.beta_folder} must hold betas_sessionNN.hdf5, .nii or .nii.gz, got none. "
                "Download the betas of this subject, space and version, or choose another version."
            )
        return {session: path for session, (_, path) in sorted(ranked.items())}

    def check(self) -> None:
        """Raise NSDError unless this looks like an NSD tree with this subject in it."""
        self.number  # noqa: B018 (raises for a name NSD does not have)
        if not self.root.is_dir():
            raise NSDError(f"nsd_dir must be a folder, got {self.root}. Give the folder that holds nsddata.")
        if not self.design.is_file():
            raise NSDError(
                f"nsd_dir must be an NSD folder, got {self.root}: there is no "
                f"{self.design.relative_to(self.root)}. {_instead(self.root)}"
            )
        if not self.ppdata.is_dir():
            have = sorted(p.name for p in self.ppdata.parent.glob("subj*"))
            raise NSDError(f"subject must be one of {have} in {self.ppdata.parent}, got {self.subject!r}.")


def _instead(folder: Path) -> str:
    """What to give in the place of a folder that is no NSD folder, by what is in it."""
    if betas := sorted([*folder.glob("sub-*_betas.nii*"), *folder.glob("sub-*/**/sub-*_betas.nii*")]):
        return f"For the betas in it give the file: {betas[0]}, with --mask and --trials (docs/nsd.md)."
    inside = folder.name.startswith("sub-") and any(folder.glob("**/*_bold.*"))
    if inside or any(folder.glob("**/sub-*/**/*_bold.*")):
        return (
            "It holds BOLD: make betas of it first with `neuraldiffuser betas`, and give the BETAS.nii.gz that this "
            "writes (docs/own-scans.md)."
        )
    return "Give the folder that holds nsddata and nsddata_betas."
