"""`neuraldiffuser run` in processes of its own: start, kill, and what lies in the output and work folders."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ENGINES = {
    "Linear": "plugin: Linear\n",
    "MultiProc": "plugin: MultiProc\nplugin_args: {n_procs: 2}\n",
}
ALWAYS = ("index", "check", "sink", "group")
"""Nodes that run every time, by design."""


@dataclass(frozen=True)
class Case:
    """A run that is started again and again.

    Attributes
    ----------
    nsd, models : str
        Folder of the subject, and of the models or "demo"; absolute, as results name them.
    options : tuple of str
        Further options of the command.
    """

    nsd: str
    models: str
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The same words for every engine and folder, because the page shows them."""
        inputs = ["run", self.nsd, "out", "participant", "--models", self.models, "--use-plugin", "engine.yml"]
        return [sys.executable, "-m", "napari_neuraldiffuser.cli", *inputs, *self.options]

    def start(self, folder: Path, engine: str) -> subprocess.Popen:
        """Start in `folder`, as the leader of a process group of its own."""
        folder.mkdir(exist_ok=True)
        (folder / "engine.yml").write_text(ENGINES[engine], encoding="utf-8")
        with (folder / "log.txt").open("a") as log:
            return subprocess.Popen(self.command, cwd=folder, stdout=log, stderr=log, start_new_session=True)

    def finish(self, folder: Path, engine: str) -> "Spent":
        """Run to the end."""
        begin = time.perf_counter()
        return spent(self.start(folder, engine), begin, folder / "log.txt")


class Spent(NamedTuple):
    """Seconds of a run: on the clock, and of processors, which other work on the machine changes less."""

    wall: float
    cpu: float


def spent(process: subprocess.Popen, begin: float, log: Path) -> Spent:
    """Wait for a process to end well; what it and its children took."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(process.args)} must end well, got {process.returncode}: see {log}.")
    return Spent(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime)


def kill(process: subprocess.Popen) -> bool:
    """SIGKILL to the whole process group; False if the run was over."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not members(process.pid), 30)
    return running


def members(group: int) -> list[int]:
    """Processes of a group that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for(ready: Callable[[], object], seconds: float) -> bool:
    """Look 20 times a second; False if it did not come true in time."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# ---- what is there ----------------------------------------------------------------------------------------------


def outputs(folder: Path) -> dict[str, str]:
    """Digest of every file of the output folder but the work folder."""
    out = folder / "out"
    files = [p for p in out.rglob("*") if p.is_file() and p.relative_to(out).parts[0] != "work"]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished nodes and items of MapNodes: name to inode and time of the result, which another run changes."""
    found = {}
    for result in (folder / "out" / "work").rglob("result_*.pklz"):
        place = result.parent
        done = any("unfinished" not in p.name for p in place.glob("_0x*.json"))
        if done and not any(place.glob("_0x*_unfinished.json")):
            about = result.stat()
            found[node_name(place)] = about.st_ino, about.st_mtime_ns
    return {name: about for name, about in found.items() if name.split("/")[-1] not in ALWAYS}


def under_way(folder: Path) -> list[str]:
    """Nodes that were started and are not finished; of a MapNode its items where there are any."""
    work = folder / "out" / "work"
    places = {p.parent for p in work.rglob("_0x*_unfinished.json")}
    inner = [p for p in places if not any(p in other.parents for other in places)]
    return sorted(node_name(p) for p in inner)


def node_name(place: Path) -> str:
    """`reconstruct_wf/_recon3` of the folder of a node."""
    parts = place.parts[place.parts.index("work") + 3 :]
    return "/".join(p for k, p in enumerate(parts) if p != "mapflow" and parts[k + 1 : k + 2] != ("mapflow",))


def chunks(names: object) -> list[str]:
    """Names of items of the reconstruction."""
    return [name for name in names if name.split("/")[-1].startswith("_recon")]


def redone(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Nodes that were finished and yet ran again."""
    return sorted(name for name, about in before.items() if after.get(name) != about)
