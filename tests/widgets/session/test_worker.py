"""Core calls in another thread: every end is heard of, and a cancel acts."""

import threading

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.session.worker import ThreadTask


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), UserError("x must be y, got z.")])
def test_every_exception_of_a_task_ends_it(qtbot, error):
    def work(progress):
        progress(0, 1, "a")
        raise error

    task = ThreadTask(work)
    with qtbot.waitSignal(task.ended) as ended:
        task.start()
    assert ended.args == [error]


def test_cancel_acts_at_the_next_progress_call(qtbot):
    reached, go_on = threading.Event(), threading.Event()

    def work(progress):
        reached.set()
        go_on.wait(10)
        progress(1, 2, "a")
        raise AssertionError("went on")

    task = ThreadTask(work)
    with qtbot.waitSignal(task.ended) as ended:
        task.start()
        qtbot.waitUntil(reached.is_set)
        task.cancel()
        go_on.set()
    assert isinstance(ended.args[0], Cancelled)
