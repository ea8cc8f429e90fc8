"""A SLURM whose commands answer what a test says, a clock that stands, and job 7."""

from types import SimpleNamespace

import pytest

import nipype_interfaces.slurm.engine as slurm
from nipype_interfaces.slurm.results import NodeJob
from tests.support.workflows.fake_slurm import FakeSlurm
from tests.support.workflows.slurm_jobs import made_plugin


@pytest.fixture
def fake(tmp_path, monkeypatch):
    commands = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", commands.path)
    return commands


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on when the engine sleeps, or the test says so."""
    time = SimpleNamespace(now=1000.0)
    time.monotonic = lambda: time.now
    time.sleep = time.go = lambda seconds: setattr(time, "now", time.now + seconds)
    monkeypatch.setattr(slurm, "time", time)
    return time


@pytest.fixture
def plugin(fake, clock):
    return made_plugin(clock)


@pytest.fixture
def task(plugin, clock, tmp_path):
    """Job 7 of node `one`, submitted just now."""
    folder = tmp_path / "one"
    folder.mkdir()
    made = NodeJob("one", folder / "result_one.pklz", tmp_path / "crashdump_one.pklz", tmp_path / "slurm-7.out")
    made.number, made.submitted = 7, clock.now
    plugin._jobs[7] = made
    clock.go(1.5)
    return made
