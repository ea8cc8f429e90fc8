"""What a run does to its engine and to Nipype's log: reports of nodes, quiet workers, interrupts, and where it goes."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import networkx
import nipype  # noqa: F401  its import makes its loggers and their handler, which ours replace
from nipype.interfaces.base.support import RuntimeContext
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.base import PluginBase

FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"
TOLD_BY_US = ("[Node] Error on", "Storing result file without outputs")


def watch(
    engine: PluginBase,
    monitor: Callable[[pe.Node, str], None],
    begin: Callable[[networkx.DiGraph], None],
    explain: Callable[[pe.Node], None],
) -> None:
    """Let `engine` tell `monitor` of every node, after `begin` was given the graph that it runs.

    `explain` is given each node that failed as soon as its crash report is written.

    The callback does not travel in plugin_args, because Nipype pickles those into every MapNode.
    """
    run = engine.run

    def watched(graph: networkx.DiGraph, config: dict[str, Any], updatehash: bool = False) -> None:
        if hasattr(engine, "end_left_over"):  # `begin` may remove folders that old jobs still write to
            engine.end_left_over(graph)
        begin(graph)
        run(graph, config, updatehash=updatehash)

    def told(node: pe.Node, status: str) -> None:
        monitor(node, status)
        if status == "exception" and not hasattr(engine, "_report_crash"):  # Linear wrote the report before
            explain(node)

    if hasattr(engine, "_report_crash"):
        report = engine._report_crash

        def reported(node: pe.Node, result: Any = None) -> Any:
            file = report(node, result=result)
            explain(node)
            return file

        engine._report_crash = reported
    engine.run, engine._status_callback = watched, told


def prepare_workers(engine: PluginBase, log_file: str | Path) -> None:
    """Let the pool of `engine`, and every pool that replaces it, start its workers with `start_worker`."""

    def prepared(pool: ProcessPoolExecutor) -> ProcessPoolExecutor:
        pool._initargs = (str(log_file), pool._initializer, pool._initargs)
        pool._initializer = start_worker
        return pool

    if getattr(engine, "pool", None) is not None:
        prepared(engine.pool)
    if hasattr(engine, "_new_pool"):
        new_pool = engine._new_pool
        engine._new_pool = lambda: prepared(new_pool())


def start_worker(log_file: str, initializer: Callable[..., None] | None, initargs: tuple) -> None:
    """Begin a worker: its log goes to the file, Ctrl-C is left to the parent, and it ends when the parent does."""
    if initializer is not None:
        initializer(*initargs)
    send_log(log_file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once the one that began the pool has: a node that goes on would write where the next run works.

    The parent in the sense of the operating system may be a fork server, which lives as long as its workers.
    """
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def stop(engine: PluginBase) -> None:
    """End what an interrupted engine has under way, as far as it runs in processes of this machine."""
    pool = getattr(engine, "pool", None)
    if pool is None:
        return
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a node that runs in this process.

    Nipype takes a KeyboardInterrupt inside an interface for a failure of that node and goes on with the next one.
    Inside the block it swallows errors only, so that an interrupt ends the run as a kill would.
    """
    swallow = RuntimeContext.__exit__

    def errors_only(self, kind, error, traceback):
        swallowed = swallow(self, kind, error, traceback)
        return swallowed and (kind is None or issubclass(kind, Exception))

    RuntimeContext.__exit__ = errors_only
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _interrupt) if main else None
    try:
        yield
    finally:
        RuntimeContext.__exit__ = swallow
        if main:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class LogFile(logging.FileHandler):
    """Appends records to a file; a record whose text does not fit its values is written as it is."""

    def handleError(self, record: logging.LogRecord) -> None:
        # Nipype gives text to a %d of its own; that is no reason for a traceback on the user's terminal
        record.msg, record.args = f"{record.msg} {record.args}", None
        with suppress(OSError, ValueError):
            (self.stream or self._open()).write(self.format(record) + self.terminator)


def _not_told_by_us(record: logging.LogRecord) -> bool:
    failed = record.levelno >= logging.ERROR and record.module in ("tools", "base")
    return not failed and not str(record.msg).startswith(TOLD_BY_US)


def send_log(path: str | Path, debug: bool = False) -> LogFile:
    """Send Nipype's log to `path` and its warnings to stderr, or everything to both where `debug`.

    Nipype itself writes to stdout, which belongs to the paths of what was written.
    """
    file, terminal = LogFile(path, encoding="utf-8", delay=True), logging.StreamHandler(sys.stderr)
    file.setFormatter(logging.Formatter(FORMAT))
    terminal.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if not debug:
        terminal.setLevel(logging.WARNING)
        terminal.addFilter(_not_told_by_us)
    logging.getLogger("nipype").handlers = [file, terminal]
    return file


@contextmanager
def log_to(path: str | Path, debug: bool = False) -> Iterator[None]:
    """Do as `send_log` does inside the `with` block only."""
    logger = logging.getLogger("nipype")
    before = logger.handlers
    file = send_log(path, debug)
    try:
        yield
    finally:
        logger.handlers = before
        file.close()
