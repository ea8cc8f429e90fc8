"""Panel: the whole job of one subject, and the page that it ends with."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import QStandardPaths, Qt, QUrl
from qtpy.QtGui import QDesktopServices

from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS, Recipe, Source
from napari_neuraldiffuser.widgets.files.layer_info import OWN, LayerData, kind_of, own_layers
from napari_neuraldiffuser.widgets.maps.outlines import Outlines, is_family
from napari_neuraldiffuser.widgets.maps.overlay import Overlay
from napari_neuraldiffuser.widgets.maps.subject_maps import plain
from napari_neuraldiffuser.widgets.run.score_table import FlatTable, TableRow
from napari_neuraldiffuser.widgets.session.controls import Fold, Notice, StageControls, add, button, form, side_by_side
from napari_neuraldiffuser.widgets.session.panel import Panel
from napari_neuraldiffuser.widgets.session.state import KEY
from napari_neuraldiffuser.widgets.session.theme import FAINT, WARNING
from napari_neuraldiffuser.widgets.session.worker import ThreadTask

SHOWN = "report"
"""Mark of the layers that "Show in viewer" adds."""
WRITTEN = [
    ["summary"],
    ["scores"],
    ["embeddings"],
    ["image"],
    ["map"],
    ["shares"],
    ["region scores", "accuracy map"],
    ["anatomy", "regions"],
    ["failed"],
]
"""What is listed of a subject's files beside its page."""


@dataclass(frozen=True)
class FinishedReport:
    """A finished report."""

    page: Path
    folder: Path
    written: list[tuple[str, list[Path]]]
    """Kinds of files and those that are there."""
    scores: list[TableRow]
    failed: list[int]
    """Stimuli that were left out."""
    warnings: list[str]
    """That guidance makes the images worse, that its strength is of other models, or which picture beats the guided."""
    trust: str = ""
    """The paragraph that ends the trust sheet."""


def read_finished(result: dict[str, Any], progress: Progress | None = None) -> FinishedReport:
    """Look at what the engine's `report` left."""
    from napari_neuraldiffuser.core.evaluation.controls import not_beaten  # imports pandas

    page, folder = Path(result["page"]), Path(result["out_dir"])
    written = [("page", [page])]
    for kinds in ([KINDS[name] for name in names] for names in WRITTEN):
        if paths := [path for kind in kinds for path, _ in kind.find(folder / page.stem)]:
            written.append((" and ".join(kind.what for kind in kinds), paths))
    warnings = [*result["warnings"], *(f"{text}." for text in not_beaten(result["summary"]))]
    summary, failed = result["summary"], [int(s) for s in result["failed"]]
    trust = summary.get("trust", {}).get("paragraph", "")
    return FinishedReport(page, folder, written, score_rows(summary), failed, warnings, trust)


def score_rows(summary: dict[str, Any]) -> list[TableRow]:
    """Rows of `evaluation.summarise`, in its order, for `COLUMNS`; scores that neither arm has are left out."""
    arms = {arm: summary.get("arms", {}).get(arm, {}) for arm in ARMS}
    definitions = summary.get("protocol", {}).get("metrics", {})
    metrics = dict.fromkeys([*arms["unguided"], *arms["guided"]])
    named = {metric: {arm: arms[arm].get(metric, {}) for arm in ARMS} for metric in metrics}
    known = {
        metric: ours for metric, ours in named.items() if any(one.get("mean") is not None for one in ours.values())
    }
    return [_row(metric, values, summary, definitions.get(metric, metric)) for metric, values in known.items()]


def _row(metric: str, arms: dict[str, dict[str, Any]], summary: dict[str, Any], definition: str) -> TableRow:
    from napari_neuraldiffuser.core.evaluation.controls import CONTROLS, control_of, gain_over
    from napari_neuraldiffuser.core.evaluation.differences import CLEAR, Difference  # imports pandas
    from napari_neuraldiffuser.core.evaluation.levels import CEILING_TEXT, CHANCE_TEXT, ceiling_of, chance_of, level
    from napari_neuraldiffuser.core.evaluation.metric import label

    difference = Difference.of_summary(summary.get("paired", {}).get(metric, {}))
    told = [f"{arm}: {mean_se(values)}, n = {values.get('n', 0)}" for arm, values in arms.items()]
    controls = {name: control_of(summary, name, metric) for name in CONTROLS}
    for name, values in controls.items():
        if (gain := gain_over(summary, name, metric)) is not None:
            told.append(f"{CONTROLS[name][0]}: {mean_se(values)}; guided minus it: {gain}")
    tip = "\n".join(
        [f"{label(metric)}. {definition}", *told, f"difference: {difference}; bold: {CLEAR}", CHANCE_TEXT, CEILING_TEXT]
    )
    means = [mean_se({"mean": values.get("mean")}) for values in arms.values()]
    stands_between = chance_of(summary, "guided", metric), ceiling_of(summary, metric)
    given = [values.get("mean") for values in controls.values()]
    beside = [", ".join(level(value, 2) for value in values) for values in (given, stands_between)]
    return TableRow(label(metric), tip, (*means, *beside, str(difference)), (4,) if difference.clear else ())


