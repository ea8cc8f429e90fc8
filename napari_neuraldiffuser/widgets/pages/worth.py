"""The table of what decoded targets are worth, below the accuracy on the Decode page."""

from typing import Any

from qtpy import QtWidgets
from qtpy.QtCore import Qt

from napari_neuraldiffuser.widgets.session import controls

INVITATION = "Judges the decoder on the test stimuli: correlation, R² and its ceiling, two-way identification"


class WorthTable(QtWidgets.QWidget):
    """A row per target, with the columns' definitions as tips, and sentences on what to beware of."""

    def __init__(self) -> None:
        super().__init__()
        self.table = QtWidgets.QTableWidget(0, 0)
        self.table.setToolTip("What decoded targets are worth on the test stimuli")
        self.table.verticalHeader().setVisible(False)
        self.table.setEditTriggers(QtWidgets.QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.notes = controls.Notice("")
        controls.stacked(self, self.table, self.notes)
        self.setVisible(False)

    def show_worth(self, worth: dict[str, Any]) -> None:
        """Show what the call `worth` said."""
        heads, rows = worth["heads"], worth["rows"]
        self.table.setColumnCount(len(heads))
        self.table.setRowCount(len(rows))
        self.table.setHorizontalHeaderLabels([head["name"] for head in heads])
        for k, head in enumerate(heads):
            self.table.horizontalHeaderItem(k).setToolTip(head["tip"])
        for i, row in enumerate(rows):
            for j, text in enumerate(row):
                item = QtWidgets.QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(i, j, item)
        self.table.resizeColumnsToContents()
        height = sum(self.table.rowHeight(row) for row in range(len(rows)))
        bar = self.table.horizontalScrollBar().sizeHint().height()
        self.table.setFixedHeight(height + self.table.horizontalHeader().sizeHint().height() + bar + 4)
        self.notes.show_text("\n".join(f"{note}." for note in worth["notes"]))
        self.setVisible(True)

    def forget(self) -> None:
        """Show nothing, as the decoder is another one."""
        self.setVisible(False)
