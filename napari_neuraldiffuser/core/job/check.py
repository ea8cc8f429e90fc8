"""What is known to be wrong with a job before anything is computed: files, names and options, in seconds."""

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import make_folder
from napari_neuraldiffuser.core.base.registry import JOINT, LINEAR_ATTRIBUTION, REFITTED_ATTRIBUTION
from napari_neuraldiffuser.core.decoding.network.files import check_network
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.nsd import CROSSVAL, open_source
from napari_neuraldiffuser.core.nsd.describe import stimuli_used
from napari_neuraldiffuser.core.outputs.description import check_place
from napari_neuraldiffuser.core.params import Settings


def check_job(job: Job) -> None:
    """Look at all that a job needs, without its betas and without torch.

    Raises
    ------
    UserError
        For the first thing that is wrong: folders that cannot be written, options that contradict each other, models,
        scans, masks and regions that are not there or do not fit.
    """
    check_place(job.out_dir, None if job.scans.own else job.nsd_dir)
    for folder in (job.out_dir, job.work):
        make_folder(folder)
    check_settings(job.settings)
    check_folder(job.models, job.guide)
    betas = job.settings.betas
    subject = open_source(job.scans, betas)
    train, test = stimuli_used(subject, betas)
    test = test[: job.n_stimuli]
    if not test:
        raise UserError(
            f"{subject.name} must have test stimuli, got none in sessions {betas.sessions}. Choose more sessions, mark "
            f"stimuli as test, or decode all by cross-validation: {CROSSVAL}."
        )
    subject.voxels(betas.roi)
    subject.mapped_families()
    subject.stimuli.check([*train, *test])


def check_settings(settings: Settings) -> None:
    """Raise UserError for parameters of different stages that contradict each other, and for a network that is none."""
    decoding = settings.decoding
    if decoding.decoder in JOINT:
        if decoding.network_pretrained:
            check_network(decoding.network_pretrained)
    _check_attribution(settings)
    features, guidance = settings.features.layers, settings.guidance.layers
    if missing := [layer for layer in guidance if layer not in features]:
        raise UserError(
            f"layers of the guidance must be among those that are decoded ({', '.join(features)}), got "
            f"{', '.join(missing)} too. Decode them, or leave them out of the guidance."
        )


def _check_attribution(settings: Settings) -> None:
    """Raise UserError for contribution maps that the decoder cannot have."""
    method, decoding = settings.contribution.method, settings.decoding
    if decoding.decoder in JOINT and method in (*LINEAR_ATTRIBUTION, *REFITTED_ATTRIBUTION):
        raise UserError(
            f"method of contribution maps must be auto or integrated-gradients for decoder {decoding.decoder}, got "
            f"{method}, which is for linear decoders. Leave it out."
        )
    if method in REFITTED_ATTRIBUTION and (decoding.decoder != "ridge" or decoding.ridge_rank):
        kind = f"ridge of rank {decoding.ridge_rank}" if decoding.decoder == "ridge" else decoding.decoder
        raise UserError(
            f"method {method} of contribution maps must have decoder ridge without ridge_rank, which it fits to other "
            f"voxels, got {kind}. Choose additive or haufe."
        )
