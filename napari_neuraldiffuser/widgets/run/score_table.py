"""Scores of one stimulus, arm beside arm, and the feature loss of the guided one."""

import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableWidget, QTableWidgetItem, QWidget

from napari_neuraldiffuser.core.base.names import SCORE_INDEX
from napari_neuraldiffuser.core.params import EvaluationParams
from napari_neuraldiffuser.widgets.run.record import Run
from napari_neuraldiffuser.widgets.session.theme import ACCENT, colour_of

COLUMNS = ("unguided", "guided", "difference")
DIFFERENCE = "Guided minus unguided, repeat by repeat: both arms start from the same noise"
LEVELS = (
    "Chance level, ceiling.\n"
    "Chance: the same pictures with their stimuli mixed up, over all stimuli of the run; n/a with one stimulus.\n"
    "Ceiling: the seen image after its way through the autoencoder alone, as a perfect z shows it; n/a between repeats"
)
CONTROLS = (
    "Decoded start, mean training image: pictures that take no diffusion, which the guided ones should beat.\n"
    "Decoded start: what the decoded z alone shows. Mean training image: one picture for every stimulus, which knows "
    "nothing of it"
)
NAMES, LETTERS = 104, 15
"""Most pixels for the metrics' names, and most letters in a line of one."""


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation where there are two values or more."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    return f"{mean:.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def metric_names(rows: list[dict[str, Any]]) -> list[str]:
    """Columns that are scores, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in SCORE_INDEX))


def label(metric: str) -> str:
    """The name of a metric."""
    from napari_neuraldiffuser.core.evaluation import metric as registered

    return registered.label(metric)


def definition(metric: str, size: int) -> str:
    """What a metric is, as the evaluation protocol defines it."""
    from napari_neuraldiffuser.core.evaluation import metric as registered

    return registered.definition(metric, size)


def about(metric: str, size: int) -> str:
    """Name and definition of a metric, for a tooltip."""
    return f"{label(metric)}. {definition(metric, size)}"


@dataclass(frozen=True)
class TableRow:
    """One row of a table: its name and tooltip, the texts of its columns, and which columns are bold."""

    name: str
    tip: str
    texts: Sequence[str]
    bold: tuple[int, ...] = ()


def score_text(row: dict[str, Any]) -> str:
    """One image's scores in a line."""
    return ", ".join(f"{label(name)} {row[name]:.3f}" for name in metric_names([row]))


def mean_text(rows: list[dict[str, Any]], metrics: tuple[str, ...] = ("pixcorr", "ssim")) -> str:
    """Mean over repeats of the two scores that every paper gives."""
    known = {name: [row[name] for row in rows if name in row] for name in metrics}
    return ", ".join(f"{label(name)} {statistics.fmean(values):.2f}" for name, values in known.items() if values)


def levels(run: Run | None, stimulus: int | None, metric: str) -> str:
    """Chance level and ceiling of a score of one stimulus, such as "0.22, 0.93"; n/a where there is none."""
    guesses = [known[metric] for known in (run.chance.values() if run else ()) if metric in known]
    best = [row[metric] for row in (run.ceiling if run else ()) if row["stim"] == stimulus and metric in row]
    return ", ".join(f"{values[-1]:.2f}" if values else "n/a" for values in (guesses, best))


def controls(run: Run | None, stimulus: int | None, metric: str) -> str:
    """Score of the decoded start and of the mean training image of one stimulus, such as "0.58, 0.21"."""
    rows = [row for row in (run.controls if run else ()) if row["stim"] == stimulus and metric in row]
    values = [[row[metric] for row in rows if row["arm"] == name] for name in ("start", "mean")]
    return ", ".join(f"{known[-1]:.2f}" if known else "n/a" for known in values)


class FlatTable(QTableWidget):
    """A table of texts, as high as its rows: the page scrolls, not the table.

    Parameters
    ----------
    columns : dict of str to str
        Heading to its tooltip.
    """

    def __init__(self, columns: dict[str, str]) -> None:
        super().__init__(0, len(columns))
        self.setHorizontalHeaderLabels(list(columns))
        for k, tip in enumerate(columns.values()):
            self.horizontalHeaderItem(k).setToolTip(tip)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWordWrap(False)
        self.setStyleSheet("font-size: 8pt;")  # three columns of mean ± SD have to fit a dock
        self.verticalHeader().setMaximumWidth(NAMES)
        for bars in (self.setVerticalScrollBarPolicy, self.setHorizontalScrollBarPolicy):
            bars(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVisible(False)

    def give_room(self, column: int) -> None:
        """Let one column have the room that the texts of the others leave."""
        for k in range(self.columnCount()):
            if k != column:
                self.horizontalHeader().setSectionResizeMode(k, QHeaderView.ResizeMode.ResizeToContents)

    def show_rows(self, rows: Sequence[TableRow]) -> None:
        """Show other rows; none, and the table is hidden."""
        self.setRowCount(len(rows))
        for k, row in enumerate(rows):
            head = QTableWidgetItem(textwrap.fill(row.name, LETTERS, break_long_words=False))
            head.setToolTip(row.tip)
            self.setVerticalHeaderItem(k, head)
            for column, text in enumerate(row.texts):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                item.setToolTip(row.tip)
                font = item.font()
                font.setBold(column in row.bold)
                item.setFont(font)
                self.setItem(k, column, item)
        self.setVisible(bool(rows))
        self._fit()

    def _fit(self) -> None:
        self.resizeRowsToContents()
        rows = sum(self.rowHeight(k) for k in range(self.rowCount()))
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + rows + 2 * self.frameWidth())


class ScoreTable(FlatTable):
    """One row per metric: unguided, guided, difference, as mean ± SD over repeats."""

    def __init__(self) -> None:
        tips = {name: f"Mean ± SD over the repeats of the {name} arm" for name in COLUMNS}
        super().__init__(tips | {"difference": DIFFERENCE, "start, mean": CONTROLS, "levels": LEVELS})
        for column in (3, 4):
            self.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)

    def show_run(self, run: Run | None, stimulus: int | None) -> None:
        """Scores of one stimulus, as far as there are any."""
        arms = {arm: run.rows_of(arm, stimulus) if run and stimulus is not None else [] for arm in COLUMNS[:2]}
        size = (run.recipe.settings.evaluation if run else EvaluationParams()).size
        names = metric_names([*arms["unguided"], *arms["guided"]])
        told = {name: [of(run, stimulus, name) for of in (controls, levels)] for name in names}
        cells = {name: [*self._cells(arms, name), *told[name]] for name in names}
        self.show_rows([TableRow(label(name), about(name, size), texts) for name, texts in cells.items()])

    @staticmethod
    def _cells(arms: dict[str, list[dict[str, Any]]], name: str) -> list[str]:
        values = {arm: {row["rep"]: row[name] for row in rows if name in row} for arm, rows in arms.items()}
        both = sorted(values["unguided"].keys() & values["guided"].keys())
        difference = spread([values["guided"][rep] - values["unguided"][rep] for rep in both])
        signed = difference if not difference or difference.startswith("-") else f"+{difference}"
        return [spread(list(values["unguided"].values())), spread(list(values["guided"].values())), signed]


