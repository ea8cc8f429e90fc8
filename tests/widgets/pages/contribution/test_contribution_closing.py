"""The Contribution panel: what is saved, and what a closed panel leaves."""

import threading

import numpy as np
import pytest
from superqt.utils import WorkerBase

from napari_neuraldiffuser.widgets.maps import source as map_source
from napari_neuraldiffuser.widgets.maps.source import copy_file
from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from tests.support.window.contribution_page import PATIENCE, choose, finish, read, reopen, row_of
from tests.support.window.output_folder import write_output
from tests.support.window.viewers import settle


def test_map_is_copied_whole(panel, out_dir, tmp_path, qtbot):
    choose(panel, "g02")
    panel.saving.copy_map(tmp_path / "new" / "mine.nii.gz")
    qtbot.waitUntil(lambda: "Written" in panel.message.text(), timeout=PATIENCE)
    source = next((out_dir / "sub-01").glob("*g02*.nii.gz"))
    assert (tmp_path / "new" / "mine.nii.gz").read_bytes() == source.read_bytes()
    assert copy_file(source, source) == source
    assert source.read_bytes() == (tmp_path / "new" / "mine.nii.gz").read_bytes()


def test_a_copy_that_cannot_be_written_is_said(panel, tmp_path, qtbot):
    (tmp_path / "file").write_text("")
    panel.saving.copy_map(tmp_path / "file" / "mine.nii.gz")
    qtbot.waitUntil(lambda: "must be a folder" in panel.message.text(), timeout=PATIENCE)


def test_picture_is_written_atomically(panel, tmp_path, monkeypatch):
    def screenshot(path, **options):
        assert options == {"canvas_only": True, "flash": False}
        with open(path, "wb") as stream:
            stream.write(b"png")

    class Viewer:
        pass

    panel.saving.viewer = Viewer()
    panel.saving.viewer.screenshot = screenshot
    panel.saving.write_picture(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"png"
    assert [p.name for p in tmp_path.glob("*.png")] == ["a.png"]


def test_nothing_to_save(empty):
    empty.saving.choose_copy()
    assert "A map must be shown" in empty.message.text()


@pytest.mark.window
def test_a_closed_panel_listens_no_longer(panel, viewer, qtbot):
    callback = panel.probe._on_press
    assert callback in viewer.mouse_drag_callbacks
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: callback not in viewer.mouse_drag_callbacks, timeout=PATIENCE)
    viewer.dims.set_point(0, 3.0)


@pytest.mark.window
def test_a_reopened_panel_has_the_layers_of_the_closed_one(panel, viewer, session, tmp_path, qtbot):
    panel.table.selectRow(row_of(panel, "V1v"))
    identity, names = viewer.layers["contribution"].unique_id, sorted(layer.name for layer in viewer.layers)
    again = reopen(panel, viewer, session, qtbot)
    again.table.selectRow(row_of(again, "V1v"))
    assert sorted(layer.name for layer in viewer.layers) == names
    layer = viewer.layers["contribution"]
    assert (layer.unique_id, layer.visible) == (identity, True)
    assert viewer.layers["outlines prf-visualrois"].visible
    read(again, write_output(tmp_path / "new"), qtbot)
    choose(again, "g02")
    assert [layer.name for layer in viewer.layers].count("contribution") == 1
    assert layer.visible
    assert layer.metadata["target"] == "g02"
    np.testing.assert_array_equal(layer.data, again.maps.maps["g02"].shown)
    again.look.slider.setValue(500)
    assert layer.contrast_limits[0] == pytest.approx(0.5 * layer.contrast_limits[1])


def test_two_panels_share_their_layers(panel, viewer, session, qtbot):
    other = ContributionPanel(viewer, session)
    qtbot.addWidget(other)
    finish(other, qtbot)
    choose(panel, "g02")
    assert sorted(layer.name for layer in viewer.layers) == ["contribution", "outlines prf-visualrois", "region names"]
    assert viewer.layers["contribution"].visible
    assert viewer.layers["contribution"].metadata["target"] == "g02"


@pytest.mark.window
def test_regions_that_a_closed_panel_hid_come_back_with_the_next(panel, viewer, session, qtbot):
    told = {"neuraldiffuser": {"kind": "roi", "family": "prf-visualrois"}}
    layer = viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="mine", metadata=told)
    panel._draw_outlines()
    assert not layer.visible
    again = reopen(panel, viewer, session, qtbot)
    assert not layer.visible, "the outlines are there still"
    again.regions.outlined.setChecked(False)
    assert layer.visible


def test_regions_come_back_where_their_outlines_were_removed(panel, viewer):
    told = {"neuraldiffuser": {"kind": "roi", "family": "prf-visualrois"}}
    layer = viewer.add_labels(np.zeros((3, 3, 3), dtype=int), name="mine", metadata=told)
    panel._draw_outlines()
    viewer.layers.remove("outlines prf-visualrois")
    panel.regions.outlined.setChecked(False)
    assert layer.visible


def test_other_maps_are_hidden(empty, viewer, out_dir, qtbot):
    told = {"neuraldiffuser": {"kind": "contribution"}}
    other = viewer.add_image(np.zeros((3, 3, 3)), name="contribution", metadata=told)
    read(empty, out_dir, qtbot)
    assert not other.visible, "though it has the name of the panel's own"
    assert empty.overlay.layer.visible
    assert empty.overlay.layer is not other


@pytest.mark.window
def test_a_panel_closed_while_it_reads(empty, viewer, session, out_dir, qtbot, monkeypatch):
    closed, read_folder = threading.Event(), map_source.read_folder

    def read_when_closed(*of):
        assert closed.wait(PATIENCE / 1000)
        return read_folder(*of)

    monkeypatch.setattr(map_source, "read_folder", read_when_closed)
    session.show_output(out_dir)
    viewer.window.remove_dock_widget(empty)
    with qtbot.waitSignal(empty.destroyed, timeout=PATIENCE):
        empty.deleteLater()
    closed.set()
    WorkerBase.await_workers(PATIENCE)
    settle()
    assert len(viewer.layers) == 0


def test_every_control_has_a_tooltip(panel):
    from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QComboBox, QPushButton, QSlider

    for kind in (QAbstractSpinBox, QCheckBox, QComboBox, QPushButton, QSlider):
        for widget in panel.findChildren(kind):
            assert widget.toolTip() or not widget.isVisibleTo(panel), widget
