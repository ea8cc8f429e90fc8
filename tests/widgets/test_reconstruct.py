"""The NeuralDiffuser dock widget, offscreen, on a small simulated subject with small random models."""

import threading

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from qtpy.QtCore import QTimer

from napari_neuraldiffuser.core import models
from napari_neuraldiffuser.core.errors import UserError
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import PRESETS, TARGETS, DiffusionParams, GuidanceParams, SimulationParams
from napari_neuraldiffuser.widgets import worker as workers
from napari_neuraldiffuser.widgets.controls import ParamControls
from napari_neuraldiffuser.widgets.layers import GAP, PICTURES, TITLES, frames
from tests.small_models import small_models

SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
PATIENCE = 60_000  # ms


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An NSD folder and a model folder."""
    folder, small = tmp_path_factory.mktemp("files"), small_models()
    simulate.write_subjects(folder / "nsd", SMALL)
    for name in models.PARTS:
        getattr(small, name).save_pretrained(folder / "models" / name)
    return folder


@pytest.fixture
def panel(viewer, files, tmp_path, monkeypatch):
    from napari_neuraldiffuser.widgets.reconstruct import Reconstruct

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    widget = Reconstruct(viewer)
    viewer.window.add_dock_widget(widget)
    widget.folder.setText(str(files / "nsd"))
    widget.output.setText(str(tmp_path / "out"))
    widget.models.setText(str(files / "models"))
    widget.n_stimuli.setValue(3)
    widget.diffusion.show_values(DiffusionParams(repeats=2, n_steps=6))
    yield widget
    widget.stop()
    workers.CoreWorker.await_workers(PATIENCE)


def finish(panel, qtbot):
    qtbot.waitUntil(lambda: panel.worker is None, timeout=PATIENCE)


def corners(layer):
    """Lowest and highest world coordinates of a layer's voxel centres."""
    ends = np.array([np.zeros(layer.ndim), np.array(layer.data.shape[: layer.ndim]) - 1])
    world = apply_affine(np.asarray(layer.affine), ends)
    return world.min(axis=0), world.max(axis=0)


@pytest.mark.slow
def test_run_to_the_end_cancel_and_rerun(panel, viewer, qtbot, files):
    told, ticks, timer = [], [], QTimer()
    timer.timeout.connect(lambda: ticks.append(len(told)))
    timer.start(20)
    panel.start()
    panel.worker.news.told.connect(lambda *news: told.append(news))
    assert not panel.run.isEnabled()

    # cancel once images are being made: it acts at the next diffusion step
    qtbot.waitUntil(lambda: any("images" in what for *_, what in told), timeout=PATIENCE)
    panel.stop()
    finish(panel, qtbot)
    assert "cancelled" in panel.message.text()
    assert panel.run.isEnabled()
    assert not panel.cancel.isEnabled()
    assert len(viewer.layers) == 0

    panel.start()
    panel.worker.news.told.connect(lambda *news: told.append(news))
    finish(panel, qtbot)
    assert panel.message.text().startswith("Written: ")
    assert panel.shown.recon["guided"].shape[:2] == (3, 2)
    seen = {what.split(",")[0] for *_, what in told}
    assert {"reading betas", "images", "contribution maps", "page", "layers"} <= seen
    assert all(0 <= done <= total for done, total, _ in told)
    # the event loop went on while the job ran
    assert len(set(ticks)) > 10

    check_layers(viewer, files)
    check_chooser(panel, viewer)
    before = [layer.name for layer in viewer.layers]
    panel.start()  # everything is complete on disk: the same layers, once
    finish(panel, qtbot)
    assert [layer.name for layer in viewer.layers] == before


def check_layers(viewer, files):
    names = [layer.name for layer in viewer.layers]
    assert names[0] == "anatomy"
    assert {f"contribution {target}" for target in TARGETS} <= set(names)
    assert {"ROI prf-visualrois", "ROI nsdgeneral", "ROI floc-faces", TITLES, *PICTURES} <= set(names)
    for layer in viewer.layers:
        assert {str(unit) for unit in layer.units} == {"millimeter"}, layer.name
    assert {str(unit) for unit in viewer.layers.extent.units} == {"millimeter"}

    volume = nib.load(files / "nsd/nsddata/ppdata/subj01/func1pt8mm/T1_to_func1pt8mm.nii.gz")
    ends = apply_affine(volume.affine, [(0, 0, 0), np.array(volume.shape) - 1])[:, ::-1]
    for name in ("anatomy", "ROI prf-visualrois", "contribution g02"):
        low, high = corners(viewer.layers[name])
        np.testing.assert_allclose([low, high], [ends.min(axis=0), ends.max(axis=0)], atol=1e-6)
    anatomy = viewer.layers["anatomy"]
    voxel = np.array([7, 11, 5])
    place = np.rint(apply_affine(np.linalg.inv(anatomy.affine), apply_affine(volume.affine, voxel)[::-1])).astype(int)
    assert anatomy.data[tuple(place)] == volume.dataobj[tuple(voxel)]
    # pictures stand beside the brain, upright, and overlap nothing
    for name in PICTURES:
        low, high = corners(viewer.layers[name])
        assert low[1] > ends.max(axis=0)[2]
        layer = viewer.layers[name]
        assert layer.data_to_world((0, 0))[0] > layer.data_to_world((layer.data.shape[0] - 1, 0))[0]
    contribution = viewer.layers["contribution g12"]
    assert contribution.visible
    assert contribution.colorbar.visible
    low, high = contribution.contrast_limits
    assert low == pytest.approx(0.1 * high)
    assert contribution.colormap.map(np.array([-0.1, 0.5]))[:, 3].tolist() == [0, 1]
    assert "V1v" in list(viewer.layers["ROI prf-visualrois"].features["roi"])


