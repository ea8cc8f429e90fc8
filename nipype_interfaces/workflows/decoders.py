"""Betas and images to a fitted decoder."""

from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import CheckModels, ExtractFeatures, FitDecoder, JoinDecoders
from nipype_interfaces.workflows.nodes import Plan, ends, make_node, quick_node, same

INPUTS = ("source", "stimuli_stamp", "models", "guide", "betas", "train_ids")


def init_fit_decoders_wf(plan: Plan = Plan(), name: str = "fit_decoders_wf") -> pe.Workflow:
    """Target embeddings of the training images, and ridge decoders that are fitted in parallel, joined to one.

    Parameters
    ----------
    plan : Plan
        Its features and decoding parameters are used; `cut.decoder_parts` says what is fitted apart.
    name : str
        Name of the workflow.

    Inputs
    ------
    source, stimuli_stamp, betas, train_ids : of `init_load_wf`
    models, guide : as in ExtractFeatures

    Outputs
    -------
    decoder : HDF5 file of the decoder of all targets
    targets : HDF5 file of target embeddings of the training images
    """
    wf = pe.Workflow(name=name)
    inputnode, outputnode = ends(wf, INPUTS, ("decoder", "targets"), stimuli_stamp="", models="demo", guide="")
    settings = plan.settings
    check = quick_node(CheckModels(), "check", plan)
    targets = make_node(ExtractFeatures(), "targets", plan, settings.features)
    fit = make_node(FitDecoder(), "fit", plan, settings.decoding, iterfield=["fit_targets"])
    fit.inputs.fit_targets = plan.cut.parts(settings.features.layers)
    join = make_node(JoinDecoders(), "decoder", plan)
    wf.connect(
        [
            (inputnode, check, same("models", "guide")),
            (inputnode, targets, same("source", "models", "guide")),
            (inputnode, targets, [("stimuli_stamp", "stamp"), ("train_ids", "stimulus_ids")]),
            (check, targets, same("model_digest")),
            (inputnode, fit, same("betas")),
            (targets, fit, same("targets")),
            (fit, join, [("decoder", "decoders")]),
            (targets, outputnode, same("targets")),
            (join, outputnode, same("decoder")),
        ]
    )
    return wf
