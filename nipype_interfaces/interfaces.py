"""Thin Nipype interfaces: files in, one call of the core, files out."""

from pathlib import Path

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.core.params import (
    BetasParams,
    DecodingParams,
    DiffusionParams,
    FeatureParams,
    GuidanceParams,
)
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from nipype_interfaces.spec import params_of, params_spec


class VersionedSpec(BaseInterfaceInputSpec):
    """nipype's cache sees inputs, not code: a hashed version makes it see both."""

    algorithm_version = traits.Str(__version__, usedefault=True, desc="Reruns cached nodes when it changes.")


class SubjectSpec(VersionedSpec):
    nsd_dir = Directory(exists=True, xor=["source"], mandatory=True, desc="Folder of nsddata and nsddata_betas.")
    subject = traits.Str("subj01", usedefault=True, desc="Subject, subj01 to subj08.")
    source = traits.Dict(xor=["nsd_dir"], mandatory=True, desc="Own scans: the fields of core.recipe.Source.")


class ModelsSpec(VersionedSpec):
    models = traits.Str("demo", usedefault=True, desc="'demo', a model folder, or a hub id.")
    guide = traits.Str("", usedefault=True, desc="CLIP vision model, where the model folder has no image_encoder.")
    device = traits.Str("cpu", usedefault=True, desc="torch device: cpu, cuda, cuda:0.")


class NSDIndexInputSpec(SubjectSpec, params_spec(BetasParams)):
    pass


class NSDIndexOutputSpec(TraitedSpec):
    trials = File(exists=True, desc="TSV with one row per trial.")
    train_ids = traits.List(traits.Int, desc="0-based 73k ids seen in training trials.")
    test_ids = traits.List(traits.Int, desc="0-based 73k ids of the shared test images.")


class NSDIndex(SimpleInterface):
    """List what a subject of an NSD folder saw, without reading betas."""

    input_spec, output_spec = NSDIndexInputSpec, NSDIndexOutputSpec

    def _run_interface(self, runtime):
        from napari_neuraldiffuser.core.study_source import stimuli_used, trials_used

        params = params_of(self.inputs, BetasParams)
        subject = _subject(self.inputs, params)
        path = Path(runtime.cwd) / "trials.tsv"
        trials_used(subject, params).to_csv(path, sep="\t", index=False)
        self._results["trials"] = str(path)
        self._results["train_ids"], self._results["test_ids"] = stimuli_used(subject, params)
        return runtime


class ExtractFeaturesInputSpec(SubjectSpec, ModelsSpec, params_spec(FeatureParams)):
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the images to encode.")


class ExtractFeaturesOutputSpec(TraitedSpec):
    targets = File(exists=True, desc="HDF5 with z, c, g/<layer> and stimulus_id.")


class ExtractFeatures(SimpleInterface):
    """Target embeddings of images and their captions."""

    input_spec, output_spec = ExtractFeaturesInputSpec, ExtractFeaturesOutputSpec

    def _run_interface(self, runtime):
        from napari_neuraldiffuser.core import embeddings

        path = Path(runtime.cwd) / "targets.h5"
        networks, stimuli = _models(self.inputs), _subject(self.inputs).stimuli
        params = params_of(self.inputs, FeatureParams)
        embeddings.extract(networks, stimuli, self.inputs.stimulus_ids, path, params).close()
        self._results["targets"] = str(path)
        return runtime


class FitDecoderInputSpec(SubjectSpec, params_spec(BetasParams, DecodingParams)):
    targets = File(exists=True, mandatory=True, desc="Target embeddings of the training images, HDF5.")


class FitDecoderOutputSpec(TraitedSpec):
    decoder = File(exists=True, desc="Fitted decoder, HDF5.")


class FitDecoder(SimpleInterface):
    """Ridge regression from a subject's training betas to target embeddings."""

    input_spec, output_spec = FitDecoderInputSpec, FitDecoderOutputSpec

    def _run_interface(self, runtime):
        from napari_neuraldiffuser.core import decoding, embeddings

        path = Path(runtime.cwd) / "decoder.h5"
        train, _ = _betas(self.inputs).split()
        with embeddings.TargetFile(self.inputs.targets) as targets:
            decoding.RidgeDecoder(params_of(self.inputs, DecodingParams)).fit(train, targets).save(path)
        self._results["decoder"] = str(path)
        return runtime


