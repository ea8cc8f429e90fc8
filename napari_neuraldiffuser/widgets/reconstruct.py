"""Dock widget: from an NSD folder to reconstructed images and contribution maps, through the command line's own job."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QStandardPaths
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_neuraldiffuser.core.errors import UserError
from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams, Settings, SimulationParams
from napari_neuraldiffuser.widgets.activity import ActivityBar
from napari_neuraldiffuser.widgets.controls import ParamControls
from napari_neuraldiffuser.widgets.layers import PICTURES, add_layers, frames, picture_layer, titles_layer
from napari_neuraldiffuser.widgets.reader import LayerData
from napari_neuraldiffuser.widgets.worker import Cancelled, CoreWorker, Finished, run_job, simulate_subject

if TYPE_CHECKING:
    import napari

FEW_STIMULI = 8
"""Stimuli that are asked for at first: minutes, not hours, on a laptop."""
CAPTION_LENGTH = 40


def cache_folder() -> Path:
    """Where the simulated subject and the first output folder are, below the user's cache folder."""
    place = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericCacheLocation)
    return Path(place) / "napari-neuraldiffuser"


class Reconstruct(QWidget):
    """Choose an NSD folder and parameters; Run decodes, reconstructs, scores and maps in a worker thread.

    Parameters
    ----------
    viewer : napari.Viewer
        Receives anatomy, ROIs, contribution maps and the pictures of one stimulus, all in mm.
    """

    simulation = SimulationParams()

    def __init__(self, viewer: "napari.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.worker: CoreWorker | None = None
        self.activity = ActivityBar()
        self.shown: Any = None
        self.layers: list[Any] = []
        self._build()
        self._show_preset(self.preset.currentText())
        self._set_running(False)

    def _build(self) -> None:
        form = QFormLayout()
        form.addRow("NSD folder", self._folder_row())
        self.output = QLineEdit(str(cache_folder() / "output"))
        self.output.setToolTip("Everything is written here; the same run again continues or finds it done")
        form.addRow("Output folder", self.output)
        self.subject = QComboBox(editable=True)
        self.subject.addItem("subj01")
        form.addRow("Subject", self.subject)
        self.models = QLineEdit("demo")
        self.models.setToolTip("demo, a model folder in the layout of diffusers, or a hub id")
        form.addRow("Models", self.models)
        self._build_parameters(form)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(self._run_row())
        self.bar = QProgressBar()
        self.message = QLabel("", wordWrap=True)
        layout.addWidget(self.bar)
        layout.addWidget(self.message)
        layout.addLayout(self._chooser())
        layout.addStretch()

    def _folder_row(self) -> QHBoxLayout:
        self.folder = QLineEdit(placeholderText="folder of nsddata and nsddata_betas")
        self.folder.textChanged.connect(self._list_subjects)
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        self.simulate = QPushButton("Simulated subject")
        self.simulate.setToolTip("Write a simulated subject in NSD's own formats and use it")
        self.simulate.clicked.connect(self.start_simulation)
        row = QHBoxLayout()
        for widget in (self.folder, browse, self.simulate):
            row.addWidget(widget)
        return row

    def _build_parameters(self, form: QFormLayout) -> None:
        self.preset = QComboBox()
        self.preset.addItems(PRESETS)
        self.preset.setCurrentText("demo")
        self.preset.setToolTip("Named settings; demo is for the bundled models")
        self.preset.currentTextChanged.connect(self._show_preset)
        self.n_stimuli = QSpinBox(minimum=1, maximum=1000, value=FEW_STIMULI, specialValueText="all")
        self.n_stimuli.setToolTip("The first so many test stimuli; the lowest value is all of them")
        self.device = QComboBox()
        self.device.addItems(["cpu", "cuda"])
        self.diffusion = ParamControls(DiffusionParams, ("repeats", "n_steps", "seed"))
        self.guidance = ParamControls(GuidanceParams, ("guidance_scale", "guidance_strength"))
        form.addRow("Guidance preset", self.preset)
        form.addRow("Stimuli", self.n_stimuli)
        form.addRow("Device", self.device)
        form.addRow(self.diffusion)
        form.addRow(self.guidance)

    def _run_row(self) -> QHBoxLayout:
        self.run = QPushButton("Run")
        self.run.clicked.connect(self.start)
        self.cancel = QPushButton("Cancel")
        self.cancel.clicked.connect(self.stop)
        row = QHBoxLayout()
        row.addWidget(self.run)
        row.addWidget(self.cancel)
        return row

    def _chooser(self) -> QFormLayout:
        self.stimulus = QComboBox()
        self.stimulus.currentIndexChanged.connect(self._show_pictures)
        self.repeat = QSpinBox(minimum=1)
        self.repeat.setToolTip("Which of the repeats, each from its own noise")
        self.repeat.valueChanged.connect(self._show_pictures)
        form = QFormLayout()
        form.addRow("Shown stimulus", self.stimulus)
        form.addRow("Shown repeat", self.repeat)
        return form

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "NSD folder")
        if folder:
            self.folder.setText(folder)

    def _list_subjects(self, folder: str) -> None:
        found = sorted(p.name for p in Path(folder).glob("nsddata/ppdata/subj*")) if folder else []
        if found:
            self.subject.clear()
            self.subject.addItems(found)

    def _show_preset(self, name: str) -> None:
        changes = PRESETS[name]
        self.diffusion.show_values(DiffusionParams(**changes["diffusion"]))
        self.guidance.show_values(GuidanceParams(**changes["guidance"]))

    def settings(self) -> Settings:
        """The preset with what the controls say; a ParamError where that cannot be."""
        changes = PRESETS[self.preset.currentText()]
        diffusion = DiffusionParams(**{**changes["diffusion"], **self.diffusion.values()})
        guidance = GuidanceParams(**{**changes["guidance"], **self.guidance.values()})
        return Settings(diffusion=diffusion, guidance=guidance)

    def job_fields(self) -> dict[str, Any]:
        """The fields of `core.job.Job`."""
        return {
            "nsd_dir": Path(self.folder.text()),
            "out_dir": Path(self.output.text()),
            "subject": self.subject.currentText(),
            "settings": self.settings(),
            "models": self.models.text(),
            "device": self.device.currentText(),
            "n_stimuli": None if self.n_stimuli.value() == self.n_stimuli.minimum() else self.n_stimuli.value(),
            "command": "napari dock widget",
        }

    def start(self) -> None:
        """Run the job in a worker."""
        if not self.folder.text():
            self._fail(UserError("NSD folder must be chosen, got none. Browse to one, or use the simulated subject."))
            return
        try:
            fields = self.job_fields()
        except UserError as error:
            self._fail(error)
            return
        self._launch(partial(run_job, fields))

    def start_simulation(self) -> None:
        """Write the simulated subject in a worker, then choose it."""
        self._launch(partial(simulate_subject, cache_folder() / "simulated", self.simulation))

    def stop(self) -> None:
        """Ask the worker to stop; it does so at its next step."""
        if self.worker is not None:
            self.worker.quit()
            self.cancel.setEnabled(False)
            self.message.setText("stopping after this step")

    def _launch(self, task: Any) -> None:
        if self.worker is not None:
            return
        self.message.setText("starting")
        self._set_running(True)
        self.worker = CoreWorker(task)
        self.worker.news.told.connect(self._tell)
        self.worker.news.ended.connect(self._end)
        self.destroyed.connect(self.worker.quit)
        self.worker.start()

    def _set_running(self, running: bool) -> None:
        self.run.setEnabled(not running)
        self.simulate.setEnabled(not running)
        self.cancel.setEnabled(running)
        # no total yet: the bar shows that something goes on
        self.bar.setRange(0, 0 if running else 1)
        self.bar.setValue(0)

    def _tell(self, done: int, total: int, what: str) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        if self.cancel.isEnabled():
            self.message.setText(f"{what} ({done} of {total})")
        self.activity.tell(done, total, what.split(",")[0])
        if self.worker is None:
            self.activity.close()  # the end was among the events that a new bar processes

    def _end(self, result: Any) -> None:
        self.destroyed.disconnect(self.worker.quit)
        self.worker = None
        self.activity.close()
        self._set_running(False)
        if isinstance(result, Cancelled):
            self.message.setText("cancelled; Run continues where it stopped")
        elif isinstance(result, Exception):
            self._fail(result)
        elif isinstance(result, Finished):
            self._show(result)
        else:
            self.folder.setText(str(result))
            self.message.setText("The simulated subject is ready.")

    def _fail(self, error: Exception) -> None:
        """Say what went wrong in the panel and as a notification; a bug keeps its traceback there."""
        from napari.utils.notifications import notification_manager, show_error

        if isinstance(error, UserError):
            self.message.setText(str(error))
            show_error(str(error))
        else:
            self.message.setText(f"{type(error).__name__}: {error}")
            notification_manager.receive_error(type(error), error, error.__traceback__)

    def _show(self, finished: Finished) -> None:
        """Replace the layers of an earlier run by those of this one."""
        for layer in self.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self.shown = finished.result.shown
        self.layers = add_layers(self.viewer, finished.layers + self._picture_layers(finished.layers[0]))
        self._fill_chooser()
        self.viewer.reset_view()
        failed = finished.result.failed
        text = f"{len(failed)} stimuli failed: {', '.join(map(str, failed))}. " if failed else ""
        self.message.setText(f"{text}Written: {finished.result.page}")

    def _picture_layers(self, volume: LayerData) -> list[LayerData]:
        places = frames(volume[0], volume[1]["affine"])
        images = self.pictures(0, 0)
        # the titles last, as a picture above them would hide them
        return [*(picture_layer(name, images[name], places[name]) for name in PICTURES), titles_layer(places)]

    def _fill_chooser(self) -> None:
        captions = [(caption or "")[:CAPTION_LENGTH] for caption in self.shown.captions]
        for widget in (self.stimulus, self.repeat):
            widget.blockSignals(True)
        self.stimulus.clear()
        self.stimulus.addItems(f"{s} {c}" for s, c in zip(self.shown.stimulus_ids, captions, strict=True))
        self.repeat.setMaximum(self.shown.recon["guided"].shape[1])
        self.repeat.setValue(1)
        for widget in (self.stimulus, self.repeat):
            widget.blockSignals(False)

    def pictures(self, stimulus: int, repeat: int) -> dict[str, np.ndarray]:
        """Seen, start, unguided and guided image (H, W, 3) of one row of the results."""
        images = {"seen": self.shown.seen[stimulus], "start": self.shown.start[stimulus]}
        return images | {arm: images_[stimulus, repeat] for arm, images_ in self.shown.recon.items()}

    def _show_pictures(self) -> None:
        if self.shown is None or self.stimulus.currentIndex() < 0:
            return
        images = self.pictures(self.stimulus.currentIndex(), self.repeat.value() - 1)
        for layer in self.layers:
            if layer.name in images:
                layer.data = images[layer.name]
