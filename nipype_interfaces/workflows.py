"""Workflows of the interfaces, to run as they are or to embed behind a preprocessing workflow."""

from dataclasses import fields

from napari_neuraldiffuser.core.params import Params, Settings
from nipype.interfaces.utility import Function, IdentityInterface
from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import Decode, ExtractFeatures, FitDecoder, GuidedReconstruct, NSDIndex

MULTIPROC = {"mp_context": "forkserver"}
"""`plugin_args` that MultiProc needs with these nodes: a worker forked from a process in which torch has already
computed with several threads waits for them for ever, and a forked worker cannot use CUDA either."""


def init_reconstruct_wf(settings: Settings | None = None, name: str = "reconstruct_wf") -> pe.Workflow:
    """Decoded embeddings to images, in chunks of stimuli: each opens the models once, chunks run in parallel.

    Parameters
    ----------
    settings : Settings, optional
        Its diffusion and guidance parameters are used.
    name : str
        Name of the workflow.

    Inputs
    ------
    embeddings : HDF5 file of decoded embeddings
    stimulus_ids : list of 0-based 73k ids
    chunk_size : stimuli in a chunk
    models, guide, device : as in GuidedReconstruct

    Outputs
    -------
    images : list of PNG files
    """
    settings = settings or Settings()
    wf = pe.Workflow(name=name)
    names = ["embeddings", "stimulus_ids", "chunk_size", "models", "guide", "device"]
    inputnode = pe.Node(IdentityInterface(fields=names), name="inputnode")
    inputnode.inputs.trait_set(chunk_size=4, models="demo", guide="", device="cpu")
    chunks = pe.Node(Function(function=split_chunks, output_names=["chunks"]), name="chunks")
    recon = pe.MapNode(GuidedReconstruct(), iterfield=["stimulus_ids"], name="recon")
    set_inputs(recon, settings.diffusion, settings.guidance)
    outputnode = pe.Node(IdentityInterface(fields=["images"]), name="outputnode")
    wf.connect(inputnode, "stimulus_ids", chunks, "stimulus_ids")
    wf.connect(inputnode, "chunk_size", chunks, "size")
    wf.connect(chunks, "chunks", recon, "stimulus_ids")
    for field in ("embeddings", "models", "guide", "device"):
        wf.connect(inputnode, field, recon, field)
    wf.connect(recon, ("images", flatten), outputnode, "images")
    return wf


def init_reconstruction_wf(settings: Settings | None = None, name: str = "reconstruction_wf") -> pe.Workflow:
    """NSD files to images: index, targets, decoder, decoded embeddings, reconstruction.

    Parameters
    ----------
    settings : Settings, optional
        Parameters of every stage.
    name : str
        Name of the workflow.

    Inputs
    ------
    nsd_dir : NSD folder
    subject : subj01 ...
    models, guide, device : as in GuidedReconstruct
    n_stimuli : the first so many test stimuli; 0 for all
    chunk_size : stimuli that one process reconstructs

    Outputs
    -------
    images : list of PNG files
    embeddings : HDF5 file of decoded embeddings
    decoder : HDF5 file
    """
    settings = settings or Settings()
    wf = pe.Workflow(name=name)
    names = ["nsd_dir", "subject", "models", "guide", "device", "n_stimuli", "chunk_size"]
    inputnode = pe.Node(IdentityInterface(fields=names), name="inputnode")
    inputnode.inputs.trait_set(subject="subj01", models="demo", guide="", device="cpu", n_stimuli=0, chunk_size=4)
    outputnode = pe.Node(IdentityInterface(fields=["images", "embeddings", "decoder"]), name="outputnode")
    index = set_inputs(pe.Node(NSDIndex(), name="index"), settings.betas)
    targets = set_inputs(pe.Node(ExtractFeatures(), name="targets"), settings.features)
    fit = set_inputs(pe.Node(FitDecoder(), name="fit"), settings.betas, settings.decoding)
    decode = set_inputs(pe.Node(Decode(), name="decode"), settings.betas)
    recon = init_reconstruct_wf(settings)
    for node in (index, targets, fit, decode):
        wf.connect([(inputnode, node, [("nsd_dir", "nsd_dir"), ("subject", "subject")])])
    models = [(field, field) for field in ("models", "guide", "device")]
    to_recon = [(field, f"inputnode.{field}") for field in ("models", "guide", "device", "chunk_size")]
    wf.connect(
        [
            (inputnode, targets, models),
            (inputnode, decode, [("n_stimuli", "n_stimuli")]),
            (inputnode, recon, to_recon),
            (index, targets, [("train_ids", "stimulus_ids")]),
            (targets, fit, [("targets", "targets")]),
            (fit, decode, [("decoder", "decoder")]),
            (decode, recon, [(f, f"inputnode.{f}") for f in ("embeddings", "stimulus_ids")]),
            (decode, outputnode, [("embeddings", "embeddings")]),
            (fit, outputnode, [("decoder", "decoder")]),
            (recon, outputnode, [("outputnode.images", "images")]),
        ]
    )
    return wf


def set_inputs(node: pe.Node, *params: Params) -> pe.Node:
    """Give a node every field of the params objects; returns the node."""
    for stage in params:
        for f in fields(stage):
            value = getattr(stage, f.name)
            setattr(node.inputs, f.name, list(value) if isinstance(value, tuple) else value)
    return node


def split_chunks(stimulus_ids, size):
    """Consecutive lists of at most `size` ids (self-contained: nipype ships its source to a worker)."""
    return [stimulus_ids[start : start + size] for start in range(0, len(stimulus_ids), size)]


def flatten(lists):
    """One list from a list of lists (self-contained, as above)."""
    return [item for part in lists for item in part]
