"""Progress on stderr: what is done, how much, and how long the rest will take."""

import sys
import time
from typing import TextIO

LINE_EVERY = 5.0
"""Seconds between lines where stderr is no terminal (a log file)."""


class ConsoleProgress:
    """Progress callback `(done, total, what)`; one rewritten line on a terminal, one line now and then in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._stage, self._began, self._last, self._first = "", 0.0, 0.0, 0
        self._open_line = False

    def __call__(self, done: int, total: int, what: str) -> None:
        now, stage = time.monotonic(), what.split(",")[0]
        if stage != self._stage:
            self.close()
            self._stage, self._began, self._last, self._first = stage, now, 0.0, done
        terminal = self.stream.isatty()
        if done < total and now - self._last < (0.1 if terminal else LINE_EVERY):
            return
        self._last = now
        self._write(f"{what}: {done}/{total}{self._left(done, total, now)}", terminal)

    def _left(self, done: int, total: int, now: float) -> str:
        spent, made = now - self._began, done - self._first
        if done >= total:
            return f", {spent:.0f} s"
        if made < 1 or spent < 1:
            return ""
        return f", {spent:.0f} s, about {spent / made * (total - done):.0f} s left"

    def _write(self, text: str, terminal: bool) -> None:
        self.stream.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
        self._open_line = terminal
        self.stream.flush()

    def close(self) -> None:
        """End the rewritten line."""
        if self._open_line:
            self.stream.write("\n")
            self._open_line = False
