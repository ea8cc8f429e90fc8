"""What `neuraldiffuser run` does: jobs to a workflow, the workflow to files, and its end to an exit status."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import located, make_folder
from napari_neuraldiffuser.core.base.lock import held, output_lock
from napari_neuraldiffuser.core.base.progress import tell
from napari_neuraldiffuser.core.job.check import check_job
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks.digest import is_bundled, located_models
from napari_neuraldiffuser.core.networks.machine import check_gpu
from napari_neuraldiffuser.core.nsd import open_source
from napari_neuraldiffuser.core.nsd.describe import stimuli_used
from napari_neuraldiffuser.core.nsd.selection import with_masks
from napari_neuraldiffuser.core.outputs.description import check_place
from napari_neuraldiffuser.core.outputs.sidecars import notes_of
from napari_neuraldiffuser.core.params import WorkflowParams
from nipype.pipeline import engine as pe

from nipype_interfaces import workflows
from nipype_interfaces.engines import memory, resources
from nipype_interfaces.engines.choice import LOCAL
from nipype_interfaces.interfaces import GroupReport
from nipype_interfaces.running import dry_run
from nipype_interfaces.running.model_check import compare_weights
from nipype_interfaces.running.run import WorkflowEnd, configure, run
from nipype_interfaces.workflows.nodes import whole_batches


@dataclass(frozen=True)
class How:
    """How a workflow is run: engine, where, and whether finished nodes count."""

    work_dir: Path
    plugin: str = "Linear"
    plugin_args: dict[str, Any] = field(default_factory=dict)
    resume: bool = True
    debug: bool = False
    dry_run: bool = False


def run_participants(jobs: Sequence[Job], cut: WorkflowParams, how: How) -> int:
    """Run the subjects of `jobs` and print the paths of what was written; returns the exit status."""
    jobs_there = [absolute(job) for job in jobs]
    _check(jobs_there, how)
    if any(is_bundled(job.models) for job in jobs):
        tell(sys.stderr, "neuraldiffuser: the small bundled models are used; --models chooses others.\n")
    for sentence in dict.fromkeys(sentence for job in jobs for sentence in job.told):
        tell(sys.stderr, f"neuraldiffuser: {sentence}\n")
    wf = workflows.init_neuraldiffuser_wf(jobs_there, cut)
    if how.dry_run:
        return _show(wf, how, dict(_chunks(job, cut) for job in jobs_there))
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(held(*output_lock(job.out_dir, job.places.label)))
        end = _run(wf, how)
    failed = 0
    for job in jobs:
        if not end.failed_subjects & {job.places.label, ""}:
            failed += _print_results(job)
    return _exit_status(end) or (1 if failed else 0)


def _check(jobs: Sequence[Job], how: How) -> None:
    """Say all that is known to be wrong before a node runs; a batch system's GPUs are seen by its jobs only."""
    make_folder(how.work_dir)
    wrong: list[str] = []
    for job in jobs:
        with collected(wrong):
            check_job(job)
    if not wrong and not how.dry_run:
        for models, guide in {(job.models, job.guide or None) for job in jobs}:
            with collected(wrong):
                compare_weights(models, guide, how.work_dir, apart=how.plugin != "Linear")
    if how.plugin in LOCAL and jobs[0].device != "cpu":  # torch takes its time
        with collected(wrong):
            check_gpu(jobs[0].device)
    if wrong:
        raise UserError("\nneuraldiffuser: ".join(dict.fromkeys(wrong)))


@contextmanager
def collected(messages: list[str]) -> Iterator[None]:
    """Keep what the user can mend for later, so that all of it is said at once."""
    try:
        yield
    except UserError as error:
        messages.append(str(error))