def mean_se(values: dict[str, Any], sign: str = "") -> str:
    """ "0.556 ± 0.027"; without an error where there is none, n/a without a mean."""
    mean, se = values.get("mean"), values.get("se")
    if mean is None:
        return "n/a"
    return f"{mean:{sign}.3f}" + ("" if se is None else f" ± {se:.3f}")


def read_layers(folder: Path, label: str, progress: Progress | None = None) -> list[LayerData]:
    """Read one subject's results as layers."""
    from napari_neuraldiffuser.widgets.files.folders import output_layers
    from napari_neuraldiffuser.widgets.files.outputs import find_outputs

    subjects = find_outputs(folder)
    return output_layers(subjects.get(label) or next(iter(subjects.values())))


COLUMNS = {
    "Unguided": "Mean over stimuli",
    "Guided": "Mean over stimuli",
    "Start, mean": "Decoded start and mean training image: what takes no diffusion, which guided ones should beat",
    "Levels": "Chance level of the guided pictures, and ceiling: what a perfect z would reach",
    "Difference": "Guided minus unguided: mean ± standard error over n stimuli, paired by stimulus",
}
LEAST, MOST = 2, 10_000
"""Test stimuli: scores compare stimuli, so that one alone has none."""
ABOUT = (
    "Decodes the test stimuli, reconstructs both arms, scores them, maps contributions and writes one page. "
    "Run continues where it stopped; the settings are those of the other panels."
)


