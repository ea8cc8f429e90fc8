"""Processes of `accelerate launch`: all of them train, and the first one writes files."""

import os
from datetime import timedelta

PATIENCE = timedelta(days=7)
"""For how long the other processes wait while the first one computes embeddings of the training images."""


def several() -> bool:
    """Whether this process is one of several that train together."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_main(device: str) -> bool:
    """Whether this process writes; `device` is the "cpu" or "cuda" that all train on."""
    if not several():
        return True
    from accelerate import PartialState

    return bool(PartialState(cpu=device == "cpu", timeout=PATIENCE).is_main_process)


def wait(device: str) -> None:
    """Wait until every process is here."""
    if several():
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=PATIENCE).wait_for_everyone()


def forget_former() -> None:
    """Let Accelerate choose device and precision anew; it keeps those of the first training of a process."""
    if not several():
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
