"""Which networks: the bundled ones, a folder or a hub id, and a guide where that has none."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLineEdit, QWidget

from napari_neuraldiffuser.core.networks.digest import BUNDLED, located_models
from napari_neuraldiffuser.core.networks.folder import folder_problem
from napari_neuraldiffuser.widgets.session.controls import Notice, button, form, side_by_side
from napari_neuraldiffuser.widgets.session.path_field import RecentBox


class ModelsForm(QWidget):
    """Models and guide; `changed` for every pair, `problem` says whether it can be used."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        # what was looked at and is fine: pages ask at every change of anything
        self._fine: tuple[str, str] | None = (BUNDLED, "")
        self.models = RecentBox(
            "demo: the bundled models; a Stable Diffusion folder; or owner/name on the hub", BUNDLED
        )
        self.browse = button("Browse…", "Choose a model folder", self._browse)
        self.guide = QLineEdit(placeholderText="the models' own image encoder")
        self.guide.setToolTip("CLIP vision model that targets and guidance use, where the model folder has none")
        self.browse_guide = button("Browse…", "Choose the folder of a CLIP vision model", self._browse_guide)
        self.problem_label = Notice()
        models = side_by_side(self.models, self.browse, wide=0)
        guide = side_by_side(self.guide, self.browse_guide, wide=0)
        form(self, ("Models", models), ("Guide", guide), self.problem_label)
        self.models.taken.connect(self._taken)
        self.guide.textEdited.connect(lambda _: self.models.typing.start())
        self.guide.editingFinished.connect(self.models.finish)

    @property
    def values(self) -> tuple[str, str]:
        """Models and guide, folders by their whole paths."""
        return located_models(self.models.currentText().strip()), located_models(self.guide.text().strip())

    def problem(self) -> str:
        """Why these cannot be used, or nothing."""
        if self._fine != self.values:
            if problem := folder_problem(*self.values):
                return problem
            self._fine = self.values
        return ""

    def show_values(self, models: str, guide: str) -> None:
        """Show models and guide, without a signal."""
        if self.values != (models, guide):
            self.models.setEditText(models)
            self.guide.setText(guide)
        self.problem_label.show_text(self.problem())

    def _taken(self) -> None:
        self.models.typing.stop()
        self._fine = None
        self.problem_label.show_text(self.problem())
        if not self.problem():
            self.models.show_recent([self.values[0], *self.models.recent()])
        self.changed.emit()

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a model folder", next(iter(self.models.recent()), ""))
        if folder:
            self.models.setEditText(folder)
            self._taken()

    def _browse_guide(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a CLIP vision model", self.guide.text())
        if folder:
            self.guide.setText(folder)
            self._taken()
