"""The engine: a child process that computes, so that nothing blocks the window and torch never enters napari.

A child that runs out of memory takes neither the viewer nor unsaved layers with it.  Messages are those of
`core.engine.wire`; the calls are listed in `core.engine.calls`.
"""

import atexit
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from qtpy.QtCore import QObject, QTimer, Signal

from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.engine import wire

SERVER = ("-P", "-m", "napari_neuraldiffuser.core.engine.server")
"""-P: a file of the user's folder that is called like a module must not be taken for it."""
LOG_LINES = 12
KILLED = -9
STARTING = "starting the computing process"


Result = dict[str, Any] | Exception
"""How a call ends: what it gave, or the exception that ended it (UserError, Cancelled, EngineError)."""


class EngineError(RuntimeError):
    """A bug in a call, or the end of the process; `details` has the traceback or the last lines of its log."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def error_text(error: Exception) -> str:
    """What to tell the user of the end of a call; nothing of one that the user cancelled."""
    if isinstance(error, Cancelled):
        return ""
    return str(error) if isinstance(error, (UserError, EngineError)) else said(error)


class EngineClient(Protocol):
    """What panels need of an engine: the child process, or in tests an object that is told the answers."""

    died: Signal

    def call(self, name: str, args: dict[str, Any]) -> "Task": ...
    def send(self, message: dict[str, Any]) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Task(QObject):
    """One call under way.

    `told(done, total, what)` while it runs, `event(name, payload)` for what the call shows in between, and once
    `ended(result)`: a dict, or the exception that ended it (UserError, Cancelled, EngineError).
    """

    told = Signal(int, int, str)
    event = Signal(str, object)
    ended = Signal(object)

    def __init__(self, number: int, engine: EngineClient) -> None:
        super().__init__()
        self.number, self.engine = number, engine
        self.cancelling = False
        self.running = True

    def cancel(self) -> None:
        """Ask to stop at the next step; asked again, end the process at once."""
        if not self.running:
            return
        again, self.cancelling = self.cancelling, True
        if again:
            self.engine.stop()
        else:
            self.engine.send({"cancel": self.number})

    def receive(self, message: dict[str, Any]) -> None:
        """Emit what one message of the engine says."""
        kind = message.pop("event")
        if kind == "told":
            self.told.emit(message["done"], message["total"], message["what"])
        elif kind == "result":
            self.end(result_of(message))
        else:
            self.event.emit(kind, message)

    def end(self, result: Result) -> None:
        """Emit the end, once."""
        if self.running:
            self.running = False
            self.ended.emit(result)


def result_of(message: dict[str, Any]) -> Result:
    """The dict or exception that a result message stands for."""
    ok, text, details = (message.pop(key, "") for key in ("ok", "message", "traceback"))
    if ok == "done":
        return message
    if ok == "cancelled":
        return Cancelled(message)
    return UserError(text) if ok == "user_error" else EngineError(text, details)


class Engine(QObject):
    """Starts the child process with the first call, and again after it ended.

    Parameters
    ----------
    cache : Path
        Folder of targets, decoders and runs.
    command : sequence of str, optional
        Arguments of the Python interpreter, for tests.
    """

    died = Signal()
    """The process has ended, asked or not: what it had in memory alone is gone."""
    _arrived = Signal(object, object)

    def __init__(self, cache: Path, command: Sequence[str] = SERVER) -> None:
        super().__init__()
        self.cache, self.command = Path(cache), tuple(command)
        self.process: subprocess.Popen | None = None
        self.tasks: dict[int, Task] = {}
        self.requests: dict[int, dict[str, Any]] = {}
        self._last = 0
        self._ready = False
        self._arrived.connect(self._receive)
        atexit.register(_stop, weakref.ref(self))

    @property
    def log(self) -> Path:
        """What the child and its libraries print."""
        return self.cache / "engine.log"

    def call(self, name: str, args: dict[str, Any]) -> Task:
        """Start a call; calls run one after another."""
        self.start()
        self._last += 1
        task = self.tasks[self._last] = Task(self._last, self)
        self.requests[task.number] = {"id": task.number, "call": name, "args": args}
        self.send(self.requests[task.number])
        if not self._ready:
            # once who asked listens
            QTimer.singleShot(0, partial(self._tell_starting, task))
        return task

    def start(self) -> None:
        """Start the child unless it runs: costs milliseconds here, seconds there."""
        if self.process is not None:
            return
        self._ready = False
        self.cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *self.command, str(self.cache)]
        # threads that sleep while they wait: on a busy machine spinning ones hold each other up
        env, pipe = {"OMP_WAIT_POLICY": "passive", **os.environ}, subprocess.PIPE
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=env)
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message to the child, if it lives."""
        if self.process is None:
            return
        try:
            wire.send(self.process.stdin, message)
        except OSError:
            pass  # it has ended: the listener says so

    def stop(self) -> None:
        """End the child at once: everything it writes is complete or absent, so nothing is lost by it.

        Calls that were not cancelled are asked again of a new one: who waits for them need not notice.
        """
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        self.died.emit()
        for task in [task for task in self.tasks.values() if task.cancelling]:
            self._forget(task)
            task.end(Cancelled())
        if self.tasks:
            self.start()
            for number in self.tasks:
                self.send(self.requests[number])

    def close(self) -> None:
        """End the child and forget every call."""
        self.tasks.clear()
        self.requests.clear()
        self.stop()

    def _forget(self, task: Task) -> None:
        self.tasks.pop(task.number, None)
        self.requests.pop(task.number, None)

    def _listen(self, process: subprocess.Popen) -> None:
        """In a thread of its own: every message becomes a signal in the window's thread."""
        try:
            while (message := wire.receive(process.stdout)) is not None:
                self._arrived.emit(process, message)
        except (OSError, ValueError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except OSError:
                pass  # the rest of a message that nobody reads any more
        try:
            self._arrived.emit(process, None)
        except RuntimeError:
            pass  # the window is gone, and the engine with it

    def _receive(self, process: subprocess.Popen, message: dict[str, Any] | None) -> None:
        if process is not self.process:
            return  # it was stopped, and another may have taken its place
        if message is None:
            self._bury(process.returncode)
            return
        self._ready = True
        task = self.tasks.get(message.pop("id", 0))
        if task is None:
            return
        if message["event"] == "result":
            self._forget(task)
        elif message["event"] == "told":
            for waiting in [other for number, other in self.tasks.items() if number > task.number]:
                waiting.told.emit(0, 0, message["what"])  # what it waits for
        task.receive(message)

    def _tell_starting(self, task: Task) -> None:
        if task.running and not self._ready:
            task.told.emit(0, 0, STARTING)

    def _bury(self, code: int) -> None:
        """The child has ended unasked: so have its calls."""
        self.process, tasks, self.tasks = None, self.tasks, {}
        self.requests.clear()
        self.died.emit()
        for task in tasks.values():
            task.end(Cancelled() if task.cancelling else died(code, self.log))


def died(code: int, log: Path) -> EngineError:
    """Why a call has no result when the process ended under it."""
    why = "the system ended it, most often because memory ran out" if code == KILLED else f"exit status {code}"
    try:
        details = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        details = ""
    text = f"The computing process ended: {why}. Run again; for less memory lower repeats or the batch size."
    return EngineError(f"{text} Its log is {log}.", details)


def _stop(engine: "weakref.ref[Engine]") -> None:
    if (alive := engine()) is not None:
        alive.close()
