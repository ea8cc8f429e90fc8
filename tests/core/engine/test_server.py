"""The engine's process: the protocol, cancelling, and an end that is never waited for."""

import io
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from skimage import io as images

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled, Events
from napari_neuraldiffuser.core.engine import server, wire
from tests.support import ROOT
from tests.support.study_cases import DIFFUSION

PATIENCE = 120  # s


def ended(call, events=None, **request):
    return server.outcome(call, {"call": "name", "args": {}, **request}, events or Events())


def raising(error):
    def call(name, args, events):
        raise error

    return call


def test_every_end_has_its_message():
    assert ended(lambda name, args, events: {"x": 1}) == {"ok": "done", "x": 1}
    assert ended(raising(UserError("mend it"))) == {"ok": "user_error", "message": "mend it"}
    kept = ended(raising(Cancelled({"folder": "here"})))
    assert (kept["ok"], kept["folder"]) == ("cancelled", "here")


def test_a_bug_has_its_traceback(capsys):
    bug = ended(raising(KeyError("shape")))
    assert bug["ok"] == "bug"
    assert bug["message"].startswith("The program met an error of its own: there is no 'shape'.")
    assert "KeyError" not in bug["message"]
    assert "in call" in bug["traceback"]
    assert "in call" in capsys.readouterr().err


def test_a_call_that_was_cancelled_while_it_waited_does_not_start():
    flag, started = threading.Event(), []
    flag.set()
    end = ended(lambda name, args, events: started.append(1) or {}, Events(cancel=flag))
    assert end["ok"] == "cancelled"
    assert not started


def test_payloads_become_json_with_arrays_at_the_top(tmp_path):
    payload = {
        "images": np.zeros((1, 2), np.uint8),
        "n": np.int64(3),
        "rows": [{"score": np.float32(0.5), "path": tmp_path, "ids": (np.int64(1), None)}],
        "losses": {1: np.ones((1, 2))},
    }
    made = server.plain(payload)
    assert made.pop("images") is payload["images"]
    assert json.loads(json.dumps(made)) == {
        "n": 3,
        "rows": [{"score": 0.5, "path": str(tmp_path), "ids": [1, None]}],
        "losses": {"1": [[1.0, 1.0]]},
    }


def test_progress_is_thinned_out_but_its_last_arrives(monkeypatch):
    clock, sent = [100.0], []
    monkeypatch.setattr(server.time, "monotonic", lambda: clock[0])
    teller = server.Teller(lambda name, payload: sent.append((name, payload["k"])))
    for k in range(200):
        clock[0] += 0.005
        teller.emit("told", {"k": k})
    assert 15 <= len(sent) <= 22
    teller.emit("arm", {"k": "arm"})
    assert sent[-2:] == [("told", 199), ("arm", "arm")]
    teller.emit("told", {"k": 200})
    teller.flush()
    teller.flush()
    assert sent.count(("told", 200)) == 1


def test_a_message_of_an_arm_survives_the_wire():
    stream = io.BytesIO()
    made = server.Server(None, io.BytesIO(), stream)
    made._send(3, "arm", {"images": np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "losses": np.float64(0.5)})
    stream.seek(0)
    found = wire.receive(stream)
    assert (found["id"], found["event"], found["losses"]) == (3, "arm", 0.5)
    assert found["images"].tolist() == [[[0, 1, 2], [3, 4, 5]]]


NOISY = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from napari_neuraldiffuser.core.engine import calls, server

def noisy(self, name, args, events):
    print("x" * 100_000)
    sys.stdout.write("more")
    sys.__stdout__.write("and more") and sys.__stdout__.flush()
    os.write(1, b"from C")
    os.system("echo from a child")
    while name == "wait":
        events.told(0, 0, "waiting")
        import time; time.sleep(0.02)
    return {{"name": name}}

