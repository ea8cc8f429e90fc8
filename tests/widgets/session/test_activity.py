"""napari's activity dock."""

from napari_neuraldiffuser.widgets.session.panel import ActivityBar


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
