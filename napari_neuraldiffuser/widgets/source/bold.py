"""From BOLD to own scans: a BIDS folder, a subject and an estimator, computed by the engine."""

from typing import Any, Protocol

from qtpy.QtWidgets import QComboBox, QLineEdit, QWidget

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BoldParams
from napari_neuraldiffuser.widgets.session.controls import Fold, Notice, ParamControls, button, form
from napari_neuraldiffuser.widgets.session.engine import Task, error_text
from napari_neuraldiffuser.widgets.session.path_field import FOLDER, PathField
from napari_neuraldiffuser.widgets.session.session import Session

OFFERED = ("estimator", "hrf_model", "confounds", "fd_threshold", "stimulus_column", "test_rule")
MORE = (
    *("drift", "high_pass", "drift_order", "n_compcor", "confound_columns", "smoothing_fwhm", "scale"),
    *("trial_types", "other_types", "test_column", "tr"),
)
LABELS = {"hrf_model": "Response", "fd_threshold": "Motion limit", "test_rule": "Held-out stimuli", "tr": "TR"}
WHAT = "Makes betas, mask and trials from a scanner's BOLD (docs/own-scans.md)"


class Page(Protocol):
    """What it needs of the panel that it is part of."""

    session: Session

    def run_task(self, call: str, args: dict[str, Any], done: Any) -> Task: ...
    def say(self, text: str) -> None: ...


class BoldBox(Fold):
    """Fields of a BIDS folder; the panel shows progress and has Cancel, and gets the data when they are made.

    Parameters
    ----------
    panel : Page
        Runs the call and shows its progress.
    """

    def __init__(self, panel: Page) -> None:
        super().__init__("From BOLD (BIDS)…", WHAT)
        self.panel = panel
        tip = "fMRIPrep's derivatives, or the BIDS folder that has them in derivatives"
        self.folder = PathField("BIDS folder", tip, FOLDER, needed=True)
        self.subject = QComboBox(toolTip="Subjects with preprocessed BOLD in the folder")
        self.events = PathField("Events", "Raw BIDS folder, where events are not found beside the BOLD", FOLDER)
        self.out = PathField("Betas go to", "Folder for the betas; below the BIDS folder where left empty", FOLDER)
        self.space = QLineEdit(toolTip="Space of the BOLD, where there are several, such as T1w")
        self.task = QLineEdit(toolTip="Task, where several have events")
        self.controls, self.others = (ParamControls(BoldParams, names, LABELS) for names in (OFFERED, MORE))
        more = Fold("More choices", "Drift, columns of the tables, space and task")
        for controls in (self.controls, self.others):
            controls.show_values(BoldParams())
        lines = QWidget()
        form(lines, ("Space", self.space), ("Task", self.task), self.others)
        more.addWidget(lines)
        self.run_button = button("Estimate betas", "Finished runs are kept when it is stopped", self.start)
        self.hint = Notice()
        inside = QWidget()
        form(
            inside,
            ("BIDS folder", self.folder),
            ("Subject", self.subject),
            ("Events", self.events),
            ("Betas go to", self.out),
            self.controls,
            more,
            self.run_button,
            self.hint,
        )
        self.addWidget(inside)
        self._asked: Task | None = None
        self._problem = ""
        self.folder.changed.connect(self._look)
        for part in (self.events, self.out, self.controls, self.others):
            part.changed.connect(self._judge)
        panel.session.busy_changed.connect(self._judge)
        self._judge()

    def problem(self) -> str:
        """Why betas cannot be estimated yet, or nothing."""
        fields = (self.folder, self.events, self.out)
        wrong = [*(field.problem() for field in fields), self._problem, self._params_problem()]
        return next((text for text in wrong if text), "" if self.subject.count() else "looking at the folder …")

    def _params_problem(self) -> str:
        return self.controls.problem(BoldParams()) or self.others.problem(BoldParams())

    def start(self) -> None:
        """Have the engine estimate betas; what it says is shown by the panel."""
        self.panel.run_task("betas", self.args(), self._made)

    def args(self) -> dict[str, Any]:
        """What the engine is asked for."""
        return {
            "folder": self.folder.located,
            "subject": self.subject.currentText(),
            "events_dir": self.events.located,
            "out_dir": self.out.located,
            "space": self.space.text().strip(),
            "task": self.task.text().strip(),
            "params": self.others.params(self.controls.params(BoldParams())).to_dict(),
        }

    def _made(self, result: dict[str, Any]) -> None:
        """Take what was made as the data of the session: the fields of own scans show it."""
        self.panel.session.choose(Source.from_dict(result["source"]))
        self.panel.say("\n".join([f"Betas are made; how: {result['page']}", *result["notes"]]))

    def _look(self) -> None:
        """Ask for the subjects of a new folder; an answer about the one before is ignored."""
        self.subject.clear()
        if self._asked is not None:
            self._asked.ended.disconnect(self._found)
        self._problem, self._asked = "", None
        if not self.folder.problem():
            self._asked = self.panel.session.call("bold_subjects", {"folder": self.folder.located}, quiet=True)
            self._asked.ended.connect(self._found)  # a method, as Qt lets go of it with the page
        self._judge()

    def _found(self, result: Any) -> None:
        if isinstance(result, dict):
            self.subject.addItems(result["subjects"])
            self.out.edit.setPlaceholderText(result["out_dir"])
        else:
            self._problem = error_text(result)
        self._judge()

    def _judge(self, *_: Any) -> None:
        problem = self.problem()
        # an empty line is no mistake; the button says what is missing
        self.hint.show_text(self._problem or self._params_problem())
        self.run_button.setEnabled(not problem and not self.panel.session.busy)
        self.run_button.setToolTip(problem or "Finished runs are kept when it is stopped")