calls.Study.call = noisy
server.main(sys.argv[1:])
"""


class Child:
    """An engine process and what it says."""

    def __init__(self, cache, *command):
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-P", "-m", "napari_neuraldiffuser.core.engine.server")), str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.messages = []

    def send(self, **message):
        wire.send(self.process.stdin, message)

    def call(self, number, name, **args):
        self.send(id=number, call=name, args=args)

    def until(self, event, number=None):
        """Read on to a message of that event (of that call); returns it."""
        while (message := wire.receive(self.process.stdout)) is not None:
            self.messages.append(message)
            if message["event"] == event and number in (None, message["id"]):
                return message
        raise AssertionError(f"the engine ended without {event}: {self.messages[-3:]}")

    def close(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def child(tmp_path):
    made = []

    def start(*command):
        made.append(Child(tmp_path / "cache", *command))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def given(inputs):
    trials = nsd.Subject(inputs.source.nsd_dir, "subj01").trials
    return inputs.but(stimulus_ids=(int(trials[trials.shared].stimulus_id.min()),))


@pytest.mark.slow
def test_what_libraries_print_does_not_reach_the_wire(child):
    engine = child("-c", NOISY)
    for number in (1, 2):
        engine.call(number, f"call {number}")
    results = [engine.until("result") for _ in range(2)]
    assert [(r["id"], r["name"], r["ok"]) for r in results] == [(1, "call 1", "done"), (2, "call 2", "done")]


@pytest.mark.slow
def test_running_and_waiting_calls_are_cancelled_and_others_go_on(child):
    engine = child("-c", NOISY)
    for number, name in ((1, "wait"), (2, "wait"), (3, "short")):
        engine.call(number, name)
    engine.until("told", 1)
    engine.send(cancel=2)
    engine.send(cancel=99)
    engine.send(cancel=1)
    ends = {end["id"]: end["ok"] for end in (engine.until("result") for _ in range(3))}
    assert ends == {1: "cancelled", 2: "cancelled", 3: "done"}
    assert not [m for m in engine.messages if m["id"] == 2 and m["event"] == "told"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["end of file", "stop", "nonsense"])
def test_it_ends_in_the_middle_of_a_call(child, how):
    engine = child("-c", NOISY)
    engine.call(1, "wait")
    engine.until("told")
    if how == "end of file":
        engine.process.stdin.close()
    elif how == "stop":
        engine.send(stop=True)
    else:
        engine.process.stdin.write(b"\xff" * 64)
        engine.process.stdin.flush()
    assert engine.process.wait(PATIENCE) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_it_ends_when_the_front_end_is_killed(tmp_path):
    """The front end is a process between this test and the engine."""
    front_end = f"""
import subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from napari_neuraldiffuser.core.engine import wire
engine = subprocess.Popen([sys.executable, "-c", {NOISY!r}, {str(tmp_path)!r}], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
wire.send(engine.stdin, {{"id": 1, "call": "wait", "args": {{}}}})
wire.receive(engine.stdout)
print(engine.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", front_end], stdout=subprocess.PIPE, text=True)
    engine = int(parent.stdout.readline())
    os.kill(engine, 0)
    parent.kill()
    parent.wait(PATIENCE)
    parent.stdout.close()
    deadline = time.monotonic() + PATIENCE
    while _lives(engine):
        assert time.monotonic() < deadline, "the engine outlived its front end"
        time.sleep(0.05)


def _lives(pid):
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_over_the_wire_and_its_cancelling(child, given):
    engine = child()
    recipe = given.with_stage("diffusion", DIFFUSION.but(n_steps=60))
    engine.call(1, "reconstruct", recipe=recipe.to_dict(), preview_every=2)
    engine.until("step")
    engine.send(cancel=1)
    end = engine.until("result")
    steps = [m for m in engine.messages if m["event"] == "step"]
    assert end["ok"] == "cancelled"
    # the step in which the wish arrives is done, but may not be told of
    kept = end["provenance"]["steps_done"]["guided"]
    assert steps[-1]["done"] <= kept <= steps[-1]["done"] + 1
    assert list(end["provenance"]["steps_done"]) == ["guided"]
    assert kept < 45
    for row in end["provenance"]["images"]:
        assert images.imread(f"{end['folder']}/{row['file']}").any()
    engine.call(2, "reconstruct", recipe=given.to_dict(), preview_every=1)
    done = engine.until("result")
    assert done["ok"] == "done"
    assert done["complete"]
    preview = next(m for m in engine.messages if m["id"] == 2 and m["event"] == "preview")
    assert preview["images"].dtype == np.uint8
    assert preview["images"].shape[:2] == (1, 2)
    engine.call(3, "reconstruct", recipe=given.but(stimulus_ids=(999,)).to_dict())
    refused = engine.until("result")
    assert refused["ok"] == "user_error"
    assert "999" in refused["message"]


@pytest.mark.slow
def test_torch_waits_for_a_call_that_computes(given, tmp_path):
    code = (
        "import sys; from napari_neuraldiffuser.core.engine import calls, server;"
        "from napari_neuraldiffuser.core.base.progress import Events; made = calls.Study(sys.argv[1]);"
        f"source = {given.source.to_dict()!r}; made.call('describe', {{'source': source}}, Events());"
        "made.call('thumbnails', {'source': source, 'ids': [0]}, Events()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=PATIENCE)
