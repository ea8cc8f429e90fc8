"""The Data panel: which scans, which voxels, which sessions."""

from functools import partial
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QLabel

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import SPACES, BetasParams, ParamError, default_of
from napari_neuraldiffuser.widgets.files.folders import Read, missing_layers, read_source
from napari_neuraldiffuser.widgets.files.layer_info import LayerData
from napari_neuraldiffuser.widgets.files.layers import add_layers
from napari_neuraldiffuser.widgets.session.controls import Fold, StageControls, add
from napari_neuraldiffuser.widgets.session.engine import Task, error_text
from napari_neuraldiffuser.widgets.session.panel import Panel
from napari_neuraldiffuser.widgets.session.path_field import dropped
from napari_neuraldiffuser.widgets.session.state import KEY
from napari_neuraldiffuser.widgets.session.worker import ThreadTask
from napari_neuraldiffuser.widgets.source.bold import BoldBox
from napari_neuraldiffuser.widgets.source.form import SampleButton, SourceForm, description_text
from napari_neuraldiffuser.widgets.source.mask import MaskBox
from napari_neuraldiffuser.widgets.source.selection import RoiBox, SessionsLine, VoxelCount, absolute_masks

ADD_EVERY = 20
"""Milliseconds between layers, in which the window draws itself."""
LOOKING = "looking at the files …"
MORE = (
    *("space", "version", "zscore", "average_repeats"),
    *("min_noise_ceiling", "max_voxels", "ceiling_from"),
    *("held_out", "held_out_seed"),
)
MORE_LABELS = {
    "zscore": "Z-score per session",
    "version": "Beta version",
    "min_noise_ceiling": "Least noise ceiling",
    "max_voxels": "Most voxels",
    "ceiling_from": "Ceilings from",
    "held_out": "Held-out share",
    "held_out_seed": "Held-out seed",
}


