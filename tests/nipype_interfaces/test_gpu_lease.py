"""A device has one process at a time, whatever ends that process; real processes and pretended devices."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from napari_neuraldiffuser.core.networks import machine, models
from nipype_interfaces import gpu_lease
from nipype_interfaces.gpu_lease import FAKE, LeaseError, leased, visible_gpus
from nipype_interfaces.interfaces import ExtractFeatures
from nipype_interfaces.interfaces.base import opened_models

HOLD = """
import sys, time
from nipype_interfaces.gpu_lease import leased

def told(seconds, sleep=time.sleep):
    print("waits", flush=True)
    sleep(seconds)

time.sleep = told
with leased(sys.argv[1], float(sys.argv[3]), sys.argv[2]) as device:
    print(device, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def two_fake_gpus(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", *gpu_lease.JOBS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(FAKE, "2")
    monkeypatch.setattr(gpu_lease, "POLL", 0.02)


class Holder:
    """Another process that leases a device and keeps it until it is told to end."""

    def __init__(self, folder, device="cuda", wait=300.0, **env):
        command = [sys.executable, "-c", HOLD, device, str(folder), str(wait)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **env}
        )

    def waits(self):
        """Return once it has found every device taken."""
        assert self.process.stdout.readline() == "waits\n"

    def device(self):
        while (line := self.process.stdout.readline()) == "waits\n":
            pass
        return line.strip()

    def end(self):
        return self.process.communicate("\n", timeout=30)[1]


@pytest.fixture
def hold(tmp_path):
    """Make holders that do not outlive the test."""
    made = []

    def make(device="cuda", wait=20.0, **env):
        made.append(Holder(tmp_path, device, wait, **env))
        return made[-1]

    yield make
    for holder in made:
        holder.process.kill()
        holder.process.communicate()


def test_what_is_no_gpu_takes_no_lease(tmp_path):
    for name in ("cpu", "mps"):
        with leased(name, 0, tmp_path) as device:
            assert device == name
    assert list(tmp_path.iterdir()) == []


def test_two_processes_have_two_devices(hold):
    assert {hold().device(), hold().device()} == {"cuda:0", "cuda:1"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_third_waits_until_a_holder_is_gone(hold, tmp_path, how):
    first, second = hold(), hold()
    places = {first.device(): first, second.device(): second}
    third = hold()
    third.waits()
    if how is None:
        first.end()
    else:
        os.kill(first.process.pid, how)
    freed = third.device()
    assert places[freed] is first


def test_who_holds_what_is_told_when_the_wait_ends(hold, tmp_path):
    holders = [hold(), hold()]
    for holder in holders:
        holder.device()
    with pytest.raises(LeaseError) as error, leased("cuda", 0.1, tmp_path):
        pass
    for holder in holders:
        assert f"process {holder.process.pid}" in str(error.value)
    assert "--nprocs" in str(error.value)


def test_a_device_asked_for_by_number_is_that_one(hold, tmp_path):
    assert hold("cuda:1").device() == "cuda:1"
    with pytest.raises(LeaseError, match="free GPU"), leased("cuda:1", 0.05, tmp_path):
        pass
    with leased("cuda:0", 0, tmp_path) as device:
        assert device == "cuda:0"


def test_a_preset_list_is_honoured(hold, tmp_path):
    """cuda:0 among the visible 3 and 1 is device 3, as torch counts."""
    first = hold(CUDA_VISIBLE_DEVICES="3,1")
    assert first.device() == "cuda:0"
    assert (tmp_path / "gpu-3.lock").is_file()
    assert hold(CUDA_VISIBLE_DEVICES="1").device() == "cuda:0"
    with pytest.raises(LeaseError, match="1 by process"), leased("cuda:1", 0.05, tmp_path):
        pass


def test_uuids_are_names_too(hold, tmp_path):
    uuid = "GPU-8f2a/../x"
    assert hold(CUDA_VISIBLE_DEVICES=uuid).device() == "cuda:0"
    assert [p.parent for p in tmp_path.rglob("*.lock")] == [tmp_path]
    third = hold(CUDA_VISIBLE_DEVICES=uuid, wait=0.1)
    assert third.device() == ""
    assert "free GPU" in third.end()


def test_batch_jobs_have_devices_of_their_own(hold):
    """Every job may see its device as 0; within a job workers still take turns."""
    jobs = [hold(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=job) for job in ("7", "8")]
    assert [job.device() for job in jobs] == ["cuda:0", "cuda:0"]
    other = hold(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="8", wait=0.1)
    assert other.device() == ""


def test_jobs_that_were_given_no_device_share_those_of_the_computer(hold):
    """As on SGE, where a GPU may be counted only."""
    assert {hold(JOB_ID="7").device(), hold(JOB_ID="8").device()} == {"cuda:0", "cuda:1"}


@pytest.mark.parametrize("preset", ["", "-1", "-1,0"])
def test_no_visible_device_is_an_error_with_a_remedy(tmp_path, monkeypatch, preset):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", preset)
    with pytest.raises(LeaseError, match="--device cpu"), leased("cuda", 0, tmp_path):
        pass


def test_devices_that_are_not_there_are_named(tmp_path):
    with pytest.raises(LeaseError, match=r"\['cuda:0', 'cuda:1'\].*'cuda:2'"), leased("cuda:2", 0, tmp_path):
        pass


def test_visible_devices_end_at_the_first_that_is_none(monkeypatch):
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-aa,-1,0")
    assert visible_gpus() == ["2", "GPU-aa"]


def test_nested_leases_are_one(hold, tmp_path):
    with leased("cuda", 0, tmp_path) as outer:
        with leased("cuda", 0, tmp_path) as inner:
            assert inner == outer == "cuda:0"
        assert hold().device() == "cuda:1", "the inner end has not freed it"
    assert hold().device() == "cuda:0"


def _child(folder, queue):
    with leased("cuda", 0, folder) as device:
        queue.put(device)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_child_has_a_device_of_its_own(tmp_path, new_forkserver, method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    with leased("cuda", 0, tmp_path) as mine:
        child = context.Process(target=_child, args=(tmp_path, queue))
        child.start()
        assert queue.get(timeout=60) == "cuda:1" != mine
        child.join(30)
        other = Holder(tmp_path, "cuda:0", 0.1)
        assert other.device() == "", "the child's end has not freed the parent's"
        other.end()


def test_a_file_that_a_dead_process_left_is_free(tmp_path):
    (tmp_path / "gpu-0.lock").write_text("process 1 on another host")
    with leased("cuda", 0, tmp_path) as device:
        assert device == "cuda:0"
        assert (tmp_path / "gpu-0.lock").read_text().startswith(f"process {os.getpid()} on ")


def test_the_lease_is_logged(tmp_path, caplog):
    caplog.set_level("INFO", "nipype.interface")
    logger = gpu_lease.logger
    logger.propagate, before = True, logger.propagate
    try:
        with leased("cuda:1", 0, tmp_path):
            pass
    finally:
        logger.propagate = before
    assert f"GPU 1 leased as cuda:1 by process {os.getpid()}" in caplog.text


@pytest.mark.parametrize(
    "device, order",
    [
        ("cuda:1", ["leased", "loaded", "computed", "networks to cpu", "memory freed", "returned"]),
        ("cpu", ["leased", "loaded", "computed", "returned"]),
    ],
)
@pytest.mark.parametrize("error", [None, RuntimeError])
def test_networks_leave_the_device_before_another_may_lease_it(monkeypatch, device, order, error):
    told = []

    class Networks:
        def to(self, place):
            told.append(f"networks to {place}")

    @contextlib.contextmanager
    def leased_device(asked):
        told.append("leased")
        try:
            yield asked
        finally:
            told.append("returned")

    monkeypatch.setattr(gpu_lease, "leased", leased_device)
    monkeypatch.setattr(models, "load", lambda *of: told.append("loaded") or Networks())
    monkeypatch.setattr(machine, "free_memory", lambda: told.append("memory freed"))
    with contextlib.suppress(RuntimeError), opened_models(ExtractFeatures(device=device).inputs):
        told.append("computed")
        if error:
            raise error
    assert told == order


@pytest.mark.gpu
def test_a_real_device_is_leased(tmp_path, monkeypatch):
    import torch

    monkeypatch.delenv(FAKE)
    with leased("cuda", 0, tmp_path) as device:
        assert torch.zeros(3, device=device).sum() == 0
        assert torch.cuda.current_device() == int(device.split(":")[1])
