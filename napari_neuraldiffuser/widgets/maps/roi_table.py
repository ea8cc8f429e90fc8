"""The table of regions: share with a bar in its cell, standard error, voxels; regions in view are bold."""

import math
from collections.abc import Sequence

from qtpy import QtWidgets
from qtpy.QtCore import QModelIndex, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from superqt.utils import signals_blocked

from napari_neuraldiffuser.widgets.maps.subject_maps import Row

COLUMNS = ("Region", "Share ± se", "Voxels")
ROI, SHARE, VOXELS = range(3)
FRACTION = Qt.ItemDataRole.UserRole
POSITIVE, NEGATIVE = QColor(200, 90, 30, 150), QColor(40, 110, 220, 150)
ROW_HEIGHT, SWATCH = 22, 11
"""Pixels."""
SIGNIFICANT, MARK = 0.05, " •"
"""Largest p of a region that has the mark."""
UNUSED = "not used"
"""Instead of a share where the decoder has no voxel of the region."""


class ShareBar(QtWidgets.QStyledItemDelegate):
    """Draws the share behind its number; a negative one runs to the left from the same line."""

    def paint(self, painter: QPainter, option: QtWidgets.QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint one cell, as Qt asks for it."""
        fraction, zero = index.data(FRACTION) or (0.0, 0.0)
        box = QRectF(option.rect).adjusted(1, 2, -1, -2)
        start, length = box.left() + zero * box.width(), fraction * box.width()
        painter.fillRect(
            QRectF(min(start, start + length), box.top(), abs(length), box.height()),
            POSITIVE if fraction >= 0 else NEGATIVE,
        )
        super().paint(painter, option, index)


class RoiTable(QtWidgets.QTableWidget):
    """Rows of one target, largest share first; `chosen(family, roi)` when the user selects one."""

    chosen = Signal(str, str)

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.rows: list[Row] = []
        self.marked: set[tuple[str, str]] = set()
        self.colours: dict[tuple[str, str], str] = {}
        """(family, region) to the colour of its outline."""
        self.setHorizontalHeaderLabels(COLUMNS)
        self.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QtWidgets.QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setItemDelegateForColumn(SHARE, ShareBar(self))
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.setMinimumHeight(9 * ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setSectionResizeMode(ROI, QtWidgets.QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(SHARE, QtWidgets.QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(VOXELS, QtWidgets.QHeaderView.ResizeMode.ResizeToContents)
        self.setColumnWidth(SHARE, 170)
        self.setToolTip(
            "What each region has of the decoded target, as the column's head says, with its bootstrap standard error; "
            "• where permutations were asked for and p, for the false discovery rate, is at most 5 %.\n"
            "Select a row to go to the slice of its peak. Regions in the present slice are bold."
        )
        self.itemSelectionChanged.connect(self._selected)

    def fill(self, rows: Sequence[Row]) -> None:
        """Show other rows; the selected region stays selected, and nothing is emitted."""
        selected = self.selected()
        with signals_blocked(self):
            self.clearSelection()
            self.rows = sorted(
                rows, key=lambda row: (row.outside, -row.share if math.isfinite(row.share) else math.inf)
            )
            self.setRowCount(len(self.rows))
            low, high = scale(self.rows)
            for i, row in enumerate(self.rows):
                self._fill_row(i, row, low, high)
                if (row.family, row.roi) == selected:
                    self.selectRow(i)
        marked, self.marked = self.marked, set()
        self.mark(marked)

    def _fill_row(self, i: int, row: Row, low: float, high: float) -> None:
        width = (high - low) or 1.0
        share = 0.0 if row.outside or math.isnan(row.share) else row.share
        error = "" if math.isnan(row.se) else f" ± {row.se:.4f}"
        share_text = "n/a" if math.isnan(row.share) else f"{row.share:.4f}{error}"
        if row.p is not None and row.p <= SIGNIFICANT:
            share_text += MARK
        unused = bool(row.family) and row.n_voxels == 0
        if unused:
            share_text = UNUSED
        count = str(row.n_voxels) if row.family else ""
        for j, text in enumerate((row.roi, share_text, count)):
            item = QtWidgets.QTableWidgetItem(text)
            if j == VOXELS:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            if row.outside or unused:
                item.setForeground(QColor(140, 140, 140))
            tested = "" if row.p is None else f"\np = {row.p:.2g} by permutation, false discovery rate over regions"
            item.setToolTip((f"{row.roi} of {row.family}" if row.family else row.roi) + tested)
            if j == ROI and (colour := self.colours.get((row.family, row.roi))):
                item.setIcon(swatch(colour))
            self.setItem(i, j, item)
        self.item(i, SHARE).setData(FRACTION, (share / width, -low / width))

    def selected(self) -> tuple[str, str] | None:
        """Family and region of the selected row."""
        selected = self.selectionModel().selectedRows()
        return (self.rows[selected[0].row()].family, self.rows[selected[0].row()].roi) if selected else None

    def _selected(self) -> None:
        if (selected := self.selected()) is not None:
            self.chosen.emit(*selected)

    def set_unit(self, unit: str) -> None:
        """Write above the shares what they are fractions of."""
        self.horizontalHeaderItem(SHARE).setText(f"{unit.capitalize().replace('r²', 'R²')} ± se")

    def select(self, regions: set[tuple[str, str]]) -> tuple[str, str] | None:
        """Select the first row of one of these (family, region) without a signal; returns which, None for none."""
        found = next((i for i, row in enumerate(self.rows) if (row.family, row.roi) in regions), None)
        with signals_blocked(self):
            self.clearSelection()
            if found is not None:
                self.selectRow(found)
                self.scrollToItem(self.item(found, ROI))
        return self.selected()

    def mark(self, in_view: set[tuple[str, str]]) -> None:
        """Set the rows of (family, region) in bold; those that stay as they are cost nothing."""
        for i, row in enumerate(self.rows):
            bold = (row.family, row.roi) in in_view
            if bold != ((row.family, row.roi) in self.marked):
                for j in range(len(COLUMNS)):
                    font = self.item(i, j).font()
                    font.setBold(bold)
                    self.item(i, j).setFont(font)
        self.marked = set(in_view)


def swatch(colour: str) -> QIcon:
    """A square of one colour."""
    square = QPixmap(SWATCH, SWATCH)
    square.fill(QColor(colour))
    return QIcon(square)


def scale(rows: Sequence[Row]) -> tuple[float, float]:
    """Ends of the bars: from the lowest share or 0 to the highest, the voxels of no region left out."""
    shares = [row.share for row in rows if not row.outside and math.isfinite(row.share)]
    return min([*shares, 0.0]), max([*shares, 0.0])
