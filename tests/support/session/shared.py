"""Costly set-ups made once for a whole session, whichever of pytest-xdist's workers asks first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def shared(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` that `make(folder)` fills at the first call of the session; others wait and only read it.

    Who changes files works on a copy. `make` creates the folder; where it fails, the next caller tries again.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / f"shared-{name}", root / f"shared-{name}.done"
    with open(root / f"shared-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder
