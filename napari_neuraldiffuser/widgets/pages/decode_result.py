"""What a decoder found: counts, a table of its targets, and its plot."""

from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt
from qtpy.QtGui import QPainter, QPixmap, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QLabel, QTableWidget, QTableWidgetItem, QWidget

from napari_neuraldiffuser.widgets.session.controls import Notice
from napari_neuraldiffuser.widgets.session.layouts import stacked

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
        self.notes = Notice("")
        stacked(self, self.counts, self.table, self.plot, self.notes)
        self.setVisible(False)

    def show_result(self, decoded: dict[str, Any]) -> None:
        """Show what `decode` said."""
        self.counts.setText(counts(decoded))
        self.table.setRowCount(len(decoded["accuracy"]))
        for i, (target, r2) in enumerate(decoded["accuracy"].items()):
            for j, text in enumerate((target, f"{r2:.3f}", f"{decoded['alphas'][target]:g}")):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(i, j, item)
        self.table.resizeRowsToContents()
        rows = sum(self.table.rowHeight(row) for row in range(self.table.rowCount()))
        self.table.setFixedHeight(rows + self.table.horizontalHeader().sizeHint().height() + 4)
        self.plot.show_png(decoded["plot"])
        self.notes.show_text("\n".join(decoded["notes"]))
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

    def show_png(self, png: npt.ArrayLike) -> None:
        """Show the bytes of a PNG file."""
        self.whole = QPixmap()
        self.whole.loadFromData(np.asarray(png, dtype=np.uint8).tobytes())
        self._scale()

    def fade(self, faded: bool) -> None:
        """Draw the plot pale, or as it is."""
        self._faded = faded
        self._scale()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Scale the picture with the label."""
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
    """Make a picture pale, so that what is behind it shows through."""
    made = QPixmap(picture.size())
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setOpacity(FADED)
    painter.drawPixmap(0, 0, picture)
    painter.end()
    return made


def counts(decoded: dict[str, Any]) -> str:
    """One line of what the decoder was made from, and whether it had to be."""
    made = (
        "Loaded from your file." if decoded.get("loaded") else "From the cache." if decoded["cached"] else "Fitted now."
    )
    return (
        f"{decoded['n_voxels']:,} voxels, {decoded['n_train']:,} training images, {decoded['n_test']:,} test images "
        f"seen {decoded['repeats_mean']:.3g} times on average. {made}"
    )
