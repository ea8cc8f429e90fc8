"""The Decode panel: betas to embeddings, the decoder fitted once and kept."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy import QtWidgets
from qtpy.QtCore import Qt
from qtpy.QtGui import QPainter, QPixmap, QResizeEvent

from napari_neuraldiffuser.core.base.fields import of_one_kind
from napari_neuraldiffuser.core.base.recipe import Recipe, decoding_part, differences
from napari_neuraldiffuser.core.params import DecodingParams, FeatureParams
from napari_neuraldiffuser.widgets.pages.models_form import ModelsForm
from napari_neuraldiffuser.widgets.pages.pretrained import PretrainedNetwork
from napari_neuraldiffuser.widgets.pages.worth import INVITATION, WorthTable
from napari_neuraldiffuser.widgets.session import controls
from napari_neuraldiffuser.widgets.session.panel import Panel
from napari_neuraldiffuser.widgets.session.penalties import AlphasLine
from napari_neuraldiffuser.widgets.session.session import default_recipe

COLUMNS = {
    "Target": "z: image latent, c: text embedding, g02 ... g12: guidance layers",
    "R²": "Of training stimuli that were held out, for what was chosen",
    "Chosen": "The ridge penalty, or the epoch of a decoder that is trained, with the best R² of held-out stimuli",
}
FADED = 0.35


class DecodeResult(QtWidgets.QWidget):
    """Shows the last result of `decode`, greyed where it does not fit the recipe any more."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = QtWidgets.QLabel("", wordWrap=True)
        self.table = QtWidgets.QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(list(COLUMNS))
        for k, tip in enumerate(COLUMNS.values()):
            self.table.horizontalHeaderItem(k).setToolTip(tip)
        self.table.setToolTip("Accuracy of every decoded target")
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(QtWidgets.QHeaderView.ResizeMode.Stretch)
        self.table.setEditTriggers(QtWidgets.QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.plot = PlotLabel()
        self.notes = controls.Notice("")
        controls.stacked(self, self.counts, self.table, self.plot, self.notes)
        self.setVisible(False)

    def show_result(self, decoded: dict[str, Any]) -> None:
        """Show what `decode` said."""
        self.counts.setText(counts(decoded))
        self.table.setRowCount(len(decoded["accuracy"]))
        for i, (target, r2) in enumerate(decoded["accuracy"].items()):
            for j, text in enumerate((target, f"{r2:.3f}" if r2 == r2 else "n/a", f"{decoded['chosen'][target]:g}")):
                item = QtWidgets.QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(i, j, item)
        self.table.resizeRowsToContents()
        rows = sum(self.table.rowHeight(row) for row in range(self.table.rowCount()))
        self.table.setFixedHeight(rows + self.table.horizontalHeader().sizeHint().height() + 4)
        self.plot.show_png(decoded["plot"])
        self.notes.show_text("\n".join([*decoded["notes"], *decoded.get("spread", ())]))
        self.show_fits(True)
        self.setVisible(True)

    def show_fits(self, fits: bool) -> None:
        """Grey the result where it is not that of the recipe."""
        for widget in (self.counts, self.table, self.notes):
            widget.setEnabled(fits)
        self.plot.fade(not fits)


class PlotLabel(QtWidgets.QLabel):
    """A picture as wide as the panel, scaled for the pixels that the screen really has."""

    def __init__(self) -> None:
        super().__init__(toolTip="R² of every target, and how it depends on what was tried", minimumWidth=1)
        self.whole = QPixmap()
        self._faded = False

    def show_png(self, png: npt.ArrayLike) -> None:
        """Show the bytes of a PNG file."""
        self.whole = QPixmap()
        self.whole.loadFromData(np.asarray(png, dtype=np.uint8).tobytes())
        self._scale()

    def fade(self, faded: bool) -> None:
        """Draw the plot pale, or as it is."""
        self._faded = faded
        self._scale()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Scale the picture with the label."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._scale()

    def _scale(self) -> None:
        if self.whole.isNull():
            return
        ratio = self.devicePixelRatioF()
        width = min(round(self.width() * ratio), self.whole.width())
        picture = self.whole.scaledToWidth(max(width, 1), Qt.TransformationMode.SmoothTransformation)
        if self._faded:
            picture = pale(picture)
        picture.setDevicePixelRatio(ratio)
        self.setPixmap(picture)
        self.setFixedHeight(round(picture.height() / ratio))


def pale(picture: QPixmap) -> QPixmap:
    """Make a picture pale, so that what is behind it shows through."""
    made = QPixmap(picture.size())
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setOpacity(FADED)
    painter.drawPixmap(0, 0, picture)
    painter.end()
    return made


def counts(decoded: dict[str, Any]) -> str:
    """One line of what the decoder was made from, and whether it had to be."""
    made = (
        "Loaded from your file." if decoded.get("loaded") else "From the cache." if decoded["cached"] else "Fitted now."
    )
    ceiling = f" R² of chance: 0; {decoded['noise_ceiling']}." if decoded.get("noise_ceiling") else ""
    return (
        f"{decoded['n_voxels']:,} voxels, {decoded['n_train']:,} training images, {decoded['n_test']:,} test images "
        f"seen {decoded['repeats_mean']:.3g} times on average.{ceiling} {made}"
    )


FEATURES = ("feature_normalisation", "antialias", "z_resize", "z_target", "z_seed")
OF_ONE_KIND = tuple(n for n in of_one_kind(DecodingParams) if n not in ("network_pretrained", "network_folder"))
"""All but the folders: a line of its own chooses one, and the other is of the cache."""
FIRST = ("penalty", "network_backbone")
"""Rows of one kind that stand with those of all; the others are in a fold of their own."""
REST = tuple(name for name in OF_ONE_KIND if name not in FIRST)
DECODING = ("decoder", *FIRST, "align", "align_form", "seed", "decoder_device")
LABELS = {
    "feature_normalisation": "Feature normalisation",
    "antialias": "Antialiased guide input",
    "z_resize": "Resize for z",
    "z_target": "Target z",
    "z_seed": "Seed of samples of z",
    "decoder": "Decoder",
    "align": "Match spread to",
    "align_form": "Spread is matched",
    "network_backbone": "Pretrained backbone",
    "seed": "Seed",
}
HDF5 = "Decoder (*.h5)"
GONE = "The loaded decoder is gone with the computing process: load it again."


class DecodePanel(Panel):
    """Fits or loads the decoder of the session's data, and shows how well it predicts."""

    name = "decode"
    title = "Decode"
    run_text = "Fit or load decoder"

    def build(self) -> None:
        self._started = self.session.recipe
        self._shown: tuple[Recipe, dict[str, Any]] | None = None
        self._loaded: tuple[Any, str] | None = None
        self.models = ModelsForm()
        self.features = controls.StageControls(self.session, "features", FEATURES, LABELS)
        self.decoding = controls.StageControls(self.session, "decoding", DECODING, LABELS)
        self.alphas = AlphasLine()
        self.result = DecodeResult()
        self.worth = WorthTable()
        self._build_controls()
        self.stale = controls.Notice()
        self._build_files()
        self.run_tip = "Fits the decoder and decodes all test stimuli; a decoder that was fitted before is reused"
        self._connect()
        self._show_recipe(self.session.recipe)
        self._show_decoded(self.session.decoded)

    def _build_controls(self) -> None:
        box = QtWidgets.QGroupBox("Networks that give the targets")
        QtWidgets.QVBoxLayout(box).addWidget(self.models)
        self.body.addWidget(box)
        self.more = controls.Fold("Decoder", "Kind, penalties, alignment and validation of the decoder")
        form = self.decoding.layout()
        # into one form, so that all rows are aligned
        for name, widget in self.features.controls.items():
            form.insertRow(0, LABELS[name], widget)
        form.addRow("Penalties", self.alphas)
        self.pretrained = PretrainedNetwork(self.session, form)
        self.kind = controls.StageControls(self.session, "decoding", REST, {})
        self.training = controls.Fold("More of this kind", "What only the chosen kind of decoder has")
        self.training.addWidget(self.kind)
        self.more.addWidget(self.decoding)
        self.more.addWidget(self.training)
        self.body.addWidget(self.more)

    def _build_files(self) -> None:
        """The result is below the Run row: it says what that row did."""
        self.save = controls.button("Save decoder…", "Writes the decoder to a file of its own", self._save_decoder)
        tip = "Uses a saved decoder of these voxels and models"
        self.load = controls.button("Load decoder…", tip, self._load_decoder)
        self.forget = controls.button("Fit anew", "Leaves the loaded decoder and fits one", partial(self._load, ""))
        files = controls.side_by_side(self.save, self.load, self.forget)
        self.judge = controls.button("What it is worth", INVITATION, self._judge)
        controls.add(self.layout(), files, self.stale, self.result, self.judge, self.worth)
        self.layout().addStretch(1)

    def _connect(self) -> None:
        self.models.changed.connect(self._models_chosen)
        self.alphas.changed.connect(self._alphas_typed)
        self.more.toggled.connect(self.changed)
        self.session.recipe_changed.connect(self._show_recipe)
        self.session.decoded_changed.connect(self._show_decoded)
        self.session.described_changed.connect(self.changed)
        self.session.engine.died.connect(self._engine_died)

    # what was chosen

    def problems(self) -> list[str]:
        """What is missing or wrong, in the order of the panel."""
        problems = []
        if not self.session.recipe.source.given:
            problems.append("Data must be chosen first. Choose an NSD folder or own scans in the Data panel.")
        elif self.session.described is not None and not self.session.described["test_ids"]:
            problems.append(
                "The data must have test stimuli to decode, got none. "
                "Mark some in column test of the trials table, or add sessions with shared images."
            )
        return problems + ([self.wrong()] if self.wrong() else [])

    def wrong(self) -> str:
        """What is wrong with models, penalties or the pretrained network."""
        parts = (self.models, self.alphas, self.pretrained)
        return " ".join(filter(None, (part.problem() for part in parts)))

    def revalidate(self, *_: Any) -> None:
        """The buttons of files follow the Run button."""
        super().revalidate()
        self.load.setEnabled(self.run_button.isEnabled())
        self.save.setEnabled(self.run_button.isEnabled() and self.session.decoded is not None)
        self.judge.setEnabled(self.save.isEnabled())
        self.forget.setEnabled(self.run_button.isEnabled())
        self.forget.setVisible(self._uses_loaded())

    def _uses_loaded(self) -> bool:
        if (self.session.decoded or {}).get("loaded"):
            return True
        return self._loaded is not None and self._loaded[0] == decoding_part(self.session.recipe)

    def _models_chosen(self) -> None:
        if not self.models.problem():
            models, guide = self.models.values
            self.session.change(models=models, guide=guide)
        self.changed()

    def _alphas_typed(self) -> None:
        if not self.alphas.problem():
            decoding = self.session.recipe.settings.decoding
            self.session.change_stage("decoding", decoding.but(alphas=self.alphas.alphas()))
        self.changed()

    def _show_recipe(self, recipe: Recipe) -> None:
        self.models.show_values(recipe.models, recipe.guide)
        self.alphas.show_alphas(recipe.settings.decoding.alphas)
        if self.session.decoded is None and self._shown is not None:
            former, decoded = self._shown
            if decoding_part(former) == decoding_part(recipe):
                self.session.set_decoded(decoded)  # all is as it was
            else:
                self._say_stale()
        self.changed()

    # decoding

    def start(self) -> None:
        """Fit or load the decoder of the session's recipe."""
        self._started = self.session.recipe
        self.run_task("decode", done=self._decoded)

    def _decoded(self, decoded: dict[str, Any]) -> None:
        self._shown = (self._started, decoded)
        self.worth.forget()
        if not decoded.get("loaded"):
            self._loaded = None  # an engine that was started anew knows of no file
        self.result.show_result(decoded)
        recipe = self.session.recipe
        if decoding_part(recipe) != decoding_part(self._started):
            self._say_stale()  # changed while it was decoded
            return
        self.session.set_decoded(decoded)
        if decoded["test_ids"] and not set(recipe.stimulus_ids) & set(decoded["test_ids"]):
            self.session.change(stimulus_ids=(decoded["test_ids"][0],))

    def _show_decoded(self, decoded: dict[str, Any] | None) -> None:
        if decoded is None:
            if self._shown is not None:
                self._say_stale()
        else:
            if self._shown is None or self._shown[1] is not decoded:
                self._shown = (self.session.recipe, decoded)
                self.result.show_result(decoded)
            self.result.show_fits(True)
            self.stale.show_text("")
        self.revalidate()

    def _judge(self) -> None:
        started = self.session.recipe
        self.run_task("worth", done=lambda worth: self._judged(started, worth))

    def _judged(self, started: Recipe, worth: dict[str, Any]) -> None:
        if decoding_part(started) == decoding_part(self.session.recipe):
            self.worth.show_worth(worth)

    def _say_stale(self) -> None:
        self.worth.forget()
        what = differences(self._shown[0], self.session.recipe) or "the decoder"
        self.stale.show_text(f"Decode again: {what} changed since.")
        self.result.show_fits(False)

    def _engine_died(self) -> None:
        """A new engine would fit where the loaded decoder was used, and say nothing of it."""
        shown = self.session.decoded or (self._shown[1] if self._shown else {})
        lost = self._loaded is not None or bool(shown.get("loaded"))
        self._loaded = None
        if shown.get("loaded"):
            self._shown = None
            self.session.set_decoded(None)
            self.result.show_fits(False)
        if lost:
            self.stale.show_text(GONE)
        self.revalidate()

    # files

    def _save_decoder(self) -> None:
        path, _ = QtWidgets.QFileDialog.getSaveFileName(self, "Save decoder", "decoder.h5", HDF5)
        if path:
            args = {"recipe": self.session.recipe.to_dict(), "path": path if Path(path).suffix else f"{path}.h5"}
            self.run_task("save_decoder", args, done=lambda saved: self.say(f"saved as {saved['path']}"))

    def _load_decoder(self) -> None:
        path, _ = QtWidgets.QFileDialog.getOpenFileName(self, "Load decoder", "", HDF5)
        if path:
            self._load(path)

    def _load(self, path: str, *_: Any) -> None:
        part = decoding_part(self.session.recipe)
        args = {"recipe": self.session.recipe.to_dict(), "path": path}
        self.run_task("load_decoder", args, done=lambda _: self._take_loaded(part, path))

    def _take_loaded(self, part: Any, path: str) -> None:
        """From now on the engine decodes with that file: do it, so that everything shown is its."""
        self._loaded = (part, path) if path else None
        self._shown = None
        self.session.set_decoded(None)
        self.revalidate()
        self.press_run()

    # memory

    def state(self) -> dict[str, Any]:
        """Recent model folders and what is unfolded; the values are the recipe's."""
        return {"recent": self.models.models.recent(), "more": self.more.isExpanded()}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what was remembered."""
        recent = values.get("recent")
        if isinstance(recent, list):
            folders = [one for one in recent if isinstance(one, str)]
            self.models.models.show_recent([*self.models.models.recent(), *folders])
        if values.get("more") is True:
            self.more.expand(animate=False)

    def reset(self) -> None:
        """The Preferences' models and the defaults of the decoder."""
        wished = default_recipe()
        self.session.change(models=wished.models, guide=wished.guide)
        self.session.change_stage("features", FeatureParams())
        self.session.change_stage("decoding", DecodingParams())
        self.alphas.setText("")
        self._show_recipe(self.session.recipe)
