"""Workflows of the stages: prepared betas, a fitted decoder, images, and contribution maps, scores and the page."""

from napari_neuraldiffuser.core.base.recipe import ARMS
from nipype.pipeline import engine as pe

from nipype_interfaces import interfaces
from nipype_interfaces.interfaces.base import OWN
from nipype_interfaces.no_environment import Function
from nipype_interfaces.workflows import nodes
from nipype_interfaces.workflows.nodes import (
    Plan,
    begin,
    check_models,
    make_node,
    on_gpu,
    quick_node,
    same,
    typed,
    with_digest,
)

LOADED = ("betas", "source", "train_ids", "test_ids")
IMAGES = ("images", "sidecar", "stimulus_ids", "failed", "failed_table")
SOURCE = ("source", "models", "guide")
STIMULI = [(("source", nodes.stimuli_alone), "source"), *same("models", "guide")]
"""Connections of nodes that read images and captions alone: another ROI leaves their results as they are."""
SHOWN = (
    *("betas", "embeddings", "decoder", "images", "sidecar", "stimulus_ids"),
    *("scores", "summary", "maps", "table", "worth", "regions"),
)


def init_load_wf(plan: Plan = Plan(), own: bool = False, name: str = "load_wf") -> pe.Workflow:
    """Index of stimuli, and betas of the ROI.

    Parameters
    ----------
    plan : Plan
        Its betas parameters are used.
    own : bool
        Own betas that a node before makes, for instance a smoothed NIfTI; else files that are there already.
    name : str
        Name of the workflow.

    Inputs
    ------
    source : dict
        Fields of `core.base.recipe.Source`: an NSD folder with its subject, or own files (not with `own`).
    n_stimuli : int
        The first so many test stimuli; 0 for all (not with `own`).
    betas, mask, trials, images, captions, anatomy, rois, subject
        As in PrepareBetas (only with `own`).

    Outputs
    -------
    betas : HDF5 file of prepared betas
    source : what the other workflows need to find stimuli and ROIs, and to see that files changed
    train_ids, test_ids : lists of 0-based 73k ids (own scans: indices of labels)
    """
    betas = plan.settings.betas
    index = quick_node(interfaces.NSDIndex(), "index", plan, betas)
    if own:
        wf, inputnode, outputnode = begin(name, OWN, LOADED, subject="subj01")
        prepare = make_node(interfaces.PrepareBetas(), "betas", plan, betas)
        edges = [
            (inputnode, prepare, same(*OWN)),
            # a folder is hashed by its name only: a picture that changed is seen here
            (prepare, index, same("source")),
            (prepare, outputnode, same("betas", "train_ids", "test_ids")),
            (index, outputnode, same("source")),
        ]
        wf.connect(edges)
        return typed(wf)
    wf, inputnode, outputnode = begin(name, ("source", "n_stimuli"), LOADED)
    load = make_node(interfaces.LoadNSDBetas(), "betas", plan, betas)
    edges = [
        (inputnode, index, same("source", "n_stimuli")),
        (index, load, same("source")),
        (index, outputnode, same("source", "train_ids", "test_ids")),
        (load, outputnode, same("betas")),
    ]
    wf.connect(edges)
    return typed(wf)


def init_fit_decoders_wf(plan: Plan = Plan(), name: str = "fit_decoders_wf", checked: bool = False) -> pe.Workflow:
    """Target embeddings of the training images, and decoders that are fitted in parallel, joined to one.

    Parameters
    ----------
    plan : Plan
        Its features and decoding parameters are used; `cut.decoder_parts` says what is fitted apart.
    name : str
        Name of the workflow.
    checked : bool
        Whether a node of the workflow around has checked the models: then the inputnode has its `model_digest`.

    Inputs
    ------
    source, betas, train_ids : of `init_load_wf`
    models, guide : as in ExtractFeatures

    Outputs
    -------
    decoder : HDF5 file of the decoder of all targets
    targets : HDF5 file of target embeddings of the training images
    """
    names = (*SOURCE, "betas", "train_ids")
    wf, inputnode, outputnode = begin(name, with_digest(names, checked), ("decoder", "targets"))
    settings = plan.settings
    targets = make_node(interfaces.ExtractFeatures(), "targets", plan, settings.features)
    fit = make_node(interfaces.FitDecoder(), "fit", plan, settings.decoding, iterfield=["fit_targets"])
    fit.inputs.fit_targets = plan.cut.parts(settings.features.layers, settings.decoding.decoder)
    on_gpu(fit, plan, settings.decoding)
    join = make_node(interfaces.JoinDecoders(), "decoder", plan)
    check_models(wf, plan, inputnode, targets, checked)
    edges = [
        (inputnode, targets, [*STIMULI, ("train_ids", "stimulus_ids")]),
        (inputnode, fit, same("betas")),
        (targets, fit, same("targets")),
        (fit, join, [("decoder", "decoders")]),
        (targets, outputnode, same("targets")),
        (join, outputnode, same("decoder")),
    ]
    wf.connect(edges)
    return typed(wf)


