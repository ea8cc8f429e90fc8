"""A day in the plugin, in a real window: `python -m tests.support.window.window_story day|close FOLDER`.

Started by test_window.py under a virtual display.  Every step asserts what it finds and tells the test of it.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.views.pictures import PictureStrip
from tests.support.window.mistakes import wrong_data, wrong_models
from tests.support.window.real_window import PLUGIN, Window, errors, gone, small_sample, tell, told_events

COLOURED = 25
"""Least difference of a pixel's channel that counts as another colour, of 255."""


def day(window: Window, folder: Path) -> None:
    """From the samples to saved files."""
    finished_result(window)
    simulated_subject(window)
    decode(window)
    reconstruct(window)
    another_scale(window)
    cancel(window)
    contribution(window)
    threshold(window)
    click(window)
    saved(window, folder)
    assert not errors(), errors()
    wrong_data(window, folder)
    wrong_models(window, folder)
    close(window)


def finished_result(window: Window) -> None:
    """The shipped result, then the dock: it takes the result up by itself."""
    window.viewer.open_sample(PLUGIN, "finished_result")
    names = [layer.name for layer in window.viewer.layers]
    window.open_dock()
    panel = window.panels["Contribution"]
    window.wait(lambda: panel.maps is not None, "the finished result in the Contribution panel")
    window.dock.show_page("Contribution")
    assert panel.table.rowCount() > 0
    assert panel.overlay.shown
    tell("finished_result", layers=names, targets=list(panel.maps.maps))
    window.viewer.layers.clear()
    window.settle(0.5)


def simulated_subject(window: Window) -> None:
    """Written by a process of its own, shown, and described by the Data panel."""
    small_sample()
    window.dock.show_page("Data")
    window.viewer.open_sample(PLUGIN, "simulated_subject")
    window.wait(lambda: window.session.described is not None, "description of the simulated subject")
    found, text = window.session.described, window.panels["Data"].facts.text()
    assert f"{len(found['test_ids'])} test stimuli" in text, text
    tell("simulated_subject", layers=[layer.name for layer in window.viewer.layers], facts=text)


def decode(window: Window) -> None:
    """With the bundled models; the first fit."""
    assert window.session.recipe.models == "demo"
    panel = window.run("Decode")
    found = window.session.decoded
    assert found is not None, window.messages()
    assert panel.result.isVisible()
    tell("decode", accuracy=found["accuracy"], cached=found["cached"], n_voxels=found["n_voxels"])


def row_pixels(window: Window, name: str) -> bytes:
    """What the first cell of a row of the gallery shows; nothing where the row is hidden."""
    row = window.panels["Reconstruct"].view.gallery.rows[name]
    if row.isHidden() or not row.cells:
        return b""
    picture = row.cells[0].pixmap().toImage()
    return bytes(picture.constBits().asarray(picture.sizeInBytes()))


def reconstruct(window: Window) -> None:
    """One stimulus: images appear step by step, then scores."""
    panel, pictures = window.ready("Reconstruct"), []
    panel.every.setValue(2)
    panel.view.shown.connect(lambda: pictures.append(row_pixels(window, "guided")))
    with told_events(window.session) as told:
        window.run("Reconstruct")
    previews = [event for _, name, event in told if name == "preview" and event["arm"] == "guided"]
    different = len({bytes_ for bytes_ in pictures if bytes_})
    assert [name for _, name, _ in told][0] == "begin"
    assert different > 2, f"{different} different pictures for {len(previews)} previews"
    run = panel.view.run
    assert run.complete and panel.view.table.isVisible() and panel.view.table.rowCount() > 0
    cells = [panel.view.table.item(k, 1).text() for k in range(panel.view.table.rowCount())]
    assert all(cells), cells
    for name in ("given", "unguided", "guided"):
        assert panel.view.gallery.rows[name].isVisibleTo(panel), name
    check_on_screen(window, run.images["guided"][0, 0])
    below = list(PictureStrip.of(window.viewer).images)
    tell("reconstruct", previews=len(previews), pictures=different, metrics=len(cells), below=below)


