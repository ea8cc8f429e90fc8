"""Decoded embeddings -> images of a chunk of stimuli, and the chunks' images together."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import make_folder
from napari_neuraldiffuser.core.base.names import KINDS, Derivatives, entity
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import DecodingParams, DiffusionParams, GuidanceParams, Settings
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from nipype_interfaces.interfaces.base import CoreInterface, ModelsSpec, VersionedSpec, given, opened_models
from nipype_interfaces.spec import params_of, params_spec


class GuidedReconstructInputSpec(ModelsSpec, params_spec(DiffusionParams, GuidanceParams)):
    embeddings = File(exists=True, mandatory=True, desc="Decoded embeddings, HDF5.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of this chunk of stimuli.")
    label = traits.Str("sub-01", usedefault=True, desc="Subject of the file names, sub-01 or subj01.")
    arms = traits.List(
        traits.Enum(*ARMS),
        desc="Arms that are computed; unguided is guided with guidance_scale 0. Where left out, the one that "
        "guidance_scale says.",
    )


class GuidedReconstructOutputSpec(TraitedSpec):
    images = traits.List(File(exists=True), desc="PNG files, arm by arm, stimulus by stimulus.")
    sidecar = File(exists=True, desc="JSON with parameters and the feature loss of every image.")
    failed = traits.List(traits.Int, desc="Stimuli of which a latent was no longer finite.")


class GuidedReconstruct(CoreInterface):
    """Images of a chunk of stimuli (method.md eq. 21-37); a killed node continues after its last whole batch.

    A chunk of whole batches, of `stimuli_per_batch` stimuli each, gives the bits of one run over all stimuli.

    Raises
    ------
    EmbeddingError
        If the embeddings do not fit the models, or a layer is missing.
    ModelError
        If a part of the model folder is missing, or the device is not there.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import GuidedReconstruct
    >>> node = GuidedReconstruct(models="demo", repeats=3, layers=["g02"], layer_weights=[1.0])
    >>> node.inputs.guidance_strength
    0.67
    >>> node.inputs.cfg_scale = -1.0
    Traceback (most recent call last):
    ...
    traits.trait_errors.TraitError: The 'cfg_scale' trait of a GuidedReconstructInputSpec instance must be a floating \
point number >= 0.0, but a value of -1.0 <class 'float'> was specified.
    """

    input_spec, output_spec = GuidedReconstructInputSpec, GuidedReconstructOutputSpec
    _can_resume = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.images import ImageJob, reconstruct_arms

        diffusion, guidance = params_of(self.inputs, DiffusionParams), params_of(self.inputs, GuidanceParams)
        arms = tuple(given(self.inputs.arms, ())) or (("guided",) if guidance.guidance_scale else ("unguided",))
        decoded = Embeddings.load(self.inputs.embeddings).subset(self.inputs.stimulus_ids)
        decoder = entity(Path(self.inputs.embeddings).name, "desc") or DecodingParams().decoder
        places = Derivatives(folder, self.inputs.label, decoder=decoder)
        settings = Settings(diffusion=diffusion, guidance=guidance)
        records = Records(make_folder(folder / "stages"))
        with opened_models(self.inputs) as models:
            failed = reconstruct_arms(ImageJob(decoded, models, settings, places, records, arms), progress)
        repeats = range(1, diffusion.repeats + 1)
        images = [str(places.image(int(s), r, arm)) for arm in arms for s in decoded.stimulus_ids for r in repeats]
        return {"images": images, "sidecar": str(places.recon_sidecar), "failed": failed}


class CollectImagesInputSpec(VersionedSpec):
    sidecars = InputMultiObject(File(exists=True), mandatory=True, desc="Sidecars of the chunks, JSON.")
    stimulus_ids = traits.List(traits.Int, mandatory=True, desc="0-based 73k ids of all chunks.")
    failed = traits.List(traits.List(traits.Int), mandatory=True, desc="Failed stimuli of every chunk.")
    label = traits.Str("sub-01", usedefault=True, desc="Subject of the file names, sub-01 or subj01.")


class CollectImagesOutputSpec(TraitedSpec):
    sidecar = File(exists=True, desc="One JSON sidecar of all images.")
    stimulus_ids = traits.List(traits.Int, desc="Stimuli whose images are whole.")
    failed = traits.List(traits.Int, desc="Stimuli that failed.")
    failed_table = traits.Either(None, File(exists=True), desc="TSV of the stimuli that failed; None if none did.")


class CollectImages(CoreInterface):
    """What chunks of stimuli tell, as one: a sidecar, the whole stimuli, and a table of those that failed.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import CollectImages
    >>> CollectImages(failed=[[], [13]]).inputs.label
    'sub-01'
    """

    input_spec, output_spec = CollectImagesInputSpec, CollectImagesOutputSpec
    light = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.images import merge_sidecars, write_failed

        places = Derivatives(folder, self.inputs.label)
        make_folder(places.recon)
        merge_sidecars([Path(p) for p in self.inputs.sidecars], places.recon_sidecar)
        failed = sorted({s for chunk in self.inputs.failed for s in chunk})
        write_failed(places, failed)
        return {
            "sidecar": str(places.recon_sidecar),
            "stimulus_ids": [s for s in self.inputs.stimulus_ids if s not in set(failed)],
            "failed": failed,
            "failed_table": str(places.failed) if failed else None,
        }


def gather_images(images: list[str], places: Derivatives) -> None:
    """Put images of other nodes where `places` expects them: links where the disk allows, else copies."""
    make_folder(places.recon)
    for image in map(Path, images):
        here = places.recon / image.name
        try:
            here.hardlink_to(image)
        except OSError:
            shutil.copyfile(image, here)


def n_repeats(images: Sequence[str], stimulus_ids: Sequence[int]) -> int:
    """How many repeats images have, as their names say: the same number for every stimulus in both arms.

    Raises
    ------
    UserError
        If it is not the same, or an image is missing.
    """
    said = filter(None, (KINDS["image"].entities(Path(image).name) for image in images))
    found: dict[tuple[int, str], set[int]] = {}
    for name in said:
        found.setdefault((int(name["stim"]), name["arm"]), set()).add(int(name["rep"]))
    wanted = [(int(stimulus), arm) for stimulus in stimulus_ids for arm in ARMS]
    n = max((len(repeats) for repeats in found.values()), default=0)
    for stimulus, arm in wanted:
        if found.get((stimulus, arm), set()) != set(range(1, n + 1)):
            raise UserError(
                f"images must have the repeats 1 to {n} of every stimulus in both arms, got "
                f"{sorted(found.get((stimulus, arm), ()))} of stimulus {stimulus}, {arm}. Connect all images of "
                "init_reconstruct_wf."
            )
    return n


def check_repeats(images: Sequence[str], stimulus_ids: Sequence[int], repeats: int) -> None:
    """Raise UserError unless the images have that many repeats."""
    if (n := n_repeats(images, stimulus_ids)) != repeats:
        raise UserError(
            f"repeats must be one number for all nodes, got images of {n} and settings of {repeats}. Give Plan or Job "
            "the number, or connect the images' sidecar, too."
        )