def init_reconstruct_wf(
    plan: Plan = Plan(), arms: tuple[str, ...] = ARMS, name: str = "reconstruct_wf", checked: bool = False
) -> pe.Workflow:
    """Decoded embeddings to images, in chunks of stimuli: each opens the models once, chunks run in parallel.

    Parameters
    ----------
    plan : Plan
        Its diffusion and guidance parameters and `cut.chunk_size` are used.
    arms : tuple of str
        "unguided", "guided" or both, which start from the same noise.
    name : str
        Name of the workflow.
    checked : bool
        Whether a node of the workflow around has checked the models: then the inputnode has its `model_digest`.

    Inputs
    ------
    embeddings : HDF5 file of decoded embeddings
    stimulus_ids : list of 0-based 73k ids
    label : subject of the file names, sub-01
    models, guide : as in GuidedReconstruct

    Outputs
    -------
    images : list of PNG files
    sidecar : JSON of parameters and feature losses
    stimulus_ids, failed : stimuli whose images are whole, and those of which a latent overflowed
    failed_table : TSV, or None if none failed

    Examples
    --------
    >>> from nipype_interfaces.workflows import init_reconstruct_wf
    >>> wf = init_reconstruct_wf()
    >>> wf.get_node("recon").iterfield
    ['stimulus_ids']
    """
    names = ("embeddings", "stimulus_ids", "label", "models", "guide")
    wf, inputnode, outputnode = begin(name, with_digest(names, checked), IMAGES, label="sub-01")
    settings = plan.settings
    chunks = quick_node(Function(function=nodes.split_chunks, output_names=["chunks"]), "chunks", plan)
    chunks.inputs.size = nodes.whole_batches(plan.cut.chunk_size, settings.diffusion)
    recon = make_node(
        interfaces.GuidedReconstruct(arms=list(arms)), "recon", plan, settings.diffusion, settings.guidance,
        iterfield=["stimulus_ids"],
    )  # fmt: skip
    collect = quick_node(interfaces.CollectImages(), "collect", plan)
    check_models(wf, plan, inputnode, recon, checked)
    edges = [
        (inputnode, chunks, same("stimulus_ids")),
        (chunks, recon, [("chunks", "stimulus_ids")]),
        (inputnode, recon, same("embeddings", "label", "models", "guide")),
        (inputnode, collect, same("stimulus_ids", "label")),
        (recon, collect, [("sidecar", "sidecars"), ("failed", "failed")]),
        (recon, outputnode, [(("images", nodes.flatten), "images")]),
        (collect, outputnode, same(*IMAGES[1:])),
    ]
    wf.connect(edges)
    return typed(wf)


def init_contribution_wf(
    plan: Plan = Plan(), space: str = "", name: str = "contribution_wf", checked: bool = False
) -> pe.Workflow:
    """Target embeddings of the test images, and which voxels and ROIs carried each decoded target.

    Parameters
    ----------
    plan : Plan
        Its features and contribution parameters are used.
    space : str
        Volume space of the betas; that of the betas parameters where empty.
    name : str
        Name of the workflow.
    checked : bool
        Whether a node of the workflow around has checked the models: then the inputnode has its `model_digest`.

    Inputs
    ------
    source, betas, test_ids : of `init_load_wf`
    models, guide : as in ExtractFeatures
    decoder : of `init_fit_decoders_wf`
    train_targets : its targets; for what single regions decode, where the decoder keeps none
    stimulus_ids : the test stimuli that are mapped

    Outputs
    -------
    maps : one NIfTI per target
    table : TSV of ROIs and shares
    worth : TSV of what each decoded target is worth
    projected : list with the projected true targets where they were asked for
    regions : list of the table of what single regions decode and a map per target, where that was asked for
    targets : true targets of the test stimuli
    """
    names, made = (
        (*SOURCE, "betas", "test_ids", "decoder", "train_targets", "stimulus_ids"),
        ("maps", "table", "worth", "projected", "regions", "targets"),
    )
    wf, inputnode, outputnode = begin(name, with_digest(names, checked), made)
    targets = make_node(interfaces.ExtractFeatures(), "test_targets", plan, plan.settings.features)
    betas = plan.settings.betas
    contribution = interfaces.ContributionMap(space=space or betas.space, betas_settings=betas.to_dict())
    maps = make_node(contribution, "contribution", plan, plan.settings.contribution)
    check_models(wf, plan, inputnode, targets, checked)
    edges = [
        (inputnode, targets, [*STIMULI, ("test_ids", "stimulus_ids")]),
        (inputnode, maps, same("source", "betas", "decoder", "train_targets", "stimulus_ids")),
        (targets, maps, same("targets")),
        (maps, outputnode, same(*made[:-1])),
        (targets, outputnode, same("targets")),
    ]
    wf.connect(edges)
    return typed(wf)


