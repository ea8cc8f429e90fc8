"""Which voxels and sessions are used: ticks, quick choices, the ROI expression that they stand for, and its size."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QGroupBox, QLineEdit, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.core.params import BetasParams, default_of
from napari_neuraldiffuser.widgets.session.controls import Notice, add, form, problem_of, side_by_side
from napari_neuraldiffuser.widgets.session.engine import Task, error_text
from napari_neuraldiffuser.widgets.session.path_field import TYPING
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.theme import ERROR, set_tone
from napari_neuraldiffuser.widgets.source.roi_tree import RoiTree

if TYPE_CHECKING:
    from napari_neuraldiffuser.widgets.source.roi_terms import Regions

OWN_MASK = "mask"
"""The family of own scans that is always there."""
EARLY, FACES = "V1", ("FFA", "OFA")
HELP = (
    "Families, regions and mask files, joined by ' + ' (with), ' & ' (only where also) and ' - ' (without), from left "
    "to right: nsdgeneral - FFA, or V1 + V2 & nsdgeneral"
)
NOT_TICKS = "This cannot be shown as ticks: edit the line, or choose a quick set to tick again."


class RoiBox(QGroupBox):
    """A tree and a line that say the same; `changed(expression)` for every one that can be."""

    changed = Signal(str)
    judged = Signal()
    """The line was read: `problem` may be another."""

    def __init__(self) -> None:
        super().__init__("Voxels")
        self.regions: Regions | None = None
        self.problem = ""
        self.tree = RoiTree()
        self.line = QLineEdit(toolTip=HELP)
        self.note, self.error = Notice(""), Notice()
        self.quick = {
            name: QPushButton(text, visible=False, toolTip=tip)
            for name, text, tip in (
                ("all", "nsdgeneral", "The voxels of posterior cortex that NSD's authors recommend"),
                ("early", "V1 only", "Primary visual cortex alone"),
                ("faces", "without faces", "Leave the face regions FFA and OFA out of what is chosen now"),
            )
        }
        self._build()
        self._typing = QTimer(self, singleShot=True, interval=TYPING, timeout=self._typed)
        self.tree.changed.connect(self._ticked)
        self.line.textEdited.connect(lambda _: self._typing.start())
        self.line.editingFinished.connect(self._typed)
        self.quick["all"].clicked.connect(lambda: self.choose(self.default()))
        self.quick["early"].clicked.connect(lambda: self.choose(EARLY))
        self.quick["faces"].clicked.connect(self._without_faces)

    def _build(self) -> None:
        quick = side_by_side(*self.quick.values())
        add(QVBoxLayout(self), quick, self.tree, self.note, self.line, self.error)
        self.tree.setVisible(False)
        # a tall dock leaves room below the panel, not between these
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)

    @property
    def expression(self) -> str:
        """What the line says."""
        return self.line.text().strip()

    def default(self) -> str:
        """The usual expression of this source."""
        usual = default_of(BetasParams, "roi")
        families = self.regions.families if self.regions else {}
        if not families or usual in families:
            return usual
        return OWN_MASK if OWN_MASK in families else next(iter(families))

    def show_families(self, families: Mapping[str, Mapping[str, int]] | None) -> None:
        """List the regions of a source; none while they are not known."""
        self.regions = None
        if families:
            from napari_neuraldiffuser.widgets.source.roi_terms import Regions

            self.regions = Regions(families)
        self.tree.show_families(families or {})
        self.tree.setVisible(bool(families))
        self.quick["all"].setText(self.default())
        self.quick["all"].setVisible(bool(families))
        self.quick["early"].setVisible(self._known(EARLY))
        self.quick["faces"].setVisible(any(self._known(name) for name in FACES))
        self.show_expression(self.expression)

    def fits(self, expression: str) -> bool:
        """Whether every term of an expression is there."""
        return not self._problem_of(expression)

    def show_expression(self, expression: str) -> None:
        """Show an expression in the line and, where it can be, as ticks; only `judged` is emitted."""
        if self.expression != expression:
            self.line.setText(expression)
        self.line.setToolTip(f"{expression}\n\n{HELP}")
        self._judge(self._problem_of(expression))
        marks: Any = None
        if self.regions is not None and not self.problem:
            from napari_neuraldiffuser.widgets.source.roi_terms import marks_of

            marks = marks_of(expression, self.regions)
            self.tree.show_marks(marks or {})
        no_ticks = self.regions is not None and not self.problem and marks is None
        self.tree.setEnabled(not no_ticks)
        self.note.show_text(NOT_TICKS if no_ticks else "")

    def choose(self, expression: str) -> None:
        """Take an expression as if it had been typed."""
        self.show_expression(expression)
        if not self.problem:
            self.changed.emit(expression)

    def _typed(self) -> None:
        """Judge the line as it stands; one that is half written is no expression yet, and nothing runs with another."""
        self._typing.stop()
        self.choose(self.expression)

    def _ticked(self) -> None:
        from napari_neuraldiffuser.widgets.source.roi_terms import expression_of

        expression = expression_of(self.tree.marks(), self.regions)
        if expression:
            self.choose(expression)
        else:
            self.line.clear()
            self._judge("ROI must have a region to use, got none. Tick one.")

    def _without_faces(self) -> None:
        missing = [one for one in FACES if self._known(one) and one not in self.expression.split(" - ")[1:]]
        if missing and not self.problem:
            self.choose(" - ".join([self.expression, *missing]))

    def _known(self, name: str) -> bool:
        try:
            return self.regions is not None and bool(self.regions.named(name))
        except UserError:
            return False

    def _problem_of(self, expression: str) -> str:
        if not expression:
            return "ROI must have a region to use, got none. Tick one, or write its name."
        if self.regions is None and expression == default_of(BetasParams, "roi"):
            return ""  # pandas, which comes with the grammar, is not waited for
        from napari_neuraldiffuser.widgets.source.roi_terms import check

        return problem_of(check, expression, self.regions)

    def _judge(self, problem: str) -> None:
        self.problem = problem
        self.error.show_text(problem)
        self.judged.emit()


def absolute_masks(expression: str) -> str:
    """An expression whose masks, where they exist, do not depend on the current folder or the user.

    One that cannot be read comes back as it is.
    """
    if not any(ending in expression.lower() for ending in (".nii", ".mgz", ".mgh")):
        return expression  # pandas comes with the grammar
    from napari_neuraldiffuser.core.nsd.selection import with_masks

    try:
        return with_masks(expression, lambda name: located(name) if Path(located(name)).is_file() else name)
    except UserError:
        return expression


COUNT_AFTER = 300
"""Milliseconds of quiet after which voxels are counted."""


class VoxelCount(Notice):
    """Counts again some time after `ask`; of several answers only the last counts.

    Attributes
    ----------
    problem : str
        Why the expression selects nothing that can be used, as far as that is known.
    """

    judged = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__("")
        self.setToolTip("Voxels that the expression selects; betas have fewer where a voxel has no signal")
        self.session = session
        self.problem = ""
        self._task: Task | None = None
        self._asked: Any = None
        self._timer = QTimer(self, singleShot=True, interval=COUNT_AFTER, timeout=self._count)

    def ask(self) -> None:
        """The expression or the data may have changed."""
        self._timer.start()

    def _count(self) -> None:
        session = self.session
        betas = session.recipe.settings.betas
        asked = (session.recipe.source, betas.roi, betas.space) if session.described else None
        if asked == self._asked:
            return
        self._asked = asked
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._say("")
        if asked is not None:
            self._say("counted after the present run" if session.busy else "counting …")
            self._task = task = session.call("voxels", quiet=True)
            task.ended.connect(partial(self._counted, task))

    def _counted(self, task: Task, result: Any) -> None:
        if task is not self._task:
            return
        self._task = None
        if isinstance(result, dict):
            n_voxels = result["n_voxels"]
            self._say(f"{n_voxels:,} voxel{'' if n_voxels == 1 else 's'} selected")
        else:
            self._asked = None  # asked again with the next change
            self._say(error_text(result), error=True)

    def _say(self, text: str, error: bool = False) -> None:
        set_tone(self, ERROR if error else "")
        self.show_text(text)
        former, self.problem = self.problem, text if error else ""
        if former != self.problem:
            self.judged.emit()


class SessionsLine(QWidget):
    """A line such as 1-4,7; `changed(text)` for every one that can be read."""

    changed = Signal(str)
    judged = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[str] = []
        self.line = QLineEdit(default_of(BetasParams, "sessions"))
        self.line.setToolTip("Sessions that are read: all, or numbers and ranges such as 1-4,7")
        self.note = Notice("")
        form(self, ("Sessions", self.line), self.note)
        self.line.textEdited.connect(self._typed)

    @property
    def text(self) -> str:
        """What the line says."""
        return self.line.text().strip()

    def show_text(self, text: str) -> None:
        """Show which sessions are read; only `judged` is emitted."""
        if self.text != text:
            self.line.setText(text)
        self._judge()

    def show_labels(self, labels: list[int | str]) -> None:
        """Take the sessions that there are."""
        self.labels = [str(label) for label in labels]
        self._judge()

    def problem(self) -> str:
        """Why these sessions cannot be read, or nothing."""
        if not self.labels:
            return "" if self.text else "sessions must be all, or numbers such as 1-4,7, got nothing. Write all."
        from napari_neuraldiffuser.widgets.source.roi_terms import chosen_sessions

        return problem_of(chosen_sessions, self.text, self.labels)

    def _judge(self) -> str:
        problem, there = self.problem(), ""
        if self.labels:
            from napari_neuraldiffuser.widgets.source.roi_terms import listed

            there = f"on disk: {listed(self.labels)}"
        set_tone(self.note, ERROR if problem else "")
        self.note.show_text(problem or there)
        self.judged.emit()
        return problem

    def _typed(self) -> None:
        if not self._judge():
            self.changed.emit(self.text)
