"""The engine's main loop: `python -m napari_neuraldiffuser.core.engine.server CACHE_DIR`, spoken to with `wire`.

    in    {"id", "call", "args"}          start a call; calls run one after another
          {"cancel": id}                  stop a call at its next message, also one that waits
          {"stop": true}, or end of file  end at once
    out   {"id", "event": "told", "done", "total", "what"}
          {"id", "event": NAME, ...}      what a call shows; arrays at the top level
          {"id", "event": "result", "ok": "done" | "cancelled" | "user_error" | "bug", "message", "traceback", ...}

Standard output is the wire; what a library prints goes to standard error.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.base.progress import Cancelled, Events
from napari_neuraldiffuser.core.engine import wire

Call = Callable[[str, dict[str, Any], Events], dict[str, Any]]
NICENESS = 5
TELLS_PER_SECOND = 20


class Server:
    """Reads requests in a thread and runs them one after another in the thread that calls `serve`.

    Parameters
    ----------
    call : callable
        `Study.call`: (name, args, events) -> dict.
    requests, answers : binary streams
    """

    def __init__(self, call: Call, requests: BinaryIO, answers: BinaryIO) -> None:
        self.call, self.requests, self.answers = call, requests, answers
        self.waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.cancels: dict[int, threading.Event] = {}

    def serve(self) -> None:
        """Answer until the other side has closed the pipe."""
        threading.Thread(target=self._read, daemon=True).start()
        while (request := self.waiting.get()) is not None:
            self.answer(request)

    def _read(self) -> None:
        """Take requests; where the front end is gone, nobody waits for what is under way."""
        try:
            while (message := wire.receive(self.requests)) is not None and not message.get("stop"):
                self._take(message)
        except OSError:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(0)

    def _take(self, message: dict[str, Any]) -> None:
        if "cancel" in message:
            flag = self.cancels.get(message["cancel"])
            if flag is not None:
                flag.set()
        elif "call" in message:
            self.cancels[message["id"]] = threading.Event()
            self.waiting.put(message)

    def answer(self, request: dict[str, Any]) -> None:
        """Run one call and send its end, whatever it was."""
        number = request["id"]
        teller = Teller(lambda name, payload: self._send(number, name, payload))
        result = outcome(self.call, request, Events(teller.emit, self.cancels[number]))
        teller.flush()
        self.cancels.pop(number, None)
        self._send(number, "result", result)

    def _send(self, number: int, name: str, payload: dict[str, Any]) -> None:
        wire.send(self.answers, {"id": number, "event": name, **plain(payload)})


class Teller:
    """Passes messages on, of progress at most `TELLS_PER_SECOND`, and always the last before something else.

    Parameters
    ----------
    send : callable
        (name, payload).
    """

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        self.send = send
        self.held: dict[str, Any] | None = None
        self.last = 0.0

    def emit(self, name: str, payload: dict[str, Any]) -> None:
        """Send now, or hold progress back until the next is due."""
        if name == "told" and time.monotonic() - self.last < 1 / TELLS_PER_SECOND:
            self.held = payload
            return
        if name == "told":
            self.held, self.last = None, time.monotonic()
        else:
            self.flush()
        self.send(name, payload)

    def flush(self) -> None:
        """Send what is held back."""
        if self.held is not None:
            held, self.held = self.held, None
            self.send("told", held)


def outcome(call: Call, request: dict[str, Any], events: Events) -> dict[str, Any]:
    """The result message's fields: what the call returned, or how it ended."""
    try:
        events.check()
        return {**call(request["call"], request.get("args") or {}, events), "ok": "done"}
    except Cancelled as stop:
        return {**stop.result, "ok": "cancelled", "message": "cancelled"}
    except UserError as error:
        return {"ok": "user_error", "message": str(error)}
    except Exception as error:
        traceback.print_exc()
        message = f"The program met an error of its own: {said(error).rstrip('.')}. The details are for a bug report."
        return {"ok": "bug", "message": message, "traceback": traceback.format_exc()}


def plain(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with arrays at its top level only, and everything else as JSON has it."""
    return {key: value if isinstance(value, np.ndarray) else _plain(value) for key, value in payload.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def own_stdout() -> BinaryIO:
    """Keep standard output for the wire, and send to standard error what anything prints to it, C libraries too."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def main(arguments: list[str] | None = None) -> None:
    """Serve over standard input and output."""
    (cache,) = arguments if arguments is not None else sys.argv[1:]
    answers = own_stdout()
    if hasattr(os, "nice"):
        # the window, which draws while this computes, goes first
        os.nice(NICENESS)
    from napari_neuraldiffuser.core.engine.calls import Study

    Server(Study(Path(cache)).call, sys.stdin.buffer, answers).serve()


if __name__ == "__main__":
    main()
