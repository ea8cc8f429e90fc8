"""Samples: the shipped result opens at once; the simulated subject is written once, in a process that can be ended."""

import json

import pytest
from napari.utils.progress import progress
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QApplication

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import SimulationParams
from napari_neuraldiffuser.widgets import samples
from napari_neuraldiffuser.widgets.session.activity import ActivityBar
from napari_neuraldiffuser.widgets.session.engine import Engine, EngineError
from napari_neuraldiffuser.widgets.session.keys import window_of

PLUGIN = "napari-neuraldiffuser"
SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
SERVER = """
import sys
from napari_neuraldiffuser.core.engine import wire
call = wire.receive(sys.stdin.buffer)
def send(**message):
    wire.send(sys.stdout.buffer, {"id": call["id"], **message})
mode = call["args"]["folder"].rsplit("-", 1)[1]
for done in range(1, 4):
    send(event="told", done=done, total=100, what="images drawn")
if mode == "slow":
    sys.stdin.buffer.read()  # until it is ended
elif mode == "error":
    send(event="result", ok="user_error", message="folder must be writable, got none. Choose another.")
elif mode == "crash":
    sys.exit(3)
else:
    send(event="result", ok="done", message="", traceback="", folder=call["args"]["folder"])
"""


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path / "engine", ("-c", SERVER))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "cache_folder", lambda: tmp_path / "cache")
    yield tmp_path / "cache"
    assert samples.Simulation.running is None


def bars():
    return [bar for bar in progress._all_instances if bar.desc == "images drawn"]


def test_finished_result_through_napari(viewer):
    layers = viewer.open_sample(PLUGIN, "finished_result")
    names = [layer.name for layer in layers]
    assert {"anatomy", "ROI prf-visualrois", "contribution g12"} <= set(names)
    assert viewer.layers["contribution g12"].metadata["neuraldiffuser"]["output"] == str(samples.result_folder())


def test_shipped_result_is_a_whole_run_and_small():
    folder = samples.result_folder()
    files = [f for f in folder.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 1_200_000
    assert {f.suffix for f in files} == {".json", ".tsv", ".gz", ".png"}
    summary = json.loads((folder / "sub-01/sub-01_desc-summary_scores.json").read_text())
    assert {"guided", "unguided"} <= set(summary["arms"])
    assert len(list(folder.glob("sub-01/recon/*rep-*_desc-guided_recon.png"))) == 15


@pytest.mark.slow
def test_simulated_subject_through_napari_then_from_the_cache(viewer, cache, monkeypatch):
    monkeypatch.setattr(samples, "SIMULATION", SMALL)
    ticks, timer, before = [], QTimer(), set(progress._all_instances)
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(20)
    layers = viewer.open_sample(PLUGIN, "simulated_subject")
    assert ticks, "the window lived"
    assert {"anatomy", "ROI prf-visualrois"} <= {layer.name for layer in layers}
    source = layers[0].metadata["neuraldiffuser"]["source"]
    assert (source["nsd_dir"], source["subject"]) == (str(cache / "simulated"), "subj01")
    assert set(progress._all_instances) == before

    monkeypatch.setattr(samples, "simulate", None)  # the second time it must not be asked for
    assert len(viewer.open_sample(PLUGIN, "simulated_subject")) == len(layers)


@pytest.mark.slow
def test_only_a_complete_subject_of_these_parameters_is_reused(tmp_path):
    assert not samples.is_written(tmp_path, SMALL)
    simulate.write_subjects(tmp_path, SMALL)
    assert samples.is_written(tmp_path, SMALL)
    assert not samples.is_written(tmp_path, SMALL.but(seed=5))
    (tmp_path / samples.TRUTH).write_text("{")
    assert not samples.is_written(tmp_path, SMALL)


@pytest.fixture
def news(monkeypatch):
    """Called whenever the bar has been told of progress, with what it was told."""
    tell, listeners = ActivityBar.tell, []

    def told(activity, done, total, what):
        tell(activity, done, total, what)
        for listener in listeners:
            listener(done, total)

    monkeypatch.setattr(ActivityBar, "tell", told)
    return listeners


def test_progress_is_a_bar_in_the_activity_dock(viewer, engine, tmp_path, news):
    seen = []
    news.append(lambda done, total: seen.append((done, [(bar.n, bar.total) for bar in bars()])))
    samples.simulate(tmp_path / "x-done", SMALL, engine)
    assert sorted(done for done, _ in seen if done) == [1, 2, 3]
    assert [bar for _, shown in seen for bar in shown]
    assert {total for _, shown in seen for _, total in shown} == {100}
    assert max(n for _, shown in seen for n, _ in shown) > 0
    assert not bars()
    assert engine.process is None or engine.process.wait(10) is not None


def test_cancel_at_the_bar_ends_the_process(viewer, engine, tmp_path, news):
    pids = []

    def cancel(done, total):
        pids.append(engine.process and engine.process.pid)
        for bar in bars():
            bar.cancel()

    news.append(cancel)
    with pytest.raises(samples.SampleError, match="was cancelled"):
        samples.simulate(tmp_path / "x-slow", SMALL, engine)
    assert not engine.tasks
    assert engine.process is None, "it would have slept for a minute"
    assert pids[0]


@pytest.mark.window
def test_closing_the_window_ends_it(viewer, engine, tmp_path, news):
    simulation = samples.Simulation(engine, viewer)

    def close(done, total):
        news.clear()
        viewer.window._qt_window.hide()
        simulation.watch.look()

    news.append(close)
    result = simulation.run(tmp_path / "x-slow", SMALL)
    assert isinstance(result, samples.Cancelled)


@pytest.mark.window
@pytest.mark.parametrize("mode", ["done", "slow", "error", "crash"])
def test_a_panel_says_how_far_it_is_and_is_gone_at_the_end(viewer, engine, tmp_path, news, mode):
    """Also where there was nothing in the window before; Cancel ends the process at once."""
    seen = []

    def look(done, total):
        window = window_of(viewer)
        for panel in window.findChildren(samples.SimulationPanel):
            if panel.isVisibleTo(window):
                seen.append((panel.bar.value(), panel.bar.maximum(), panel.message.text()))
            if mode == "slow" and done == 3:
                panel.cancel.click()

    news.append(look)
    try:
        samples.simulate(tmp_path / f"x-{mode}", SMALL, engine)
    except (samples.SampleCancelled, UserError, EngineError) as error:
        assert mode != "done"
        assert isinstance(error, samples.SampleCancelled) == (mode == "slow")
    assert max(seen)[:2] == (3, 100)
    assert "images drawn (3 of 100" in max(seen)[2]
    assert engine.process is None
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert not window_of(viewer).findChildren(samples.SimulationPanel)
    news.clear()
    assert "Simulated subject" not in viewer.window.dock_widgets


def test_a_second_request_is_refused_while_one_is_under_way(viewer, engine, tmp_path, news):
    refused = []

    def again(done, total):
        news.clear()
        with pytest.raises(samples.SampleError, match="is being written already") as caught:
            samples.simulate(tmp_path / "x-done", SMALL, engine)
        refused.append(caught)

    news.append(again)
    samples.simulate(tmp_path / "x-done", SMALL, engine)
    assert refused


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        ("error", UserError, "folder must be writable"),
        ("crash", EngineError, "exit status 3"),
    ],
)
def test_errors_arrive(viewer, engine, tmp_path, mode, error, message):
    with pytest.raises(error, match=message):
        samples.simulate(tmp_path / f"x-{mode}", SMALL, engine)
