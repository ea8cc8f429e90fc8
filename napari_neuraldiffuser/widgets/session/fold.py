"""A group that is folded away at first."""

from qtpy.QtGui import QIcon
from superqt import QCollapsible


class Fold(QCollapsible):
    """A QCollapsible whose arrow has the colour of its text, and which opens at once."""

    def __init__(self, title: str, tip: str) -> None:
        super().__init__(title, expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.title = title
        self.setDuration(0)
        self.toggleButton().setToolTip(tip)
        self.toggled.connect(self._show_arrow)
        self._show_arrow(False)

    def _show_arrow(self, expanded: bool) -> None:
        self.setText(f"{'▾' if expanded else '▸'} {self.title}")
