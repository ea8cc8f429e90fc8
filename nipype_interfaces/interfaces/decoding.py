"""Images -> target embeddings -> decoder -> decoded embeddings; other subjects -> a pretrained network."""

from functools import partial
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.job.inputs import first_test
from napari_neuraldiffuser.core.params import TARGETS, BetasParams, DecodingParams, FeatureParams, Settings
from nipype.interfaces.base import Directory, File, InputMultiObject, TraitedSpec, traits

from nipype_interfaces.interfaces import base
from nipype_interfaces.spec import params_of, params_spec


class ExtractFeaturesInputSpec(base.SourceSpec, base.ModelsSpec, params_spec(FeatureParams)):
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of the images to encode.")


class ExtractFeaturesOutputSpec(TraitedSpec):
    targets = File(exists=True, desc="HDF5 with z, c, g/<layer> and stimulus_id.")


class ExtractFeatures(base.CoreInterface):
    """Target embeddings of images and their captions; a killed node continues the file that it left.

    Raises
    ------
    EmbeddingError
        If an image has no caption.
    ModelError
        If a part of the model folder is missing, or the device is not there.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import ExtractFeatures
    >>> ExtractFeatures(models="demo", layers=["g02"]).inputs.feature_normalisation
    'imagenet'
    """

    input_spec, output_spec = ExtractFeaturesInputSpec, ExtractFeaturesOutputSpec
    _can_resume = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job import stages

        path, stimuli = folder / "targets.h5", base.subject_of(self.inputs).stimuli
        params = params_of(self.inputs, FeatureParams)
        with base.opened_models(self.inputs) as models:
            stages.targets(models, stimuli, self.inputs.stimulus_ids, path, params, progress)
        return {"targets": str(path)}


class FitDecoderInputSpec(base.VersionedSpec, base.PretrainedSpec, params_spec(DecodingParams)):
    betas = File(exists=True, mandatory=True, desc="Prepared betas, HDF5.")
    targets = File(exists=True, mandatory=True, desc="Target embeddings of the training images, HDF5.")
    fit_targets = traits.List(
        traits.Enum(*TARGETS), desc="Targets that this node fits; all where left out. JoinDecoders joins nodes."
    )
    use_gpu = traits.Bool(
        False,
        usedefault=True,
        nohash=True,
        desc="Takes a GPU slot of the engine, for decoder_device cuda; must be set on the node itself.",
    )


class FitDecoderOutputSpec(TraitedSpec):
    decoder = File(exists=True, desc="Fitted decoder, HDF5.")


class FitDecoder(base.CoreInterface):
    """A decoder, of the kind `decoder`, from a subject's training betas to target embeddings.

    A killed node that trains a network goes on from its last pass.

    Raises
    ------
    DecodingError
        If a stimulus has no targets, or there are fewer than 3 training stimuli.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import FitDecoder
    >>> FitDecoder(fit_targets=["z"]).inputs.align
    'train'
    """

    input_spec, output_spec = FitDecoderInputSpec, FitDecoderOutputSpec
    _can_resume = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job import stages

        path, params = folder / "decoder.h5", params_of(self.inputs, DecodingParams)
        train, _ = nsd.load_betas(self.inputs.betas).split()
        names = base.given(self.inputs.fit_targets, None)
        with base.on_device(params.decoder_device):
            stages.fit(train, Path(self.inputs.targets), path, params, progress, names)
        return {"decoder": str(path)}


class PretrainNetworkInputSpec(base.ModelsSpec, params_spec(BetasParams, FeatureParams, DecodingParams)):
    sources = traits.List(
        traits.Dict, mandatory=True, desc="Subjects: fields of core.base.recipe.Source. Those of NSDIndex see changes."
    )


class PretrainNetworkOutputSpec(TraitedSpec):
    folder = Directory(exists=True, desc="Folder of the network, for network_pretrained.")
    network = File(exists=True, desc="Its weights, safetensors.")
    network_digest = traits.Str(desc="SHA-256 of the weights, for FitDecoder.")


class PretrainNetwork(base.CoreInterface):
    """The first stage of the network decoder: one network from several other subjects (method.md eq. 42, 60-68).

    On a GPU with `device` and `use_gpu`; a killed node goes on from its last pass.

    Raises
    ------
    DecodingError
        If a subject has too few stimuli or a value is not finite.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import PretrainNetwork
    >>> PretrainNetwork(network_width=256).inputs.network_blocks
    2
    """

    input_spec, output_spec = PretrainNetworkInputSpec, PretrainNetworkOutputSpec
    _can_resume = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.decoding.network.files import TENSORS, network_digest
        from napari_neuraldiffuser.core.job.pretraining import Pretraining, pretrain_network

        of = partial(params_of, self.inputs)
        kind = "cuda" if self.inputs.device.startswith("cuda") else "cpu"
        decoding = of(DecodingParams).but(decoder="network", decoder_device=kind)
        settings = Settings(betas=of(BetasParams), features=of(FeatureParams), decoding=decoding)
        sources = tuple(base.unstamped(source) for source in self.inputs.sources)
        with base.on_device(self.inputs.device) as device:
            job = Pretraining(
                sources, folder / "network", settings, self.inputs.models, self.inputs.guide or None, device, folder
            )
            written = pretrain_network(job, progress)
        return {
            "folder": str(written),
            "network": str(written / TENSORS),
            "network_digest": network_digest(written),
        }


class JoinDecodersInputSpec(base.VersionedSpec):
    decoders = InputMultiObject(File(exists=True), mandatory=True, desc="Decoders of different targets, HDF5.")


class JoinDecoders(base.CoreInterface):
    """One decoder from decoders that were fitted to different targets of the same betas.

    Raises
    ------
    DecodingError
        If two of them have a target in common, or they are of other betas or parameters.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import JoinDecoders
    >>> JoinDecoders(num_threads=4).inputs.num_threads
    4
    """

    input_spec, output_spec = JoinDecodersInputSpec, FitDecoderOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        path = folder / "decoder.h5"
        decoding.join_decoders(self.inputs.decoders, path)
        return {"decoder": str(path)}


class DecodeInputSpec(base.VersionedSpec):
    betas = File(exists=True, mandatory=True, desc="Prepared betas of the decoder's voxels, HDF5.")
    decoder = File(exists=True, mandatory=True, desc="Fitted decoder of the same subject, HDF5.")
    n_stimuli = traits.Range(low=0, value=0, usedefault=True, desc="The first test stimuli; 0 for all.")
    label = traits.Str("sub-01", usedefault=True, desc="Subject of the file name, sub-01 or subj01.")


class DecodeOutputSpec(TraitedSpec):
    embeddings = File(exists=True, desc="HDF5 with the decoded z, c and g of the test stimuli.")
    stimulus_ids = traits.List(traits.Int, desc="0-based 73k ids of the decoded stimuli.")


class Decode(base.CoreInterface):
    """Decoded embeddings of a subject's test stimuli.

    Raises
    ------
    DecodingError
        If the voxels are not those of the decoder.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import Decode
    >>> Decode(n_stimuli=10).inputs.n_stimuli
    10
    """

    input_spec, output_spec = DecodeInputSpec, DecodeOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job import stages

        test = first_test(nsd.load_betas(self.inputs.betas).split()[1], self.inputs.n_stimuli or None)
        with stages.opened(Path(self.inputs.decoder)) as decoder:
            path = Derivatives(folder, self.inputs.label, decoder=decoder.params.decoder).embeddings
            stages.decode(decoder, test, path, progress)
        return {"embeddings": str(path), "stimulus_ids": [int(s) for s in test.stimulus_ids]}