class DecodeInputSpec(SubjectSpec, params_spec(BetasParams)):
    decoder = File(exists=True, mandatory=True, desc="Fitted decoder of the same subject, HDF5.")
    n_stimuli = traits.Range(low=0, value=0, usedefault=True, desc="The first test stimuli; 0 for all.")


class DecodeOutputSpec(TraitedSpec):
    embeddings = File(exists=True, desc="HDF5 with the decoded z, c and g of the test stimuli.")
    stimulus_ids = traits.List(traits.Int, desc="0-based 73k ids of the decoded stimuli.")


class Decode(SimpleInterface):
    """Decoded embeddings of a subject's test stimuli."""

    input_spec, output_spec = DecodeInputSpec, DecodeOutputSpec

    def _run_interface(self, runtime):
        from napari_neuraldiffuser.core import decoding

        path = Path(runtime.cwd) / "embeddings.h5"
        _, test = _betas(self.inputs).split()
        if self.inputs.n_stimuli:
            test = test.subset(test.stimulus_ids[: self.inputs.n_stimuli])
        decoded = decoding.RidgeDecoder.load(self.inputs.decoder).predict(test)
        decoded.save(path)
        self._results["embeddings"] = str(path)
        self._results["stimulus_ids"] = [int(s) for s in decoded.stimulus_ids]
        return runtime


class GuidedReconstructInputSpec(ModelsSpec, params_spec(DiffusionParams, GuidanceParams)):
    embeddings = File(exists=True, mandatory=True, desc="Decoded embeddings, HDF5.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of this chunk of stimuli.")
    label = traits.Str("sub-01", usedefault=True, desc="Subject of the file names, sub-01 or subj01.")
    arm = traits.Str("", usedefault=True, desc="Arm of the file names; by guidance_scale where empty.")


class GuidedReconstructOutputSpec(TraitedSpec):
    images = traits.List(File(exists=True), desc="PNG files, stimulus by stimulus.")


class GuidedReconstruct(SimpleInterface):
    """Images of a chunk of stimuli; guidance_scale = 0 gives the baseline without guidance."""

    input_spec, output_spec = GuidedReconstructInputSpec, GuidedReconstructOutputSpec

    def _run_interface(self, runtime):
        from napari_neuraldiffuser.core import embeddings, reconstruct

        diffusion, guidance = (params_of(self.inputs, cls) for cls in (DiffusionParams, GuidanceParams))
        decoded = embeddings.Embeddings.load(self.inputs.embeddings).subset(self.inputs.stimulus_ids)
        result = reconstruct(decoded, _models(self.inputs), diffusion, guidance)
        arm = self.inputs.arm or ("guided" if guidance.guidance_scale else "unguided")
        self._results["images"] = _write_images(result, Path(runtime.cwd), self.inputs.label, arm)
        return runtime


def _write_images(result, folder: Path, label: str, arm: str) -> list[str]:
    """One PNG for each stimulus and repeat, named as the command line names them."""
    from napari_neuraldiffuser.core.derivatives import Derivatives
    from napari_neuraldiffuser.core.recon_files import write_png

    places, written = Derivatives(folder, label), []
    for stimulus, repeats in zip(result.stimulus_ids, result.images, strict=True):
        for repeat, image in enumerate(repeats, 1):
            path = folder / places.image(int(stimulus), repeat, arm).name
            write_png(path, image)
            written.append(str(path))
    return written


def _betas(inputs):
    return _subject(inputs, params_of(inputs, BetasParams)).betas()


def _subject(inputs, params: BetasParams | None = None):
    """The subject of an NSD folder, or own scans."""
    from napari_neuraldiffuser.core.nsd import Subject, open_source
    from napari_neuraldiffuser.core.recipe import Source

    if isdefined(inputs.source):
        return open_source(Source.from_dict(dict(inputs.source)), params or BetasParams())
    return Subject(inputs.nsd_dir, inputs.subject, params)


def _models(inputs):
    from napari_neuraldiffuser.core import models

    return models.load(inputs.models, inputs.guide or None, inputs.device)
