"""What the Reconstruct panel asks for: stimuli, parameters, device, arms, and whether to run live."""

from dataclasses import replace
from typing import Any, Protocol

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QWidget
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.networks.chosen import foreign_strength
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, ParamError
from napari_neuraldiffuser.widgets.run.controls import DeviceRow, PresetRow, RunControls
from napari_neuraldiffuser.widgets.run.picker import StimulusPicker
from napari_neuraldiffuser.widgets.session.controls import Notice, stacked
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.state import FOR_MODELS, params_of_preset
from napari_neuraldiffuser.widgets.session.theme import WARNING

ARMS = {
    "guided": "Compute the arm that is pulled toward the decoded features",
    "unguided": "Compute the arm without the pull, from the same noise, to compare with",
}
POINTLESS = "κ is 0: the guided arm will be the same as the unguided one."


class ReconForm(QWidget):
    """The controls that make up a recipe."""

    changed = Signal()
    """Its problems may be others."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.error = ""
        self.picker = StimulusPicker(session)
        self.preset, self.controls, self.device = PresetRow(), RunControls(), DeviceRow(session)
        self.caution = Notice(WARNING)
        stacked(self, self.picker, self.preset, self.controls, self.device, self._build_arms(), self.caution)
        self.controls.changed.connect(self._take_controls)
        self.preset.picked.connect(self.take_params)
        session.recipe_changed.connect(self._show_recipe)
        self._show_recipe(session.recipe)

    def _build_arms(self) -> QHBoxLayout:
        self.arms = {arm: QCheckBox(arm) for arm in ARMS}
        self.arms_row = QHBoxLayout()
        self.arms_row.addWidget(QLabel("Arms"))
        for arm, tick in self.arms.items():
            tick.setToolTip(ARMS[arm])
            tick.toggled.connect(self._take_arms)
            self.arms_row.addWidget(tick)
        self.arms_row.addStretch()
        return self.arms_row

    def _take_controls(self) -> None:
        try:
            params = self.controls.params()
        except ParamError as error:
            self.error = f"{error} Tick a layer under More parameters."
            self.changed.emit()
            return
        self.take_params(*params)

    def take_params(self, diffusion: DiffusionParams, guidance: GuidanceParams) -> None:
        """Make these params those of the recipe."""
        self.error = ""
        settings = replace(self.session.recipe.settings, diffusion=diffusion, guidance=guidance)
        if settings == self.session.recipe.settings:
            self._show_recipe(self.session.recipe)  # the controls may say something else, or nothing that can be
        self.session.change(settings=settings)

    def _take_arms(self) -> None:
        self.session.change(arms=tuple(arm for arm, tick in self.arms.items() if tick.isChecked()))

    def _follow_models(self, recipe: Recipe) -> bool:
        """Take what was chosen for other models, where the settings were those chosen for the former ones, and stay."""
        models, settings = (recipe.models, recipe.guide), (recipe.settings.diffusion, recipe.settings.guidance)
        if models == self.preset.models:
            return False
        first, followed = self.preset.models == ("", ""), self.preset.name == FOR_MODELS and not self.preset.modified
        stayed = settings == self.preset.present
        self.preset.show_models(*models)
        own = params_of_preset(FOR_MODELS, *models)
        if first or not followed or not stayed or own == settings:
            return False
        self.take_params(*own)
        return True

    def _show_recipe(self, recipe: Recipe) -> None:
        if self._follow_models(recipe):
            return
        wanted = (recipe.settings.diffusion, recipe.settings.guidance)
        if not self.error or wanted != self.controls.base:
            self.error = ""
            self.controls.show_params(*wanted)
        self.preset.show_params(*wanted)
        for arm, tick in self.arms.items():
            with signals_blocked(tick):
                tick.setChecked(arm in recipe.arms)
        pointless = "guided" in recipe.arms and recipe.settings.guidance.guidance_scale == 0
        foreign = foreign_strength(recipe.settings.guidance, recipe.models, recipe.guide or None)
        self.caution.show_text(POINTLESS if pointless else foreign)
        self.changed.emit()

    def problems(self) -> list[str]:
        """Why the recipe cannot be computed yet."""
        recipe, problems = self.session.recipe, []
        if not recipe.source.given:
            problems.append("Data must be chosen, got none. Choose a folder or the simulated subject on the Data page.")
        elif not recipe.stimulus_ids:
            problems.append("A stimulus must be chosen, got none. Click one in the grid above.")
        if not recipe.arms:
            problems.append("An arm must be ticked, got none. Tick guided, unguided or both.")
        return [*problems, self.error] if self.error else problems

    def state(self) -> dict[str, Any]:
        """What is not in the recipe."""
        return {"more": self.controls.more.isExpanded(), "preset": self.preset.name}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave; takes anything."""
        if values.get("more") is True:
            self.controls.more.expand(animate=False)
        elif "more" in values:
            self.controls.more.collapse(animate=False)
        self.preset.show_name(str(values.get("preset")))


REST = 600
"""Milliseconds without a change after which the run begins."""


class Rerunnable(Protocol):
    """What live runs need of a panel."""

    session: Session

    def problems(self) -> list[str]: ...
    def is_current(self) -> bool: ...
    def start(self) -> None: ...
    def drop_run(self) -> None: ...


class LiveRerun(QObject):
    """Starts a panel's run once the recipe has been at rest, and ends the one in progress first.

    Parameters
    ----------
    panel : Rerunnable
        A QObject, which this one belongs to.
    """

    def __init__(self, panel: Rerunnable) -> None:
        super().__init__(panel)
        self.panel = panel
        self.waiting = False
        self.tick = QCheckBox("live")
        self.tick.setToolTip(
            "Runs again 0.6 s after a parameter or the stimulus changed, and drops the run in progress; "
            "not while the data still has to be decoded"
        )
        self.tick.toggled.connect(self.forget)
        self.timer = QTimer(self, singleShot=True, interval=REST, timeout=self._rested)
        panel.session.recipe_changed.connect(self._changed)
        panel.session.busy_changed.connect(self._free)

    def _changed(self, recipe: Any) -> None:
        if self.tick.isChecked():
            self.timer.start()

    def forget(self, *_: Any) -> None:
        """Do not run by itself what was asked for until now."""
        self.timer.stop()
        self.waiting = False

    def _rested(self) -> None:
        panel = self.panel
        if panel.session.decoded is None or panel.problems() or panel.is_current():
            return
        if not panel.session.busy:
            self.waiting = False
            panel.start()
            return
        self.waiting = True
        panel.drop_run()

    def _free(self, busy: bool) -> None:
        """The engine is free again: go on, after everybody else has heard of it."""
        if not busy and self.waiting:
            QTimer.singleShot(0, self._rested)
