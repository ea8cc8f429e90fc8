"""A second run beside the one that is shown: which one, what differs in its parameters, and in its scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import Signal

from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.widgets.run.record import History, Run, changes
from napari_neuraldiffuser.widgets.run.score_table import FlatTable, TableRow, about, label, metric_names
from napari_neuraldiffuser.widgets.session.controls import Notice, button, side_by_side, stacked

NONE, BEFORE = "none", "the run before A"
COLUMNS = {
    "A": "Mean over the stimuli that both runs have, each the mean of its repeats",
    "B": "Mean over the stimuli that both runs have, each the mean of its repeats",
    "B − A": "Mean difference ± standard error, over n stimuli paired by stimulus; with one stimulus over n repeats",
}


class Comparison(QtWidgets.QWidget):
    """The choice of run B, and how it differs from run A; `table` is placed by who holds this.

    Parameters
    ----------
    history : History
        Whose runs are offered.
    """

    chosen = Signal()
    """Another run B."""
    taken = Signal(object)
    """Run: its parameters are to be used."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history
        self.choice: Run | str = NONE
        self.offered: list[Run | str] = [NONE, BEFORE]
        self.other: Run | None = None
        self.box = QtWidgets.QComboBox(toolTip="A second run, shown beside run A with the differences in score")
        self.box.setSizePolicy(QtWidgets.QSizePolicy.Policy.Ignored, QtWidgets.QSizePolicy.Policy.Fixed)
        self.box.activated.connect(self._choose)
        tip = "Puts the parameters of run B back into the form above"
        self.use = button("Use", tip, lambda: self.taken.emit(self.other))
        self.words = Notice("")
        self.table = FlatTable(COLUMNS)
        self.table.give_room(2)
        stacked(self, side_by_side(QtWidgets.QLabel("Run B"), self.box, self.use, wide=1), self.words)
        self.fill(None)

    @property
    def with_before(self) -> bool:
        """Whether B is the run before A, whichever that is."""
        return self.choice == BEFORE

    def choose(self, choice: Run | str) -> None:
        """Take a run, `NONE` or `BEFORE` as B."""
        self.choice = choice
        self.chosen.emit()

    def fill(self, run: Run | None) -> None:
        """Offer all runs but A."""
        if isinstance(self.choice, Run) and (self.choice is run or self.choice not in self.history.runs):
            self.choice = NONE
        self.offered = [NONE, BEFORE, *(kept for kept in self.history.runs[::-1] if kept is not run)]
        self.box.clear()
        for one in self.offered:
            self.box.addItem(self.history.title(one) if isinstance(one, Run) else one)
            self.box.setItemData(self.box.count() - 1, self.box.itemText(self.box.count() - 1), 3)  # its tooltip
        self.box.setEnabled(len(self.offered) > 2)
        self._show_choice()

    def _show_choice(self) -> None:
        self.box.setCurrentIndex(self.offered.index(self.choice))

    def _choose(self, index: int) -> None:
        self.choose(self.offered[index])

    def show_run(self, run: Run | None, stimulus: int | None) -> Run | None:
        """Compare with run A; returns B where it has a picture of that stimulus."""
        self._show_choice()
        self.other = self._second(run, stimulus)
        self.use.setEnabled(self.other is not None)
        if run is None or self.other is None:
            self.words.show_text("")
            self.table.show_rows([])
            return None
        shared = shared_stimuli(run, self.other)
        there = stimulus in shared
        absent = "" if there else f"\nB has no stimulus {stimulus} with this picture: choose another stimulus or run."
        what = changes(run.recipe, self.other.recipe)
        self.words.show_text((f"From A to B: {what}" if what else "A and B have the same parameters.") + absent)
        self.table.show_rows(score_rows(run, self.other, shared))
        return self.other if there else None

    def _second(self, run: Run | None, stimulus: int | None) -> Run | None:
        if run is None or stimulus is None or self.choice == NONE:
            return None
        return self.choice if isinstance(self.choice, Run) else self.history.before(run, stimulus)


def shared_stimuli(first: Run, second: Run) -> list[int]:
    """Stimuli of both that are the same picture: own stimuli are only counted, and others in other data."""
    if first.seen is None or second.seen is None:
        return []
    places = {stimulus: k for k, stimulus in enumerate(second.stimulus_ids)}
    return [
        stimulus
        for k, stimulus in enumerate(first.stimulus_ids)
        if stimulus in places and np.array_equal(first.seen[k], second.seen[places[stimulus]])
    ]


def score_rows(first: Run, second: Run, shared: Sequence[int]) -> list[TableRow]:
    """Scores of A and B and their difference, for each arm that both have; the guided arm first."""
    rows: list[TableRow] = []
    for arm in reversed(ARMS):
        one, other = _of_arm(first, arm, shared, "A"), _of_arm(second, arm, shared, "B")
        names = [name for name in metric_names(one) if name in metric_names(other)]
        own = [_row(first, second, one, other, name) for name in names]
        own = [row for row in own if row.texts[2] != "n/a"]
        if own:
            rows += [TableRow(arm, f"Scores of the {arm} arm", ("", "", "")), *own]
    return rows


def _of_arm(run: Run, arm: str, shared: Sequence[int], letter: str) -> list[dict[str, Any]]:
    """Rows of an arm, in which a stimulus that the other run lacks cannot be taken for one of its own."""
    rows = [row for row in run.scores if row["arm"] == arm]
    return [row if row["stim"] in shared else {**row, "stim": f"{letter} {row['stim']}"} for row in rows]


def _row(first: Run, second: Run, one: list[dict[str, Any]], other: list[dict[str, Any]], name: str) -> TableRow:
    from napari_neuraldiffuser.core.evaluation.differences import CLEAR, between, means

    noises = [(run.recipe.settings.diffusion.seed, run.recipe.models) for run in (first, second)]
    same_noise = noises[0] == noises[1]
    difference = between(one, other, name, same_noise)
    texts = [f"{value:.3f}" for value in means(one, other, name) if value is not None]
    over = f"\nB − A: {difference} {difference.of}; bold: {CLEAR}."
    bold = (2,) if difference.clear else ()
    tip = about(name, first.recipe.settings.evaluation.size) + over
    return TableRow(label(name), tip, (*texts, str(difference)) if len(texts) == 2 else ("", "", "n/a"), bold)
