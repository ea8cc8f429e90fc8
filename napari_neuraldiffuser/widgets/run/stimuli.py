"""The test stimuli as Qt's views want them, and the grid that shows them."""

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractListModel, QModelIndex, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QListView

from napari_neuraldiffuser.widgets.run.pictures import pixmap

THUMBNAIL = 64
"""Logical pixels."""
Role = Qt.ItemDataRole


class Stimuli(QAbstractListModel):
    """Test stimuli with captions and thumbnails, as far as those are known."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []
        self.captions: list[str] = []
        self.icons: dict[int, QIcon] = {}
        blank = QPixmap(THUMBNAIL, THUMBNAIL)
        blank.fill(QColor(128, 128, 128, 60))
        self.blank = QIcon(blank)

    def show_ids(self, ids: Sequence[int], captions: Sequence[str]) -> None:
        """Other stimuli; thumbnails of the same ones are kept."""
        self.beginResetModel()
        self.ids, self.captions = [int(s) for s in ids], list(captions) or [""] * len(ids)
        self.endResetModel()

    def show_thumbnails(self, ids: Sequence[int], images: Any, captions: Sequence[str], ratio: float) -> None:
        """Pictures (n, size, size, 3) uint8 of some of the stimuli."""
        places = {stimulus: k for k, stimulus in enumerate(self.ids)}
        for stimulus, image, caption in zip(ids, images, captions, strict=True):
            self.icons[stimulus] = QIcon(pixmap(image, THUMBNAIL, ratio))
            if stimulus in places:
                self.captions[places[stimulus]] = caption
        if self.ids:
            self.dataChanged.emit(self.index(0), self.index(len(self.ids) - 1))

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's name."""
        return 0 if parent is not None and parent.isValid() else len(self.ids)

    def data(self, index: QModelIndex, role: int = Role.DisplayRole) -> Any:
        """Qt's name."""
        stimulus, caption = self.ids[index.row()], self.captions[index.row()]
        if role == Role.DisplayRole:
            return str(stimulus)
        if role == Role.ToolTipRole:
            return f"stimulus {stimulus}" + (f": {caption}" if caption else "")
        if role == Role.DecorationRole:
            return self.icons.get(stimulus, self.blank)
        if role == Role.UserRole:
            return f"{stimulus} {caption}"
        return None


class Grid(QListView):
    """Thumbnails, or why there are none."""

    empty = ""

    def paintEvent(self, event: Any) -> None:
        """Qt's name."""
        super().paintEvent(event)
        if self.model().rowCount() == 0:
            painter = QPainter(self.viewport())
            how = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(self.viewport().rect().adjusted(24, 0, -24, 0), how, self.empty)
            painter.end()
