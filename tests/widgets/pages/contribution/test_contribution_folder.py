"""The Contribution panel: folders that are read in a thread, and maps that are computed."""

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QUrl

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BetasParams
from napari_neuraldiffuser.widgets.files import outputs
from napari_neuraldiffuser.widgets.files.arrival import Arrival, arriving_in
from napari_neuraldiffuser.widgets.files.layer_info import about
from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.overlay import Look
from napari_neuraldiffuser.widgets.maps.source import LATE
from napari_neuraldiffuser.widgets.pages.contribution import REMOVED
from napari_neuraldiffuser.widgets.session.keys import window_of
from tests.support.window.contribution_page import finish, read, rows
from tests.support.window.output_folder import REGIONS, write_output
from tests.support.window.viewers import settle


def test_folder_is_read_in_a_thread_and_shown(empty, viewer, session, out_dir, qtbot):
    session.show_output(out_dir)
    assert len(viewer.layers) == 0  # nothing yet: the window was not kept waiting
    finish(empty, qtbot)
    assert empty.source.subject.currentText() == "sub-01"
    assert [empty.target.itemText(i) for i in range(2)] == ["c, text embedding", "g02, guidance layer 2"]
    assert {"contribution", "outlines prf-visualrois", "region names"} == {layer.name for layer in viewer.layers}
    assert viewer.layers["contribution"].metadata["target"] == "c"


def test_another_subject(panel, viewer, qtbot):
    panel.source.subject.setCurrentText("sub-02")
    finish(panel, qtbot)
    assert panel.target.currentData() == "z"
    assert rows(panel) == []
    assert [layer.name for layer in viewer.layers] == ["contribution"]


def test_a_folder_chosen_while_another_is_read_wins(empty, session, out_dir, tmp_path, qtbot):
    other = write_output(tmp_path / "other")
    for path in (other / "sub-01").glob("*_contribution.*"):
        path.unlink()
    session.show_output(out_dir)
    session.show_output(other)
    finish(empty, qtbot)
    settle()
    assert empty.maps.label == "sub-02"
    assert empty.source.opened == str(other)


def test_nothing_is_shown_of_a_folder_once_all_layers_are_removed(empty, viewer, session, out_dir, qtbot):
    viewer.add_image(np.zeros((4, 5, 6)))
    session.show_output(out_dir)
    viewer.layers.clear()
    finish(empty, qtbot)
    settle()
    assert len(viewer.layers) == 0
    assert empty.message.text() == REMOVED
    assert empty.maps is None and empty.target.count() == 0
    read(empty, out_dir, qtbot)
    assert "contribution" in viewer.layers


@pytest.mark.window
def test_what_arrives_after_the_maps_is_hidden_too(panel, viewer, qtbot):
    def add(target):
        told = {"neuraldiffuser": about("contribution", output=panel.session.output, target=target)}
        viewer.add_image(np.ones((4, 5, 6)), name=f"contribution {target}", metadata=told)

    Arrival(window_of(viewer), [lambda: add("g02"), lambda: None], viewer)
    qtbot.waitUntil(lambda: "contribution g02" in viewer.layers and not arriving_in(viewer))
    assert not viewer.layers["contribution g02"].visible
    add("z")
    assert viewer.layers["contribution z"].visible, "a file that the user opens is shown"


def removed_alone(viewer):
    viewer.layers.remove("contribution")


def removed_with_all(viewer):
    viewer.layers.clear()


@pytest.mark.parametrize("remove", [removed_alone, removed_with_all])
def test_a_folder_whose_map_was_removed_is_shown_when_it_is_opened_again(panel, viewer, out_dir, qtbot, remove):
    remove(viewer)
    told = {"neuraldiffuser": about("contribution", output=out_dir, target="g02")}
    viewer.add_image(np.ones((4, 5, 6)), name="contribution g02", metadata=told)  # as the reader adds it
    finish(panel, qtbot)
    assert "contribution" in viewer.layers
    assert not viewer.layers["contribution g02"].visible
    assert panel.table.rowCount() > 0


def test_a_folder_whose_map_was_removed_can_be_named_again(panel, viewer, out_dir, qtbot):
    viewer.layers.clear()
    panel.source.folder.editingFinished.emit()
    finish(panel, qtbot)
    assert len(viewer.layers) == 0, "leaving the line opens nothing"
    panel.source.folder.returnPressed.emit()
    finish(panel, qtbot)
    assert "contribution" in viewer.layers


def test_another_shape_does_not_forget_the_folder(panel, session, viewer, out_dir):
    panel.overlay.show(maps.make_volume(np.ones((3, 4, 5), np.float32), np.eye(4), "wide.nii.gz"), Look(), {})
    assert session.output == str(out_dir)


def test_dropped_folder_is_opened(empty, session, out_dir, qtbot):
    class Drop:
        def mimeData(self):  # noqa: N802
            data = QMimeData()
            data.setUrls([QUrl.fromLocalFile(str(out_dir))])
            return data

    empty.source.dropEvent(Drop())
    finish(empty, qtbot)
    assert session.output == str(out_dir)
    assert empty.maps.label == "sub-01"


def test_a_wrong_folder_is_said_and_nothing_stays_shown(panel, viewer, tmp_path, qtbot):
    (tmp_path / "nothing").mkdir()
    read(panel, tmp_path / "nothing", qtbot)
    assert "folder must hold sub-XX" in panel.message.text()
    assert panel.source.subject.count() == panel.target.count() == panel.table.rowCount() == 0
    assert "contribution" not in viewer.layers


