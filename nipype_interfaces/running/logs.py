"""Sends Nipype's log to a file and its warnings to the terminal; our own report tells of failures."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nipype  # noqa: F401  its import makes its loggers and their handler, which ours replace

FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"
TOLD_BY_US = ("[Node] Error on", "Storing result file without outputs")


class LogFile(logging.FileHandler):
    """Appends records to a file; a record whose text does not fit its values is written as it is."""

    def handleError(self, record: logging.LogRecord) -> None:
        # Nipype gives text to a %d of its own; that is no reason for a traceback on the user's terminal
        record.msg, record.args = f"{record.msg} {record.args}", None
        try:
            (self.stream or self._open()).write(self.format(record) + self.terminator)
        except (OSError, ValueError):
            pass


def _not_told_by_us(record: logging.LogRecord) -> bool:
    failed = record.levelno >= logging.ERROR and record.module in ("tools", "base")
    return not failed and not str(record.msg).startswith(TOLD_BY_US)


def send(path: str | Path, debug: bool = False) -> LogFile:
    """Send Nipype's log to `path` and its warnings to stderr, or everything to both where `debug`.

    Nipype itself writes to stdout, which belongs to the paths of what was written.
    """
    file, terminal = LogFile(path, encoding="utf-8", delay=True), logging.StreamHandler(sys.stderr)
    file.setFormatter(logging.Formatter(FORMAT))
    terminal.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if not debug:
        terminal.setLevel(logging.WARNING)
        terminal.addFilter(_not_told_by_us)
    logging.getLogger("nipype").handlers = [file, terminal]
    return file


@contextmanager
def to_file(path: str | Path, debug: bool = False) -> Iterator[None]:
    """Do as `send` does inside the `with` block only."""
    logger = logging.getLogger("nipype")
    before = logger.handlers
    file = send(path, debug)
    try:
        yield
    finally:
        logger.handlers = before
        file.close()
