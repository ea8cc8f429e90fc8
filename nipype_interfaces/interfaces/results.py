"""Images and decoder -> scores, contribution maps, the subject's page and the group's."""

from pathlib import Path
from shutil import copyfile
from typing import Any

from napari_neuraldiffuser.core import nsd, params
from napari_neuraldiffuser.core.base.files import make_folder, read_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.outputs.group.write import write_group
from nipype.interfaces.base import Directory, File, InputMultiObject, TraitedSpec, isdefined, traits

from nipype_interfaces.interfaces import base
from nipype_interfaces.interfaces.recon import check_repeats, gather_images, n_repeats
from nipype_interfaces.spec import params_of, params_spec

SPACE = traits.Str(params.SPACES[0], usedefault=True, desc="Space of the betas.")


class ContributionMapInputSpec(base.SourceSpec, params_spec(params.ContributionParams)):
    betas = File(exists=True, mandatory=True, desc="Prepared betas, HDF5.")
    decoder = File(exists=True, mandatory=True, desc="Fitted decoder, HDF5.")
    train_targets = File(
        exists=True,
        desc="Target embeddings of the training images, HDF5; needed for region_accuracy of a decoder that keeps none.",
    )
    targets = File(exists=True, desc="True targets of the stimuli, for the product measure; HDF5.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the test stimuli.")
    space = SPACE
    betas_settings = traits.Dict(
        desc="BetasParams.to_dict() of the betas, to read single trials with for the ceiling; none where left out."
    )


class ContributionMapOutputSpec(TraitedSpec):
    maps = traits.List(File(exists=True), desc="One NIfTI per target that varies: share of every voxel.")
    table = File(exists=True, desc="TSV of ROI, target, share, standard error and number of voxels.")
    worth = File(exists=True, desc="TSV of what each decoded target is worth; none without true targets.")
    projected = traits.List(File(exists=True), desc="Projected true targets, HDF5, with save_projected; else empty.")
    regions = traits.List(
        File(exists=True),
        desc="TSV of what the voxels of each region alone decode, then a map per target; with region_accuracy.",
    )


class ContributionMap(base.CoreInterface):
    """Which voxels and ROIs carried each decoded target (method.md eq. 38-41), and what it is worth (method.md
    eq. 55-59).

    Raises
    ------
    ContributionError
        If stimuli have no targets.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import ContributionMap
    >>> ContributionMap(bootstrap=100).inputs.bootstrap
    100
    """

    input_spec, output_spec = ContributionMapInputSpec, ContributionMapOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job import stages
        from napari_neuraldiffuser.core.job.region_accuracy import region_accuracy

        inputs, contribution = self.inputs, params_of(self.inputs, params.ContributionParams)
        # own scans have a space that is none of NSD's; they do not look at it
        betas = params.BetasParams(space=inputs.space) if inputs.space in params.SPACES else params.BetasParams()
        subject = base.subject_of(inputs, betas)
        train, test = nsd.load_betas(inputs.betas).split()
        test = test.subset(inputs.stimulus_ids)
        places = Derivatives(folder, base.label_of(inputs), str(test.space))
        targets = Path(inputs.targets) if isdefined(inputs.targets) else None
        maps = stages.contribution(Path(inputs.decoder), test, subject, targets, places, contribution, progress)
        volumes = [str(path) for target in maps.mapped for path in places.maps(target)]
        made = {"maps": volumes, "table": str(places.contribution_table), "projected": [], "regions": []}
        if targets is None:
            return made
        known = (Path(inputs.train_targets) if isdefined(inputs.train_targets) else None, targets)
        regions = region_accuracy(Path(inputs.decoder), train, test, subject, known, places, contribution, progress)
        made["regions"] = [str(path) for path in regions]
        return made | self._worth(test, targets, places, contribution, progress)

    def _worth(
        self,
        test: nsd.Betas,
        targets: Path,
        places: Derivatives,
        contribution: params.ContributionParams,
        progress: Progress,
    ) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.worth import single_trials, worth

        trials = None
        if isdefined(self.inputs.betas_settings):
            betas = params.BetasParams.from_dict(dict(self.inputs.betas_settings))
            trials = single_trials(base.source_of(self.inputs), betas, test, contribution)
        found = worth(Path(self.inputs.decoder), test, trials, targets, places, contribution, progress)
        return {"worth": str(places.worth), "projected": [str(places.projected)] if found.projected else []}


