"""CI's strict mode: what CI must have is never skipped in silence."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="no chromium on this machine")
def test_by_mark(): ...

def test_in_its_body():
    pytest.skip("needs SLURM and munge, missing slurmctld")

@pytest.mark.skipif(True, reason="needs a CUDA device")
def test_on_a_gpu(): ...

@pytest.mark.xfail
def test_known(): assert False
"""


@pytest.mark.parametrize(
    ("strict", "expected"), [("1", "1 failed, 1 skipped, 1 xfailed, 1 error"), ("0", "3 skipped, 1 xfailed")]
)
def test_a_skip_fails_where_ci_must_have_what_is_missing(tmp_path, strict, expected):
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:warnings",
        "-p",
        "tests.support.session.strict",
        ".",
    ]
    environment = {
        **os.environ,
        "NEURALDIFFUSER_STRICT": strict,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert expected in done.stdout, done.stdout + done.stderr
