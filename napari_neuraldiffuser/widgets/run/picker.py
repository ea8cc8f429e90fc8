"""The stimulus picker: thumbnails of the test stimuli, read in pages as they come into sight."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QAbstractListModel, QItemSelection, QModelIndex, QSize, QSortFilterProxyModel, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QLineEdit, QListView, QPushButton, QWidget
from superqt import QElidingLabel

from napari_neuraldiffuser.widgets.run.picture import pixmap
from napari_neuraldiffuser.widgets.session.controls import Notice, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.keys import with_key
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.theme import WARNING

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

    def show_thumbnails(
        self, ids: Sequence[int], images: Iterable[np.ndarray], captions: Sequence[str], ratio: float
    ) -> None:
        """Pictures (n, size, size, 3) uint8 of some of the stimuli."""
        rows = {stimulus: k for k, stimulus in enumerate(self.ids)}
        for stimulus, image, caption in zip(ids, images, captions, strict=True):
            self.icons[stimulus] = QIcon(pixmap(image, THUMBNAIL, ratio))
            if stimulus in rows:
                self.captions[rows[stimulus]] = caption
        if self.ids:
            self.dataChanged.emit(self.index(0), self.index(len(self.ids) - 1))

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Tell Qt how many stimuli there are."""
        return 0 if parent is not None and parent.isValid() else len(self.ids)

    def data(self, index: QModelIndex, role: int = Role.DisplayRole) -> str | QIcon | None:
        """Tell Qt what it shows of a stimulus."""
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

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the thumbnails, or the text that says why there are none."""
        super().paintEvent(event)
        if self.model().rowCount() == 0:
            painter = QPainter(self.viewport())
            how = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(self.viewport().rect().adjusted(24, 0, -24, 0), how, self.empty)
            painter.end()


PAGE = 60
MOST = 16
"""Stimuli of one run: more are what the Report page is for."""
AFTER_SCROLL = 120
"""Milliseconds of rest after which what came into sight is read."""
NO_DATA = "The test stimuli appear here once data are chosen on the Data page."
NO_MATCH = "No caption or number has this in it."


class StimulusPicker(QWidget):
    """A grid of thumbnails; what is selected in it are the session's stimuli.

    Parameters
    ----------
    session : Session
        Test stimuli come from what it has described or decoded.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.model = Stimuli()
        self.proxy = QSortFilterProxyModel()
        self.proxy.setSourceModel(self.model)
        self.proxy.setFilterRole(Qt.ItemDataRole.UserRole)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.reading: Any = None
        self._source = session.recipe.source
        self._failed = self._following = False
        self._build()
        self._rest = QTimer(self, singleShot=True, interval=AFTER_SCROLL, timeout=self._read_page)
        self.view.verticalScrollBar().valueChanged.connect(lambda _: self._rest.start())
        session.described_changed.connect(self._show_ids)
        session.decoded_changed.connect(self._show_ids)
        session.recipe_changed.connect(self._recipe_changed)
        self._show_ids()

    def _build(self) -> None:
        self.filter = QLineEdit(placeholderText="Filter by caption or number", clearButtonEnabled=True)
        self.filter.setToolTip("Shows the stimuli whose caption or 73k number has this in it")
        self.filter.textChanged.connect(self._filter)
        self.back, self.on = QPushButton("◀"), QPushButton("▶")
        for button, by, key in ((self.back, -1, "previous"), (self.on, 1, "next")):
            button.setFixedWidth(32)
            button.setToolTip(with_key(f"{key.capitalize()} stimulus; the arrow keys do so in the grid", key))
            button.clicked.connect(lambda _=False, by=by: self.move(by))
        self.view = Grid(viewMode=QListView.ViewMode.IconMode, resizeMode=QListView.ResizeMode.Adjust)
        self.view.empty = NO_DATA
        self.view.setModel(self.proxy)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.view.setMovement(QListView.Movement.Static)
        self.view.setUniformItemSizes(True)
        self.view.setIconSize(QSize(THUMBNAIL, THUMBNAIL))
        self.view.setGridSize(QSize(THUMBNAIL + 12, THUMBNAIL + 24))
        self.view.setFixedHeight(2 * (THUMBNAIL + 24) + 8)
        self.view.setToolTip(f"Stimuli to reconstruct; with Ctrl or Shift several, at most {MOST}")
        self.view.selectionModel().selectionChanged.connect(self._selected)
        self.caption = QElidingLabel("")
        self.trouble = Notice(WARNING)
        stacked(self, side_by_side(self.filter, self.back, self.on), self.view, self.caption, self.trouble)

    # which stimuli there are

    def _recipe_changed(self, recipe: Any) -> None:
        (self._follow if recipe.source == self._source else self._show_ids)()

    def _show_ids(self, *_: Any) -> None:
        known, source = self.session.decoded or self.session.described, self.session.recipe.source
        if known is None and source == self._source and self.model.ids:
            return  # to be decoded again: the stimuli are the same
        if source != self._source:
            self.model.icons.clear()
        self._source, self._failed = source, False
        ids, captions = [int(s) for s in (known or {}).get("test_ids", [])], (known or {}).get("captions", [])
        if ids != self.model.ids:
            with self._own_change():
                self.model.show_ids(ids, captions)
        elif captions:
            self.model.captions = list(captions)
        self._choose_one(ids)
        self._follow()
        self._rest.start()

    def _choose_one(self, ids: list[int]) -> None:
        """There is always a stimulus where there can be one."""
        former = self.session.recipe.stimulus_ids
        kept = tuple(s for s in former if s in set(ids))
        if ids and (kept != former or not kept):
            self.session.change(stimulus_ids=kept or (ids[0],))

    def _filter(self, text: str) -> None:
        with self._own_change():
            self.proxy.setFilterFixedString(text.strip())
        self.view.empty = NO_MATCH if self.model.ids else NO_DATA
        self._follow()
        self._rest.start()

    @contextmanager
    def _own_change(self) -> Iterator[None]:
        """Rows that come and go change the selection, and nobody's choice."""
        former, self._following = self._following, True
        try:
            yield
        finally:
            self._following = former

    def _stimulus(self, row: int) -> int:
        """The stimulus in a row of the grid."""
        return self.model.ids[self.proxy.mapToSource(self.proxy.index(row, 0)).row()]

    # thumbnails

    def missing(self) -> list[int]:
        """The next page: what is in sight and has no thumbnail; while a filter is set, any whose caption is unknown."""
        seen = [self._stimulus(row) for row in self._rows_in_sight()]
        missing = [s for s in seen if s not in self.model.icons]
        if self.filter.text().strip() and not all(self.model.captions):
            missing += [s for s in self.model.ids if s not in self.model.icons and s not in set(missing)]
        return missing[:PAGE]

    def _rows_in_sight(self) -> range:
        """From the first visible row on, a page of rows."""
        grid = self.view.gridSize()
        columns = max(1, self.view.viewport().width() // grid.width())
        first = self.view.verticalScrollBar().value() // grid.height() * columns
        return range(first, min(first + PAGE, self.proxy.rowCount()))

    def _read_page(self) -> None:
        ids = self.missing()
        if self.reading is not None or self._failed or not ids:
            return
        source = self.session.recipe.source
        args = {"source": source.to_dict(), "ids": ids, "size": THUMBNAIL * 2}
        self.reading = self.session.call("thumbnails", args, quiet=True)
        self.reading.ended.connect(lambda result: self._page_read(source, ids, result))

    def _page_read(self, source: Any, ids: list[int], result: Any) -> None:
        if not isalive(self):  # closed meanwhile
            return
        self.reading = None
        if isinstance(result, Exception):
            self._failed = True  # once: the same call would fail with every scroll
            self.trouble.show_text(f"Thumbnails could not be read: {result}")
        elif source == self.session.recipe.source:
            with self._own_change():
                self.model.show_thumbnails(ids, result["images"], result["captions"], self.devicePixelRatioF())
            self._show_caption()
        self._rest.start()

    # the selection

    def _selected(self, *_: Any) -> None:
        if self._following:
            return
        ids = self.selected()
        if len(ids) > MOST:
            text = f"Stimuli of one run must be at most {MOST}, got {len(ids)}. The first {MOST} are taken."
            self.trouble.show_text(text)
            ids = ids[:MOST]
        else:
            self.trouble.show_text("")
        if ids:
            self.session.change(stimulus_ids=tuple(ids))
        self._follow()

    def selected(self) -> list[int]:
        """What is selected in the grid, in its order."""
        rows = sorted(index.row() for index in self.view.selectionModel().selectedIndexes())
        return [self._stimulus(row) for row in rows]

    def _follow(self, *_: Any) -> None:
        """Select what the session has."""
        if self._following:
            return
        wanted = self.session.recipe.stimulus_ids
        if list(wanted) != self.selected():
            chosen, selection = set(wanted), QItemSelection()
            for row, stimulus in enumerate(self.model.ids):
                index = self.proxy.mapFromSource(self.model.index(row))
                if stimulus in chosen and index.isValid():
                    selection.select(index, index)
            model = self.view.selectionModel()
            with self._own_change():
                model.select(selection, model.SelectionFlag.ClearAndSelect)
                if selection.indexes():
                    model.setCurrentIndex(selection.indexes()[0], model.SelectionFlag.NoUpdate)
            if selection.indexes():
                self.view.scrollTo(selection.indexes()[0])
        self._show_caption()

    def _show_caption(self) -> None:
        ids = self.session.recipe.stimulus_ids
        known = dict(zip(self.model.ids, self.model.captions, strict=True))
        caption = known.get(ids[0], "") if ids else ""
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        self.caption.setText(f"stimulus {ids[0]}{more}{': ' if caption else ''}{caption}" if ids else "")
        self.caption.setToolTip(self.caption.text())

    def move(self, by: int) -> None:
        """Choose the next or the previous stimulus of those that the filter leaves."""
        n = self.proxy.rowCount()
        if n:
            rows = [index.row() for index in self.view.selectionModel().selectedIndexes()]
            row = (max(rows) if by > 0 else min(rows)) + by if rows else 0
            self.session.change(stimulus_ids=(self._stimulus(row % n),))
