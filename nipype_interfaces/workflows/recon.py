"""Decoded embeddings to images, in chunks of stimuli."""

from napari_neuraldiffuser.core.base.recipe import ARMS
from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import CheckModels, CollectImages, GuidedReconstruct
from nipype_interfaces.no_environment import Function
from nipype_interfaces.workflows.nodes import (
    Plan,
    ends,
    flatten,
    make_node,
    quick_node,
    same,
    split_chunks,
    whole_batches,
)

INPUTS = ("embeddings", "stimulus_ids", "label", "models", "guide")
OUTPUTS = ("images", "sidecar", "stimulus_ids", "failed", "failed_table")


def init_reconstruct_wf(plan: Plan = Plan(), arms: tuple[str, ...] = ARMS, name: str = "reconstruct_wf") -> pe.Workflow:
    """Decoded embeddings to images, in chunks of stimuli: each opens the models once, chunks run in parallel.

    Parameters
    ----------
    plan : Plan
        Its diffusion and guidance parameters and `cut.chunk_size` are used.
    arms : tuple of str
        "unguided", "guided" or both, which start from the same noise.
    name : str
        Name of the workflow.

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
    wf = pe.Workflow(name=name)
    inputnode, outputnode = ends(wf, INPUTS, OUTPUTS, label="sub-01", models="demo", guide="")
    settings = plan.settings
    check = quick_node(CheckModels(), "check", plan)
    chunks = quick_node(Function(function=split_chunks, output_names=["chunks"]), "chunks", plan)
    chunks.inputs.size = whole_batches(plan.cut.chunk_size, settings.diffusion)
    recon = make_node(
        GuidedReconstruct(arms=list(arms)), "recon", plan, settings.diffusion, settings.guidance,
        iterfield=["stimulus_ids"],
    )  # fmt: skip
    collect = quick_node(CollectImages(), "collect", plan)
    wf.connect(
        [
            (inputnode, check, same("models", "guide")),
            (inputnode, chunks, same("stimulus_ids")),
            (chunks, recon, [("chunks", "stimulus_ids")]),
            (inputnode, recon, same("embeddings", "label", "models", "guide")),
            (check, recon, same("model_digest")),
            (inputnode, collect, same("stimulus_ids", "label")),
            (recon, collect, [("sidecar", "sidecars"), ("failed", "failed")]),
            (recon, outputnode, [(("images", flatten), "images")]),
            (collect, outputnode, same(*OUTPUTS[1:])),
        ]
    )
    return wf
