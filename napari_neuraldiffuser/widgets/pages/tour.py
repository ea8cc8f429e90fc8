"""The tour: five steps that say once what z, c, g, κ and η are, at the first start and whenever it is asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from napari_neuraldiffuser.widgets.session.controls import add, button, side_by_side
from napari_neuraldiffuser.widgets.session.state import remember, remembered
from napari_neuraldiffuser.widgets.session.theme import FAINT, Follower, set_tone

if TYPE_CHECKING:
    import napari

NAME = "tour"
"""Under which it is remembered that the user has seen it."""


@dataclass(frozen=True)
class Step:
    """One step: the page it is about, and what it says."""

    page: str
    title: str
    text: str


STEPS = (
    Step(
        "Data",
        "What goes in",
        "An NSD folder, scans of your own or the simulated subject. Of each seen image there are the <b>betas</b>: one "
        "response per voxel. The voxels you select are all that the decoder sees of the person.",
    ),
    Step(
        "Decode",
        "What is read out: z, c and g",
        "<b>z</b> is a small blurred picture: which colours are where. <b>c</b> is what the scene is about, as a "
        "caption would say it. <b>g</b> is edges, textures and parts: features of six layers of a vision network, g02 "
        "early to g12 late. R² says how much of each could be read from images the decoder had not seen; 0 is "
        "nothing.",
    ),
    Step(
        "Reconstruct",
        "From noise to a picture",
        "The picture begins as z under noise. A diffusion model takes the noise away step by step, so that the "
        "picture fits c. Each <b>repeat</b> has noise of its own: what repeats share was decoded, what differs was "
        "invented. This alone is the <b>unguided</b> arm.",
    ),
    Step(
        "Reconstruct",
        "The pull: κ and η",
        "In the <b>guided</b> arm the picture is also pulled toward g while it forms. <b>κ</b> is how hard, <b>η</b> "
        "for which share of the steps. Too little changes nothing, too much burns the picture out: <i>Several "
        "strengths</i> at the foot of the page shows where. Both arms have the same noise, so they differ by the pull "
        "alone.",
    ),
    Step(
        "Contribution",
        "Where it came from, and how good it is",
        "<b>Contribution</b> shows which voxels and regions carried z, c and each layer of g. <b>Report</b> does all "
        "test images, with scores on a page to send. Read a score beside its chance level, and a difference by its "
        "error and n.",
    ),
)


class Tour(QFrame):
    """One step at a time, with ways on, back and out.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme it follows.
    """

    turned = Signal(str)
    """Page that the step is about."""
    ended = Signal()
    """The user has seen or skipped it."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.place = 0
        self.title = QLabel("", wordWrap=True, styleSheet="font-weight: bold;")
        self.text = QLabel("", wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.count = QLabel("")
        set_tone(self.count, FAINT)
        self.back = button("Back", "Shows the step before", lambda: self.show_step(self.place - 1))
        self.on = button("Next", "Shows the next step", self._go_on)
        self.skip = button("Skip tour", "Closes the tour; the ? beside the pages opens it again", self.end)
        layout = QVBoxLayout(self)
        add(layout, self.title, self.text, side_by_side(self.count, self.skip, self.back, self.on, wide=0))
        self.setFrameShape(QFrame.Shape.StyledPanel)
        Follower(self, viewer)
        self.show_step(0)

    def show_step(self, place: int) -> None:
        """Show one step, and ask for its page."""
        self.place = max(0, min(place, len(STEPS) - 1))
        step, last = STEPS[self.place], self.place == len(STEPS) - 1
        self.title.setText(step.title)
        self.text.setText(step.text)
        self.count.setText(f"{self.place + 1} of {len(STEPS)}")
        self.back.setEnabled(self.place > 0)
        self.on.setText("Done" if last else "Next")
        self.skip.setVisible(not last)
        self.turned.emit(step.page)

    def _go_on(self) -> None:
        if self.place == len(STEPS) - 1:
            self.end()
        else:
            self.show_step(self.place + 1)

    def begin(self) -> None:
        """Show it from its first step."""
        self.setVisible(True)
        self.show_step(0)

    def end(self) -> None:
        """Close it, and remember that it was seen."""
        remember(NAME, {"seen": True})
        self.setVisible(False)
        self.ended.emit()


def seen() -> bool:
    """Whether this user has seen the tour, or skipped it."""
    return remembered(NAME).get("seen") is True


class TourWindow(QWidget):
    """The tour as a dock widget of its own, as the Plugins menu opens it; its end closes the dock."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.tour = Tour(viewer)
        layout = QVBoxLayout(self)
        add(layout, self.tour)
        layout.addStretch()
        self.tour.ended.connect(lambda: self.parentWidget().close() if self.parentWidget() else None)