class DataPanel(Panel):
    """Data, voxels and sessions of the next run; Show adds anatomy and regions to the viewer."""

    name = "data"
    title = "Data"
    run_text = "Show in viewer"

    def build(self) -> None:
        self._describing: Task | None = None
        self._described_for = self.session.recipe.source if self.session.described else None
        self._adding: list[LayerData] = []
        self._adder = QTimer(self, singleShot=True, interval=ADD_EVERY, timeout=self._add_next)
        self._problem = self._replaced = ""
        self.form, self.roi, self.mask = SourceForm(), RoiBox(), MaskBox(self.viewer, self.session)
        self.sample, self.facts = SampleButton(lambda: self.viewer), QLabel("", wordWrap=True)
        self.bold = BoldBox(self)
        add(self.body, self.form, self.bold, self.sample, self.facts)
        self.count = VoxelCount(self.session)
        self.roi.layout().addWidget(self.count)
        self.sessions = SessionsLine()
        self.more = Fold("More", "Volume space, version and preparation of the betas")
        self.controls = StageControls(self.session, "betas", MORE, MORE_LABELS)
        self.more.addWidget(self.controls)
        add(self.body, self.roi, self.sessions, self.mask, self.more)
        self.run_tip = "Adds the anatomy and the regions as layers, where they are not there yet"
        self.setAcceptDrops(True)
        self._connect()
        ThreadTask(_import_grammar).start()
        if self.session.recipe.source.given:
            self.form.show_source(self.session.recipe.source)
        self._show_recipe(self.session.recipe)
        self._show_described(self.session.described)
        self.layout().addStretch(1)

    def _connect(self) -> None:
        self.form.changed.connect(self._source_chosen)
        self.sample.said.connect(self.say)
        self.sample.failed.connect(self.fail)
        self.roi.changed.connect(lambda text: self._change_betas(roi=absolute_masks(text)))
        self.roi.judged.connect(self.changed)
        self.count.judged.connect(self.changed)
        self.sessions.changed.connect(lambda text: self._change_betas(sessions=text))
        self.sessions.judged.connect(self.changed)
        self.mask.drawn.connect(self.roi.choose)
        self.mask.failed.connect(self.fail)
        self.mask.told.connect(self.say)
        self.more.toggled.connect(self.changed)
        self.session.recipe_changed.connect(self._show_recipe)
        self.session.described_changed.connect(self._show_described)

    # what was chosen

    @property
    def betas(self) -> BetasParams:
        """The betas of the session's recipe."""
        return self.session.recipe.settings.betas

    def problems(self) -> list[str]:
        """What is missing or wrong; the details of ROI and sessions stand beside them."""
        wrong = [f"The {name} must be mended above, for any page to run." for name, text in self._mended() if text]
        return [text for text in (self.form.problem(), self._problem) if text] + wrong

    def _mended(self) -> list[tuple[str, str]]:
        return [("ROI", self.roi.problem or self.count.problem), ("sessions", self.sessions.problem())]

    def wrong(self) -> str:
        """What is shown in place of the data, voxels or sessions that the recipe still has."""
        source = self.form.problem() if self.session.recipe.source.given else ""
        return " ".join(filter(None, (source, self._problem, *(text for _, text in self._mended()))))

    def _source_chosen(self) -> None:
        if not self.form.problem():
            source = self.form.source()
            if source == self.session.recipe.source and self._problem:
                self._describe(source)  # chosen again, as the files may be there now
            self.session.choose(source)
        self.changed()

    def _change_betas(self, **changes: Any) -> None:
        try:
            self.session.change_stage("betas", self.betas.but(**changes))
        except ParamError as error:
            self.fail(error)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Let Qt know that a folder may be dropped here."""
        if dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Take the dropped folder."""
        event.acceptProposedAction()
        self.form.take_folder(dropped(event)[0])

    # what the session says

    def _show_recipe(self, recipe: Recipe) -> None:
        betas = recipe.settings.betas
        if recipe.source.given and recipe.source != self._described_for:
            if self.form.problem() or self.form.source() != recipe.source:
                self.form.show_source(recipe.source)
            self._describe(recipe.source)
        if self.roi.expression != betas.roi:
            self.roi.show_expression(betas.roi)
        self.sessions.show_text(betas.sessions)
        self._show_facts()
        self.count.ask()
        self.changed()

    def _describe(self, source: Source) -> None:
        self._described_for, self._problem = source, ""
        if self._describing is not None:
            self._describing.cancel()
        self._describing = task = self.session.call("describe", {"source": source.to_dict()}, quiet=True)
        task.ended.connect(partial(self._described, task))

    def _described(self, task: Task, result: Any) -> None:
        if task is not self._describing:
            return
        self._describing = None
        if isinstance(result, dict):
            self.session.set_described(result)
        else:
            self._problem = error_text(result)
            self._details = getattr(result, "details", "")
            self.details.setVisible(bool(self._details))
            self.session.set_described(None)
        self.changed()

    def _show_described(self, described: dict[str, Any] | None) -> None:
        self.roi.show_families(described["families"] if described else None)
        self.sessions.show_labels(described["sessions"] if described else [])
        self._replaced = ""
        if described:
            self._take_what_is_there(described)
        self._show_facts()
        self.count.ask()
        self.changed()

    def _show_facts(self) -> None:
        """What the source holds; masks can be drawn where its grid is the chosen one."""
        described = self.session.described
        self.facts.setVisible(bool(described or self._describing))
        if not described:
            waits = "described after the present run" if self.session.busy else LOOKING
            self.facts.setText(waits if self._describing else "")
            self.mask.show_described(None)
            return
        other_grid = not self.session.recipe.source.own and described["space"] != self.betas.space
        note = f"These are the numbers of {described['space']}; {self.betas.space} is chosen." if other_grid else ""
        self.facts.setText("\n".join(filter(None, [description_text(described), self._replaced, note])))
        self.mask.show_described(None if other_grid or described["affine"] is None else described)

    def _take_what_is_there(self, described: dict[str, Any]) -> None:
        """What was chosen for other data stays where these have it, and is replaced where not."""
        changes = {}
        if not self.roi.fits(self.betas.roi):
            changes["roi"] = self.roi.default()
        if described["space"] in SPACES and SPACES.index(self.betas.space) < SPACES.index(described["space"]):
            changes["space"] = described["space"]  # the first of them that is on disk
        if self.sessions.text == self.betas.sessions and self.sessions.problem():
            changes["sessions"] = default_of(BetasParams, "sessions")
        self._replaced = "\n".join(f"{k}: {new} in place of {getattr(self.betas, k)}." for k, new in changes.items())
        if changes:
            self._change_betas(**changes)

    # showing

    def start(self) -> None:
        """Read anatomy and regions in a thread."""
        recipe = self.session.recipe
        space = recipe.settings.betas.space
        task = ThreadTask(partial(read_source, recipe.source, space))
        self.watch(task, self._show_layers)
        task.start()

    def _show_layers(self, read: Read) -> None:
        layers, notes = read
        missing = missing_layers(self.viewer, layers)
        used = {family for family, _ in self.roi.tree.marks()}
        for _, keywords, kind in missing:
            if kind == "labels":
                keywords["visible"] = keywords["metadata"][KEY]["family"] in used
        shown = f"{len(missing)} layers added." if missing else "Everything is shown already."
        self._adding, self._at_last = missing, " ".join([shown, *notes])
        self._add_next()

    def _add_next(self) -> None:
        """One layer at a time, for napari takes some tenths of a second for each."""
        if self._adding:
            self.say(f"adding {self._adding[0][1]['name']}")
            add_layers(self.viewer, [self._adding.pop(0)])
            self._adder.start()
        else:
            self.say(self._at_last)
        self.revalidate()

    def revalidate(self, *_: Any) -> None:
        """Not before the layers of the last run are there."""
        super().revalidate()
        if self._adding:
            self.run_button.setEnabled(False)

    # memory

    def state(self) -> dict[str, Any]:
        """Recent folders, the files of own scans, and what is unfolded."""
        own = self.form.own
        return {
            "recent": self.form.nsd.folder.recent(),
            "own": {name: field.located for name, field in own.fields.items()} | {"subject": own.subject.text()},
            "page": "own" if self.form.use_own.isChecked() else "nsd",
            "more": self.more.isExpanded(),
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Show what was remembered; the data themselves are the session's."""
        recent, own = values.get("recent"), values.get("own")
        if isinstance(recent, list):
            folders = [one for one in recent if isinstance(one, str)]
            self.form.nsd.folder.show_recent([*self.form.nsd.folder.recent(), *folders])
        if isinstance(own, dict) and not self.session.recipe.source.own:
            for name, field in self.form.own.fields.items():
                field.show_path(str(own.get(name) or ""))
            self.form.own.subject.setText(str(own.get("subject") or "subj01"))
        if not self.session.recipe.source.given and values.get("page") == "own":
            self.form.use_own.setChecked(True)
        if values.get("more") is True:
            self.more.expand(animate=False)

    def reset(self) -> None:
        """All voxels of the default ROI, all sessions; the data stay."""
        self.session.change_stage("betas", BetasParams(roi=self.roi.default()))
        self._show_recipe(self.session.recipe)


def _import_grammar(progress: Any) -> None:
    """In a thread while the engine looks at the files: pandas takes half a second."""
    import napari_neuraldiffuser.widgets.source.roi_terms  # noqa: F401
