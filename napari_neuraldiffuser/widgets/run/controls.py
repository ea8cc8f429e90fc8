"""The parameters of a run: named settings, the controls of diffusion and guidance, and the device."""

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QInputDialog, QLabel, QMenu, QMessageBox, QPushButton, QWidget
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.base.fields import of_one_kind
from napari_neuraldiffuser.core.networks.chosen import Chosen
from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams, ParamError
from napari_neuraldiffuser.widgets.session import controls, state
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.theme import WARNING, set_tone

Pair = tuple[DiffusionParams, GuidanceParams]
LABELS = {
    "guidance_scale": "κ guidance scale",
    "guidance_strength": "η share of guided steps",
    "n_steps": "Steps of the schedule",
    "repeats": "Repeats",
    "seed": "Seed",
    "strength": "Share of the schedule run",
    "cfg_scale": "Classifier-free scale s",
    "sag_scale": "Self-attention scale",
    "solver": "Solver",
    "guided_ode": "Guidance in the solver",
    "cfg_until": "Share with classifier-free guidance",
    "cache_every": "Whole UNet every",
    "guide_decoder": "Decoder in guided steps",
    "start": "Start",
    "start_steps": "Steps of the start",
    "start_rate": "Rate of the start",
    "start_prior": "Cost of leaving z",
    "start_noise": "Noise of the start",
    "noise": "Noise of stimuli",
    "rounding": "Rounding of images",
    "batch_size": "Batch size",
    "precision": "Precision",
    "rule": "Guidance rule",
    "normalise": "Scale of the gradient",
    "gradient": "Gradient by the UNet",
    "guidance_copies": "Noisy copies",
    "copies_noise": "γ noise of the copies",
    "leaf_scale": "μ scale of leaf steps",
    "leaf_steps": "Leaf steps",
    "recurrence": "Times each step is taken",
    "guide_every": "Steps per fresh gradient",
    "phase": "Course of the strength",
    "layers": "Layers",
    "x0_estimate": "Clean estimate x0",
    "x0_blend": "Decode the x0 blend",
}
FREQUENT = (
    (GuidanceParams, ("guidance_scale", "guidance_strength")),
    (DiffusionParams, ("n_steps", "repeats", "seed")),
)
MORE = (
    (GuidanceParams, ("layers",)),  # apart, as its row is wide
    (
        GuidanceParams,
        (
            "rule",
            *of_one_kind(GuidanceParams),
            "normalise",
            "guide_every",
            "phase",
            "x0_estimate",
            "x0_blend",
            "guide_decoder",
        ),
    ),
    (DiffusionParams, ("strength", "cfg_scale", "sag_scale", "cfg_until", "cache_every")),
    (DiffusionParams, ("solver", "guided_ode")),
    (DiffusionParams, ("start", "start_steps", "start_rate", "start_prior")),
    (DiffusionParams, ("start_noise", "noise", "rounding", "batch_size", "precision")),
)


