"""From BOLD to single-trial betas: runs are fitted in parallel, and joined to the files of own scans."""

from napari_neuraldiffuser.core.params import BoldParams
from nipype.pipeline import engine as pe

from nipype_interfaces import interfaces
from nipype_interfaces.workflows.nodes import Plan, begin, make_node, quick_node, same, typed

FOUND = ("bids_dir", "participant", "events_dir", "space", "task", "mask")
BESIDE = ("images", "captions", "anatomy", "rois")
MADE = ("betas", "mask", "trials", "page", "files", "notes", "source")


def init_betas_wf(params: BoldParams = BoldParams(), plan: Plan = Plan(), name: str = "betas_wf") -> pe.Workflow:
    """Single-trial betas, mask and table of trials of one subject's preprocessed BOLD.

    Parameters
    ----------
    params : BoldParams
        Estimator, haemodynamic response, drift, confounds, held-out stimuli.
    plan : Plan
        What its nodes ask for.
    name : str
        Name of the workflow.

    Inputs
    ------
    bids_dir : fMRIPrep's derivatives, or the BIDS folder that has them
    participant : label of the subject
    events_dir, space, task, mask : as in BoldRuns, where the folder leaves them open
    images, captions, anatomy, rois : what `source` names beside the betas; as in PrepareBetas

    Outputs
    -------
    betas, mask, trials : NIfTI of one volume per trial, NIfTI, TSV: the inputs of `init_load_wf(own=True)`
    page, files : HTML report of the design, and everything that was written
    notes : list of str
    source : the same as a dict, for `inputnode.source` of `init_subject_wf`

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_neuraldiffuser.core.base.recipe import Source
    >>> from napari_neuraldiffuser.core.job.spec import Job
    >>> from nipype.pipeline import engine as pe
    >>> from nipype_interfaces.workflows import init_betas_wf, init_subject_wf
    >>> betas = init_betas_wf()
    >>> subject = init_subject_wf(Job(Path(), Path("out"), source=Source(subject="01", betas="of betas_wf")))
    >>> whole = pe.Workflow(name="bold_to_images_wf")
    >>> whole.connect(betas, "outputnode.source", subject, "inputnode.source")
    """
    wf, inputnode, outputnode = begin(name, (*FOUND, *BESIDE), MADE, participant="01")
    runs = quick_node(interfaces.BoldRuns(), "runs", plan, params)
    fit = make_node(interfaces.EstimateBetas(), "fit", plan, params, iterfield=["runs", "stamp"])
    joined = make_node(interfaces.JoinBetas(), "join", plan, params)
    wf.connect(
        [
            (inputnode, runs, same(*FOUND)),
            (runs, fit, [("groups", "runs"), ("mask", "mask"), ("stamps", "stamp")]),
            (runs, joined, same("runs", "stamp")),
            (inputnode, joined, same("participant", *BESIDE)),
            (fit, joined, [("part", "parts")]),
            (joined, outputnode, same(*MADE)),
        ]
    )
    return typed(wf)
