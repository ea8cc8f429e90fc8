"""Families and their regions with two ticks each: use, and leave out."""

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QEvent, Qt, QTimer, Signal
from qtpy.QtGui import QBrush
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_neuraldiffuser.widgets.session.theme import ERROR, FAINT, colour_of

USE, VOXELS, WITHOUT = range(3)
TICKS = {USE: "with", WITHOUT: "without"}
KEY = Qt.ItemDataRole.UserRole
HEIGHT = 210
TIPS = {
    USE: "Ticked regions are used together; a family's tick stands for all its regions",
    VOXELS: "Voxels of the region on the grid of the betas; regions may overlap",
    WITHOUT: "Ticked regions are left out, also where another ticked region or family has their voxels",
}


class RoiTree(QTreeWidget):
    """Ticks for the regions of a source; `changed` comes once for every click."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._leaves: dict[tuple[str, str], QTreeWidgetItem] = {}
        self._filling = False
        self._later = QTimer(self, singleShot=True, interval=0, timeout=self.changed)
        self.setHeaderLabels(["Region", "Voxels", "Without"])
        for column, tip in TIPS.items():
            self.headerItem().setToolTip(column, tip)
        self.header().setStretchLastSection(False)
        for column in range(3):
            stretch = QHeaderView.ResizeMode.Stretch if column == USE else QHeaderView.ResizeMode.ResizeToContents
            self.header().setSectionResizeMode(column, stretch)
        self.setFixedHeight(HEIGHT)
        self.itemChanged.connect(self._ticked)

    def show_families(self, families: Mapping[str, Mapping[str, int]]) -> None:
        """List these families, nothing ticked; a family of one region is one line."""
        self._filling = True
        self.clear()
        self._leaves = {}
        for family, regions in families.items():
            if len(regions) == 1:
                ((region, n_voxels),) = regions.items()
                self._add(self, family, n_voxels, (family, region))
                continue
            item = self._add(self, family, sum(regions.values()), None)
            for region, n_voxels in regions.items():
                self._add(item, region, n_voxels, (family, region))
        self._colour_all()
        self._filling = False

    def _add(self, parent: Any, name: str, n_voxels: int, key: tuple[str, str] | None) -> QTreeWidgetItem:
        item = QTreeWidgetItem(parent, [name, f"{n_voxels}", ""])
        item.setTextAlignment(VOXELS, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        item.setData(USE, KEY, key)
        if key is None:
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsAutoTristate)
        else:
            self._leaves[key] = item
        for column, tip in TIPS.items():
            item.setToolTip(column, tip)
            if column in TICKS:
                item.setCheckState(column, Qt.CheckState.Unchecked)
        return item

    def marks(self) -> dict[tuple[str, str], str]:
        """(family, region) to "with" or "without"."""
        return {
            key: mark
            for key, item in self._leaves.items()
            for column, mark in TICKS.items()
            if item.checkState(column) == Qt.CheckState.Checked
        }

    def show_marks(self, marks: Mapping[tuple[str, str], str]) -> None:
        """Tick these, without a signal."""
        self._filling = True
        for key, item in self._leaves.items():
            for column, mark in TICKS.items():
                ticked = marks.get(key) == mark
                item.setCheckState(column, Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
        self._colour_all()
        self._filling = False
        for k in range(self.topLevelItemCount()):
            family = self.topLevelItem(k)
            partly = any(family.checkState(column) == Qt.CheckState.PartiallyChecked for column in TICKS)
            family.setExpanded(family.isExpanded() or partly)

    def _ticked(self, item: QTreeWidgetItem, column: int) -> None:
        """A region cannot be used and left out."""
        if self._filling or column not in TICKS:
            return
        self._filling = True
        if item.childCount() == 0:
            if item.checkState(column) == Qt.CheckState.Checked:
                item.setCheckState(WITHOUT if column == USE else USE, Qt.CheckState.Unchecked)
            self._colour(item)
        self._filling = False
        self._later.start()

    def _colour(self, item: QTreeWidgetItem) -> None:
        """A region that is left out, and one without voxels, look otherwise than the others."""
        left_out, empty = item.checkState(WITHOUT) == Qt.CheckState.Checked, item.text(VOXELS) == "0"
        for column, marked, tone in ((USE, left_out, ERROR), (VOXELS, empty, FAINT)):
            item.setData(column, Qt.ItemDataRole.ForegroundRole, QBrush(colour_of(self, tone)) if marked else None)

    def _colour_all(self) -> None:
        for item in self._leaves.values():
            self._colour(item)

    def changeEvent(self, event: QEvent) -> None:
        """Take the colours of another theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange:
            filling, self._filling = self._filling, True
            self._colour_all()
            self._filling = filling