class RunControls(QWidget):
    """All parameters of diffusion and guidance; the less frequent ones below "More"."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.base: Pair = (DiffusionParams(), GuidanceParams())
        tip = "Guidance layers, classifier-free scale, noise of the start and others"
        self.more = controls.Fold("More parameters", tip)
        self.more.layout().setContentsMargins(0, 0, 0, 0)
        frequent = [controls.ParamControls(cls, names, LABELS) for cls, names in FREQUENT]
        rare = [controls.ParamControls(cls, names, LABELS) for cls, names in MORE]
        for group in rare:
            self.more.addWidget(group)
        controls.stacked(self, *frequent, self.more)
        self.groups = frequent + rare
        for group in self.groups:
            group.changed.connect(self.changed)

    def show_params(self, diffusion: DiffusionParams, guidance: GuidanceParams) -> None:
        """Show both, without a signal."""
        self.base = (diffusion, guidance)
        if self._says() == self.base:
            return
        with signals_blocked(self):
            for group in self.groups:
                group.show_values(diffusion if group.cls is DiffusionParams else guidance)

    def _says(self) -> Pair | None:
        try:
            return self.params()
        except ParamError:
            return None

    def params(self) -> Pair:
        """What the controls say, ParamError where that cannot be; fields without a control are as they were shown."""
        changes: dict[type, dict[str, Any]] = {DiffusionParams: {}, GuidanceParams: {}}
        for group in self.groups:
            changes[group.cls] |= group.values()
        diffusion, guidance = self.base
        return diffusion.but(**changes[DiffusionParams]), guidance.but(**changes[GuidanceParams])


class PresetRow(QWidget):
    """Named settings: those that come with the project and the user's own."""

    picked = Signal(object, object)
    """DiffusionParams and GuidanceParams to show."""

    def __init__(self) -> None:
        super().__init__()
        self.box = QComboBox()
        self.models = ("", "")
        self.mark = QLabel("modified", visible=False)
        set_tone(self.mark, WARNING)
        self.mark.setToolTip("The controls differ from this preset; Reset shows it again")
        self.menu = QMenu(self, toolTipsVisible=True)
        tip = "Shows the preset's own values again"
        self.reset = controls.button("Reset", tip, lambda: self._pick(self.box.currentText()))
        self.save = self.menu.addAction("Save as…", self._ask_name)
        self.delete = self.menu.addAction("Delete…", self._ask_delete)
        self.save.setToolTip("Stores these parameters under a name of your own")
        self.delete.setToolTip("Deletes this preset; only your own can be deleted")
        more = QPushButton("Presets", toolTip="Save these parameters as a preset of your own, or delete one")
        more.setMenu(self.menu)
        self.present: Pair = (DiffusionParams(), GuidanceParams())
        self._fill("")
        self.box.textActivated.connect(self._pick)
        controls.stacked(self, controls.side_by_side(QLabel("Preset"), self.box, self.mark, self.reset, more, wide=1))

    def _fill(self, name: str) -> None:
        known = [state.FOR_MODELS, *state.presets()]
        self.box.clear()
        self.box.addItems(known)
        self.box.setCurrentText(name if name in known else state.preferred_preset())

    def show_models(self, models: str, guide: str) -> None:
        """Whose settings "for these models" are from now on."""
        self.models = (models, guide)
        self.box.setToolTip(f"Named settings of diffusion and guidance. For these models: {self._own().said}")

    def _own(self) -> Chosen:
        return state.for_models(*self.models)

    def show_params(self, diffusion: DiffusionParams, guidance: GuidanceParams) -> None:
        """Mark whether these are still the preset's; where another preset says exactly this, it is that one."""
        self.present = (diffusion, guidance)
        names = [state.FOR_MODELS, *state.presets()]
        same = [name for name in names if state.params_of_preset(name, *self.models) == self.present]
        if same and self.name not in same:
            self.box.setCurrentText(same[0])
        self.mark.setVisible(not same)
        self.reset.setEnabled(not same)
        self.delete.setEnabled(self.name not in (state.FOR_MODELS, *PRESETS))

    @property
    def name(self) -> str:
        """The preset that the controls began from."""
        return self.box.currentText()

    @property
    def modified(self) -> bool:
        """Whether the controls differ from it."""
        return state.params_of_preset(self.name, *self.models) != self.present

    def show_name(self, name: str) -> None:
        """Begin from another preset, without showing its values."""
        if name in (state.FOR_MODELS, *state.presets()):
            self.box.setCurrentText(name)
            self.show_params(*self.present)

    def _pick(self, name: str) -> None:
        self.box.setCurrentText(name)
        self.picked.emit(*state.params_of_preset(name, *self.models))

    def _ask_name(self) -> None:
        name, ok = QInputDialog.getText(self, "Save preset", "Name of the preset")
        if ok:
            self.save_as(name)

    def save_as(self, name: str) -> None:
        """Store the parameters under a name; a name that cannot be is said so."""
        try:
            state.save_preset(name, *self.present)
        except state.PresetError as error:
            QMessageBox.warning(self, "Save preset", str(error))
            return
        self._fill(name.strip())
        self.show_params(*self.present)

    def _ask_delete(self) -> None:
        answer = QMessageBox.question(self, "Delete preset", f"Delete the preset “{self.name}”?")
        if answer == QMessageBox.StandardButton.Yes:
            self.delete_own()

    def delete_own(self) -> None:
        """Delete the preset that is shown; the controls keep their values."""
        state.delete_preset(self.name)
        self._fill("")
        self.show_params(*self.present)


class DeviceRow(QWidget):
    """Where the networks run; the CPU until the engine has said what there is.

    Parameters
    ----------
    session : Session
        Its recipe's device is what is chosen here.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.known: list[str] = []
        self.asking = False
        self.box = QComboBox(toolTip="Where the networks run")
        self.box.addItem("CPU", "cpu")
        self.box.activated.connect(self._choose)
        self.warning = controls.Notice(WARNING)
        self.warning.setStyleSheet("font-weight: bold;")
        controls.stacked(self, controls.side_by_side(QLabel("Device"), self.box, wide=1), self.warning)
        session.recipe_changed.connect(self._follow)
        self._follow()

    def _choose(self, index: int) -> None:
        self.warning.show_text("")
        self.session.change(device=self.box.itemData(index))

    def ask(self) -> None:
        """Ask the engine for the devices, once."""
        if not self.asking:
            self.asking = True
            self.session.call("devices", {}, quiet=True).ended.connect(self._answered)

    def _answered(self, result: Any) -> None:
        if isinstance(result, Exception):
            self.asking = False  # again when the panel is shown the next time
            self.warning.show_text(f"The devices of this computer could not be listed: {result}")
            return
        self.known = [device["name"] for device in result["devices"]]
        self.box.clear()
        for device in result["devices"]:
            self.box.addItem(device["label"], device["name"])
        self.box.setToolTip(f"Where the networks run; kernels: {result.get('backend', 'unknown')}")
        self._follow()

    def _follow(self, *_: Any) -> None:
        """Show the recipe's device; one that is not there becomes the CPU, loudly."""
        wanted = self.session.recipe.device
        if self.known and wanted not in self.known:
            same = [name for name in self.known if name.split(":")[0] == wanted]
            if not same:
                self.warning.show_text(
                    f"Device must be one of {', '.join(self.known)}, got {wanted}, which this computer does not have. "
                    "The CPU is used instead, which takes many times longer."
                )
            self.session.change(device=same[0] if same else "cpu")
            return
        if self.box.findData(wanted) < 0:
            self.box.addItem(f"{wanted} (not checked yet)", wanted)
        self.box.setCurrentIndex(self.box.findData(wanted))
        if wanted != "cpu":
            self.warning.show_text("")
