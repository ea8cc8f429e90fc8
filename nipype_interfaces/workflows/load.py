"""NSD files, or own betas that another node makes, to prepared betas."""

from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import LoadNSDBetas, NSDIndex, PrepareBetas
from nipype_interfaces.workflows.nodes import Plan, ends, make_node, quick_node, same

OUTPUTS = ("betas", "source", "stamp", "stimuli_stamp", "train_ids", "test_ids")
OWN_FILES = ("betas", "mask", "trials", "images", "captions", "anatomy", "rois", "subject")


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
    source, stamp : what the other workflows need to find stimuli and ROIs, and to see that files changed
    stimuli_stamp : the same for those that read stimuli alone: another ROI leaves their results as they are
    train_ids, test_ids : lists of 0-based 73k ids (own scans: indices of labels)
    """
    wf = pe.Workflow(name=name)
    betas = plan.settings.betas
    if own:
        inputnode, outputnode = ends(wf, OWN_FILES, OUTPUTS, subject="subj01")
        prepare, index = make_node(PrepareBetas(), "betas", plan, betas), quick_node(NSDIndex(), "index", plan, betas)
        wf.connect(
            [
                (inputnode, prepare, same(*OWN_FILES)),
                # a folder is hashed by its name only: a picture that changed is seen here
                (prepare, index, same("source")),
                (prepare, outputnode, same("betas", "source", "train_ids", "test_ids")),
                (index, outputnode, same("stamp", "stimuli_stamp")),
            ]
        )
        return wf
    inputnode, outputnode = ends(wf, ("source", "n_stimuli"), OUTPUTS, n_stimuli=0)
    index = quick_node(NSDIndex(), "index", plan, betas)
    load = make_node(LoadNSDBetas(), "betas", plan, betas)
    wf.connect(
        [
            (inputnode, index, same("source", "n_stimuli")),
            (inputnode, load, same("source")),
            (index, load, same("stamp")),
            (inputnode, outputnode, same("source")),
            (index, outputnode, same("stamp", "stimuli_stamp", "train_ids", "test_ids")),
            (load, outputnode, same("betas")),
        ]
    )
    return wf
