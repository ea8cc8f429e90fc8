"""Images and decoder to contribution maps, scores and the subject's page."""

from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import (
    CheckModels,
    ContributionMap,
    EvaluateReconstruction,
    ExtractFeatures,
    SubjectReport,
)
from nipype_interfaces.workflows.nodes import Plan, ends, make_node, quick_node, same

SOURCE = ("source", "models", "guide")
SHOWN = ("betas", "embeddings", "decoder", "images", "stimulus_ids", "scores", "summary", "maps", "table")


def init_contribution_wf(plan: Plan = Plan(), space: str = "", name: str = "contribution_wf") -> pe.Workflow:
    """Target embeddings of the test images, and which voxels and ROIs carried each decoded target.

    Parameters
    ----------
    plan : Plan
        Its features and contribution parameters are used.
    space : str
        Volume space of the betas; that of the betas parameters where empty.
    name : str
        Name of the workflow.

    Inputs
    ------
    source, stamp, stimuli_stamp, betas, test_ids : of `init_load_wf`
    models, guide : as in ExtractFeatures
    decoder : of `init_fit_decoders_wf`
    stimulus_ids : the test stimuli that are mapped

    Outputs
    -------
    maps : one NIfTI per target
    table : TSV of ROIs and shares
    """
    wf = pe.Workflow(name=name)
    names = (*SOURCE, "stamp", "stimuli_stamp", "betas", "test_ids", "decoder", "stimulus_ids")
    values = {"stamp": "", "stimuli_stamp": "", "models": "demo", "guide": ""}
    inputnode, outputnode = ends(wf, names, ("maps", "table"), **values)
    check = quick_node(CheckModels(), "check", plan)
    targets = make_node(ExtractFeatures(), "test_targets", plan, plan.settings.features)
    maps = make_node(ContributionMap(space=space or plan.settings.betas.space), "contribution", plan)
    for field, value in plan.settings.contribution.to_dict().items():
        setattr(maps.inputs, field, value)
    wf.connect(
        [
            (inputnode, check, same("models", "guide")),
            (inputnode, targets, [*same(*SOURCE), ("stimuli_stamp", "stamp"), ("test_ids", "stimulus_ids")]),
            (check, targets, same("model_digest")),
            (inputnode, maps, same("source", "stamp", "betas", "decoder", "stimulus_ids")),
            (targets, maps, same("targets")),
            (maps, outputnode, same("maps", "table")),
        ]
    )
    return wf


def init_evaluate_wf(plan: Plan = Plan(), name: str = "evaluate_wf") -> pe.Workflow:
    """Scores of reconstructions against the seen images.

    Parameters
    ----------
    plan : Plan
        Its evaluation parameters and the number of repeats are used.
    name : str
        Name of the workflow.

    Inputs
    ------
    source, stimuli_stamp : of `init_load_wf`
    models, guide : as in EvaluateReconstruction
    images, stimulus_ids : of `init_reconstruct_wf` with both arms

    Outputs
    -------
    scores : TSV with a row per stimulus, repeat and arm
    summary : JSON
    """
    wf = pe.Workflow(name=name)
    files = (*SOURCE, "images", "stimulus_ids")
    inputnode, outputnode = ends(
        wf, (*files, "stimuli_stamp"), ("scores", "summary"), stimuli_stamp="", models="demo", guide=""
    )
    check = quick_node(CheckModels(), "check", plan)
    evaluate = make_node(EvaluateReconstruction(), "evaluate", plan, plan.settings.evaluation)
    evaluate.inputs.repeats = plan.settings.diffusion.repeats
    wf.connect(
        [
            (inputnode, check, same("models", "guide")),
            (inputnode, evaluate, [*same(*files), ("stimuli_stamp", "stamp")]),
            (check, evaluate, same("model_digest")),
            (evaluate, outputnode, same("scores", "summary")),
        ]
    )
    return wf


def init_report_wf(plan: Plan = Plan(), space: str = "", name: str = "report_wf") -> pe.Workflow:
    """The page of one subject, with anatomy, regions and seen images beside it.

    Parameters
    ----------
    plan : Plan
        All its parameters are shown.
    space : str
        Volume space of the betas; that of the betas parameters where empty.
    name : str
        Name of the workflow.

    Inputs
    ------
    source, stamp, models, guide, betas : as above
    embeddings, decoder, images, stimulus_ids, scores, summary, maps, table : of the other workflows
    failed : of `init_reconstruct_wf`; stimuli that the page names as left out
    n_stimuli : test stimuli that were asked for; 0 for all
    command : what the user typed, for the page

    Outputs
    -------
    page : HTML
    files : list of the other files
    notes : what was left out while betas and stimuli were read
    """
    wf = pe.Workflow(name=name)
    names = (*SOURCE, "stamp", *SHOWN, "failed", "n_stimuli", "command")
    values = {"stamp": "", "models": "demo", "guide": "", "failed": [], "n_stimuli": 0, "command": ""}
    inputnode, outputnode = ends(wf, names, ("page", "files", "notes"), **values)
    check = quick_node(CheckModels(), "check", plan)
    about = {"settings": plan.settings.to_dict(), "space": space or plan.settings.betas.space}
    report = make_node(SubjectReport(**about), "report", plan)
    wf.connect(
        [
            (inputnode, check, same("models", "guide")),
            (inputnode, report, same(*names)),
            (check, report, same("model_digest")),
            (report, outputnode, same("page", "files", "notes")),
        ]
    )
    return wf
