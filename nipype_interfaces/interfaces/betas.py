"""Preprocessed BOLD, events and confounds -> single-trial betas, mask and table of trials."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import fingerprint
from napari_neuraldiffuser.core.base.names import bids_label
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.bold import BoldError, Run, find_runs, survey
from napari_neuraldiffuser.core.bold.stage import estimate, join
from napari_neuraldiffuser.core.bold.survey import survey_group
from napari_neuraldiffuser.core.bold.write import BetaFiles, write_mask
from napari_neuraldiffuser.core.params import BoldParams
from nipype.external.due import BibTeX
from nipype.interfaces.base import (
    Directory,
    File,
    InputMultiObject,
    OutputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)

from nipype_interfaces.interfaces import base
from nipype_interfaces.spec import params_of, params_spec

LSS_BIBTEX = (
    "@article{Mumford2012LSS, title={Deconvolving {BOLD} activation in event-related designs for multivoxel pattern "
    "classification analyses}, author={Mumford, Jeanette A. and Turner, Benjamin O. and Ashby, F. Gregory and "
    "Poldrack, Russell A.}, journal={NeuroImage}, volume={59}, pages={2636--2643}, year={2012}}"
)
REFERENCES = [base.PAPER, {"entry": BibTeX(LSS_BIBTEX), "tags": ["method"]}]


class BoldRunsInputSpec(base.VersionedSpec, params_spec(BoldParams)):
    bids_dir = Directory(
        exists=True,
        mandatory=True,
        xor=["runs_table", "bold"],
        desc="fMRIPrep's derivatives, or the BIDS folder of them.",
    )
    runs_table = File(
        exists=True,
        mandatory=True,
        xor=["bids_dir", "bold"],
        desc="TSV with a row per run: bold, events, and confounds, mask, session, run.",
    )
    bold = InputMultiObject(
        File(exists=True),
        mandatory=True,
        xor=["bids_dir", "runs_table"],
        requires=["events", "mask"],
        desc="Preprocessed 4-D BOLD of each run, where no folder is given.",
    )
    events = InputMultiObject(File(exists=True), desc="Events table of each run of `bold`.")
    confounds_files = InputMultiObject(
        File(exists=True), desc="Confounds table of each run of `bold`; none where left out."
    )
    sessions = traits.List(traits.Str, desc="Session of each run of `bold`; all are session 1 where left out.")
    participant = traits.Str("01", usedefault=True, desc="Label of the subject in the BIDS folder.")
    events_dir = Directory(exists=True, desc="Raw BIDS folder, where events lie apart from the derivatives.")
    space = traits.Str("", usedefault=True, desc="Space of the BOLD, where there are several.")
    task = traits.Str("", usedefault=True, desc="Task, where several have events.")
    mask = File(exists=True, desc="NIfTI on the grid of the BOLD, for all runs instead of their own.")


class BoldRunsOutputSpec(TraitedSpec):
    runs = traits.List(traits.Dict, desc="Files of each run: the fields of core.bold.Run.")
    groups = traits.List(
        traits.List(traits.Dict),
        desc="The runs that are fitted together: one by one, or those of a session with GLMsingle.",
    )
    mask = File(exists=True, desc="NIfTI of the voxels inside the mask of every run.")
    stamps = traits.List(traits.Str, desc="Digest of files and choices of each group: they changed if it does.")
    stamp = traits.Str(desc="The same of all groups.")


class BoldRuns(base.CoreInterface):
    """Find the runs of a subject and check their headers, masks and tables, without reading a volume.

    It runs every time, as only it sees whether a file changed; runs of which none did are not fitted again.

    Raises
    ------
    BoldError
        For what is missing, ambiguous or contradicts itself.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import BoldRuns
    >>> BoldRuns(participant="02", estimator="lss").inputs.hrf_model
    'spm'
    """

    input_spec, output_spec = BoldRunsInputSpec, BoldRunsOutputSpec
    light = True
    _always_run = True
    _references = REFERENCES

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        runs = self._listed() if isdefined(self.inputs.bold) else self._found()
        found = survey(runs, params_of(self.inputs, BoldParams))
        write_mask(folder / "mask.nii.gz", found.mask, found.affine)
        return {
            "runs": [run.to_dict() for run in runs],
            "groups": [[runs[k].to_dict() for k in group] for group in found.groups],
            "mask": str(folder / "mask.nii.gz"),
            "stamps": [fingerprint(found.made_from(group)) for group in range(len(found.groups))],
            "stamp": found.stamp,
        }

    def _found(self) -> list[Run]:
        given = self.inputs
        return find_runs(
            base.given(given.bids_dir, base.given(given.runs_table, "")),
            given.participant,
            events_dir=base.given(given.events_dir, ""),
            space=given.space,
            task=given.task,
            mask=base.given(given.mask, ""),
        )

    def _listed(self) -> list[Run]:
        given, n = self.inputs, len(self.inputs.bold)
        events, confounds = list(given.events), list(base.given(given.confounds_files, []) or [""] * n)
        sessions = list(base.given(given.sessions, []) or ["1"] * n)
        for name, values in (("events", events), ("confounds_files", confounds), ("sessions", sessions)):
            if len(values) != n:
                raise BoldError(
                    f"{name} must have an entry per run of bold ({n}), got {len(values)}. Give one for each."
                )
        parts = zip(given.bold, events, confounds, sessions, strict=True)
        return [
            Run(bold, event, confound, given.mask, session, str(sessions[: k + 1].count(session)))
            for k, (bold, event, confound, session) in enumerate(parts)
        ]


class SurveyedSpec(base.VersionedSpec, params_spec(BoldParams)):
    # not hashed: Nipype would read every series whole, and fit all runs again where one changed; the stamp says it
    runs = traits.List(traits.Dict, mandatory=True, nohash=True, desc="Files of the runs, from BoldRuns.")
    stamp = traits.Str(mandatory=True, desc="From BoldRuns: files or choices changed if it does.")


class EstimateBetasInputSpec(SurveyedSpec):
    # written anew each time; the stamp has its voxels
    mask = File(exists=True, mandatory=True, nohash=True, desc="Voxels inside the mask of every run, from BoldRuns.")


class EstimateBetasOutputSpec(TraitedSpec):
    part = File(exists=True, desc="HDF5 of the betas of one group of runs.")


class EstimateBetas(base.CoreInterface):
    """Fit one run (or one session with GLMsingle), one of BoldRuns' groups, to betas, a volume per trial.

    Raises
    ------
    BoldError
        If trials cannot be told apart, or the BOLD has no mean.
    NSDError
        If volumes cannot be read.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import EstimateBetas
    >>> EstimateBetas(stamp="0").inputs.estimator
    'lsa'
    """

    input_spec, output_spec = EstimateBetasInputSpec, EstimateBetasOutputSpec
    _references = REFERENCES

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        given = self.inputs
        group = survey_group(_runs(given), given.mask, params_of(given, BoldParams))
        return {"part": str(estimate(group, folder / "part.h5", progress))}


class JoinBetasInputSpec(SurveyedSpec):
    parts = InputMultiObject(File(exists=True), mandatory=True, desc="Betas of each group, in their order.")
    participant = traits.Str("01", usedefault=True, desc="Label of the subject: names the files.")
    command = traits.Str("", usedefault=True, desc="What the user typed, for the report.")
    images = Directory(exists=True, desc="Folder of one image per stimulus label, for `source`.")
    captions = File(exists=True, desc="JSON of stimulus label to captions, for `source`.")
    anatomy = File(exists=True, desc="T1 in the space of the BOLD, for `source`.")
    rois = InputMultiObject(File(exists=True), desc="Label volumes on the grid of the BOLD, for `source`.")


class JoinBetasOutputSpec(TraitedSpec):
    betas = File(exists=True, desc="4-D NIfTI, one volume per trial.")
    mask = File(exists=True, desc="NIfTI of the voxels that have betas.")
    trials = File(exists=True, desc="TSV of trial, stimulus, session, run and test.")
    page = File(exists=True, desc="HTML report of the design.")
    files = OutputMultiObject(File(exists=True), desc="All of them, with sidecars and the list of dropped trials.")
    notes = traits.List(traits.Str, desc="What was skipped or dropped, and why.")
    source = traits.Dict(desc="The files as the `source` of other interfaces and of init_subject_wf.")


class JoinBetas(base.CoreInterface):
    """Betas of all runs as one NIfTI, with mask, table of trials and design report: the files of own scans.

    Raises
    ------
    BoldError
        If most voxels lack a signal in some run.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import JoinBetas
    >>> JoinBetas(participant="02").inputs.participant
    '02'
    """

    input_spec, output_spec = JoinBetasInputSpec, JoinBetasOutputSpec
    _references = REFERENCES

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        given, label = self.inputs, bids_label(self.inputs.participant)
        files = BetaFiles(folder, label, given.estimator)
        found = survey(_runs(given), params_of(given, BoldParams))
        written = join(found, [Path(part) for part in given.parts], files, progress, given.command)
        made = {name: str(getattr(written, name)) for name in ("betas", "mask", "trials", "page")}
        stimuli = {name: str(base.given(getattr(given, name), "")) for name in ("images", "captions", "anatomy")}
        source = Source(
            subject=label.removeprefix("sub-"),
            betas=made["betas"],
            mask=made["mask"],
            trials=made["trials"],
            rois=tuple(map(str, base.given(given.rois, ()))),
            **stimuli,
        )
        every = sorted(str(path) for path in (folder / label).iterdir())
        return {**made, "files": every, "notes": written.notes, "source": source.to_dict()}


def _runs(inputs: SurveyedSpec) -> list[Run]:
    """The runs that a node is given."""
    return [Run.from_dict(dict(run)) for run in inputs.runs]