def check_on_screen(window: Window, image: np.ndarray) -> None:
    """The gallery's own pixels are the image's, and the strip below the brain holds the image."""
    cell = window.panels["Reconstruct"].view.gallery.rows["guided"].cells[0]
    cell.window().activateWindow()
    scroll = window.dock.tabs.currentWidget()
    scroll.ensureWidgetVisible(cell)
    window.settle(0.3)
    shown = cell.grab().toImage()
    side = cell.pixmap().width()
    k = side // image.shape[1]
    assert k >= 1 and side == k * image.shape[1], (side, image.shape)
    corner = (cell.width() - side, cell.height() - side)
    places = [(3, 5), (image.shape[0] // 2, image.shape[1] // 2), (image.shape[0] - 2, 7)]
    for row, column in places:
        colour = shown.pixelColor(column * k + k // 2, row * k + k // 2 + max(corner[1], 0) // 2)
        assert np.abs(np.array(colour.getRgb()[:3]) - image[row, column]).max() <= 3, (row, column, corner)
    assert np.array_equal(PictureStrip.of(window.viewer).images["guided"], image)


def another_scale(window: Window) -> None:
    """Another κ: the unguided arm is that of the run before."""
    panel = window.panels["Reconstruct"]
    before = panel.view.run
    control = panel.form.controls.groups[0].controls["guidance_scale"]
    control.setValue(control.value() + 1.5)
    assert window.session.recipe.settings.guidance.guidance_scale == control.value()
    with told_events(window.session) as told:
        window.run("Reconstruct")
    cached = {event["arm"]: event["cached"] for _, name, event in told if name == "arm"}
    stepped = {event["arm"] for _, name, event in told if name == "step"}
    after = panel.view.run
    assert cached == {"unguided": True, "guided": False}, cached
    assert stepped == {"guided"}, stepped
    assert np.array_equal(after.images["unguided"], before.images["unguided"])
    assert not np.array_equal(after.images["guided"], before.images["guided"])
    title = panel.view.box.itemText(0)
    assert "κ" in title, title
    tell("another_scale", cached=cached, title=title)


def cancel(window: Window) -> None:
    """In the middle of the guided arm: what is there stays."""
    panel = window.panels["Reconstruct"]
    window.session.change_stage("diffusion", window.session.recipe.settings.diffusion.but(seed=12345))
    with told_events(window.session) as told:
        window.press_run("Reconstruct")
        window.wait(lambda: [e["arm"] for _, n, e in told if n == "step"].count("guided") >= 3, "three guided steps")
        asked = time.monotonic()
        panel.cancel.click()
        window.wait(lambda: not window.session.busy, "end of the cancelled run")
        took = time.monotonic() - asked
    guided = [at for at, name, event in told if name == "step" and event["arm"] == "guided"]
    step, late = statistics.median(np.diff(guided)), sum(at > asked for at in guided)
    run = panel.view.run
    assert "guided" in run.images and "guided" not in run.finished
    assert run.tag("guided").startswith("partial"), run.tag("guided")
    assert Path(run.result["folder"]).is_dir() and run.result["complete"] is False
    tell("cancel", seconds=took, of_step=step, steps_after=late, tag=run.tag("guided"))


def contribution(window: Window) -> None:
    """Maps of the decoder that was fitted above."""
    panel = window.panels["Contribution"]
    window.run("Contribution")
    window.wait(lambda: not panel.arriving and panel.maps is not None, "the maps")
    window.wait(lambda: window.session.output == panel.source.opened, "the folder of this run")
    assert panel.overlay.shown and panel.table.rowCount() > 0
    tell("contribution", rows=panel.table.rowCount(), folder=window.session.output)


def middling(window: Window) -> tuple[np.ndarray, float]:
    """Place (R, A, S) of a voxel with half of the largest share, and its share over the largest."""
    panel = window.panels["Contribution"]
    volume = panel.maps.maps[panel.target.currentData()]
    largest = volume.values.max()
    index = np.unravel_index(int(np.abs(volume.values - largest / 2).argmin()), volume.values.shape)
    return apply_affine(volume.affine, index), float(volume.values[index] / largest)


def threshold(window: Window) -> None:
    """The canvas with a voxel above and below the threshold, with no other layer to be seen."""
    panel, (place, fraction) = window.panels["Contribution"], middling(window)
    panel.regions.outlined.setChecked(False)
    for layer in window.viewer.layers:
        layer.visible = layer.name == panel.overlay.layer.name
    window.viewer.reset_view()
    window.viewer.dims.set_point(range(3), place[::-1])
    shots = []
    for value in (0.5 * fraction, min(1.5 * fraction, 0.99)):
        panel.look.slider.setValue(round(1000 * value))
        shots.append(window.shot())
    x, y = window.pixel(place[::-1])
    above, below = (shot[y, x] for shot in shots)
    panel.overlay.layer.visible = False
    nothing = window.shot()[y, x]
    panel.overlay.layer.visible = True
    changed = int((np.abs(shots[0] - shots[1]).max(axis=-1) > COLOURED).sum())
    assert changed > 0
    assert np.abs(above - nothing).max() > COLOURED, f"a voxel above the threshold must be coloured, got {above}"
    assert np.abs(below - nothing).max() <= 2, f"one below must be transparent, got {below} over {nothing}"
    tell("threshold", changed=changed, above=above.tolist(), below=below.tolist(), nothing=nothing.tolist())


def click(window: Window) -> None:
    """A real click on a voxel names that voxel."""
    panel, (place, _) = window.panels["Contribution"], middling(window)
    panel.look.slider.setValue(100)
    for layer in window.viewer.layers:
        layer.visible = True
    window.viewer.reset_view()
    window.viewer.dims.set_point(range(3), place[::-1])
    window.settle(0.3)
    former = panel.voxel_text.text()
    window.click(place[::-1])
    text, (r, a, s) = panel.voxel_text.text(), place
    where = f"R {r:.1f}, A {a:.1f}, S {s:.1f} mm"
    assert text != former and where in text, f"{where} must be in {text}"
    assert np.allclose(panel.probe.layer.data[0], panel.maps.maps[panel.target.currentData()].shown_index(place))
    tell("click", where=where)


def saved(window: Window, folder: Path) -> None:
    """The map, and regions, as NIfTI files, and back."""
    overlay = window.panels["Contribution"].overlay.layer
    regions = window.viewer.layers["ROI nsdgeneral"]
    original = nib.load(window.panels["Contribution"].saving.path)
    for layer, name in ((overlay, "map.nii.gz"), (regions, "regions.nii.gz")):
        written = layer.save(str(folder / name))
        assert written == [str(folder / name)], written
        (again,) = window.viewer.open(folder / name, plugin=PLUGIN)
        assert again._type_string == layer._type_string
        assert np.array_equal(again.data, layer.data), name
        assert np.allclose(again.affine.affine_matrix, layer.affine.affine_matrix, rtol=0, atol=1e-5), name
        assert np.allclose(nib.load(folder / name).affine, original.affine, rtol=0, atol=1e-5), name
        window.viewer.layers.remove(again)
    assert np.array_equal(np.asanyarray(nib.load(folder / "map.nii.gz").dataobj), np.asanyarray(original.dataobj))
    tell("saved", affine=original.affine.tolist())


def close_running(window: Window, folder: Path) -> None:
    """Close the window in the middle of a reconstruction."""
    small_sample()
    window.open_dock()
    window.viewer.open_sample(PLUGIN, "simulated_subject")
    window.wait(lambda: window.session.described is not None, "description of the simulated subject")
    window.run("Decode")
    with told_events(window.session) as told:
        window.press_run("Reconstruct")
        window.wait(lambda: sum(name == "step" for _, name, _ in told) >= 2, "two steps")
    assert window.session.busy
    assert not errors(), errors()
    close(window)


def close(window: Window) -> None:
    """Close as the user does, and look after the engine."""
    pid = window.session.engine.process.pid
    assert not gone(pid)
    window.viewer.close()
    took = window.wait(lambda: gone(pid), "end of the engine", 60.0)
    modules = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
    assert not modules, modules
    tell("close", seconds=took)


def main(story: str, folder: str) -> None:
    """Play a story, with exceptions in slots taken up as napari does."""
    from napari.utils.notifications import notification_manager

    stories: dict[str, Any] = {"day": day, "close": close_running}
    with notification_manager:
        stories[story](Window(), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
