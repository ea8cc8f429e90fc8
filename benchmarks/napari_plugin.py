"""How long the plugin lets a user wait: dock, first reconstruction, cancel, and the longest block of the window.

Every round is a napari of its own, in a window; without a display it starts itself again under xvfb-run.  A round opens
the simulated subject, decodes it and reconstructs its first test stimulus, then runs again and cancels.  `baseline` is
the goal (1 s, 20 s, 100 ms, one diffusion step), so a ratio above 1 means that it was met.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PATIENCE = 600.0  # s
GOALS = {  # row -> (goal, unit); one diffusion step is measured, so it has no fixed goal
    "dock opens": (1.0, "s"),
    "open the sample, decoder fitted before": (20.0, "s"),
    "first guided reconstruction, decoder fitted before": (20.0, "s"),
    "longest block while decoding and reconstructing": (0.1, "s"),
    "cancel": (None, "s"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write rows to this file")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="cache folder to keep; a temporary one is warmed first")
    parser.add_argument("--round", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.round:
        print(json.dumps(one_round()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        cache = args.cache or Path(folder)
        first = child(cache)
        rounds = [child(cache) for _ in range(1 if args.quick else args.rounds)]
    rows = [row(name, [r[name] for r in rounds], [r["step"] for r in rounds]) for name in GOALS]
    rows.append(row("first guided reconstruction, nothing prepared", [first[AFTER_FIT]], [None], (None, "s")))
    for one in rows:
        print(f"{one['case']}: {one['ours']['median']:.3g} s, ratio {one['ratio']['median']}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


AFTER_FIT = "first guided reconstruction, decoder fitted before"


def row(name: str, seconds: list[float], steps: list[float | None], goal: tuple | None = None) -> dict[str, Any]:
    """One row; the ratio is goal over seconds, where there is a goal."""
    fixed, unit = goal or GOALS[name]
    goals = [fixed] * len(seconds) if fixed or name != "cancel" else steps
    ratios = [g / s for g, s in zip(goals, seconds, strict=True) if g is not None]
    return {
        "benchmark": "napari_plugin",
        "case": name,
        "baseline": "one diffusion step" if name == "cancel" else f"goal {fixed} {unit}",
        "ratio": quartiles(ratios) if ratios else {"median": None, "q25": None, "q75": None, "n": 0},
        "ours": quartiles(seconds),
        "unit": unit,
    }


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    q25, median, q75 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(median, 4), "q25": round(q25, 4), "q75": round(q75, 4), "n": len(values)}


def child(cache: Path) -> dict[str, float]:
    """A round in a process of its own, with an empty configuration and no finished images in the cache."""
    for name in ("config", "napari-neuraldiffuser/arms"):
        shutil.rmtree(cache / name, ignore_errors=True)
    command = [sys.executable, __file__, "--round"]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "XDG_CONFIG_HOME": str(cache / "config"), "NAPARI_ASYNC": "0"}
    if not os.environ.get("DISPLAY") and sys.platform == "linux":
        if shutil.which("xvfb-run") is None:
            sys.exit("A display must be there, found neither one nor xvfb-run. Run: sudo apt-get install -y xvfb xauth")
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
        env["QT_QPA_PLATFORM"] = "xcb"
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=2 * PATIENCE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_round() -> dict[str, float]:
    """Drive one napari; seconds by row name, and the median diffusion step."""
    import time

    import napari
    from qtpy.QtCore import QEventLoop, QTimer
    from qtpy.QtWidgets import QApplication

    def wait(ready) -> float:
        began = time.perf_counter()
        while not ready():
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 5)
            time.sleep(0.001)  # the engine needs both processors of a small machine
            if time.perf_counter() - began > PATIENCE:
                raise TimeoutError("the plugin must answer, got nothing for a long time")
        return time.perf_counter() - began

    def settle(seconds: float) -> None:
        until = time.perf_counter() + seconds
        wait(lambda: time.perf_counter() > until)

    viewer = napari.Viewer()
    settle(1.0)
    found: dict[str, float] = {}

    began = time.perf_counter()
    _, dock = viewer.window.add_plugin_dock_widget("napari-neuraldiffuser", "NeuralDiffuser")
    QApplication.processEvents()
    found["dock opens"] = time.perf_counter() - began
    settle(0.5)

    panel, session = dock.panels["Reconstruct"], dock.panels["Reconstruct"].session
    dock.show_page("Reconstruct")
    began = time.perf_counter()
    viewer.open_sample("napari-neuraldiffuser", "simulated_subject")
    found["open the sample, decoder fitted before"] = time.perf_counter() - began
    wait(lambda: session.recipe.source.given and session.described is not None)

    gaps: list[float] = []
    last = [time.perf_counter()]

    def tick() -> None:
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(tick)
    last[0] = time.perf_counter()
    timer.start()

    arms: list[tuple[str, float]] = []
    steps: list[float] = []

    def event(name: str, payload: dict[str, Any]) -> None:
        if name == "arm":
            arms.append((payload["arm"], time.perf_counter()))
        if name == "step":
            steps.append(time.perf_counter())

    def listen(busy: bool) -> None:
        if busy:
            session.task.event.connect(event)

    session.busy_changed.connect(listen)
    panel.start()
    wait(lambda: any(arm == "guided" for arm, _ in arms))
    found[AFTER_FIT] = next(at for arm, at in arms if arm == "guided") - began
    wait(lambda: not session.busy)
    settle(0.5)

    diffs = [b - a for a, b in zip(steps, steps[1:], strict=False)]
    found["step"] = statistics.median(diffs)
    session.change_stage("diffusion", session.recipe.settings.diffusion.but(seed=1))
    steps.clear()
    panel.start()
    wait(lambda: len(steps) > 4)
    asked = time.perf_counter()
    panel.stop()
    wait(lambda: not session.busy)
    found["cancel"] = time.perf_counter() - asked
    timer.stop()
    found["longest block while decoding and reconstructing"] = max(gaps)
    viewer.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
