"""What helps against errors that are no bad input and no bug of ours: memory, libraries, GPUs, missing files."""

import re

MACHINE = (
    # pattern of the error -> what to do; the first that matches counts, so a library is not taken for a missing file
    (r"failed to map segment|static TLS block", "a library does not fit into the memory that may be used: allow more "
     "(`ulimit -v unlimited`, or ask the batch system for more)."),
    (r"cannot open shared object file|undefined symbol|ImportError|ModuleNotFoundError|DLL load failed", "a library "
     "is missing there, or does not fit the others: run `neuraldiffuser doctor` there, in the same environment."),
    (r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED", "the GPU's memory is full: give a smaller "
     "--batch-size, and see that nothing else uses the GPU."),
    (r"MemoryError|Unable to allocate|can't allocate memory|Cannot allocate memory|OUT_OF_MEMORY|OOM|zlib.error: "
     r"Error -4\b", "memory is full: run fewer nodes at once (--nprocs), give a smaller --batch-size, or ask the batch "
     "system for more."),
    (r"not compiled with CUDA|No CUDA GPUs|NVIDIA driver|CUDA error|CUDA driver|cuda runtime", "CUDA does not work "
     "there: look at `neuraldiffuser doctor` on that machine, or give --device cpu."),
)  # fmt: skip
"""Troubles of the machine that a program runs on, which are no bugs of ours."""
NODES = (
    (r"signal 9|SIGKILL|BrokenProcessPool|terminated abruptly|killed", "the process was killed, most often because "
     "memory ran out: run fewer nodes at once (--nprocs), or ask the batch system for more."),
    (r"TIMEOUT|DUE TO TIME LIMIT", "the batch system's time limit ended the job: ask for more time."),
    (r"PermissionError|Permission denied", "a file or folder must not be read or written: change its permissions."),
    (r"FileNotFoundError|No such file or directory|does not exist", "a file is missing: if it was in the work folder, "
     "give --no-resume; if it is yours, put it back."),
)  # fmt: skip
"""What else befalls a node of a workflow."""


def machines_remedy(error: BaseException) -> str:
    """What helps against an error that a machine's want caused; nothing for one that may be a bug of ours."""
    if not isinstance(error, (MemoryError, ImportError, OSError, RuntimeError)):
        return ""
    return _first(MACHINE, f"{type(error).__name__}: {error}")


def remedy(text: str) -> str:
    """What helps against an error, given as the last line of its traceback; nothing where that is not known."""
    return _first((*MACHINE, *NODES), text)


def _first(hints: tuple[tuple[str, str], ...], text: str) -> str:
    return next((hint for pattern, hint in hints if re.search(pattern, text, re.IGNORECASE)), "")
