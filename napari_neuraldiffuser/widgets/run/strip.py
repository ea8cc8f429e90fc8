"""The κ strip: one stimulus at several guidance strengths beside each other, all from the same noise."""

import math
from typing import Any

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import Signal
from superqt import QFlowLayout

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.widgets.run.picture import ImageCell
from napari_neuraldiffuser.widgets.run.score_table import label, metric_names, spread
from napari_neuraldiffuser.widgets.session.controls import Fold, Notice, button, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.theme import WARNING

FACTORS, SHOWN_REPEATS = "0 0.3 1 3", 3
SIDE, WIDTH = 92, 98
"""Of a picture and of a column: four fit the narrowest dock."""
TIP = (
    "Reconstructs the first chosen stimulus at these multiples of the κ above, all from the same noise: look for the "
    "strength that still helps"
)


class StripFold(Fold):
    """Asks for multiples of κ, and shows a column for each: κ, pictures, scores, and a way to use it."""

    asked = Signal(list)
    """Strengths to reconstruct at."""
    taken = Signal(float)
    """κ of a column: is to be used."""

    def __init__(self) -> None:
        super().__init__("Several strengths (κ strip)", TIP)
        self.line = QtWidgets.QLineEdit(FACTORS, toolTip=f"{TIP}. Numbers such as {FACTORS}; 0 is always shown")
        self.line.textChanged.connect(self.judge)
        self.run_button = button("Run strip", TIP, self._ask)
        self.problem, self.about = Notice(), Notice("")
        self.flow = QFlowLayout()
        self.flow.setContentsMargins(0, 0, 0, 0)
        self.flow.setHorizontalSpacing(2)
        self.columns: dict[float, StripColumn] = {}
        holder = QtWidgets.QWidget()
        row = side_by_side(QtWidgets.QLabel("κ times"), self.line, self.run_button, wide=1)
        stacked(holder, row, self.problem, self.about, self.flow)
        self.addWidget(holder)
        self.recipe, self.ready = Recipe(), False

    def follow(self, recipe: Recipe, ready: bool) -> None:
        """Multiples are of this recipe's κ; `ready` says whether a run could begin."""
        self.recipe, self.ready = recipe, ready
        self.judge()

    def strengths(self) -> list[float]:
        """κ at every multiple; empty where the line has something else."""
        try:
            factors = [float(word) for word in self.line.text().replace(",", " ").split()]
        except ValueError:
            return []
        kappa = self.recipe.settings.guidance.guidance_scale
        good = all(math.isfinite(factor) and factor >= 0 for factor in factors)
        return sorted({kappa * factor for factor in factors}) if good and any(factors) else []

    def judge(self, *_: Any) -> None:
        """Say why the strip cannot run, or let it."""
        guidance, text = self.recipe.settings.guidance, ""
        if not self.strengths():
            text = f"The multiples must be numbers from 0, one above 0, got {self.line.text()!r}. Write {FACTORS}."
        elif guidance.guidance_scale == 0:
            text = "κ must be above 0 for multiples of it, got 0. Set κ above."
        self.problem.show_text(text)
        self.run_button.setEnabled(self.ready and not text)

    def _ask(self) -> None:
        self.asked.emit(self.strengths())

    # what the engine shows

    def take(self, name: str, payload: dict[str, Any]) -> None:
        """Take up an event of `strip`."""
        if name == "begin":
            self._begin(payload)
        elif name == "strength":
            self.columns[payload["kappa"]].show_strength(payload)
            self.about.show_text(f"Stimulus {self.stimulus}: rows are repeats, each from the same noise at every κ")

    def _begin(self, payload: dict[str, Any]) -> None:
        self.stimulus = payload["stimulus"]
        for column in self.columns.values():
            column.setParent(None)
            column.deleteLater()
        self.columns = {kappa: StripColumn(kappa, self.stimulus) for kappa in payload["kappas"]}
        for column in self.columns.values():
            column.taken.connect(self.taken)
            self.flow.addWidget(column)
        self.about.show_text(f"Stimulus {self.stimulus}")

    def end(self) -> None:
        """Say which strengths are missing, because the strip was cancelled or failed."""
        for column in self.columns.values():
            column.end()


class StripColumn(QtWidgets.QWidget):
    """One strength."""

    taken = Signal(float)

    def __init__(self, kappa: float, stimulus: int) -> None:
        super().__init__()
        self.kappa, self.stimulus = kappa, stimulus
        self.heading = QtWidgets.QLabel(f"κ {kappa:g}" if kappa else "κ 0, unguided")
        self.pictures = QtWidgets.QVBoxLayout()
        self.scores = QtWidgets.QLabel("waiting", wordWrap=True)
        self.warning = Notice(WARNING)
        tip = f"Puts κ {kappa:g} into the form above"
        self.use = button("Use", tip, lambda: self.taken.emit(self.kappa))
        layout = stacked(self, self.heading, self.pictures, self.scores, self.warning, self.use)
        layout.setSpacing(2)
        layout.addStretch()
        self.setFixedWidth(WIDTH)
        self.setStyleSheet("font-size: 8pt;")
        self.done = False

    def show_strength(self, payload: dict[str, Any]) -> None:
        """Show the pictures of the repeats and their scores."""
        self.done = True
        images: np.ndarray = payload["images"]
        rows = sorted(payload["scores"], key=lambda row: row["rep"])
        for k, image in enumerate(images[:SHOWN_REPEATS], 1):
            cell = ImageCell(f"stimulus {self.stimulus}, {self.heading.text()}, repeat {k}")
            cell.show_image(image, SIDE)
            self.pictures.addWidget(cell)
        names = metric_names(rows)
        means = {name: [row[name] for row in rows if name in row] for name in names}
        shown = [name for name in ("pixcorr", "ssim", "edges") if name in means]
        self.scores.setText("\n".join(f"{label(name)} {sum(means[name]) / len(means[name]):.2f}" for name in shown))
        self.scores.setToolTip("\n".join(f"{label(name)} {spread(values)}" for name, values in means.items()))
        self._warn(payload["ruined"])

    def _warn(self, why: str) -> None:
        self.warning.show_text("ruins the image" if why else "")
        self.warning.setToolTip(f"{why}. Lower κ or η." if why else "")

    def end(self) -> None:
        """No more will come."""
        if not self.done:
            self.scores.setText("not computed")