class EvaluateReconstructionInputSpec(base.SourceSpec, base.ModelsSpec, params_spec(params.EvaluationParams)):
    images = InputMultiObject(File(exists=True), mandatory=True, desc="PNG files of both arms.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the stimuli that are scored.")
    embeddings = File(exists=True, desc="Decoded embeddings, HDF5: the decoded start is scored, too, with train_ids.")
    train_ids = traits.List(traits.Int, desc="0-based 73k ids of the training images, whose mean is a baseline.")
    sidecar = File(
        exists=True, desc="Of CollectImages: warnings look at the images' latents, the trust sheet at its parameters."
    )
    decoder = File(exists=True, desc="Fitted decoder, HDF5: may hold the training targets, for the trust sheet.")
    train_targets = File(exists=True, desc="Target embeddings of the training images, HDF5, for the trust sheet.")
    targets = File(exists=True, desc="True targets of the test stimuli, HDF5, for the trust sheet.")
    worth = File(exists=True, desc="Of ContributionMap: what decoded values are worth, for the trust sheet.")
    betas = File(exists=True, desc="Prepared betas, HDF5: the full trust sheet fits ridge anew.")


class EvaluateReconstructionOutputSpec(TraitedSpec):
    scores = File(exists=True, desc="TSV with a row per stimulus, repeat and arm.")
    summary = File(exists=True, desc="JSON of means, standard errors and numbers, and the trust sheet.")
    warnings = traits.List(traits.Str, desc="A sentence where guidance makes the images worse; else empty.")


class EvaluateReconstruction(base.CoreInterface):
    """Scores of both arms against the seen images, and between repeats (method.md eq. 43-49), and the trust sheet.

    The trust sheet needs embeddings and train_ids; what else it needs and has not, it names.

    Raises
    ------
    UserError
        If there is no stimulus, or stimuli have not equally many repeats.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import EvaluateReconstruction
    >>> EvaluateReconstruction(size=64).inputs.size
    64
    """

    input_spec, output_spec = EvaluateReconstructionInputSpec, EvaluateReconstructionOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.scores import score_arms

        places, stimuli = Derivatives(folder, base.label_of(self.inputs)), base.subject_of(self.inputs).stimuli
        gather_images(self.inputs.images, places)
        if isdefined(self.inputs.sidecar):
            copyfile(self.inputs.sidecar, places.recon_sidecar)
        diffusion = params.DiffusionParams(repeats=n_repeats(self.inputs.images, self.inputs.stimulus_ids))
        settings = params.Settings(diffusion=diffusion, evaluation=params_of(self.inputs, params.EvaluationParams))
        baselines = self._baselines()
        with base.opened_models(self.inputs) as models:
            score_arms(places, stimuli, models, self.inputs.stimulus_ids, settings, progress, baselines)
            if baselines is not None:
                self._trust(places, stimuli, models, settings, progress)
        warnings = read_json(places.summary)["warnings"]
        return {"scores": str(places.scores), "summary": str(places.summary), "warnings": warnings}

    def _trust(
        self, places: Derivatives, stimuli: Any, models: Any, settings: params.Settings, progress: Progress
    ) -> None:
        from napari_neuraldiffuser.core.job.images import made_with
        from napari_neuraldiffuser.core.job.trust.parts import TrustParts
        from napari_neuraldiffuser.core.job.trust.sheet import write_trust

        inputs = self.inputs
        if isdefined(inputs.sidecar):
            settings = made_with(Path(inputs.sidecar), settings)
        names = ("decoder", "train_targets", "targets", "worth")
        files = {n: Path(getattr(inputs, n)) if isdefined(getattr(inputs, n)) else None for n in names}
        full = settings.evaluation.trust == "full"
        betas = nsd.load_betas(inputs.betas).split() if full and isdefined(inputs.betas) else None
        parts = TrustParts(
            places, stimuli, inputs.stimulus_ids, models, settings, Path(inputs.embeddings), inputs.train_ids,
            betas=betas, records=Records(make_folder(places.folder.parent / "stages")), **files,
        )  # fmt: skip
        write_trust(parts, progress)

    def _baselines(self) -> Any:
        """What the controls are made from; None where it was not given."""
        from napari_neuraldiffuser.core.job.controls import Baselines

        given = isdefined(self.inputs.embeddings) and isdefined(self.inputs.train_ids)
        return Baselines(Path(self.inputs.embeddings), self.inputs.train_ids) if given else None


class SubjectReportInputSpec(base.SourceSpec, base.ModelsSpec):
    betas = File(exists=True, mandatory=True, desc="Prepared betas, HDF5: what the page counts.")
    embeddings = File(exists=True, mandatory=True, desc="Decoded embeddings, HDF5.")
    decoder = File(exists=True, mandatory=True, desc="Fitted decoder, HDF5: cross-validated accuracy.")
    images = InputMultiObject(File(exists=True), mandatory=True, desc="PNG files of both arms.")
    sidecar = File(exists=True, desc="Of CollectImages: the parameters the images were made with, for the page.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the stimuli that are shown.")
    failed = traits.List(traits.Int, desc="Stimuli that were left out, of CollectImages: the page names them.")
    n_stimuli = traits.Range(low=0, value=0, usedefault=True, desc="Test stimuli that were asked for; 0 for all.")
    scores = File(exists=True, mandatory=True, desc="Of EvaluateReconstruction.")
    summary = File(exists=True, mandatory=True, desc="Of EvaluateReconstruction.")
    maps = InputMultiObject(File(exists=True), desc="Of ContributionMap; none where no target varies.")
    table = File(exists=True, mandatory=True, desc="Of ContributionMap.")
    worth = File(exists=True, mandatory=True, desc="Of ContributionMap with true targets.")
    regions = InputMultiObject(File(exists=True), desc="Of ContributionMap: the table is shown; empty for none.")
    settings = traits.Dict(mandatory=True, desc="Settings.to_dict(): parameters of all stages, for the page.")
    command = traits.Str("", usedefault=True, nohash=True, desc="What the user typed, for the page.")
    space = SPACE


