"""Reads what went wrong in a node from Nipype's text crash file, and tells it in a few lines."""

import importlib
import re
import shutil
import textwrap
from ast import literal_eval
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import FULL, full_disk
from napari_neuraldiffuser.core.base.remedies import remedy
from nipype.utils.filemanip import loadpkl

from nipype_interfaces.engines.labels import NodeLabel

OURS = ("napari_neuraldiffuser.", "nipype_interfaces.")
ENGINES = ("nipype_interfaces.engines.multiproc.", "nipype_interfaces.slurm.")
"""Modules whose errors tell of a killed worker or job, whatever the user gave."""
TRACEBACK = "Traceback (most recent call last):"
SHOWN = 6
"""Number of failures that are told in full; the others get a line each."""
WIDTH = 110

UNKNOWN = "nothing that a usual remedy is known for: the full report says where it happened."


@dataclass(frozen=True)
class Failure:
    """One node, or one item of a MapNode, that failed.

    Attributes
    ----------
    label : NodeLabel
    message : str
        What the error says.
    kind : str
        Dotted name of the error's class; "" where there is only a message.
    inputs : dict
        Name to value of what the node was given; never the environment.
    file : Path or None
        The full crash report.
    """

    label: NodeLabel
    message: str
    kind: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def error(self) -> str:
        """Kind and message, as the last line of a traceback has them."""
        return ": ".join(filter(None, (self.kind, self.message)))

    @property
    def explained(self) -> bool:
        """Whether the message says by itself what to do."""
        return is_user_error(self.kind)

    @property
    def user_error(self) -> bool:
        """Whether it also is about what the user gave, and not about what befell a worker or a job."""
        return self.explained and not self.kind.startswith(ENGINES)

    @property
    def hint(self) -> str:
        """What to do about it."""
        if self.explained:
            return self.message
        if FULL.search(self.error):
            return self._full()
        return remedy(self.error) or UNKNOWN

    @property
    def reason(self) -> str:
        """What went wrong and what helps, in a line."""
        return self.message if self.explained else f"{textwrap.shorten(self.error, WIDTH)}; {self.hint}"

    def _full(self) -> str:
        """Which disk is full: that of a file that the error names, else the fuller one of output and work folder."""
        named = [Path(path) for path in re.findall(r"'([^']+)'", self.message)]
        known = [self.inputs.get("out_dir"), self.file.parent.parent if self.file else Path.cwd()]
        there = [path.parent for path in named if path.parent.is_dir()][-1:]
        there = there or [Path(place) for place in known if isinstance(place, (str, Path)) and Path(place).is_dir()]
        return full_disk(min(there or [Path.cwd()], key=lambda folder: shutil.disk_usage(folder).free))

    @property
    def stimuli(self) -> list[int]:
        """The stimuli the node worked on, where it is told which."""
        ids = self.inputs.get("stimulus_ids")
        return [s for s in ids if isinstance(s, int)] if isinstance(ids, list) else []


def read_crash(path: str | Path, root: str | Path) -> list[Failure]:
    """Read the failures of a crash file: one, or one for each failed item of a MapNode that ran in one process.

    Parameters
    ----------
    path : path
        Text crash file of Nipype.
    root : path
        Folder of the workflow, below which the nodes' folders lie.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    folder = Path(_header(text, "Working directory"))
    inputs, trace = _split(text)

    def failure(folder: Path, trace: str, inputs: dict[str, Any]) -> Failure:
        kind, message = last_error(trace)
        return Failure(NodeLabel.of(folder, root), message, kind, {**inputs, **_recorded(folder)}, path)

    _, *items = re.split(r"(?m)^Subnode (\d+) failed\nError: ", trace)
    if not items:
        return [failure(folder, trace, inputs)]
    numbered = zip(items[::2], items[1::2], strict=True)
    return [failure(folder / "mapflow" / f"_{folder.name}{number}", part, {}) for number, part in numbered]


def _header(text: str, name: str) -> str:
    match = re.search(rf"(?m)^{name}: (.*)$", text)
    return match.group(1) if match else ""


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Split a crash file into the inputs and what follows them."""
    rest = text.partition("\nNode inputs:\n")[2] or text
    begin = re.search(rf"(?m)^{re.escape(TRACEBACK)}", rest)
    if begin:
        block, trace = rest[: begin.start()], rest[begin.start() :]
    else:  # a message instead of a traceback follows the blank line after the inputs
        last = max((m.end() for m in re.finditer(r"(?m)^\w+ = .*\n\n", rest)), default=0)
        block, trace = rest[:last], rest[last:]
    return {name: _value(value) for name, value in re.findall(r"(?m)^(\w+) = (.*)$", block)}, trace


def _value(text: str) -> Any:
    with suppress(ValueError, SyntaxError):
        return literal_eval(text)
    return text


def _recorded(folder: Path) -> dict[str, Any]:
    """Read the inputs as the node had them: the crash file lacks those that came through a connection."""
    path = folder / "_inputs.pklz"
    try:
        return dict(loadpkl(path)) if path.is_file() else {}
    except Exception:  # half-written by a killed worker, or of a class that is no more: a report must come all the same
        return {}


