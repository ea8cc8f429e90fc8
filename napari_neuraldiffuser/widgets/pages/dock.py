"""The dock widget with all panels, in the order in which they are used."""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QScrollArea, QTabWidget, QWidget

from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from napari_neuraldiffuser.widgets.pages.data import DataPanel
from napari_neuraldiffuser.widgets.pages.decode import DecodePanel
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from napari_neuraldiffuser.widgets.pages.report import ReportPanel
from napari_neuraldiffuser.widgets.pages.tour import Tour, seen
from napari_neuraldiffuser.widgets.session.controls import button, stacked
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.theme import Follower

if TYPE_CHECKING:
    import napari

PANELS = {panel.title: panel for panel in (DataPanel, DecodePanel, ReconstructPanel, ContributionPanel, ReportPanel)}


CORNER = 16
"""Pixels right of the ?, which napari's style otherwise cuts off."""


class NeuralDiffuser(QWidget):
    """Data, Decode, Reconstruct, Contribution and Report, each on a page of its own."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        session = Session.of(viewer)
        self.tabs = QTabWidget()
        self.panels = {title: panel(viewer, session) for title, panel in PANELS.items()}
        for title, panel in self.panels.items():
            page = QScrollArea(widgetResizable=True)
            page.setFrameShape(QScrollArea.Shape.NoFrame)
            page.setWidget(panel)
            self.tabs.addTab(page, title)
        Follower(self.tabs.tabBar(), viewer)
        self.tour = Tour(viewer)
        self.tour.turned.connect(self.show_page)
        self.tour.setVisible(not seen())
        about = button("?", "Opens the tour: what z, c, g, κ and η are, in five steps", self.tour.begin)
        about.setFixedWidth(28)
        corner = QWidget()
        stacked(corner, about).setContentsMargins(0, 0, CORNER, 0)
        self.tabs.setCornerWidget(corner)
        stacked(self, self.tour, self.tabs)
        self.setMinimumWidth(488)  # three repeats side by side, and a difference with its error and n

    def show_page(self, title: str) -> None:
        """Bring one panel to the front."""
        self.tabs.setCurrentIndex(list(self.panels).index(title))
