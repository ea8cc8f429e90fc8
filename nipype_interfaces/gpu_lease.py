"""Leases of GPUs: a process takes one before it computes on a device, so that no two share a device unawares.

A lease is an exclusive `flock` on a file per device: the kernel releases it when its holder dies, however that happens.
Nipype counts GPU slots and tells no worker which device is its own; batch systems do, through CUDA_VISIBLE_DEVICES.
"""

import fcntl
import logging
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from napari_neuraldiffuser.core.base.errors import UserError

FAKE = "NEURALDIFFUSER_FAKE_GPUS"
"""Environment variable for tests: torch is not asked, and so many devices are taken for there."""
WAIT, POLL, TELL = 3600.0, 0.5, 30.0
"""Seconds: how long to wait for a free device, between two looks, and between two messages about it."""
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID", "LSB_JOBID")
logger = logging.getLogger("nipype.interface")


class LeaseError(UserError):
    """No device can be leased; the message names who holds which, and the remedy."""


@dataclass(eq=False)
class _Held:
    """A lease of this process: file descriptor, device, how often it was taken, and the process that took it."""

    descriptor: int
    device: str
    times: int
    pid: int


_held: list[_Held] = []


@contextmanager
def leased(device: str, wait_s: float = WAIT, folder: str | Path | None = None) -> Iterator[str]:
    """Lease a device for the time of a `with` block.

    Parameters
    ----------
    device : str
        "cpu" and other names that are no CUDA device take no lease.  "cuda" takes the first free device of those that
        CUDA_VISIBLE_DEVICES lists, or of all; "cuda:1" that one, counted among the visible ones as torch does.
    wait_s : float
        Seconds to wait for a free device.
    folder : path, optional
        Where the lock files are; one per host where None.

    Yields
    ------
    str
        The device to give to torch: "cpu", "cuda:0" ...

    Raises
    ------
    LeaseError
        If there is no device, or none became free in time.

    Notes
    -----
    Nested leases of one process are of one device.  CUDA_VISIBLE_DEVICES is not changed: CUDA reads it once, at a
    moment that nobody here knows.
    """
    if not device.startswith("cuda"):
        yield device
        return
    held = _take(device, wait_s, Path(folder or _host_folder()))
    try:
        with _current(held.device):
            yield held.device
    finally:
        held.times -= 1
        # a process that was forked meanwhile has let go of its copy already
        if not held.times and held in _held:
            _let_go(held)


def visible_gpus() -> list[str]:
    """List the devices that this process may use, by index or UUID, without making a CUDA context."""
    preset = os.environ.get("CUDA_VISIBLE_DEVICES")
    if preset is not None:
        names = [name.strip() for name in preset.split(",") if name.strip()]
        # CUDA stops at the first index that is none
        return names[: names.index("-1")] if "-1" in names else names
    if FAKE in os.environ:
        return [str(k) for k in range(int(os.environ[FAKE]))]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


def _take(device: str, wait_s: float, folder: Path) -> _Held:
    """Return a lease that this process has, or a new one."""
    for held in list(_held):
        if held.pid != os.getpid():
            # the process that this one was forked from has the lease; only the copy is closed here
            _let_go(held)
        elif device in ("cuda", held.device):
            held.times += 1
            return held
    files = [(candidate, name, folder / _lock_name(name)) for candidate, name in _candidates(device)]
    began, told = time.monotonic(), -TELL
    while True:
        for candidate, name, path in files:
            if lease := _try(candidate, path):
                logger.info("GPU %s leased as %s by process %d on %s", name, candidate, lease.pid, socket.gethostname())
                return lease
        waited = time.monotonic() - began
        holders = ", ".join(f"{name} by {_holder(path)}" for _, name, path in files)
        if waited >= wait_s:
            raise LeaseError(
                f"{device} must have a free GPU, got none in {waited:.0f} s: held are {holders}. Run fewer GPU nodes "
                "at once (n_gpu_procs, --nprocs), or end those processes."
            )
        if waited - told >= TELL:
            logger.warning("waiting for a free GPU: held are %s", holders)
            told = waited
        time.sleep(POLL)


def _candidates(device: str) -> list[tuple[str, str]]:
    """List torch's name and the own name of every device that would do."""
    every = [(f"cuda:{k}", name) for k, name in enumerate(visible_gpus())]
    chosen = every if device == "cuda" else [pair for pair in every if pair[0] == device]
    if not chosen:
        preset = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if preset is None else f" (CUDA_VISIBLE_DEVICES is {preset!r})"
        raise LeaseError(
            f"device must be one of {[one for one, _ in every] or 'no GPU at all'}, got {device!r}{seen}. "
            "Use --device cpu, or run where a GPU is."
        )
    return chosen


def _lock_name(name: str) -> str:
    """Name the lock file of one device.

    Devices that a batch system gave to a job may be numbered from 0 in every job.  Where it gave none, a job sees
    those of the whole computer, as everybody does.
    """
    given = "CUDA_VISIBLE_DEVICES" in os.environ
    job = next((f"-job{os.environ[key]}" for key in JOBS if given and os.environ.get(key)), "")
    return re.sub(r"[^0-9A-Za-z.-]", "_", f"gpu-{name}{job}") + ".lock"


def _host_folder() -> Path:
    """Make the folder of lock files, which all users of the host share as they do /tmp."""
    folder = Path(tempfile.gettempdir()) / f"neuraldiffuser-gpu-{socket.gethostname()}"
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    return folder


def _try(device: str, path: Path) -> _Held | None:
    """Lease one device, or return None where somebody has it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    held = _Held(descriptor, device, 1, os.getpid())
    _held.append(held)
    with suppress(OSError):  # a file of another user can be locked, not written
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return held


def _open(path: Path) -> int:
    """Open a lock file, and make it where it is not there; reading is enough to lock that of another user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    for mode in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            descriptor = os.open(path, flags | mode, 0o644)
        except PermissionError:
            continue
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise LeaseError(f"{path} must be a file that can be opened. Delete it, or set TMPDIR to another folder.")


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace") or "an unknown process"
    return "an unknown process"


def _let_go(held: _Held) -> None:
    _held.remove(held)
    os.close(held.descriptor)


@contextmanager
def _current(device: str) -> Iterator[None]:
    """Make a device torch's current one, for what asks for no device in particular."""
    if FAKE not in os.environ:
        import torch

        if torch.cuda.is_available():  # else models.load says so, and what to do
            with torch.cuda.device(device):
                yield
            return
    yield
