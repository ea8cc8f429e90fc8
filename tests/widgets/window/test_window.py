"""The plugin in a real window of a virtual display, with its real engine: see window_story.py for what is asserted."""

import pytest

from tests.support.window.real_window import MISSING, has_display, play

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not has_display(), reason=MISSING)]
DAY = (
    "finished_result",
    "simulated_subject",
    "decode",
    "reconstruct",
    "another_scale",
    "cancel",
    "contribution",
    "threshold",
    "click",
    "saved",
    "wrong_data",
    "wrong_models",
    "close",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Configuration and cache of these windows: the second finds the first one's subject and decoder."""
    return tmp_path_factory.mktemp("home")


def test_a_day_in_a_window(home, tmp_path):
    told, status, errors = play("window_story", home, 600, "day", str(tmp_path))
    print(told)
    assert (status, tuple(told)) == (0, DAY), errors
    assert "Traceback" not in errors, errors
    assert told["reconstruct"]["previews"] > 1
    assert not told["decode"]["cached"]
    assert not list(home.rglob(".tmp-*"))


def test_closing_the_window_in_mid_run_ends_the_engine(home, tmp_path):
    told, status, errors = play("window_story", home, 600, "close", str(tmp_path))
    assert (status, tuple(told)) == (0, ("close",)), errors
    assert "Traceback" not in errors, errors
    assert not list(home.rglob(".tmp-*"))