def last_error(trace: str) -> tuple[str, str]:
    """Find type and message of the error that a traceback ends with; the type is "" where there is only a message.

    An engine that makes an error itself gives type and message without a traceback.
    """
    trace = re.sub(r"(?m)^\t", "", trace)
    trace = re.split(r"\n\n(?:During the creation of|When creating) this crashfile", trace)[0]
    _, marker, last = trace.rpartition(TRACEBACK)
    if not marker:
        text = " ".join(trace.split())
        kind, _, message = text.partition(": ")
        return (kind, message) if kind.startswith(OURS) else ("", text)
    lines = [line for line in last.splitlines() if line.strip()]
    while lines and lines[0].startswith(" "):
        lines.pop(0)
    kind, _, message = " ".join(line.strip() for line in lines).partition(":")
    return (kind, message.strip()) if re.fullmatch(r"[\w.]+", kind) else ("", " ".join(lines))


def is_user_error(kind: str) -> bool:
    """Tell whether the dotted name is one of our errors that a user can mend."""
    module, _, name = kind.rpartition(".")
    if not kind.startswith(OURS):
        return False
    try:
        return issubclass(getattr(importlib.import_module(module), name), UserError)
    except (ImportError, AttributeError, TypeError):
        return False


def report(failures: Sequence[Failure], note: str = "") -> str:
    """Write the text that tells of all failures; items that failed alike are told once.

    Parameters
    ----------
    failures : sequence of Failure
    note : str
        How many nodes there were, for the first line.
    """
    groups: dict[tuple, list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.label.without_item, failure.error), []).append(failure)
    lines = [f"{len(failures)} {'node' if len(failures) == 1 else 'nodes'} failed{note}."]
    causes: dict[str, str] = {}
    for number, group in enumerate(groups.values()):
        title, first = _title(group), group[0]
        # a message may name its node: SLURM refuses the jobs of all nodes alike
        cause = first.error.replace(str(first.label), "") if first.explained else title
        earlier = causes.setdefault(cause, title)
        told = f"the same as {earlier}" if earlier != title else textwrap.shorten(first.error, WIDTH)
        short = f"{title}: {told} ({first.file or 'no crash report'})"
        lines += ["", *(_full(group) if number < SHOWN and earlier == title else [short])]
    return "\n".join([*lines, "", "When that is mended, the same command continues: finished nodes are kept."])


def _full(group: Sequence[Failure]) -> list[str]:
    first, inputs = group[0], _inputs(group[0].inputs)
    said = {"error": first.error, "hint": first.hint, "inputs": inputs}
    if first.explained:
        said = {"error": first.message, "inputs": inputs}
    lines = [_title(group)]
    for name, text in said.items():
        lines += textwrap.wrap(text, WIDTH + 10, initial_indent=f"  {name:<8}", subsequent_indent=" " * 10)
    # a path is not broken, so that it can be copied
    return [*lines, f"  report  {first.file or 'no crash report could be written'}"]


def _title(group: Sequence[Failure]) -> str:
    title, numbers = str(group[0].label), [str(f.label.item + 1) for f in group if f.label.item is not None]
    if len(numbers) > 1:
        title = f"{group[0].label.without_item}, parts {', '.join(numbers)}"
    stimuli = sorted({s for f in group for s in f.stimuli})
    return title + (f" (stimuli {textwrap.shorten(', '.join(map(str, stimuli)), WIDTH)})" if stimuli else "")


def _inputs(inputs: dict[str, Any]) -> str:
    known = {k: v for k, v in inputs.items() if k != "function_str" and str(v) != "<undefined>"}
    return ", ".join(f"{name}={textwrap.shorten(str(value), 80)}" for name, value in sorted(known.items())) or "none"


def files(crash_dir: str | Path) -> list[Path]:
    """List the crash files of a folder, the newest first."""
    return sorted(Path(crash_dir).glob("crash-*.txt"), key=lambda path: path.stat().st_mtime, reverse=True)


def reported(crash_dir: str | Path, root: str | Path, failed: Iterable[str], before: Collection[Path]) -> list[Failure]:
    """Collect the failures of the nodes in the folders `failed`, each from its newest crash file.

    Parameters
    ----------
    crash_dir, root : path
        Folder of the crash files, and of the workflow.
    failed : iterable of str
    before : collection of Path
        Crash files of earlier runs.
    """
    wanted = {str(Path(folder).resolve()) for folder in failed}
    failures: dict[str, list[Failure]] = {}
    for path in files(crash_dir):
        if path not in before:
            folder = _header(path.read_text(encoding="utf-8", errors="replace"), "Working directory")
            if folder in wanted and folder not in failures:
                failures[folder] = read_crash(path, root)
    return [failure for folder in sorted(failures) for failure in failures[folder]]


def collect(
    crash_dir: str | Path,
    root: str | Path,
    failed: Iterable[str],
    error: Exception | None,
    before: Collection[Path] = (),
) -> list[Failure]:
    """Collect the failures of all nodes in the folders `failed`; the other arguments are those of `reported`.

    A node whose crash file could not be written, on a full disk for instance, is told of with `error`.
    """
    failures: list[Failure] = []
    kind, message = last_error(str(error)) if error else ("", "no message")
    for folder in sorted({str(Path(folder).resolve()) for folder in failed}):
        found = reported(crash_dir, root, [folder], before)
        failures += found or [Failure(NodeLabel.of(folder, root), message, kind)]
    return failures
