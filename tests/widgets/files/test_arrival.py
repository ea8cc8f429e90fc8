"""Folders that are opened: from a script at once; in a window read in a thread, and shown one piece per turn."""

import threading

import numpy as np
import pytest
from napari.layers import Layer
from qtpy.QtCore import QEventLoop, QObject, QTimer

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.widgets.files import arrival
from napari_neuraldiffuser.widgets.files.arrival import Arrival, Found, arrive, in_background
from napari_neuraldiffuser.widgets.files.layer_info import about


def layers(n):
    look = {"metadata": {"neuraldiffuser": about("volume")}, "units": ("mm",) * 3}
    return [(np.zeros((3, 4, 5), np.uint8), {**look, "name": f"layer {k}"}, "image") for k in range(n)]


def in_window(call):
    """A call from inside the event loop, as a menu makes it."""
    loop, ends = QEventLoop(), []

    def act():
        try:
            ends.append(call())
        except Exception as error:
            ends.append(error)
        loop.quit()

    QTimer.singleShot(0, act)
    loop.exec()
    return ends[0]


def test_a_script_has_everything_at_once(viewer):
    assert len(arrive(lambda: Found(layers(3), []))) == 3
    assert arrive(lambda: Found([], [])) == [(None,)]


@pytest.mark.window
def test_a_window_reads_in_a_thread_and_gets_one_layer_a_turn(viewer, qtbot, monkeypatch):
    threads, turns, notes = [], [], []
    monkeypatch.setattr(arrival, "tell", notes.extend)
    viewer.layers.events.inserted.connect(lambda event: turns.append(turn[0]))
    turn, clock = [0], QTimer(interval=0)
    clock.timeout.connect(lambda: turn.__setitem__(0, turn[0] + 1))

    def find():
        threads.append(threading.current_thread())
        return Found(layers(4), ["a remark"])

    clock.start()
    returned = in_window(lambda: arrive(find))
    assert threads[0] is not threading.main_thread()
    assert [keywords["name"] for _, keywords, _ in returned] == ["layer 0"]
    assert len(viewer.layers) == 0
    qtbot.waitUntil(lambda: len(viewer.layers) == 3)
    assert [layer.name for layer in viewer.layers] == ["layer 1", "layer 2", "layer 3"]
    assert len(set(turns)) == 3, "each in a turn of its own"
    assert notes == ["a remark"]


@pytest.mark.window
@pytest.mark.parametrize("first", ["roi", "contribution"])
def test_the_first_layer_is_finished_as_the_others_are(viewer, qtbot, first):
    def find():
        look = {"units": ("mm",) * 3, "axis_labels": ("S", "A", "R")}
        told = {"roi": about("roi", family="V1"), "contribution": about("contribution", target="z")}
        data, kind = {"roi": (np.ones((3, 4, 5), int), "labels"), "contribution": (np.ones((3, 4, 5)), "image")}[first]
        one = data, {**look, "metadata": {"neuraldiffuser": told[first]}}, kind
        return Found([one, one], [])

    arriving = in_window(lambda: arrive(find))
    viewer.add_layer(Layer.create(*arriving[0]))  # as napari adds it
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    for layer in viewer.layers:
        assert layer.contour == 1 if first == "roi" else layer.colorbar.visible


@pytest.mark.window
def test_a_camera_on_layers_of_others_is_not_turned(viewer, qtbot):
    viewer.add_image(np.zeros((3, 4, 5)), name="of another")
    before = viewer.scene.camera.orientation2d
    arriving = in_window(lambda: arrive(lambda: Found(layers(3), [])))
    viewer.add_layer(Layer.create(*arriving[0]))
    qtbot.waitUntil(lambda: len(viewer.layers) == 4)
    assert viewer.scene.camera.orientation2d == before
    assert not viewer.canvas.overlays.scale_bar.visible


@pytest.mark.window
def test_nothing_is_added_to_a_window_that_was_closed_meanwhile(viewer, monkeypatch):
    told, closed = [], threading.Event()
    monkeypatch.setattr(arrival, "tell", told.extend)

    def close():
        viewer.close()
        closed.set()

    def find():
        assert closed.wait(30)
        return Found(layers(3), ["a remark"])

    def call():
        QTimer.singleShot(0, close)  # in the loop that waits for the reading
        return arrive(find)

    assert in_window(call) == [(None,)]
    assert told == []


@pytest.mark.window
@pytest.mark.parametrize("error", [UserError("folder must hold nsddata."), RuntimeError("a bug")])
def test_what_reading_raises_reaches_who_asked(viewer, error):
    def find():
        raise error

    assert in_window(lambda: arrive(find)) is error
    assert len(viewer.layers) == 0


def test_the_window_answers_while_a_thread_works(qapp):
    answered = threading.Event()
    QTimer.singleShot(0, answered.set)
    assert in_background(lambda: answered.wait(30))


def test_steps_end_when_asked(qtbot):
    parent, taken = QObject(), []
    steps = Arrival(parent, [lambda k=k: taken.append(k) for k in range(3)])
    steps._take()
    steps.end()
    steps._take()
    assert taken == [0]


def test_steps_end_with_their_parent(qtbot):
    parent, taken, sibling = QObject(), [], QObject()
    Arrival(parent, [lambda: taken.append("never")])
    Arrival(sibling, [lambda: taken.append("later")] * 3)  # its third turn comes after the first one's first
    parent.deleteLater()
    qtbot.waitUntil(lambda: taken.count("later") == 3)
    assert "never" not in taken


def test_steps_end_when_the_user_removes_all_layers(viewer, qtbot):
    taken, parent = [], QObject()

    def replace():
        viewer.layers.clear()
        viewer.add_image(np.zeros((3, 4, 5)))

    viewer.add_image(np.zeros((3, 4, 5)))
    arriving = Arrival(parent, [replace, lambda: taken.append("after a step of its own")] * 2, viewer)
    for _ in range(2):
        arriving._take()
    assert taken == ["after a step of its own"]
    viewer.layers.clear()
    assert not arriving.under_way
    arriving._take()
    assert len(viewer.layers) == 0
    assert taken == ["after a step of its own"]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_finished_arrival_leaves_its_parent(qtbot, n):
    parent, taken = QObject(), []
    arriving = Arrival(parent, [lambda: taken.append(1)] * n)
    with qtbot.waitSignal(arriving.destroyed):
        pass
    assert len(taken) == n and parent.children() == []
    arriving.end()
