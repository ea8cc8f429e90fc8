"""Nipype's SLURM engine, mended: it does not hang, and says why a job ended without a result."""

import re
import secrets
import shlex
import time
from pathlib import Path
from typing import Any

import networkx
from nipype import logging
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.slurm import SLURMPlugin

from nipype_interfaces.engines.resources import batch_args
from nipype_interfaces.slurm import commands
from nipype_interfaces.slurm.commands import GONE, SlurmError, SlurmJobError, State
from nipype_interfaces.slurm.results import NodeJob, failure, read, without_result

logger = logging.getLogger("nipype.workflow")
POLL_S = 5.0
PATIENCE_S = 1800.0
GRACE_S = 10.0
"""Seconds to wait for the result of a job that did not end well: it has none, as a rule."""
COMPLETING_S = 300.0
"""Seconds to wait longer for a job whose computer does not say that its processes are gone."""
JOURNAL = "slurm_jobs.txt"
"""File of the names of submitted jobs, in the workflow's folder while it runs; a subject's is prefixed by its name."""


class WatchedSLURMPlugin(SLURMPlugin):
    """Runs every node as a job of SLURM, and ends whatever happens to the jobs.

    A failing squeue is asked again.  A job that was killed, ran out of memory or time, or whose computer failed gives
    a crash report with state, exit code and the end of its log; other branches go on.  A job that SLURM put back to
    the queue is waited for.  A node that cannot be submitted fails alone.  An interrupt, or any other end, cancels
    what still runs; jobs that a killed run left are cancelled when the next one begins, as two jobs must not write to
    one folder.

    Parameters
    ----------
    plugin_args : dict
        Those of Nipype's engine (`sbatch_args`, `template`, `max_jobs`, `max_tries`, `retry_timeout`, `jobid_re`), and

        - `gpu_sbatch_args`: options for nodes with a GPU only, such as another partition;
        - `poll_seconds`: how often to look at the queue, with one squeue for all jobs (5);
        - `patience_seconds`: how long SLURM may fail to answer before waiting nodes are given up (1800).

    Notes
    -----
    `execution.job_finished_timeout` of Nipype's configuration says how long a result may be late on a shared disk.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._poll_s = float(self.plugin_args.get("poll_seconds", POLL_S))
        self._patience_s = float(self.plugin_args.get("patience_seconds", PATIENCE_S))
        self._gpu_args = self.plugin_args.get("gpu_sbatch_args", "")
        self._jobs: dict[int, NodeJob] = {}
        self._given_up: set[int] = set()
        self._states: dict[int, State] = {}
        self._looked = self._answered = 0.0
        self._submitting = ""
        self._root, self._subjects = Path(), set[str]()

    def run(self, graph: networkx.DiGraph, config: dict[str, Any], updatehash: bool = False) -> None:
        """Run the graph; whatever ends it, no job of it is left."""
        self.end_left_over(graph)
        self._answered = time.monotonic()
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            self._cancel()

    # -- submitting

    def _local_hash_check(self, jobid: int, graph: networkx.DiGraph) -> bool:
        items = [self.procs[item] for item, parent in self.mapnodesubids.items() if parent == jobid]
        if items and all(map(_is_complete, items)):
            # only lists of results are left to be made: not worth a job, least of all one with a GPU
            self.procs[jobid].run_without_submitting = True
        return super()._local_hash_check(jobid, graph)

    def _submit_job(self, node: pe.Node, updatehash: bool = False) -> int:
        try:
            return super()._submit_job(node, updatehash=updatehash)
        except Exception as error:
            # Nipype would end the whole workflow here, and leave its other jobs running
            job = NodeJob.of(node, self._root / "batch" / "none.sh", self._root)
            job.number, remedy = min([0, *self._jobs]) - 1, "Look at sbatch_args of the plugin file and of the node."
            if "limit" in str(error).lower():
                remedy = "Lower max_jobs in the plugin file: so many nodes are submitted at once."
            job.lost = SlurmJobError(f"{job.label}: no job could be submitted: {str(error).rstrip('.')}. {remedy}")
            self._jobs[job.number] = job
            return job.number

    def _submit_batchtask(self, scriptfile: str, node: pe.Node) -> int:
        job = NodeJob.of(node, Path(scriptfile), self._root)
        name = f"{re.sub('[^A-Za-z0-9_.-]+', '.', job.label)}.{secrets.token_hex(4)}"
        arguments = self._arguments(node)
        if not _has(arguments, "-o", "--output"):
            arguments += ["-o", str(job.log)]
        self._note(name, node)
        self._submitting = name
        job.number = self._sbatch([*arguments, "-J", name, str(scriptfile)], name)
        job.submitted, job.log = time.monotonic(), Path(str(job.log).replace("%j", str(job.number)))
        self._jobs[job.number], self._submitting = job, ""
        logger.debug("submitted %s as SLURM job %s", job.label, job.number)
        return job.number

    def _arguments(self, node: pe.Node) -> list[str]:
        """Join sbatch's options, of which the last counts: what the node needs, the plugin file's, the node's own."""
        own, asked = node.plugin_args.get("sbatch_args", ""), node.plugin_args.get("generated", "")
        if node.plugin_args.get("overwrite"):
            return shlex.split(own)
        own = own.strip().removeprefix(asked)
        if asked and node.ram_estimator is not None:
            asked = f"{batch_args(node, 'slurm', node.mem_gb_runtime)} {node.plugin_args['extra']}"
        gpu = self._gpu_args if node.is_gpu_node() else ""
        return shlex.split(f"{asked} {self._sbatch_args or ''} {gpu} {own}")

    def _sbatch(self, arguments: list[str], name: str) -> int:
        """Submit a job, again where SLURM is busy; returns its number."""
        for attempt in range(self._max_tries + 1):
            try:
                said = commands.command("sbatch", *arguments)
                break
            except SlurmError as error:
                if attempt == self._max_tries or not commands.is_transient(error):
                    raise
                time.sleep(self._retry_timeout)
                # the controller may have taken the job although its answer did not come
                if number := commands.newest(name):
                    return number
        match = re.search(self._jobid_re, said)
        if not match or not match.group(1):
            raise SlurmError(f"sbatch must name the job it submitted, got {said.strip()!r}; set jobid_re")
        return int(match.group(1))

    # -- waiting

    def _is_pending(self, taskid: int) -> bool:
        return self._get_state(self._jobs[taskid]).runs

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        job = self._jobs[taskid]
        state = State() if job.lost else self._get_state(job)
        if job.lost is None and state.runs:
            job.ended = None
            self._look_why_waiting(job, state)
        if job.lost is not None:
            return failure(job.lost)
        if state.runs:
            return None
        job.ended = job.ended or time.monotonic()
        late = time.monotonic() - job.ended >= self._late_s(state)
        return read(job, state, late) or (without_result(job, state) if late else None)

    def _late_s(self, state: State) -> float:
        """Return the seconds to wait for a result after the job ended."""
        timeout = float(self._config["execution"]["job_finished_timeout"])
        if state.name == "COMPLETING":  # its computer does not answer; SLURM gives it up in its own time
            return timeout + COMPLETING_S
        return timeout if state.name in ("COMPLETED", GONE.name) else min(timeout, GRACE_S)

    def _get_state(self, job: NodeJob) -> State:
        self._look()
        return State() if self._looked <= job.submitted else self._states.get(job.number, GONE)

    def _look(self) -> None:
        """Ask for the state of all jobs, not more often than every `poll_seconds`."""
        now = time.monotonic()
        if now - self._looked < self._poll_s:
            return
        numbers = [number for number, job in self._jobs.items() if job.lost is None]
        try:
            self._states = commands.states(numbers)
            self._answered = time.monotonic()
        except SlurmError as error:
            self._bear(error)
            self._states = {number: State() for number in numbers} | self._states
        self._looked = now

    def _bear(self, error: SlurmError) -> None:
        """Wait for SLURM to answer again, but not for ever."""
        silent = time.monotonic() - self._answered
        logger.warning("SLURM does not say how the jobs are, and is asked again: %s", error)
        if silent < self._patience_s:
            return
        for job in self._jobs.values():
            if job.number > 0:
                self._given_up.add(job.number)
            job.lost = job.lost or SlurmJobError(
                f"{job.label}: SLURM must answer within {silent:.0f} s, got: {error} Job {job.number} may still run. "
                "When squeue works again, the same command continues: it cancels such jobs and keeps finished nodes."
            )

    def _look_why_waiting(self, job: NodeJob, state: State) -> None:
        if state.reason.startswith(commands.NEVER):
            commands.cancel(job.number)
            job.lost = SlurmJobError(
                f"{job.label}: SLURM job {job.number} would never run ({state.reason}) and was cancelled. Change what "
                "it asks for: sbatch_args of the node or of the plugin file."
            )
        elif state.reason.startswith(commands.HELD) and state.reason != job.told:
            job.told = state.reason
            logger.warning("%s: SLURM job %s waits until somebody acts: %s", job.label, job.number, state.reason)

    def _clear_task(self, taskid: int) -> None:
        self._jobs.pop(taskid, None)

    # -- leaving nothing behind

    def _note(self, name: str, node: pe.Node) -> None:
        """Write down a job before it is submitted, for a later run to find should this one be killed."""
        subject = Path(node.output_dir()).resolve().relative_to(self._root.resolve()).parts[0]
        with self._journal(subject).open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")

    def _journal(self, subject: str = "") -> Path:
        return self._root / (f"{subject}-{JOURNAL}" if subject in self._subjects else JOURNAL)

    def _journals(self) -> list[Path]:
        return [self._journal(), *map(self._journal, self._subjects)]

    def end_left_over(self, graph: networkx.DiGraph) -> None:
        """Cancel jobs of an earlier run of these subjects that still wait or run, and wait for their end."""
        nodes = list(graph.nodes())
        paths = [(node._hierarchy or "").split(".") for node in nodes]
        self._root = Path(nodes[0].base_dir) / paths[0][0]
        self._root.mkdir(parents=True, exist_ok=True)
        self._subjects = {path[1] for path in paths if len(path) > 1}
        journals = [path for path in self._journals() if path.is_file()]
        names = {name for path in journals for name in path.read_text(encoding="utf-8").split()}
        if not names:
            return
        end = time.monotonic() + self._patience_s
        while left := commands.named(names):
            if time.monotonic() > end:
                raise SlurmError(f"jobs of an earlier run must end first: {left}. Cancel them with scancel.")
            logger.warning("cancelling jobs that an earlier run left: %s", left)
            commands.cancel(*left)
            time.sleep(min(self._poll_s, 1.0))
        for path in journals:
            path.unlink()

    def _cancel(self) -> None:
        """Cancel what still waits or runs; where that fails, the journal stays for the next run."""
        numbers = {number for number in self._jobs if number > 0} | self._given_up
        if self._submitting:  # SLURM may have taken the job although its answer did not come
            numbers |= {commands.newest(self._submitting)} - {0}
        if commands.cancel(*sorted(numbers)):
            for path in self._journals():
                path.unlink(missing_ok=True)
        self._jobs.clear()
        self._given_up.clear()


def _is_complete(node: pe.Node) -> bool:
    """Tell whether a node would not run; False where that is not known yet, as on a slow shared disk."""
    try:
        return all(node.is_cached())
    except Exception:
        return False


def _has(arguments: list[str], short: str, long: str) -> bool:
    """Tell whether an option of sbatch is given, as `-o x`, `-ox`, `--output x` or `--output=x`."""
    return any(a == long or a.startswith((short, f"{long}=")) for a in arguments)
