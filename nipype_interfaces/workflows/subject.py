"""The whole job of one subject and of several: what `neuraldiffuser run` runs."""

from collections.abc import Sequence
from typing import Any

from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.params import WorkflowParams
from nipype.pipeline import engine as pe

from nipype_interfaces.interfaces import Decode, DerivativesSink, GroupReport
from nipype_interfaces.no_environment import Merge
from nipype_interfaces.workflows import stages
from nipype_interfaces.workflows.nodes import (
    Plan,
    across,
    begin,
    check_models,
    into,
    make_node,
    quick_node,
    same,
    typed,
)

RESULTS = {
    # where results come from -> what of it goes to the output folder
    "decode": ("embeddings",),
    "reconstruct_wf": ("images", "sidecar", "failed_table"),
    "evaluate_wf": ("scores", "summary"),
    "contribution_wf": ("maps", "table", "worth", "projected", "regions"),
    "report_wf": ("page", "files"),
}


def init_subject_wf(job: Job, cut: WorkflowParams = WorkflowParams(), name: str = "") -> pe.Workflow:
    """NSD files, or own scans, of one subject to images, scores, contribution maps and a page in the output folder.

    Parameters
    ----------
    job : Job
        What to run and where.
    cut : WorkflowParams
        How the work is cut into nodes.
    name : str
        Name of the workflow; `sub_01_wf` where empty.

    Inputs
    ------
    source, models, guide, n_stimuli, label
        Set from the job; `source` has the fields of `core.base.recipe.Source`.

    Outputs
    -------
    out_files : files in the output folder
    failed : stimuli that failed

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_neuraldiffuser.core.job.spec import Job
    >>> from nipype_interfaces.workflows import init_subject_wf
    >>> wf = init_subject_wf(Job(Path("nsd"), Path("out"), subject="subj02"))
    >>> wf.name
    'sub_02_wf'
    """
    places, plan = job.places, Plan(job.settings, cut, job.device)
    wf, inputnode, outputnode = begin(
        name or places.label.replace("-", "_") + "_wf",
        ("source", "models", "guide", "n_stimuli", "label"), ("out_files", "failed"),
        source=job.scans.to_dict(), models=job.models, guide=job.guide or "", n_stimuli=job.n_stimuli or 0,
        label=places.label,
    )  # fmt: skip
    load, fit = stages.init_load_wf(plan), stages.init_fit_decoders_wf(plan, checked=True)
    decode = make_node(Decode(), "decode", plan)
    recon, evaluate = stages.init_reconstruct_wf(plan, checked=True), stages.init_evaluate_wf(plan, checked=True)
    maps = stages.init_contribution_wf(plan, places.space, checked=True)
    report = stages.init_report_wf(plan, places.space, checked=True)
    report.inputs.inputnode.command = job.command
    sink = sink_node(wf, job, plan, (decode, recon, evaluate, maps, report))
    check = check_models(wf, plan, inputnode, sink)
    wf.connect([(check, stage, into("model_digest")) for stage in (fit, recon, evaluate, maps, report)])
    edges = [
        (inputnode, load, into("source", "n_stimuli")),
        (load, fit, across("source", "betas", "train_ids")),
        (inputnode, fit, into("models", "guide")),
        (load, decode, [("outputnode.betas", "betas")]),
        (fit, decode, [("outputnode.decoder", "decoder")]),
        (inputnode, decode, same("n_stimuli", "label")),
        (inputnode, recon, into("models", "guide", "label")),
        (decode, recon, into("embeddings", "stimulus_ids")),
        (load, maps, across("source", "betas", "test_ids")),
        (inputnode, maps, into("models", "guide")),
        (fit, maps, [*across("decoder"), ("outputnode.targets", "inputnode.train_targets")]),
        (recon, maps, across("stimulus_ids")),
        (load, evaluate, across("source", "betas", "train_ids")),
        (decode, evaluate, into("embeddings")),
        (inputnode, evaluate, into("models", "guide")),
        (recon, evaluate, across("images", "sidecar", "stimulus_ids")),
        (fit, evaluate, [*across("decoder"), ("outputnode.targets", "inputnode.train_targets")]),
        (maps, evaluate, across("targets", "worth")),
        (load, report, across("source", "betas")),
        (inputnode, report, into("models", "guide", "n_stimuli")),
        (decode, report, into("embeddings")),
        (fit, report, across("decoder")),
        (recon, report, across("images", "sidecar", "stimulus_ids", "failed")),
        (evaluate, report, across("scores", "summary")),
        (maps, report, across("maps", "table", "worth", "regions")),
        (inputnode, sink, same("source", "models")),
        (report, sink, [("outputnode.notes", "notes")]),
        (sink, outputnode, same("out_files")),
        (recon, outputnode, [("outputnode.failed", "failed")]),
    ]
    wf.connect(edges)
    return typed(wf)


def sink_node(wf: pe.Workflow, job: Job, plan: Plan, sources: Sequence[Any]) -> pe.Node:
    """The node that copies every result to the output folder."""
    sink = quick_node(DerivativesSink(), "sink", plan)
    places, settings = job.places, job.settings.to_dict()
    absent = [places.failed.name, places.projected.name]
    sink.inputs.trait_set(out_dir=str(job.out_dir), label=places.label, absent=absent, settings=settings)
    pairs = [(source, name) for source in sources for name in RESULTS[source.name]]
    merge = pe.Node(Merge(len(pairs)), name="results", run_without_submitting=True)
    for k, (source, name) in enumerate(pairs, 1):
        wf.connect(source, name if isinstance(source, pe.Node) else f"outputnode.{name}", merge, f"in{k}")
    wf.connect(merge, "out", sink, "files")
    return sink


def init_neuraldiffuser_wf(
    jobs: Sequence[Job], cut: WorkflowParams = WorkflowParams(), group: bool = False, name: str = "neuraldiffuser_wf"
) -> pe.Workflow:
    """Subjects beside each other and, with `group`, their table and page once all are finished.

    Parameters
    ----------
    jobs : sequence of Job
        One per subject, with one output folder.
    cut : WorkflowParams
    group : bool
        Whether the group's page is made, too.
    name : str
        Name of the workflow.

    Outputs
    -------
    Files in the output folder; each subject's workflow has its own outputnode.
    """
    wf = pe.Workflow(name=name)
    subjects = [init_subject_wf(job, cut) for job in jobs]
    wf.add_nodes(subjects)
    if group:
        report = quick_node(GroupReport(out_dir=str(jobs[0].out_dir)), "group", Plan(cut=cut))
        report.inputs.labels = [job.places.label for job in jobs]
        done = pe.Node(Merge(len(jobs)), name="finished", run_without_submitting=True)
        for k, subject in enumerate(subjects, 1):
            wf.connect(subject, "outputnode.out_files", done, f"in{k}")
        wf.connect(done, "out", report, "finished")
    return wf