class ReportPanel(Panel):
    """Runs every stage for the recipe of the session and shows what came out."""

    name = "report"
    title = "Report"
    run_text = "Run the whole job"

    def build(self) -> None:
        """Output folder and number of stimuli above, results below."""
        self.finished: FinishedReport | None = None
        self.chosen = False
        self.folder = QtWidgets.QLineEdit(str(proposed_folder(self.session.recipe.source)))
        self.folder.setToolTip("Folder of sub-XX.html and sub-XX; it is made if it is not there")
        self.folder.textEdited.connect(self._typed)
        self.folder.textChanged.connect(self.changed)
        self.where = Notice(FAINT)
        browse = button("Browse…", "Choose the output folder", self._browse)
        self.all = QtWidgets.QCheckBox("all", checked=True, toolTip="Reconstruct and score every test stimulus")
        self.n_stimuli = QtWidgets.QSpinBox(minimum=LEAST, maximum=MOST, value=10, enabled=False)
        self.n_stimuli.setToolTip("The first so many test stimuli; scores compare stimuli, so at least 2")
        self.all.toggled.connect(self.n_stimuli.setDisabled)
        self.all.toggled.connect(self.changed)
        self.n_stimuli.valueChanged.connect(self.changed)
        stimuli = side_by_side(self.all, self.n_stimuli, wide=1)
        folder = side_by_side(self.folder, browse, wide=0)
        rows = form(None, ("Output folder", folder), ("Test stimuli", stimuli))
        self.metrics = StageControls(
            self.session,
            "evaluation",
            ("metrics", "metric_weights", "trust", "trust_stimuli"),
            {"metrics": "", "metric_weights": "Networks' weights"},
        )
        self.metrics.changed.connect(self.revalidate)
        scores = Fold("Scores", "Which scores are computed, and what they are compared with")
        scores.addWidget(self.metrics)
        add(self.body, QtWidgets.QLabel(ABOUT, wordWrap=True), rows, self.where, scores)
        self._build_results()
        self.run_tip = "Every stage that is not complete in the output folder already"
        self.session.recipe_changed.connect(self._recipe_changed)
        self.session.decoded_changed.connect(self.revalidate)
        self.session.described_changed.connect(self._described)
        self._described(self.session.described)

    def _build_results(self) -> None:
        """Below the message line; hidden until there are results."""
        self.results = QtWidgets.QWidget(visible=False)
        self.scores = FlatTable(COLUMNS)
        self.scores.give_room(4)
        self.written = QtWidgets.QLabel("", wordWrap=True)
        self.written.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.failed, self.warnings = Notice(""), Notice(WARNING)
        tip = "Anatomy, regions, contribution maps and pictures as layers"
        buttons = side_by_side(
            button("Open page", "Show the report in the web browser", self.open_page),
            button("Open folder", "Show the output folder in the file manager", self.open_folder),
            button("Show in viewer", tip, self.show_layers),
        )
        self.trust = QtWidgets.QLabel("", wordWrap=True, visible=False)
        self.trust.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        form(self.results, buttons, self.failed, self.warnings, self.scores, self.trust, self.written)
        self.layout().addWidget(self.results)
        self.layout().addStretch(1)

    # before the run

    def _browse(self) -> None:
        chosen = QtWidgets.QFileDialog.getExistingDirectory(self, "Output folder", self.folder.text())
        if chosen:
            self.chosen = True
            self.folder.setText(chosen)

    def _typed(self, text: str) -> None:
        """A folder of the user's own stays; without one, that of the data is proposed."""
        self.chosen = bool(text.strip())

    def _recipe_changed(self, recipe: Recipe) -> None:
        if not self.chosen:
            self.folder.setText(str(proposed_folder(recipe.source)))
        self.revalidate()

    def revalidate(self, *_: Any) -> None:
        """Say where the page will be, and from which decoder."""
        super().revalidate()
        fitted = "the decoder of the Decode page is taken" if self.session.decoded else "the decoder is fitted first"
        ready = self.out_dir is not None and self.session.recipe.source.given
        self.where.show_text(f"The page will be in {self.out_dir}; {fitted}." if ready else "")

    def _described(self, described: dict[str, Any] | None) -> None:
        """Offer as many stimuli as the data have."""
        n = len(described["test_ids"]) if described else 0
        self.all.setText(f"all {n}" if n else "all")
        self.n_stimuli.setMaximum(max(n, LEAST) if n else MOST)
        self.revalidate()

    @property
    def out_dir(self) -> Path | None:
        """The output folder; None where nothing is typed."""
        text = self.folder.text().strip()
        return Path(text).expanduser() if text else None

    def problems(self) -> list[str]:
        """What is missing: data, two test stimuli, a folder that can be written."""
        problems = []
        if not self.session.recipe.source.given:
            problems.append("Data must be chosen before the job can run. Choose them in the Data panel.")
        described = self.session.described
        if described and len(described["test_ids"]) < LEAST:
            n = len(described["test_ids"])
            text = f"Data must have at least {LEAST} test stimuli, got {n}. Add sessions or mark more as test."
            problems.append(text)
        wrong = self.metrics.problem(self.session.recipe.settings.evaluation)
        return [*problems, *([wrong] if wrong else []), *folder_problems(self.out_dir)]

    def start(self) -> None:
        """Run the recipe with both arms on every chosen stimulus."""
        recipe = self.session.recipe.but(arms=ARMS, stimulus_ids=())
        n = None if self.all.isChecked() else self.n_stimuli.value()
        self._show(None)
        args = {"recipe": recipe.to_dict(), "out_dir": str(self.out_dir), "n_stimuli": n}
        self.run_task("report", args, done=self._finished)

    def cancelled(self, result: dict[str, Any]) -> None:
        """Say that nothing is lost."""
        self.say("Cancelled. What is complete is kept: Run continues where it stopped.")

    # after it

    def _finished(self, result: dict[str, Any]) -> None:
        self._look_at(partial(read_finished, result), self._show)
        self.session.show_output(result["out_dir"])

    def _look_at(self, work: Callable[..., Any], done: Callable[[Any], None]) -> None:
        """Read files in a thread, then call `done` with what was read."""
        self._looking = ThreadTask(lambda progress: work(progress=progress))
        self._looking.ended.connect(partial(self._looked, done))
        self._looking.start()

    def _looked(self, done: Callable[[Any], None], result: Any) -> None:
        (self.fail if isinstance(result, Exception) else done)(result)

    def _show(self, finished: FinishedReport | None) -> None:
        self.finished = finished
        self.results.setVisible(finished is not None)
        if finished is None:
            return
        self.scores.show_rows(finished.scores)
        self.trust.setText(finished.trust)
        self.trust.setVisible(bool(finished.trust))
        self.written.setText(written_text(finished))
        self.failed.show_text(failed_text(finished.failed) if finished.failed else "")
        self.warnings.show_text("\n".join(finished.warnings))
        self.say(f"Finished: {finished.page}")

    def open_page(self) -> None:
        """Show the page in the browser."""
        self._open(self.finished.page)

    def open_folder(self) -> None:
        """Show the folder in the file manager."""
        self._open(self.finished.folder)

    def _open(self, path: Path) -> None:
        if not path.exists():
            self.say(f"{path} must be there, but is gone. Run again.")
        elif not QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))):
            self.say(f"No program opens {path}. Open it by hand.")

    def show_layers(self) -> None:
        """Read the results in a thread and add them as layers, in place of those shown before."""
        self.say("reading the results")
        self._look_at(partial(read_layers, self.finished.folder, self.finished.page.stem), self._add_layers)

    def _add_layers(self, layers: list[Any]) -> None:
        from napari_neuraldiffuser.widgets.files.layers import add_layers

        for layer in own_layers(self.viewer, SHOWN):
            self.viewer.layers.remove(layer)
        missing = [one for one in layers if not self._is_there(one)]
        for layer in add_layers(self.viewer, missing):
            layer.metadata[OWN] = SHOWN
        self.say("" if missing else "The results are shown already.")

    def _is_there(self, new: LayerData) -> bool:
        """Whether another page has added this already: as it is, as outlines, or the folder's maps as an overlay."""
        data, keywords, _ = new
        told = keywords["metadata"].get(KEY, {})
        there = [layer for layer in self.viewer.layers if kind_of(layer) == told.get("kind")]
        if told.get("kind") == "roi":
            there = [layer for layer in there if is_family(layer, told["family"])]
        if told.get("kind") in ("anatomy", "roi") and any(np.array_equal(data, layer.data) for layer in there):
            return True
        return told in [layer.metadata.get(KEY) for layer in self.viewer.layers] or self._is_mapped(told)

    def _is_mapped(self, told: dict[str, Any]) -> bool:
        """Whether the Contribution page shows this subject's maps, or outlines of the same regions."""
        overlay, label = Overlay(self.viewer).layer, self.finished.page.stem if self.finished else ""
        if overlay is None or overlay.metadata.get("subject") != label or told.get("output") != self.session.output:
            return False
        if told["kind"] == "roi":
            return plain(told["family"]) in map(plain, Outlines(self.viewer).made)
        if told["kind"] == "contribution":
            overlay.visible = True
        return told["kind"] == "contribution"

    # memory

    def state(self) -> dict[str, Any]:
        """Give the folder and the number of stimuli."""
        return {
            "folder": self.folder.text() if self.chosen else "",
            "all": self.all.isChecked(),
            "n_stimuli": self.n_stimuli.value(),
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave."""
        self.chosen = isinstance(values.get("folder"), str) and bool(values["folder"].strip())
        folder = values["folder"] if self.chosen else proposed_folder(self.session.recipe.source)
        self.folder.setText(str(folder))
        self.all.setChecked(bool(values.get("all", True)))
        n = values.get("n_stimuli")
        self.n_stimuli.setValue(n if isinstance(n, int) and LEAST <= n <= MOST else 10)


def proposed_folder(source: Source) -> Path:
    """Where a user looks for results: below the documents, by the name of the data's folder."""
    documents = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
    data = Path(source.betas).parent if source.own else Path(source.nsd_dir)
    return Path(documents or Path.home()) / "NeuralDiffuser" / (data.name or "output")


def folder_problems(folder: Path | None) -> list[str]:
    """Why a folder cannot be the output folder: asks the nearest parent that exists, and writes nothing."""
    if folder is None:
        return ["Output folder must be chosen. Type a folder or browse for one."]
    if folder.exists() and not folder.is_dir():
        return [f"Output folder must be a folder, got the file {folder}. Choose another one."]
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    if there is None or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return [f"Output folder must be one that can be written, got {folder}. Choose another one."]
    return []


def written_text(finished: FinishedReport) -> str:
    """One line for every kind of file."""
    lines = []
    for what, paths in finished.written:
        one = len(paths) == 1
        where = paths[0] if one else paths[0].parent
        lines.append(f"{what}{'' if one else f' ({len(paths)})'}: {where.relative_to(finished.folder)}")
    return f"Written to {finished.folder}:\n" + "\n".join(lines)


def failed_text(failed: list[int]) -> str:
    """Which stimuli were left out, and what helps."""
    shown = ", ".join(map(str, failed[:10])) + (", …" if len(failed) > 10 else "")
    return f"{len(failed)} stimuli failed and are left out: {shown}. Lower κ or the CFG scale and run again."
