"""The engine's process: answers arrive as signals, its death and its restart included."""

import os
import signal
import threading

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.session.engine import STARTING, Engine, EngineError, result_of
from tests.support import ROOT
from tests.support.window.viewers import settle

PATIENCE = 30_000  # ms
CHILD = f"""
import queue, sys, threading
sys.path.insert(0, {str(ROOT)!r})
from napari_neuraldiffuser.core.engine import wire

def say(number, event, **values):
    wire.send(sys.stdout.buffer, {{"id": number, "event": event, **values}})

def call(number, name, args):
    say(number, "told", done=1, total=2, what="half, of it")
    if name == "echo":
        say(number, "shown", x=args["x"])
        say(number, "result", ok="done", got=args)
    elif name == "wait":
        while messages.get().get("cancel") != number:
            pass
        say(number, "result", ok="cancelled", kept=3)
    elif name == "die":
        print("last words", file=sys.stderr, flush=True)
        import os; os._exit(3)
    elif name == "hang":
        threading.Event().wait()
    elif name == "junk":
        sys.stdout.buffer.write(b"x" * 100); sys.stdout.buffer.flush()
        threading.Event().wait()
    else:
        say(number, "result", ok=name, message="why", traceback="where")

messages = queue.Queue()
def read():
    while (message := wire.receive(sys.stdin.buffer)) is not None:
        messages.put(message)
threading.Thread(target=read, daemon=True).start()
while True:
    message = messages.get()
    if "id" in message:
        call(message["id"], message["call"], message["args"])
"""


@pytest.fixture
def engine(qtbot, tmp_path):
    made = Engine(tmp_path / "cache", ("-c", CHILD))
    yield made
    made.stop()
    qtbot.waitUntil(lambda: made.process is None, timeout=PATIENCE)


def listeners():
    """Threads that read what a process says."""
    return {thread for thread in threading.enumerate() if "_listen" in thread.name}


def end_of(qtbot, task):
    with qtbot.waitSignal(task.ended, timeout=PATIENCE) as ended:
        pass
    return ended.args[0]


def test_a_call_tells_shows_and_ends(engine, qtbot):
    task, told, shown = engine.call("echo", {"x": [1, 2]}), [], []
    task.told.connect(lambda *news: told.append(news))
    task.event.connect(lambda name, payload: shown.append((name, payload["x"])))
    assert end_of(qtbot, task) == {"got": {"x": [1, 2]}}
    assert told == [(0, 0, STARTING), (1, 2, "half, of it")]
    assert shown == [("shown", [1, 2])]
    assert not engine.tasks


def test_cancel_reaches_the_call_and_keeps_what_it_had(engine, qtbot):
    task = engine.call("wait", {})
    qtbot.waitSignal(task.told, timeout=PATIENCE).wait()
    task.cancel()
    result = end_of(qtbot, task)
    assert isinstance(result, Cancelled)
    assert result.result == {"kept": 3}


def test_cancelling_twice_ends_the_process(engine, qtbot):
    task = engine.call("hang", {})
    qtbot.waitSignal(task.told, timeout=PATIENCE).wait()
    ended = []
    task.ended.connect(ended.append)
    task.cancel()
    task.cancel()
    assert [type(result) for result in ended] == [Cancelled]
    assert end_of(qtbot, engine.call("echo", {"x": 0})) == {"got": {"x": 0}}, "the next call starts it again"


def test_bystanders_do_not_notice_that_the_process_was_ended(engine, qtbot):
    task, other, died = engine.call("hang", {}), engine.call("echo", {"x": 5}), []
    engine.died.connect(lambda: died.append(1))
    qtbot.waitSignal(task.told, timeout=PATIENCE).wait()
    first = engine.process.pid
    with qtbot.waitSignal(other.ended, timeout=PATIENCE) as ended:
        task.cancel()
        task.cancel()
        assert died == [1]
    assert ended.args[0] == {"got": {"x": 5}}
    assert engine.process.pid != first


def test_closing_forgets_every_call(engine, qtbot):
    others = listeners()
    task, ended = engine.call("hang", {}), []
    task.ended.connect(ended.append)
    process = engine.process
    engine.close()
    assert engine.process is None
    assert process.wait(PATIENCE / 1000) is not None
    qtbot.waitUntil(lambda: listeners() <= others, timeout=PATIENCE)
    settle()
    assert ended == []


def test_user_errors_and_bugs_are_told_apart(engine, qtbot):
    wrong = end_of(qtbot, engine.call("user_error", {}))
    assert isinstance(wrong, UserError)
    assert str(wrong) == "why"
    bug = end_of(qtbot, engine.call("bug", {}))
    assert isinstance(bug, EngineError)
    assert bug.details == "where"


def test_the_end_of_the_process_ends_every_call(engine, qtbot):
    first, second = engine.call("die", {}), engine.call("echo", {"x": 1})
    ended = []
    second.ended.connect(ended.append)
    error = end_of(qtbot, first)
    assert isinstance(error, EngineError)
    assert "exit status 3" in str(error)
    assert "last words" in error.details
    qtbot.waitUntil(lambda: len(ended) == 1, timeout=PATIENCE)
    assert isinstance(ended[0], EngineError)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_process_is_explained(engine, qtbot):
    task = engine.call("hang", {})
    qtbot.waitSignal(task.told, timeout=PATIENCE).wait()
    os.kill(engine.process.pid, signal.SIGKILL)
    error = end_of(qtbot, task)
    assert "memory" in str(error)
    assert "lower repeats" in str(error)


def test_something_else_in_the_pipe_ends_the_process(engine, qtbot):
    assert isinstance(end_of(qtbot, engine.call("junk", {})), EngineError)


def test_arrays_of_a_result_arrive():
    assert result_of({"ok": "done", "images": np.ones(2)})["images"].tolist() == [1, 1]


def test_who_waits_hears_what_the_engine_does(engine, qtbot):
    """The process is started by the first call, and a quiet call is before the user's."""
    first, second = engine.call("echo", {"x": [0]}), engine.call("echo", {"x": [1]})
    heard = {first: [], second: []}
    for task, told in heard.items():
        task.told.connect(lambda *news, told=told: told.append(news))
    assert end_of(qtbot, second) == {"got": {"x": [1]}}
    assert heard[first] == [(0, 0, STARTING), (1, 2, "half, of it")]
    # what the call before it tells, without its numbers, then its own
    assert heard[second] == [(0, 0, STARTING), (0, 0, "half, of it"), (1, 2, "half, of it")]
    third = engine.call("echo", {"x": [1]})
    told = []
    third.told.connect(lambda *news: told.append(news))
    end_of(qtbot, third)
    assert told == [(1, 2, "half, of it")], "it runs already"
