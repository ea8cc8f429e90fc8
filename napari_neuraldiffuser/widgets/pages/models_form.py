"""Which networks: the bundled ones, a folder or a hub id, and a guide where that has none."""

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLineEdit, QWidget

from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.core.networks.digest import PARTS
from napari_neuraldiffuser.widgets.session.controls import Notice, button, form, side_by_side
from napari_neuraldiffuser.widgets.session.path_field import RecentBox

DEMO = "demo"


def models_problem(models: str, guide: str) -> str:
    """Why models cannot be opened, as far as their folder shows; nothing otherwise."""
    if not models:
        return "Models must be 'demo', a folder or a hub id, got nothing. Write demo for the bundled ones."
    if models == DEMO:
        return ""
    folder = Path(located(models))
    if folder.is_dir():
        missing = [part for part in PARTS if not (folder / part).is_dir() and not (part == "image_encoder" and guide)]
        if missing == ["image_encoder"]:
            return f"Model folder {models} must have an image_encoder, got none. Give a CLIP vision model as guide."
        if missing:
            return f"Model folder {models} must have {', '.join(missing)}, got none. Save the whole pipeline."
        return ""
    if is_hub_id(models):
        return ""
    return f"Models must be 'demo', an existing folder or a hub id owner/name, got {models}. Check the path."


def guide_problem(guide: str) -> str:
    """Why the guide cannot be opened, as far as its folder shows; nothing otherwise."""
    if not guide or is_hub_id(guide) or (Path(located(guide)) / "config.json").is_file():
        return ""
    return f"Guide must be a CLIP folder with config.json or a hub id owner/name, got {guide}. Check the path."


def is_hub_id(text: str) -> bool:
    """Whether a text can be owner/name."""
    return text.count("/") == 1 and not text.startswith(("/", ".", "~")) and all(text.split("/"))


def chosen(text: str) -> str:
    """A folder that exists by its whole path; "demo", hub ids and what is not there as they are."""
    text = text.strip()
    return located(text) if text not in ("", DEMO) and Path(located(text)).is_dir() else text


class ModelsForm(QWidget):
    """Models and guide; `changed` for every pair, `problem` says whether it can be used."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.models = RecentBox("demo: the bundled models; a Stable Diffusion folder; or owner/name on the hub", DEMO)
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

    @property
    def values(self) -> tuple[str, str]:
        """Models and guide, folders by their whole paths."""
        return chosen(self.models.currentText()), chosen(self.guide.text())

    def problem(self) -> str:
        """Why these cannot be used, or nothing."""
        models, guide = self.values
        return models_problem(models, guide) or guide_problem(guide)

    def show_values(self, models: str, guide: str) -> None:
        """Show models and guide, without a signal."""
        if self.values != (models, guide):
            self.models.setEditText(models)
            self.guide.setText(guide)
        self.problem_label.show_text(self.problem())

    def _taken(self) -> None:
        self.models.typing.stop()
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
