"""How the worker processes of MultiProc start: quiet on the terminal, and gone when what started them is."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from nipype_interfaces import logs

LOOK_EVERY = 1.0
"""Seconds between two looks at whether the parent still lives."""


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
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process once its parent has: a node that goes on would write where the next run works."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGKILL)
