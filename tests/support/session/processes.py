"""Python code in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def in_a_process(code: str, cwd: Path) -> str:
    """What `code` prints; a failure shows its traceback."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(cwd), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
