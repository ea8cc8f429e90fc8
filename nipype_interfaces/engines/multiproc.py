"""Nipype's MultiProc, mended: it notices when a worker dies, as one does when memory runs out.

Nipype's own waits for ever: the dead worker's task raises in a callback, where nobody hears it, and every later task is
refused.  Here the node whose worker died fails like any other, with a text that says what happened, and the nodes that
were under way in other workers, which Python ends with the pool, are run again in a new pool.
"""

import os
import shutil
import signal
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from traceback import format_exception
from typing import Any

import networkx
from napari_neuraldiffuser.core.base.errors import UserError
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins import multiproc

from nipype_interfaces.engines.choice import EngineError
from nipype_interfaces.gpu_lease import visible_gpus

TRIES = 2
"""How often a node is started if its workers end and nothing says why."""


class WorkerDied(UserError):
    """A worker process ended before its node did."""


def run_marked(node: pe.Node, updatehash: bool, taskid: int, marks: str) -> dict[str, Any]:
    """Run a node in a worker, and note which process that is."""
    (Path(marks) / str(taskid)).write_text(str(os.getpid()))
    return multiproc.run_node(node, updatehash, taskid)


class WatchedMultiProcPlugin(multiproc.MultiProcPlugin):
    """MultiProc that ends, and says why, when a worker is killed.

    Parameters
    ----------
    plugin_args : dict, optional
        As for Nipype's.  `mp_context` is "forkserver" unless given: a worker forked from a process in which torch has
        computed waits for ever.  `n_gpu_procs` is the number of visible GPUs unless given.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        given = dict(plugin_args or {})
        self._count_gpus = "n_gpu_procs" not in given
        super().__init__({"mp_context": "forkserver", **given})
        self._marks = tempfile.mkdtemp(prefix="neuraldiffuser-workers-")
        self._tasks: dict[int, tuple[pe.Node, bool]] = {}
        self._tries: dict[int, int] = {}
        self._failed: dict[int, BaseException] = {}
        self._workers: dict[int, BaseProcess] = {}

    def _prerun_check(self, graph: networkx.DiGraph) -> None:
        if self._count_gpus and any(node.is_gpu_node() for node in graph.nodes()):
            # Nipype asks nvidia-smi, which some machines with GPUs do not have
            self.n_gpu_procs = len(visible_gpus())
            if not self.n_gpu_procs:
                raise EngineError(
                    "nodes with --device cuda must have a GPU, and none is visible here. Use --device cpu."
                )
        try:
            super()._prerun_check(graph)
        except RuntimeError as error:  # one sentence that says neither what is short nor what to do
            raise EngineError(
                f"the engine must have what each node asks for, and has not: {error}. The log in the work folder names "
                "it; raise --nprocs or memory_gb of the plugin file, or lower --num-threads or --gpu-mem-gb."
            ) from error

    def _submit_job(self, node: pe.Node, updatehash: bool = False) -> int:
        self._taskid += 1
        self._tasks[self._taskid] = node, updatehash
        self._start(self._taskid)
        return self._taskid

    def _start(self, taskid: int) -> None:
        node, updatehash = self._tasks[taskid]
        self._tries[taskid] = self._tries.get(taskid, 0) + 1
        try:
            future = self.pool.submit(run_marked, node, updatehash, taskid, self._marks)
        except BrokenProcessPool as error:
            # the pool broke between two tasks; those that were under way are looked after in `_mend_pool`
            self._failed[taskid] = error
            return
        self._workers |= dict(self.pool._processes or {})
        self._task_obj[taskid] = future
        future.add_done_callback(lambda done: self._finished(taskid, done))

    def _finished(self, taskid: int, future: Future) -> None:
        """Take the result of a task; this runs in a thread of the pool."""
        if future.cancelled():
            return
        if error := future.exception():
            self._failed[taskid] = error
        else:
            self._taskresult[taskid] = future.result()

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        error = self._failed.get(taskid)
        if isinstance(error, BrokenProcessPool):
            self._mend_pool()
        elif error is not None:
            del self._failed[taskid]
            self._taskresult[taskid] = _failure(taskid, error)
        return self._taskresult.get(taskid)

    def _clear_task(self, taskid: int) -> None:
        for known in (self._task_obj, self._tasks, self._tries):
            known.pop(taskid, None)

    def _mend_pool(self) -> None:
        """Fail the nodes whose workers died, and start the others again in a new pool."""
        wait(list(self._task_obj.values()))
        self.pool.shutdown(wait=True)
        self.pool = self._new_pool()
        broken = [taskid for taskid, error in self._failed.items() if isinstance(error, BrokenProcessPool)]
        died = {taskid: how for taskid in broken if (how := self._how_it_died(taskid))}
        for taskid in broken:
            del self._failed[taskid]
            if taskid in died or (not died and self._tries[taskid] >= TRIES):
                error = WorkerDied(_text(self._tasks[taskid][0], died.get(taskid, "was ended")))
                self._taskresult[taskid] = _failure(taskid, error)
            else:
                self._start(taskid)

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiproc.mp.get_context(self.plugin_args["mp_context"])
        start = {"initializer": multiproc.process_initializer, "initargs": (self._cwd,)}
        return ProcessPoolExecutor(max_workers=self.processors, mp_context=context, **start)

    def _how_it_died(self, taskid: int) -> str:
        """Say what ended the worker of a task, if not the pool, which ends all workers with SIGTERM once one died."""
        try:
            worker = self._workers[int((Path(self._marks) / str(taskid)).read_text())]
        except (OSError, ValueError, KeyError):
            return ""  # it had not begun
        worker.join(5)
        code = worker.exitcode or 0
        if code in (0, -signal.SIGTERM):
            return ""
        killed = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else ""
        return f"(process {worker.pid}) {killed or f'ended with status {code}'}"

    def _postrun_check(self) -> None:
        super()._postrun_check()
        shutil.rmtree(self._marks, ignore_errors=True)


def _text(node: pe.Node, how: str) -> str:
    return (
        f"the worker of node {node.fullname} {how}. Most often memory ran out: the node asked for "
        f"mem_gb={node.mem_gb:g}. Run fewer nodes at once (--nprocs) or see to more memory; what was finished is kept."
    )


def _failure(taskid: int, error: BaseException) -> dict[str, Any]:
    return {"result": None, "traceback": format_exception(type(error), error, None), "taskid": taskid}
