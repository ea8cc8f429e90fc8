"""Whether computed contribution maps still are those of the session's recipe."""

from typing import Any

from qtpy.QtWidgets import QLabel

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.widgets.pages.decode import differences
from napari_neuraldiffuser.widgets.session.panel import ERROR_STYLE
from napari_neuraldiffuser.widgets.session.session import Session, decoding_part

LATE = "The data changed meanwhile; compute again."


class MapAge(QLabel):
    """Says what changed since the maps that are shown were computed; nothing of folders that were only opened.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__("", wordWrap=True, visible=False)
        self.setStyleSheet(ERROR_STYLE)
        self.session = session
        self.made: tuple[Recipe, str] | None = None
        session.recipe_changed.connect(self._judge)
        session.output_changed.connect(self._judge)

    def fits(self, started: Recipe) -> bool:
        """Whether what was computed for a recipe is what the session's recipe would give."""
        return decoding_part(started) == decoding_part(self.session.recipe)

    def take(self, started: Recipe, folder: str) -> None:
        """Maps of this recipe were written to a folder."""
        self.made = started, str(folder)
        self._judge()

    def _judge(self, *_: Any) -> None:
        stale = self.made is not None and self.made[1] == self.session.output and not self.fits(self.made[0])
        what = differences(self.made[0], self.session.recipe) if stale else ""
        self.setText(f"Compute again: {what or 'the decoder'} changed since." if stale else "")
        self.setVisible(stale)
