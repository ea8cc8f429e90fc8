"""NSD files or own scans -> index of stimuli and prepared betas; what a model folder holds."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import file_versions, fingerprint
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.networks.digest import folder_digest, model_source
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.nsd.describe import stimuli_used, trials_used
from napari_neuraldiffuser.core.params import BetasParams
from nipype.interfaces.base import Directory, File, InputMultiObject, SimpleInterface, TraitedSpec, traits

from nipype_interfaces.interfaces import base
from nipype_interfaces.no_environment import NoEnvironment
from nipype_interfaces.spec import params_of, params_spec


class NSDIndexInputSpec(base.SourceSpec, params_spec(BetasParams)):
    n_stimuli = traits.Range(low=0, value=0, usedefault=True, desc="The first so many test stimuli; 0 for all.")


class NSDIndexOutputSpec(TraitedSpec):
    trials = File(exists=True, desc="TSV with one row per trial.")
    train_ids = traits.List(traits.Int, desc="0-based 73k ids seen in training trials.")
    test_ids = traits.List(traits.Int, desc="0-based 73k ids of the shared test images that are used.")
    source = traits.Dict(desc="For the other interfaces: with stamps of the files, so that their nodes see changes.")


class NSDIndex(base.CoreInterface):
    """List what a subject of an NSD folder saw, without reading betas.

    It runs every time, as only it sees whether a file in the folder changed; what follows does not if none did.

    Raises
    ------
    NSDError
        If the folder is not an NSD tree with the subject, or own files are missing.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import NSDIndex
    >>> index = NSDIndex(subject="subj02", sessions="1-3")
    >>> index.inputs.roi
    'nsdgeneral'
    """

    input_spec, output_spec = NSDIndexInputSpec, NSDIndexOutputSpec
    light = True
    _always_run = True
    _references = [base.PAPER, base.DATASET]

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        params, subject = params_of(self.inputs, BetasParams), base.subject_of(self.inputs)
        path = folder / "trials.tsv"
        trials_used(subject, params).to_csv(path, sep="\t", index=False)
        train, test = stimuli_used(subject, params)
        found = {"trials": str(path), "train_ids": train, "test_ids": test[: self.inputs.n_stimuli or None]}
        return found | {"source": base.source_of(self.inputs).to_dict() | source_stamps(subject, params)}


def source_stamps(subject: nsd.BrainSource, params: BetasParams) -> dict[str, str]:
    """Stamps of the files: of all, and of those that decide images and captions alone."""
    stimuli = subject.stimulus_files()
    every = [*subject.beta_files(params.roi), *stimuli, subject.anatomy_file or ""]
    return dict(zip(base.STAMPS, (fingerprint(file_versions(files)) for files in (every, stimuli)), strict=True))


class BetasOutputSpec(TraitedSpec):
    betas = File(exists=True, desc="HDF5 of prepared betas, one row per stimulus.")
    n_voxels = traits.Int(desc="Voxels of the ROI that have usable betas.")
    notes = traits.List(traits.Str, desc="What was skipped or dropped, and why.")


class LoadNSDBetasInputSpec(base.SourceSpec, params_spec(BetasParams)):
    pass


class LoadNSDBetas(base.CoreInterface):
    """Betas of a subject and ROI: scaled, z-scored within session, repeats averaged (method.md eq. 1-3).

    Raises
    ------
    NSDError
        If a session is damaged, grids differ, or the ROI holds no voxel.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import LoadNSDBetas
    >>> LoadNSDBetas(roi="V1 + V2 - FFA").inputs.zscore
    True
    """

    input_spec, output_spec = LoadNSDBetasInputSpec, BetasOutputSpec
    _references = [base.PAPER, base.DATASET]

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        return _write_betas(base.subject_of(self.inputs), folder, progress)


class PrepareBetasInputSpec(base.VersionedSpec, params_spec(BetasParams)):
    betas = File(
        exists=True, mandatory=True, desc="4-D NIfTI (x, y, z, trial) or GLMsingle's .npy, .hdf5, .mat; as they are."
    )
    mask = File(exists=True, mandatory=True, desc="3-D NIfTI on the same grid; voxels above 0 are used.")
    trials = File(exists=True, desc="TSV of trial, stimulus, session and test; or GLMsingle's design (docs/nsd.md).")
    images = Directory(exists=True, desc="Folder of one image per stimulus label.")
    captions = File(exists=True, desc="JSON of stimulus label to captions.")
    anatomy = File(exists=True, desc="T1 in the betas' space.")
    rois = InputMultiObject(File(exists=True), desc="Label volumes on the betas' grid, each one a family of ROIs.")
    subject = traits.Str("subj01", usedefault=True, desc="Name of the output: subj01 gives sub-01.")


class PrepareBetasOutputSpec(BetasOutputSpec):
    source = traits.Dict(desc="The files as the `source` of other interfaces.")
    train_ids = traits.List(traits.Int, desc="Indices of the labels of training stimuli.")
    test_ids = traits.List(traits.Int, desc="Indices of the labels of test stimuli.")


class PrepareBetas(base.CoreInterface):
    """Own betas in a NIfTI, a mask and a table of trials, prepared as NSD's are.

    Raises
    ------
    NSDError
        If the files do not fit each other; the message names both.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import PrepareBetas
    >>> PrepareBetas(sessions="1-4").inputs.average_repeats
    True
    """

    input_spec, output_spec = PrepareBetasInputSpec, PrepareBetasOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        subject = base.subject_of(self.inputs)
        train, test = stimuli_used(subject, params_of(self.inputs, BetasParams))
        written = _write_betas(subject, folder, progress)
        return {**written, "source": base.source_of(self.inputs).to_dict(), "train_ids": train, "test_ids": test}


def _write_betas(subject: nsd.BrainSource, folder: Path, progress: Progress) -> dict[str, Any]:
    path = folder / "betas.h5"
    nsd.save_betas(subject.betas(progress=progress), path)
    facts = nsd.betas_facts(path)
    return {"betas": str(path), "n_voxels": facts["n_voxels"], "notes": facts["notes"]}


class CheckModelsOutputSpec(TraitedSpec):
    model_digest = traits.Str(desc="SHA-256 over the weights and configurations; hub ids stand for themselves.")


class CheckModels(NoEnvironment, SimpleInterface):
    """Digest of the weights, so that nodes rerun when a file of the model folder changes.  It runs every time.

    A folder that lacks a part, or whose files are no weights, is refused here; names of weights are compared where the
    networks are opened.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import CheckModels
    >>> CheckModels(models="demo").inputs.guide
    ''
    """

    input_spec, output_spec = base.ModelFolderSpec, CheckModelsOutputSpec
    _always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        guide = self.inputs.guide or None
        check_folder(self.inputs.models, guide)
        self._results["model_digest"] = folder_digest(model_source(self.inputs.models), guide)
        return runtime
