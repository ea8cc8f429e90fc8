"""The contribution overlay, offscreen: opens an output folder, thresholds live, says what is wrong."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets import outputs

AFFINE = nib.affines.from_matvec(np.diag([4.0, 4.0, 4.0]), [-20, -30, -10])
PEAK = (2, 3, 4)


@pytest.fixture
def out_dir(tmp_path):
    """An output folder with two subjects, two targets and a table, named as the run names them."""
    for label, targets in (("sub-01", ("c", "g02")), ("sub-02", ("z",))):
        folder = tmp_path / label
        folder.mkdir()
        for scale, target in enumerate(targets, 1):
            data = np.random.default_rng(scale).normal(0, 0.01, (6, 7, 8)).astype(np.float32)
            data[PEAK] = scale
            name = f"{label}_space-func1pt8mm_target-{target}_contribution.nii.gz"
            nib.save(nib.Nifti1Image(data, AFFINE), folder / name)
    table = "roi\ttarget\tshare\tse\tn_voxels\n"
    table += "V1v\tc\t0.3\t0.01\t9\nFFA-1\tg02\t0.1\t0.02\t5\nV1v\tg02\t0.2\t0.01\t9\n"
    (tmp_path / "sub-01" / "sub-01_contribution.tsv").write_text(table)
    return tmp_path


@pytest.fixture
def overlay(viewer, out_dir):
    from napari_neuraldiffuser.widgets.overlay import ContributionOverlay

    widget = ContributionOverlay(viewer)
    viewer.window.add_dock_widget(widget)
    widget.open_folder(str(out_dir))
    return widget


def test_folder_lists_subjects_and_targets(out_dir):
    found = outputs.find_subjects(out_dir)
    assert list(found) == ["sub-01", "sub-02"]
    assert list(found["sub-01"].maps) == ["c", "g02"]
    assert found["sub-02"].table is None
    assert list(outputs.find_subjects(out_dir / "sub-02")) == ["sub-02"]


def test_roi_shares_are_sorted(out_dir):
    table = out_dir / "sub-01" / "sub-01_contribution.tsv"
    assert outputs.roi_shares(table, "g02") == [("V1v", 0.2, 0.01), ("FFA-1", 0.1, 0.02)]
    table.write_text("roi\ttarget\tshare\nV1v\tg02\t0.2\n")
    with pytest.raises(outputs.OutputFolderError, match="must have the columns roi, target, share and se"):
        outputs.roi_shares(table, "g02")


def test_overlay_is_placed_in_mm_and_transparent_below_threshold(overlay, viewer):
    overlay.target.setCurrentText("g02")
    layer = viewer.layers["contribution"]
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    peak = np.unravel_index(layer.data.argmax(), layer.data.shape)
    np.testing.assert_allclose(layer.data_to_world(peak)[::-1], apply_affine(AFFINE, PEAK))

    overlay.threshold.setValue(100)
    low, high = layer.contrast_limits
    assert high == pytest.approx(2.0)
    assert low == pytest.approx(1.0)
    # below the lower contrast limit, just above it, at the upper one
    colours = layer.colormap.map(np.array([-0.1, 0.01, 1.0]))
    assert colours[0][3] == 0
    assert colours[1][3] == 1
    assert colours[2][3] == 1


def test_threshold_acts_live_and_reuses_the_layer(overlay, viewer):
    layer = viewer.layers["contribution"]
    limits = []
    for value in range(0, 200, 50):
        overlay.threshold.setValue(value)
        limits.append(layer.contrast_limits[0])
    assert limits == sorted(set(limits))
    overlay.target.setCurrentText("g02")
    assert viewer.layers["contribution"].unique_id == layer.unique_id
    assert len(viewer.layers) == 1
    assert overlay.table.rowCount() == 2
    assert overlay.table.item(0, 0).text() == "V1v"


def test_view_is_neurological_with_a_scale_bar(overlay, viewer):
    assert [str(side.value) for side in viewer.scene.camera.orientation2d] == ["up", "right"]
    assert viewer.canvas.overlays.scale_bar.visible


def test_changing_the_subject_without_table_empties_it(overlay, viewer):
    overlay.target.setCurrentText("g02")
    overlay.subject.setCurrentText("sub-02")
    assert overlay.target.currentText() == "z"
    assert overlay.table.rowCount() == 0


def test_layer_removed_by_the_user_comes_back(overlay, viewer):
    viewer.layers.clear()
    overlay.threshold.setValue(10)
    overlay.target.setCurrentText("g02")
    assert "contribution" in viewer.layers


def test_wrong_folder_is_said_in_the_panel(overlay, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    overlay.open_folder(str(empty))
    assert "folder must hold sub-XX" in overlay.message.text()
    assert overlay.subject.count() == 0


def test_truncated_map_is_said_in_the_panel(overlay, out_dir):
    broken = out_dir / "sub-01" / "sub-01_space-func1pt8mm_target-g02_contribution.nii.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    overlay.target.setCurrentText("g02")
    assert "must be" in overlay.message.text()
    assert broken.name in overlay.message.text()


def test_reader_through_napari(viewer, out_dir):
    path = next((out_dir / "sub-01").glob("*c_contribution.nii.gz"))
    (layer,) = viewer.open(path, plugin="napari-neuraldiffuser")
    assert layer.name == path.name.removesuffix(".nii.gz")
    assert tuple(layer.axis_labels) == ("S", "A", "R")


def test_importing_the_widgets_does_not_import_torch():
    code = (
        "import sys, napari_neuraldiffuser.widgets.overlay, napari_neuraldiffuser.widgets.reader;"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'nipype', 'diffusers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
