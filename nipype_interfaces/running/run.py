"""Runs a workflow as the command line does: progress on stderr, Nipype's log in a file, failures in a report."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from napari_neuraldiffuser.core.base.files import make_folder
from napari_neuraldiffuser.core.base.lock import held
from nipype.pipeline import engine as pe

from nipype_interfaces.engines import choice
from nipype_interfaces.running import control, crash
from nipype_interfaces.running.monitor import Monitor

EXECUTION = {
    # option of Nipype's [execution] section -> value
    "hash_method": "timestamp",  # betas are hundreds of gigabytes: their contents cannot be read to know them again
    "poll_sleep_duration": "0.1",
    "remove_unnecessary_outputs": "false",  # else an output vanishes when nothing is connected to it
    "stop_on_first_crash": "false",
    "crashfile_format": "txt",
    "create_report": "false",  # its pages would list what stands in the result files already
    "write_provenance": "false",  # provenance has the environment in it
    "check_version": "false",
    "use_relative_paths": "false",
}


@dataclass(frozen=True)
class WorkflowEnd:
    """How the run of a workflow ended.

    Attributes
    ----------
    failures : list of Failure
    summary : str
        One line: how many nodes ran, were cached, failed, were not run.
    graph : networkx graph or None
        Nodes with their results, where every node is complete.
    error : Exception or None
        What the engine raised at the end, where nodes failed.
    """

    failures: list[crash.Failure]
    summary: str
    graph: networkx.DiGraph | None = None
    error: Exception | None = None

    @property
    def failed_subjects(self) -> set[str]:
        """`sub-01` ... for the nodes that failed, "" for a node of no subject."""
        return {failure.label.subject for failure in self.failures}

    def user_errors(self) -> list[str]:
        """Return the messages that say by themselves what to do, each once."""
        return list(dict.fromkeys(f.message for f in self.failures if f.user_error))

    def report(self) -> str:
        """Write the text about failures that no message of ours explains; "" where there are none."""
        others = [f for f in self.failures if not f.user_error]
        return crash.report(others, f" ({self.summary})") if others else ""


def configure(wf: pe.Workflow, local: bool = True) -> None:
    """Set Nipype's options for this workflow only: what the user has set for others stays."""
    work = make_folder(wf.base_dir)
    # seconds to wait for a result file: the disk of another machine may show it long after its job ended
    timeout = "5" if local else "60"
    execution = {**EXECUTION, "crashdump_dir": str(work / "crash"), "job_finished_timeout": timeout}
    wf.config.setdefault("execution", {}).update(execution)
    wf.config.setdefault("monitoring", {}).update({"enabled": "false"})


def run(
    wf: pe.Workflow,
    plugin: str = "Linear",
    plugin_args: dict[str, Any] | None = None,
    resume: bool = True,
    debug: bool = False,
) -> WorkflowEnd:
    """Run `wf` in its `base_dir`, and say how it went.

    Parameters
    ----------
    wf : Workflow
        With `base_dir` set: nodes, log and crash reports go there.
    plugin, plugin_args
        As for `engines.choice.engine`.
    resume : bool
        False runs every node again.
    debug : bool
        Nipype's whole log on stderr too.

    Returns
    -------
    WorkflowEnd
        Failures of nodes are in it, not raised.

    Raises
    ------
    UserError
        If the engine cannot run here, or lacks what a node needs.
    KeyboardInterrupt
        After what the engine had under way on this machine was ended.
    """
    engine = choice.engine(plugin, plugin_args)
    local = choice.is_local(engine)
    configure(wf, local)
    work = Path(wf.base_dir)
    root, log = work / wf.name, work / "nipype.log"
    monitor = Monitor(root, started="started" if local else "submitted")

    def begin(graph: networkx.DiGraph) -> None:
        monitor.begin(graph)
        for node in () if resume else graph.nodes():
            # `overwrite` would not do: a MapNode whose items other processes ran runs them all once more
            shutil.rmtree(node.output_dir(), ignore_errors=True)

    before, said = set(crash.files(work / "crash")), set[tuple[str, str]]()

    def explain(node: pe.Node) -> None:
        for failure in crash.reported(work / "crash", root, [node.output_dir()], before):
            told = (failure.label.without_item, failure.error)
            if told not in said:
                monitor.say(f"{failure.label}: {failure.reason}")
            said.add(told)

    control.watch(engine, monitor, begin, explain)
    control.prepare_workers(engine, log)
    with locked(wf):
        try:
            with control.log_to(log, debug), control.interruptible(), monitor:
                graph = wf.run(plugin=engine)
        except Exception as error:
            if not monitor.failed:
                raise
            failures = crash.collect(work / "crash", root, monitor.failed, error, before)
            return WorkflowEnd(failures, monitor.summary(), None, error)
        except BaseException:
            control.stop(engine)
            raise
    return WorkflowEnd([], monitor.summary(), graph)


@contextmanager
def locked(wf: pe.Workflow) -> Iterator[None]:
    """Keep another run out of the folders of these subjects: both would write there, and one cancels the other's jobs.

    Raises
    ------
    BusyError
        If one of them is being run already.
    """
    root = make_folder(Path(wf.base_dir) / wf.name)
    with ExitStack() as stack:
        for part in sorted({name.split(".")[0] for name in wf.list_node_names()}):
            stack.enter_context(held(root / f"{part}.lock", str(root / part), "give another --work-dir"))
        yield