def check_chooser(panel, viewer):
    assert panel.stimulus.count() == 3
    panel.stimulus.setCurrentIndex(2)
    panel.repeat.setValue(2)
    np.testing.assert_array_equal(viewer.layers["guided"].data, panel.shown.recon["guided"][2, 1])
    np.testing.assert_array_equal(viewer.layers["seen"].data, panel.shown.seen[2])
    assert panel.repeat.maximum() == 2


def test_folder_that_is_not_nsd(panel, viewer, qtbot, tmp_path):
    from napari.utils.notifications import notification_manager

    panel.folder.setText(str(tmp_path))
    panel.start()
    finish(panel, qtbot)
    assert "nsd_dir must be an NSD folder" in panel.message.text()
    assert "nsd_expdesign.mat" in panel.message.text()
    assert panel.run.isEnabled()
    assert notification_manager.records[-1].message == panel.message.text()


def test_no_folder_chosen(panel):
    panel.folder.clear()
    panel.start()
    assert panel.worker is None
    assert "must be chosen" in panel.message.text()


@pytest.mark.slow
def test_simulated_subject_is_written_to_the_cache_and_chosen(panel, qtbot, tmp_path):
    panel.simulation = SMALL
    panel.folder.clear()
    panel.start_simulation()
    assert not panel.simulate.isEnabled()
    finish(panel, qtbot)
    assert panel.folder.text() == str(tmp_path / "cache" / "napari-neuraldiffuser" / "simulated")
    assert panel.subject.currentText() == "subj01"
    assert (tmp_path / "cache/napari-neuraldiffuser/simulated/nsddata").is_dir()


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


def test_controls_are_the_params(panel):
    for name, changes in PRESETS.items():
        panel.preset.setCurrentText("none" if name != "none" else "demo")
        panel.preset.setCurrentText(name)
        settings = panel.settings()
        assert settings.diffusion == DiffusionParams(**changes["diffusion"])
        assert settings.guidance == GuidanceParams(**changes["guidance"])


def test_every_plain_field_has_a_control(qtbot):
    names = ("guidance_scale", "guidance_strength", "x0_estimate", "x0_blend", "normalise")
    controls = ParamControls(GuidanceParams, names)
    qtbot.addWidget(controls)
    assert GuidanceParams(**controls.values()) == GuidanceParams()
    other = GuidanceParams(guidance_scale=2.5, x0_estimate="published", x0_blend=False, normalise="rms")
    controls.show_values(other)
    assert GuidanceParams(**controls.values()) == other
    controls.controls["guidance_strength"].setValue(7)
    assert controls.values()["guidance_strength"] == 1.0


def test_frames_do_not_overlap_and_are_as_high_as_the_brain_is_long():
    affine = nib.affines.from_matvec(np.diag([4.0, 3.0, 2.0]), [-10, -50, -40])
    places = frames(np.zeros((5, 30, 20)), affine)
    (top, left, side), (below, *_) = places["seen"], places["unguided"]
    assert left == pytest.approx(-40 + 2 * 19.5 + GAP)
    assert top + GAP == pytest.approx(-50 + 3 * 29.5)
    assert below - side == pytest.approx(-50 - 1.5)
    assert top - side - GAP == pytest.approx(below)
    assert places["start"][1] == pytest.approx(left + side + GAP)


def test_news_during_the_making_of_an_activity_bar_do_not_recurse(panel, monkeypatch):
    """napari's progress processes events when it is made, so that more news arrive before it is there."""
    made = []

    class EventfulProgress:
        def __init__(self, total, desc, gui):
            self.total, self.desc, self.n = total, desc, 0
            made.append(self)
            for done in range(3):
                panel._tell(done, 9, f"another stage {len(made)}")

        def update(self, by):
            self.n += by

        def close(self):
            pass

    monkeypatch.setattr("napari.utils.progress", EventfulProgress)
    monkeypatch.setattr(panel, "worker", object())
    panel._tell(1, 4, "stage")
    assert len(made) == 1
    assert panel.activity.bar.n == 1
    monkeypatch.setattr(panel, "worker", None)