class SubjectReportOutputSpec(TraitedSpec):
    page = File(exists=True, desc="HTML page; over 20 MB of pictures lie beside it, in sub-XX/recon.")
    files = traits.List(File(exists=True), desc="Anatomy, regions, seen and start images, slices.")
    notes = traits.List(traits.Str, desc="What was left out while betas and stimuli were read.")


FILES = ("embeddings", "decoder", "scores", "summary", "table", "worth")


class SubjectReport(base.CoreInterface):
    """An HTML page: images, scores, regions, and how all of it was made.

    Up to 20 MB of pictures lie in the page; more are shown from sub-XX/recon, which has to be moved with it.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import SubjectReport
    >>> SubjectReport(command="neuraldiffuser run ...").inputs.models
    'demo'
    """

    input_spec, output_spec = SubjectReportInputSpec, SubjectReportOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.images import made_with
        from napari_neuraldiffuser.core.job.page import PageParts, write_page

        inputs = self.inputs
        places = Derivatives(folder, base.label_of(inputs), inputs.space)
        gather_images(inputs.images, places)
        settings = params.settings_from_dict(dict(inputs.settings))
        if isdefined(inputs.sidecar):
            settings = made_with(Path(inputs.sidecar), settings)
        check_repeats(inputs.images, inputs.stimulus_ids, settings.diffusion.repeats)
        subject, records = base.subject_of(inputs, settings.betas), Records(make_folder(folder / "stages"))
        counts = nsd.betas_facts(inputs.betas, inputs.n_stimuli or None)
        files = {name: Path(getattr(inputs, name)) for name in FILES}
        parts = PageParts(
            **files, regions=self._regions(), maps=[Path(path) for path in base.given(inputs.maps, ())],
            settings=settings, stimulus_ids=inputs.stimulus_ids,
            failed=list(base.given(inputs.failed, ())), counts=counts, notes=[*counts["notes"], *subject.stimuli.notes],
            command=inputs.command,
        )  # fmt: skip
        with base.opened_models(inputs) as models:
            notes = write_page(parts, subject, models, places, records, progress)
        given = {Path(image).name for image in inputs.images}
        # sidecars are written once all files are in the output folder
        found = (p for p in places.folder.rglob("*") if p.is_file() and p.suffix != ".json" and p.name not in given)
        return {"page": str(places.page), "files": sorted(map(str, found)), "notes": notes}

    def _regions(self) -> Path | None:
        """The table of what single regions decode."""
        tables = [Path(path) for path in base.given(self.inputs.regions, ()) if str(path).endswith(".tsv")]
        return tables[0] if tables else None


class GroupReportInputSpec(base.VersionedSpec):
    # made by the subjects of the same workflow, so that it need not be there when that is built
    out_dir = Directory(mandatory=True, desc="Output folder with finished subjects.")
    labels = traits.List(traits.Str, desc="sub-01 ...; every subject of the folder where left out.")
    finished = traits.Any(nohash=True, desc="Connect what must be finished before: its value does not matter.")


class GroupReportOutputSpec(TraitedSpec):
    page = File(exists=True, desc="group.html.")
    table = File(exists=True, desc="TSV with a row per subject, arm and metric.")
    summary = File(exists=True, desc="JSON of means and standard errors over subjects.")
    left_out = traits.List(traits.Str, desc="A sentence about each subject that is not complete, and so not in it.")
    notes = traits.List(traits.Str, desc="What stands at the top of the page: left-out subjects, harm by guidance.")


class GroupReport(base.CoreInterface):
    """Table and page over the subjects of an output folder.  It runs every time, as it reads that folder.

    Raises
    ------
    UserError
        If no subject of the folder is complete.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import GroupReport
    >>> GroupReport(labels=["sub-01", "sub-02"]).inputs.labels
    ['sub-01', 'sub-02']
    """

    input_spec, output_spec = GroupReportInputSpec, GroupReportOutputSpec
    light = True
    _always_run = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        found = write_group(Path(self.inputs.out_dir), base.given(self.inputs.labels, None), progress=progress)
        files = {"page": str(found.page), "table": str(found.table), "summary": str(found.summary)}
        return {**files, "left_out": found.left_out, "notes": found.notes}