class LossCurve(QWidget):
    """Feature loss over the guided steps, mean over repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []
        self.setFixedHeight(48)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        tip = (
            "Distance between the features of the image and the decoded ones after each guided step, mean over repeats"
        )
        self.setToolTip(tip)
        self.setVisible(False)

    def show_values(self, values: list[float]) -> None:
        """One value per guided step; hidden while there are fewer than two."""
        self.values = [value for value in values if math.isfinite(value)]
        self.setVisible(len(self.values) > 1)
        self.update()

    @property
    def caption(self) -> str:
        """The first and the last value in words."""
        return f"feature loss {self.values[0]:.3g} → {self.values[-1]:.3g} over {len(self.values)} guided steps"

    def points(self) -> list[QPointF]:
        """The line in the widget's own pixels."""
        low, high = min(self.values), max(self.values)
        margin, top = 4, self.fontMetrics().height() + 2
        width, height = self.width() - 2 * margin, self.height() - top - margin
        share = [(value - low) / (high - low) if high > low else 0.5 for value in self.values]
        spacing = width / max(1, len(share) - 1)
        return [QPointF(margin + k * spacing, top + (1 - y) * height) for k, y in enumerate(share)]

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the curve and its caption."""
        if len(self.values) < 2:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self.palette().text().color())
        painter.drawText(self.rect().adjusted(4, 0, 0, 0), Qt.AlignmentFlag.AlignTop, self.caption)
        painter.setPen(QPen(colour_of(self, ACCENT), 1.6))
        painter.drawPolyline(QPolygonF(self.points()))
        painter.end()
