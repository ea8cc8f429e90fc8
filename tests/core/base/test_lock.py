"""Two processes do not write one subject: refused while the first lives, taken over once it is dead."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from napari_neuraldiffuser.core.base import lock
from napari_neuraldiffuser.core.base.lock import BusyError, held, output_lock
from tests.support import ROOT

HOLD = """
import sys, time
from napari_neuraldiffuser.core.base.lock import held, output_lock
with held(*output_lock(sys.argv[1], "sub-01")):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of sub-01."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def no_locks(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.fixture(params=["locks", "no locks", "no fcntl"])
def disk(request, monkeypatch):
    """Disks with file locks and without, and a system that has none."""
    if request.param == "no locks":
        monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    elif request.param == "no fcntl":
        monkeypatch.setattr(lock, "fcntl", None)


def test_a_second_process_is_refused_with_the_first_named(tmp_path, other, disk):
    with pytest.raises(BusyError, match=rf"sub-01 in {tmp_path} must be .* process {other.pid} on .* another OUT_DIR"):
        with held(*output_lock(tmp_path, "sub-01")):
            pass
    with held(*output_lock(tmp_path, "sub-02")):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, other, disk):
    other.send_signal(signal.SIGKILL)
    other.wait()
    path = output_lock(tmp_path, "sub-01")[0]
    assert json.loads(path.read_text())["pid"] == other.pid
    with held(*output_lock(tmp_path, "sub-01")):
        assert json.loads(path.read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    assert not path.exists()


def test_one_on_another_machine_is_told_and_its_file_named(tmp_path, disk):
    path = output_lock(tmp_path, "sub-01")[0]
    path.write_text('{"pid": 3, "host": "node7"}')
    with pytest.raises(BusyError, match=r"process 3 on node7 has not ended .* delete that file .*OUT_DIR") as told:
        with held(*output_lock(tmp_path, "sub-01")):
            pass
    assert str(path) in str(told.value)
    path.unlink()
    with held(*output_lock(tmp_path, "sub-01")):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_file_holds_nobody_back(tmp_path, text):
    path = output_lock(tmp_path, "sub-01")[0]
    path.write_text(text)
    if text == '{"pid": "x"}':
        path.write_text(json.dumps({"pid": "x", "host": socket.gethostname()}))
    with held(*output_lock(tmp_path, "sub-01")):
        pass
    assert not list(tmp_path.iterdir())


def test_it_goes_with_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), held(*output_lock(tmp_path, "sub-01")):
        raise ZeroDivisionError
    with held(*output_lock(tmp_path, "sub-01")):
        pass
