"""The script of a day with a GPU: its order, its limits, and that nothing that was promised is left out."""

import os
import re
import subprocess

import pytest

from tests.support import ROOT

ORDER = (
    *("build", "machine", "pipeline", "memory", "simulate", "scores", "tests", "demo", "kernels", "lease", "workers"),
    *("memcheck", "racecheck", "initcheck", "synccheck", "options", "bench"),
)
"""Steps, the most important first."""


@pytest.fixture
def day(tmp_path):
    """Run the script with a Python and a sanitizer that write down their words; what they do is a line of shell."""

    def run(what="true"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name in ("python", "compute-sanitizer", "nvidia-smi"):
            program = tmp_path / "bin" / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/said.txt"\n{what}\n')
            program.chmod(0o755)
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "bin" / "python")}
        done = subprocess.run(["sh", str(ROOT / "scripts/gpu_day.sh"), str(tmp_path / "out")], env=env, timeout=60)
        summary = (tmp_path / "out" / "summary.txt").read_text()
        return done.returncode, re.findall(r"^(\w+): (\w+)", summary, flags=re.M), (tmp_path / "said.txt").read_text()

    return run


def test_every_step_runs_in_order(day):
    code, steps, said = day()
    assert code == 0
    assert [name for name, verdict in steps if verdict == "passed"] == list(ORDER)
    for words in (
        "benchmarks/pipeline.py --size full --device cuda --dtype bfloat16",
        "--repeats 16",
        "-m pytest -m gpu",
    ):
        assert words in said


def test_a_step_that_fails_does_not_end_the_day(day):
    code, steps, _ = day('case "$*" in *"-m gpu"*) exit 3 ;; esac')
    assert code == 1
    assert [name for name, verdict in steps if verdict == "FAILED"] == ["tests"]
    assert [name for name, _ in steps] == list(ORDER)


def test_the_first_eight_steps_fit_eight_minutes():
    text = (ROOT / "scripts/gpu_day.sh").read_text(encoding="utf-8")
    limits = {name: int(seconds) for name, seconds in re.findall(r"^ *step (\w+) (\d+) ", text, flags=re.M)}
    first = ORDER[: ORDER.index("demo") + 1]
    # the build takes no longer where the kernels' sources are unchanged, and limits are no expectations
    assert sum(limits[name] for name in first if name != "build") <= 480
