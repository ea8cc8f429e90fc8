"""Images and decoder -> scores, contribution maps, the subject's page and the group's."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.outputs.names import entity
from napari_neuraldiffuser.core.params import (
    SPACES,
    BetasParams,
    ContributionParams,
    DiffusionParams,
    EvaluationParams,
    Settings,
    settings_from_dict,
)
from nipype.interfaces.base import Directory, File, InputMultiObject, TraitedSpec, isdefined, traits

from nipype_interfaces.interfaces.base import (
    CoreInterface,
    ModelsSpec,
    SourceSpec,
    VersionedSpec,
    given,
    label_of,
    opened_models,
    source_of,
    subject_of,
)
from nipype_interfaces.interfaces.recon import gather_images
from nipype_interfaces.spec import params_of, params_spec

SPACE = traits.Str(SPACES[0], usedefault=True, desc="Volume space of the betas.")


class ContributionMapInputSpec(SourceSpec, params_spec(ContributionParams)):
    betas = File(exists=True, mandatory=True, desc="Prepared betas, HDF5.")
    decoder = File(exists=True, mandatory=True, desc="Fitted decoder, HDF5.")
    targets = File(exists=True, desc="True targets of the stimuli, for the product measure; HDF5.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the test stimuli.")
    space = SPACE


class ContributionMapOutputSpec(TraitedSpec):
    maps = traits.List(File(exists=True), desc="One NIfTI per target: share of every voxel.")
    table = File(exists=True, desc="TSV of ROI, target, share, standard error and number of voxels.")


class ContributionMap(CoreInterface):
    """Which voxels and ROIs carried each decoded target (method.md eq. 31-34).

    Raises
    ------
    ContributionError
        If stimuli have no targets, or a target equals the training mean.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import ContributionMap
    >>> ContributionMap(bootstrap=100).inputs.bootstrap
    100
    """

    input_spec, output_spec = ContributionMapInputSpec, ContributionMapOutputSpec

    def core(self, folder: Path, progress: Any) -> dict[str, Any]:
        from napari_neuraldiffuser.core import attribution, decoding, nsd
        from napari_neuraldiffuser.core.job.scores import first_test, map_families
        from napari_neuraldiffuser.core.networks import embeddings

        subject = subject_of(self.inputs, BetasParams(space=_nsd_space(self.inputs.space)))
        test = first_test(nsd.load_betas(self.inputs.betas), None, self.inputs.stimulus_ids)
        decoder, params = decoding.RidgeDecoder.load(self.inputs.decoder), params_of(self.inputs, ContributionParams)
        targets = embeddings.TargetFile(self.inputs.targets) if isdefined(self.inputs.targets) else None
        families = [subject.rois(name) for name in map_families(subject)]
        maps = attribution.map(decoder, test, families, targets, params, progress)
        *volumes, table = map(str, maps.save(folder / label_of(self.inputs), label_of(self.inputs)))
        return {"maps": volumes, "table": table}


def _nsd_space(space: str) -> str:
    """Own scans have a space that is none of NSD's; they do not look at it."""
    return space if space.startswith("func") else BetasParams().space


class EvaluateReconstructionInputSpec(SourceSpec, ModelsSpec, params_spec(EvaluationParams)):
    images = InputMultiObject(File(exists=True), mandatory=True, desc="PNG files of both arms.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the stimuli that are scored.")
    repeats = traits.Range(low=1, value=DiffusionParams().repeats, usedefault=True, desc="Images per stimulus and arm.")


class EvaluateReconstructionOutputSpec(TraitedSpec):
    scores = File(exists=True, desc="TSV with a row per stimulus, repeat and arm.")
    summary = File(exists=True, desc="JSON of mean, standard error and number per arm and metric.")


class EvaluateReconstruction(CoreInterface):
    """Scores of both arms against the seen images, and between repeats (method.md eq. 35-42).

    Raises
    ------
    UserError
        If there are fewer than 2 stimuli, as scores compare stimuli.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import EvaluateReconstruction
    >>> EvaluateReconstruction(repeats=3).inputs.size
    425
    """

    input_spec, output_spec = EvaluateReconstructionInputSpec, EvaluateReconstructionOutputSpec

    def core(self, folder: Path, progress: Any) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.scores import score_arms
        from napari_neuraldiffuser.core.outputs.names import Derivatives

        places, stimuli = Derivatives(folder, label_of(self.inputs)), subject_of(self.inputs).stimuli
        gather_images(self.inputs.images, places)
        settings = Settings(
            diffusion=DiffusionParams(repeats=self.inputs.repeats), evaluation=params_of(self.inputs, EvaluationParams)
        )
        with opened_models(self.inputs) as models:
            score_arms(places, stimuli, models, (self.inputs.stimulus_ids, settings), progress)
        return {"scores": str(places.scores), "summary": str(places.summary)}