@pytest.mark.parametrize("damage", ["map", "table", "4d"])
def test_damaged_files_are_named(empty, out_dir, qtbot, damage):
    path = out_dir / "sub-01" / "sub-01_space-func1pt8mm_target-g02_contribution.nii.gz"
    if damage == "map":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "4d":
        nib.save(nib.Nifti1Image(np.random.default_rng(0).random((3, 3, 3, 2)), np.eye(4)), path)
    else:
        path = out_dir / "sub-01" / "sub-01_contribution.tsv"
        path.write_text("roi\ttarget\tshare\nV1v\tg02\t0.2\n")
    read(empty, out_dir, qtbot)
    assert path.name in empty.message.text()
    assert "must" in empty.message.text()


def test_a_damaged_region_volume_leaves_the_maps(empty, out_dir, qtbot):
    broken = next((out_dir / "sub-01" / "anat").glob("*floc*.nii.gz"))
    broken.write_bytes(b"")
    read(empty, out_dir, qtbot)
    assert list(empty.families) == ["prf-visualrois"]
    assert broken.name in empty.message.text()
    assert empty.target.count() == 2


def test_compute_needs_data_and_decoding_and_shows_what_it_made(empty, session, out_dir, qtbot):
    assert "Data must be chosen" in empty.hint.text()
    session.choose(Source(nsd_dir="somewhere"))
    assert "Run Decode first" in empty.hint.text()
    session.set_decoded({"accuracy": {}})
    assert empty.run_button.isEnabled()
    empty.run_button.click()
    args, _ = session.engine.last("contribution")
    assert args["recipe"]["source"]["nsd_dir"] == "somewhere"
    session.engine.answer("contribution", {"folder": str(out_dir), "kind": "product-measure", "totals": {}})
    finish(empty, qtbot)
    assert session.output == str(out_dir)
    assert empty.target.count() == 2


@pytest.fixture
def computing(empty, session, out_dir):
    """A panel whose maps are being computed."""
    session.choose(Source(nsd_dir="somewhere"))
    session.set_decoded({"accuracy": {}})
    empty.run_button.click()
    return empty


ANSWER = {"kind": "product-measure", "totals": {}}


def test_maps_of_former_data_are_not_shown(computing, session, viewer, out_dir):
    session.change_stage("betas", BetasParams(roi="V1"))
    session.engine.answer("contribution", {"folder": str(out_dir), **ANSWER})
    assert session.output == ""
    assert computing.source.reading is None
    assert computing.message.text() == LATE
    assert len(viewer.layers) == 0


def test_maps_that_fit_no_longer_are_named(computing, session, out_dir, tmp_path, qtbot):
    session.engine.answer("contribution", {"folder": str(out_dir), **ANSWER})
    finish(computing, qtbot)
    before = session.recipe
    session.change_stage("diffusion", before.settings.diffusion.but(seed=9))
    assert not computing.age.isVisibleTo(computing), "the maps do not depend on it"
    session.change_stage("betas", BetasParams(roi="V1"))
    assert computing.age.text() == "Compute again: the ROI changed since."
    assert computing.age.isVisibleTo(computing)
    session.show_output(str(tmp_path))
    assert not computing.age.isVisibleTo(computing), "a folder that was opened is of any data"
    session.show_output(str(out_dir))
    assert computing.age.isVisibleTo(computing)
    session._take(before)
    assert not computing.age.isVisibleTo(computing)
    finish(computing, qtbot)


def test_names_of_targets():
    assert [maps.target_name(t) for t in ("z", "c", "g02", "g12", "other")] == [
        "z, image latent",
        "c, text embedding",
        "g02, guidance layer 2",
        "g12, guidance layer 12",
        "other",
    ]


def test_rows_of_a_table(out_dir, tmp_path):
    found = maps.read_rows(out_dir / "sub-01" / "sub-01_contribution.tsv")
    assert len(found) == 8
    assert np.isnan(found[3].se)
    assert [row.outside for row in found[:4]] == [False, False, True, False]
    old = tmp_path / "old.tsv"
    old.write_text("roi\ttarget\tshare\tse\nV1v\tc\t0.1\t0.2\n")
    assert maps.read_rows(old) == [maps.Row("", "V1v", "c", 0.1, 0.2, 0)]
    old.write_text("roi\ttarget\tshare\tse\tp_fdr\nV1v\tc\t0.1\t0.2\t0.03\nV1d\tc\t0.1\t0.2\tn/a\n")
    assert [row.p for row in maps.read_rows(old)] == [0.03, None]
    old.write_text("roi\ttarget\tshare\tse\nV1v\tc\tlots\t0.2\n")
    with pytest.raises(outputs.OutputFolderError, match="must have the columns roi, target, share and se"):
        maps.read_rows(old)


def test_families_of_the_folder(out_dir):
    found = outputs.find_subjects(out_dir)["sub-01"]
    assert set(found.regions) == set(REGIONS)
    family = maps.read_family("prf-visualrois", found.regions["prf-visualrois"])
    assert family.names[1] == "V1v"
    assert (family.label("V2v"), family.label("outside prf-visualrois"), family.label("V9")) == (2, 0, None)
