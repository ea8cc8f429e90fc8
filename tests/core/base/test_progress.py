"""Progress in words: durations, and the time left of a stage."""

import time

import pytest

from napari_neuraldiffuser.core.base.progress import Countdown, duration


def test_countdown_takes_the_pace_of_the_stage(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    countdown = Countdown()
    assert countdown.left(0, 10, "images, step 0") == ""
    now[0] = 6.0
    assert countdown.left(2, 10, "images, step 2") == ", about 24 s left"
    assert countdown.left(0, 4, "scores") == "", "another stage has another pace"
    now[0] = 7.0
    assert countdown.left(1, 4, "scores") == ", about 3 s left"
    assert countdown.left(4, 4, "scores") == ""


def test_a_stage_that_begins_again_has_a_new_pace():
    countdown = Countdown()
    assert [countdown.left(done, 1.0, "parts", now) for done, now in ((0.5, 0.0), (0.1, 10.0), (0.2, 12.0))] == [
        "",
        "",
        ", about 16 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89.9, "90 s"), (90, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
