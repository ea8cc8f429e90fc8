"""Which sessions are read, checked against those that are there while it is typed."""

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QLineEdit, QWidget

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.params import BetasParams, default_of
from napari_neuraldiffuser.widgets.session.panel import ERROR_STYLE


class SessionsLine(QWidget):
    """A line such as 1-4,7; `changed(text)` for every one that can be read."""

    changed = Signal(str)
    judged = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[str] = []
        self.line = QLineEdit(default_of(BetasParams, "sessions"))
        self.line.setToolTip("Sessions that are read: all, or numbers and ranges such as 1-4,7")
        self.note = QLabel("", wordWrap=True, visible=False)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Sessions", self.line)
        form.addRow(self.note)
        self.line.textEdited.connect(self._typed)

    @property
    def text(self) -> str:
        """What the line says."""
        return self.line.text().strip()

    def show_text(self, text: str) -> None:
        """Show which sessions are read; says nothing but `judged`."""
        if self.text != text:
            self.line.setText(text)
        self._judge()

    def show_labels(self, labels: list[Any]) -> None:
        """The sessions that are there."""
        self.labels = [str(label) for label in labels]
        self._judge()

    def problem(self) -> str:
        """Why these sessions cannot be read, or nothing."""
        if not self.labels:
            return "" if self.text else "sessions must be all, or numbers such as 1-4,7, got nothing. Write all."
        from napari_neuraldiffuser.widgets.source.roi_terms import chosen_sessions

        try:
            chosen_sessions(self.text, self.labels)
        except UserError as error:
            return str(error)
        return ""

    def _judge(self) -> str:
        problem, there = self.problem(), ""
        if self.labels:
            from napari_neuraldiffuser.widgets.source.roi_terms import listed

            there = f"on disk: {listed(self.labels)}"
        self.note.setStyleSheet(ERROR_STYLE if problem else "")
        self.note.setText(problem or there)
        self.note.setVisible(bool(problem or there))
        self.judged.emit()
        return problem

    def _typed(self) -> None:
        if not self._judge():
            self.changed.emit(self.text)