def run_group(out_dir: Path, labels: list[str], how: How) -> int:
    """Make the table and the page over the complete subjects of `out_dir`; the exit status is 1 if others are there."""
    if not out_dir.is_dir():
        raise UserError(
            f"OUT_DIR must be a folder with finished subjects, got {out_dir}. Run the participant level first."
        )
    check_place(out_dir)
    wf = pe.Workflow(name="group_wf")
    # this takes a minute of one process, so it is done here whatever the engine is
    node = pe.Node(GroupReport(out_dir=str(out_dir.absolute()), labels=labels), name="group", n_procs=1)
    node.run_without_submitting = True
    wf.add_nodes([node])
    if how.dry_run:
        return _show(wf, how, {})
    with held(*output_lock(out_dir, "group")):
        end = _run(wf, how)
    if end.graph is not None:
        (done,) = end.graph.nodes()
        outputs = done.result.outputs
        print(*(out_dir / Path(path).name for path in (outputs.page, outputs.table, outputs.summary)), sep="\n")
        for note in outputs.notes:
            tell(sys.stderr, f"neuraldiffuser: {note}\n")
        return 1 if outputs.left_out else 0
    return _exit_status(end)


def _run(wf: pe.Workflow, how: How) -> WorkflowEnd:
    """Run the workflow and say on stderr how it went."""
    _prepare(wf, how)
    end = run(wf, how.plugin, how.plugin_args, how.resume, how.debug)
    tell(sys.stderr, f"{end.summary}\n")
    return end


def _show(wf: pe.Workflow, how: How, parts: dict[str, int]) -> int:
    """Print what would run, and draw it."""
    _prepare(wf, how)
    configure(wf)
    print(dry_run.table(dry_run.preview(wf, parts)))
    print(dry_run.write_graph(wf, how.work_dir / "graph.dot"))
    return 0


def _prepare(wf: pe.Workflow, how: How) -> None:
    """Give the workflow its folder, and its nodes what the engine must know of their memory."""
    wf.base_dir = str(how.work_dir.absolute())
    if how.plugin.lower() in resources.SCHEDULERS:
        resources.for_batch(wf, how.plugin.lower())
    elif how.plugin == "MultiProc":
        memory.estimate_nodes(map(wf.get_node, wf.list_node_names()))


def _chunks(job: Job, cut: WorkflowParams) -> tuple[str, int]:
    """Name the node that reconstructs a subject's stimuli, and count the parts that it will have."""
    test = stimuli_used(open_source(job.scans, job.settings.betas), job.settings.betas)[1][: job.n_stimuli]
    size = whole_batches(cut.chunk_size, job.settings.diffusion)
    return f"{job.places.label} reconstruct/recon", -(-len(test) // size)


def _print_results(job: Job) -> int:
    """Print where a finished subject's results are; returns how many of its stimuli failed."""
    print(job.places.page, job.places.summary, sep="\n")
    for note in notes_of(job.places):
        print(f"neuraldiffuser: {job.places.label}: {note}", file=sys.stderr)
    if not (table := job.places.failed).is_file():
        return 0
    print(table)
    return len(table.read_text(encoding="utf-8").splitlines()) - 1


def _exit_status(end: WorkflowEnd) -> int:
    """Tell of failures with a report, or as of any bad input where the error says by itself what to do."""
    if end.report():
        tell(sys.stderr, f"neuraldiffuser: {end.report()}\n")
    if end.user_errors():
        raise UserError("\nneuraldiffuser: ".join(end.user_errors())) from end.error
    return 1 if end.failures else 0


def absolute(job: Job) -> Job:
    """Make every path of a job absolute, also of masks in the ROI: a node works elsewhere, maybe on another machine."""
    betas = job.settings.betas
    if ".nii" in betas.roi.lower():
        betas = betas.but(roi=with_masks(betas.roi, located))
    evaluation = job.settings.evaluation
    evaluation = evaluation.but(metric_weights=located(evaluation.metric_weights))
    return replace(
        job,
        source=job.scans.absolute(),
        out_dir=Path(job.out_dir).absolute(),
        work_dir=Path(job.work_dir).absolute() if job.work_dir else None,
        models=located_models(str(job.models)),
        guide=located_models(str(job.guide)) if job.guide else job.guide,
        settings=replace(job.settings, betas=betas, evaluation=evaluation),
    )