def init_evaluate_wf(plan: Plan = Plan(), name: str = "evaluate_wf", checked: bool = False) -> pe.Workflow:
    """Scores of reconstructions against the seen images.

    Parameters
    ----------
    plan : Plan
        Its evaluation parameters are used; the number of repeats is that of the images.
    name : str
        Name of the workflow.
    checked : bool
        Whether a node of the workflow around has checked the models: then the inputnode has its `model_digest`.

    Inputs
    ------
    source : of `init_load_wf`
    models, guide : as in EvaluateReconstruction
    images, stimulus_ids : of `init_reconstruct_wf` with both arms
    embeddings, train_ids : decoded embeddings and training stimuli, for the controls; none of these where left out
    sidecar : of `init_reconstruct_wf`, for warnings of latents out of range; none of these where left out
    decoder, train_targets, targets, worth, betas : of the other workflows, for the trust sheet

    Outputs
    -------
    scores : TSV with a row per stimulus, repeat and arm
    summary : JSON
    warnings : a sentence where guidance makes the images worse
    """
    judged = ("images", "sidecar", "stimulus_ids", "embeddings", "train_ids")
    given = (*judged, "decoder", "train_targets", "targets", "worth", "betas")
    made = ("scores", "summary", "warnings")
    wf, inputnode, outputnode = begin(name, with_digest((*SOURCE, *given), checked), made)
    evaluate = make_node(interfaces.EvaluateReconstruction(), "evaluate", plan, plan.settings.evaluation)
    check_models(wf, plan, inputnode, evaluate, checked)
    edges = [
        (inputnode, evaluate, [*STIMULI, *same(*given)]),
        (evaluate, outputnode, same(*made)),
    ]
    wf.connect(edges)
    return typed(wf)


def init_report_wf(plan: Plan = Plan(), space: str = "", name: str = "report_wf", checked: bool = False) -> pe.Workflow:
    """The page of one subject, with anatomy, regions and seen images beside it.

    Parameters
    ----------
    plan : Plan
        All its parameters are shown.
    space : str
        Volume space of the betas; that of the betas parameters where empty.
    name : str
        Name of the workflow.
    checked : bool
        Whether a node of the workflow around has checked the models: then the inputnode has its `model_digest`.

    Inputs
    ------
    source, models, guide, betas : as above
    embeddings, decoder, images, sidecar, stimulus_ids : of the other workflows
    scores, summary, maps, table, worth, regions : of the other workflows
    failed : of `init_reconstruct_wf`; stimuli that the page names as left out
    n_stimuli : test stimuli that were asked for; 0 for all
    command : what the user typed, for the page

    Outputs
    -------
    page : HTML
    files : list of the other files
    notes : what was left out while betas and stimuli were read
    """
    names = (*SOURCE, *SHOWN, "failed", "n_stimuli", "command")
    wf, inputnode, outputnode = begin(
        name, with_digest(names, checked), ("page", "files", "notes"), failed=[], command=""
    )
    about = {"settings": plan.settings.to_dict(), "space": space or plan.settings.betas.space}
    report = make_node(interfaces.SubjectReport(**about), "report", plan)
    check_models(wf, plan, inputnode, report, checked)
    edges = [
        (inputnode, report, same(*names)),
        (report, outputnode, same("page", "files", "notes")),
    ]
    wf.connect(edges)
    return typed(wf)