class SubjectReportInputSpec(SourceSpec, ModelsSpec):
    betas = File(exists=True, mandatory=True, desc="Prepared betas, HDF5: what the page counts.")
    embeddings = File(exists=True, mandatory=True, desc="Decoded embeddings, HDF5.")
    decoder = File(exists=True, mandatory=True, desc="Fitted decoder, HDF5: cross-validated accuracy.")
    images = InputMultiObject(File(exists=True), mandatory=True, desc="PNG files of both arms.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the stimuli that are shown.")
    failed = traits.List(traits.Int, desc="Stimuli that were left out, of CollectImages: the page names them.")
    n_stimuli = traits.Range(low=0, value=0, usedefault=True, desc="Test stimuli that were asked for; 0 for all.")
    scores = File(exists=True, mandatory=True, desc="Of EvaluateReconstruction.")
    summary = File(exists=True, mandatory=True, desc="Of EvaluateReconstruction.")
    maps = InputMultiObject(File(exists=True), mandatory=True, desc="Of ContributionMap.")
    table = File(exists=True, mandatory=True, desc="Of ContributionMap.")
    settings = traits.Dict(mandatory=True, desc="Settings.to_dict(): parameters of all stages, for the page.")
    command = traits.Str("", usedefault=True, nohash=True, desc="What the user typed, for the page.")
    space = SPACE


class SubjectReportOutputSpec(TraitedSpec):
    page = File(exists=True, desc="One self-contained HTML page.")
    files = traits.List(File(exists=True), desc="Anatomy, regions, seen and start images, slices.")
    notes = traits.List(traits.Str, desc="What was left out while betas and stimuli were read.")


class SubjectReport(CoreInterface):
    """One self-contained HTML page: images, scores, regions, and how all of it was made.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import SubjectReport
    >>> SubjectReport(command="neuraldiffuser run ...").inputs.models
    'demo'
    """

    input_spec, output_spec = SubjectReportInputSpec, SubjectReportOutputSpec

    def core(self, folder: Path, progress: Any) -> dict[str, Any]:
        from napari_neuraldiffuser.core.base.files import make_folder
        from napari_neuraldiffuser.core.job.page import write_page
        from napari_neuraldiffuser.core.job.resume import Stages
        from napari_neuraldiffuser.core.outputs.names import Derivatives

        places = Derivatives(folder, label_of(self.inputs), self.inputs.space)
        gather_images(self.inputs.images, places)
        given = {Path(image).name for image in self.inputs.images}
        with opened_models(self.inputs) as models:
            parts = self._parts(models, places)
            write_page(parts, Stages(make_folder(folder / "stages")), progress)
        # sidecars are written once all files are in the output folder
        found = (p for p in places.folder.rglob("*") if p.is_file() and p.suffix != ".json" and p.name not in given)
        files = sorted(map(str, found))
        return {"page": str(places.page), "files": files, "notes": parts.notes}

    def _parts(self, models: Any, places: Any) -> Any:
        """What the page shows, from the files of the other nodes."""
        import nibabel
        import pandas as pd
        from napari_neuraldiffuser.core import decoding, nsd
        from napari_neuraldiffuser.core.base.files import read_json
        from napari_neuraldiffuser.core.job.page import PageParts, page_facts
        from napari_neuraldiffuser.core.networks.embeddings import Embeddings

        inputs, settings = self.inputs, settings_from_dict(dict(self.inputs.settings))
        counted = nsd.betas_facts(inputs.betas, inputs.n_stimuli or None)
        exactly = {"sep": "\t", "float_precision": "round_trip", "na_values": "n/a"}
        volumes = {entity(Path(path).name, "target"): nibabel.load(path) for path in inputs.maps}
        subject = subject_of(inputs, settings.betas)
        about = {
            "training images": counted["n_train"],
            "test images": counted["n_test"],
            "trials per test image": counted["trials_per_test_image"],
            "voxels": counted["n_voxels"],
        }
        return PageParts(
            subject=subject,
            models=models,
            places=places,
            decoded=Embeddings.load(inputs.embeddings).subset(inputs.stimulus_ids),
            summary=read_json(inputs.summary),
            scores=pd.read_csv(inputs.scores, **exactly),
            contribution=pd.read_csv(inputs.table, keep_default_na=False, **exactly),
            volumes=volumes,
            accuracy={target: fit.best_r2 for target, fit in decoding.read_accuracy(inputs.decoder).items()},
            settings=settings,
            facts=page_facts(source_of(inputs).subject, models, about),
            notes=[*counted["notes"], *(subject.stimuli.notes if source_of(inputs).own else [])],
            command=inputs.command,
            failed=list(inputs.failed),
        )


class GroupReportInputSpec(VersionedSpec):
    # made by the subjects of the same workflow, so that it need not be there when that is built
    out_dir = Directory(mandatory=True, desc="Output folder with finished subjects.")
    labels = traits.List(traits.Str, desc="sub-01 ...; every subject of the folder where left out.")
    finished = traits.Any(nohash=True, desc="Connect what must be finished before: its value does not matter.")


class GroupReportOutputSpec(TraitedSpec):
    page = File(exists=True, desc="group.html.")
    table = File(exists=True, desc="TSV with a row per subject, arm and metric.")
    summary = File(exists=True, desc="JSON of means and standard errors over subjects.")


class GroupReport(CoreInterface):
    """Table and page over the subjects of an output folder.  It runs every time, as it reads that folder.

    Raises
    ------
    UserError
        If no subject of the folder is finished.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import GroupReport
    >>> GroupReport(labels=["sub-01", "sub-02"]).inputs.labels
    ['sub-01', 'sub-02']
    """

    input_spec, output_spec = GroupReportInputSpec, GroupReportOutputSpec
    light = True
    _always_run = True

    def core(self, folder: Path, progress: Any) -> dict[str, Any]:
        from napari_neuraldiffuser.core.outputs.group.write import write_group

        found = write_group(Path(self.inputs.out_dir), given(self.inputs.labels, None), progress=progress)
        return {"page": str(found.page), "table": str(found.table), "summary": str(found.summary)}
