"""Functions of nodes that end their process; each imports what it needs, as Nipype ships its source alone."""


def work(x, how, folder):
    """Die as `how` says unless the file `mended` is there; otherwise tell that it ran."""
    import os
    import signal
    import time
    from pathlib import Path

    folder = Path(folder)
    if how == "wait":
        # until the other one is about to die
        until = time.monotonic() + 60
        while not (folder / "dying").exists() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
    if how.startswith("die") and not (folder / "mended").exists():
        time.sleep(0.5)
        (folder / "dying").touch()
        if how == "die exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    with open(folder / f"ran-{x}", "a") as log:
        log.write(f"{os.getpid()}\n")
    return x * x


def sum_of(x0=0, x1=0, x2=0, x3=0):
    """What comes after the others."""
    return x0 + x1 + x2 + x3


def end_once(folder):
    """End by SIGTERM the first time; returns how often it was tried."""
    import os
    import signal
    from pathlib import Path

    with open(Path(folder) / "tries", "a") as log:
        log.write("x")
    tries = len((Path(folder) / "tries").read_text())
    if tries == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    return tries
