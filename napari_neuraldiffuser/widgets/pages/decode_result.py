"""What a decoder found: counts, a table of its targets, and its plot."""

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QPainter, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QLabel, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

COLUMNS = {
    "Target": "z: image latent, c: text embedding, g02 ... g12: guidance layers",
    "R²": "Cross-validated on the training stimuli, at the chosen penalty",
    "Penalty": "The ridge penalty with the best cross-validated R²",
}
FADED = 0.35


class DecodeResult(QWidget):
    """Shows the last result of `decode`, greyed where it does not fit the recipe any more."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = QLabel("", wordWrap=True)
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(list(COLUMNS))
        for k, tip in enumerate(COLUMNS.values()):
            self.table.horizontalHeaderItem(k).setToolTip(tip)
        self.table.setToolTip("Accuracy of every decoded target")
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.plot = PlotLabel()
        self.notes = QLabel("", wordWrap=True, visible=False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.counts, self.table, self.plot, self.notes):
            layout.addWidget(widget)
        self.setVisible(False)

    def show_result(self, found: dict[str, Any]) -> None:
        """Show what `decode` said."""
        self.counts.setText(counts(found))
        self.table.setRowCount(len(found["accuracy"]))
        for row, (target, r2) in enumerate(found["accuracy"].items()):
            for column, text in enumerate((target, f"{r2:.3f}", f"{found['alphas'][target]:g}")):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(row, column, item)
        self.table.resizeRowsToContents()
        rows = sum(self.table.rowHeight(row) for row in range(self.table.rowCount()))
        self.table.setFixedHeight(rows + self.table.horizontalHeader().sizeHint().height() + 4)
        self.plot.show_png(found["plot"])
        self.notes.setText("\n".join(found["notes"]))
        self.notes.setVisible(bool(found["notes"]))
        self.show_fits(True)
        self.setVisible(True)

    def show_fits(self, fits: bool) -> None:
        """Grey the result where it is not that of the recipe."""
        for widget in (self.counts, self.table, self.notes):
            widget.setEnabled(fits)
        self.plot.fade(not fits)


class PlotLabel(QLabel):
    """A picture as wide as the panel, scaled for the pixels that the screen really has."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("R² of every target, and how it depends on the penalty")
        self.setMinimumWidth(1)
        self.whole = QPixmap()
        self._faded = False

    def show_png(self, png: Any) -> None:
        """Show the bytes of a PNG file."""
        self.whole = QPixmap()
        self.whole.loadFromData(np.asarray(png, dtype=np.uint8).tobytes())
        self._scale()

    def fade(self, faded: bool) -> None:
        """Draw it pale, or not."""
        self._faded = faded
        self._scale()

    def resizeEvent(self, event: Any) -> None:
        """Qt's name: keep the width."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._scale()

    def _scale(self) -> None:
        if self.whole.isNull():
            return
        ratio = self.devicePixelRatioF()
        width = min(round(self.width() * ratio), self.whole.width())
        picture = self.whole.scaledToWidth(max(width, 1), Qt.TransformationMode.SmoothTransformation)
        if self._faded:
            picture = pale(picture)
        picture.setDevicePixelRatio(ratio)
        self.setPixmap(picture)
        self.setFixedHeight(round(picture.height() / ratio))


def pale(picture: QPixmap) -> QPixmap:
    """A picture that shows through."""
    made = QPixmap(picture.size())
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setOpacity(FADED)
    painter.drawPixmap(0, 0, picture)
    painter.end()
    return made


def counts(found: dict[str, Any]) -> str:
    """One line of what the decoder was made from, and whether it had to be."""
    made = "Loaded from your file." if found.get("loaded") else "From the cache." if found["cached"] else "Fitted now."
    return (
        f"{found['n_voxels']:,} voxels, {found['n_train']:,} training images, {found['n_test']:,} test images "
        f"seen {found['repeats_mean']:.3g} times on average. {made}"
    )
