"""How the worker processes of MultiProc start: quiet on the terminal, and gone when what started them is."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

from nipype_interfaces.running import logs


def prepare(engine: Any, log_file: str | Path) -> None:
    """Let the pool of `engine`, and every pool that replaces it, start its workers with `start`."""

    def prepared(pool):
        pool._initargs = (str(log_file), pool._initializer, pool._initargs)
        pool._initializer = start
        return pool

    if getattr(engine, "pool", None) is not None:
        prepared(engine.pool)
    if hasattr(engine, "_new_pool"):
        new_pool = engine._new_pool
        engine._new_pool = lambda: prepared(new_pool())


def start(log_file: str, initializer: Any, initargs: tuple) -> None:
    """Begin a worker: Nipype's log to the file, Ctrl-C left to the parent, no life without it."""
    if initializer is not None:
        initializer(*initargs)
    logs.send(log_file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once the one that began the pool has: a node that goes on would write where the next run works.

    The parent in the sense of the operating system may be a fork server, which lives as long as its workers.
    """
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
