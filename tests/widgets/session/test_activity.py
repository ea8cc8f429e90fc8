"""napari's activity dock."""

from qtpy.QtCore import QObject

from napari_neuraldiffuser.widgets.session import activity as activity_module
from napari_neuraldiffuser.widgets.session.activity import ActivityBar, StageText


def test_news_during_the_making_of_a_bar_do_not_recurse(monkeypatch):
    """napari's progress processes events when it is made, so that more news arrive before it is there."""
    made, activity = [], ActivityBar()

    class EventfulProgress:
        def __init__(self, total, desc, gui):
            self.total, self.desc, self.n = total, desc, 0
            made.append(self)
            for done in range(3):
                activity.tell(done, 9, f"another stage {len(made)}")

        def update(self, by):
            self.n += by

        def close(self):
            pass

    monkeypatch.setattr("napari.utils.progress", EventfulProgress)
    activity.tell(1, 4, "stage")
    assert len(made) == 1
    assert activity.bar.n == 1


def test_a_stage_of_unknown_length_says_how_long_it_has_taken(qtbot, monkeypatch):
    """A line that does not move looks like one of a program that hangs."""
    now = [100.0]
    monkeypatch.setattr(activity_module.time, "monotonic", lambda: now[0])
    parent = QObject()
    stage, said = StageText(parent), []
    stage.said.connect(said.append)
    stage.start("starting")
    now[0] += 3
    stage._clock.timeout.emit()
    stage.tell(0, 0, "opening the models")
    now[0] += 50
    stage._clock.timeout.emit()
    stage.tell(1, 4, "images, step 1")
    assert said[:2] == ["starting", "starting, 3 s"]
    assert said[2:] == ["opening the models", "opening the models, 50 s", "images, step 1 (1 of 4)"]
    assert not stage._clock.isActive()
