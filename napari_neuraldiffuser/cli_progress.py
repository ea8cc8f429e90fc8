"""Progress on stderr: what is done, how much, and how long the rest will take."""

import sys
import time
from typing import TextIO

from napari_neuraldiffuser.core.base.progress import Countdown, duration, stage_of, tell

LINE_EVERY = 5.0
"""Seconds between lines where stderr is no terminal (a log file)."""


class ConsoleProgress:
    """Progress callback `(done, total, what)`; one rewritten line on a terminal, one line now and then in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._countdown, self._last, self._open_line = Countdown(), 0.0, False

    def __call__(self, done: int, total: int, what: str) -> None:
        if stage_of(what) != self._countdown.stage:
            self.close()
            self._last = 0.0
        now, terminal = time.monotonic(), self.stream.isatty()
        left = self._countdown.left(done, total, what, now)
        if done < total and now - self._last < (0.1 if terminal else LINE_EVERY):
            return
        self._last, spent = now, duration(now - self._countdown.began)
        self._write(f"{what}: {done}/{total}{f', {spent}{left}' if left or done >= total else ''}", terminal)

    def _write(self, text: str, terminal: bool) -> None:
        tell(self.stream, f"\r\x1b[K{text}" if terminal else f"{text}\n")
        self._open_line = terminal

    def close(self) -> None:
        """End the rewritten line."""
        if self._open_line:
            tell(self.stream, "\n")
            self._open_line = False
