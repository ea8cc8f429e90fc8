"""Core calls in another thread: every end is heard of, and a cancel acts."""

import threading

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.widgets.session import worker as workers


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), UserError("x must be y, got z.")])
def test_every_exception_of_a_task_ends_the_worker(qtbot, error):
    def task(progress):
        progress(0, 1, "a")
        raise error

    worker = workers.CoreWorker(task)
    with qtbot.waitSignal(worker.news.ended) as ended:
        worker.start()
    assert ended.args == [error]


def test_cancel_acts_at_the_next_progress_call(qtbot):
    reached, go_on = threading.Event(), threading.Event()

    def task(progress):
        reached.set()
        go_on.wait(10)
        progress(1, 2, "a")
        raise AssertionError("went on")

    worker = workers.CoreWorker(task)
    with qtbot.waitSignal(worker.news.ended) as ended:
        worker.start()
        qtbot.waitUntil(reached.is_set)
        worker.quit()
        go_on.set()
    assert isinstance(ended.args[0], workers.Cancelled)
