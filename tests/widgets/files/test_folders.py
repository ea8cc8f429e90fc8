"""NSD folders and output folders dropped on napari: anatomy, outlines with names, maps, pictures in their places."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.core.base.pictures import PictureError, read_picture
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import SimulationParams
from napari_neuraldiffuser.widgets.files import arrival, folders
from napari_neuraldiffuser.widgets.files.outputs import OutputFolderError, find_outputs, region_names
from napari_neuraldiffuser.widgets.samples import result_folder
from napari_neuraldiffuser.widgets.views.pictures import PICTURES, PictureStrip

PLUGIN = "napari-neuraldiffuser"
SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32, n_subjects=2)
SPACE = "nsddata/ppdata/subj01/func1pt8mm"


@pytest.fixture(scope="module")
def nsd_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nsd")
    simulate.write_subjects(folder, SMALL)
    return folder


@pytest.fixture
def told(monkeypatch):
    """Notes that the user was shown."""
    notes = []
    monkeypatch.setattr(arrival, "tell", notes.extend)
    return notes


def about(layer):
    return layer.metadata["neuraldiffuser"]


@pytest.mark.slow
@pytest.mark.window
def test_nsd_folder_through_napari(viewer, nsd_dir, told):
    viewer.open(nsd_dir, plugin=PLUGIN)
    layers = {layer.name: layer for layer in viewer.layers}
    assert next(iter(layers)) == "anatomy"
    assert set(layers) == {"anatomy", "ROI prf-visualrois", "ROI nsdgeneral"}
    assert [name for name, layer in layers.items() if layer.visible] == ["anatomy", "ROI prf-visualrois"]
    for name, layer in layers.items():
        assert Source.from_dict(about(layer)["source"]) == Source(str(nsd_dir), "subj01")
        assert about(layer)["kind"] == ("anatomy" if name == "anatomy" else "roi")
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    regions = layers["ROI prf-visualrois"]
    assert regions.contour == 1
    assert about(regions)["family"] == "prf-visualrois"

    # the status bar names the region of the voxel under the pointer
    stored = nib.load(nsd_dir / SPACE / "roi/prf-visualrois.nii.gz")
    voxel = np.argwhere(np.asanyarray(stored.dataobj) == 1)[0]
    world = apply_affine(stored.affine, voxel)[::-1]
    viewer.dims.set_point(range(3), world)
    status = regions.get_status(world, view_direction=None, dims_displayed=[1, 2], world=True)
    assert "V1v" in str(status)
    assert told == ["subj01 is shown. The folder also holds subj02: open the folder of that subject."]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("below", "subject"),
    [
        ("nsddata", "subj01"),
        ("nsddata/ppdata", "subj01"),
        ("nsddata/ppdata/subj02", "subj02"),
        ("nsddata/ppdata/subj01/func1pt8mm", "subj01"),
    ],
)
def test_parts_of_an_nsd_folder(nsd_dir, told, below, subject):
    read = folders.get_reader(str(nsd_dir / below))
    assert read is folders.read_nsd
    for _, keywords, _ in read(str(nsd_dir / below)):
        assert keywords["metadata"]["neuraldiffuser"]["source"]["subject"] == subject
        assert keywords["metadata"]["neuraldiffuser"]["source"]["nsd_dir"] == str(nsd_dir)


@pytest.fixture
def bare(tmp_path):
    """An NSD folder with an anatomy and one region, as after downloading nothing else."""
    folder = tmp_path / SPACE
    (folder / "roi").mkdir(parents=True)
    affine = np.diag([1.8, 1.8, 1.8, 1])
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.normal(size=(6, 7, 8)).astype(np.float32), affine), folder / "T1_to_func1pt8mm.nii.gz")
    for side, value in (("lh", 1), ("rh", 2)):
        labels = np.full((6, 7, 8), -1, np.int16)
        labels[value] = value
        nib.save(nib.Nifti1Image(labels, affine), folder / f"roi/{side}.floc-faces.nii.gz")
    return tmp_path


def test_nsd_folder_without_betas_or_tables(viewer, bare, told):
    anatomy, regions = viewer.open(bare, plugin=PLUGIN)
    assert set(np.unique(regions.data)) == {0, 1, 2}
    assert list(regions.features["roi"]) == ["", "floc-faces-1", "floc-faces-2"]
    assert told == []
    # opened from the subject's folder, the file alone names the same subject
    (again,) = viewer.open(bare / SPACE / "T1_to_func1pt8mm.nii.gz", plugin=PLUGIN)
    assert about(again)["source"] == about(anatomy)["source"]


def test_damaged_region_is_left_out_with_a_note(bare, told):
    path = bare / SPACE / "roi/lh.floc-faces.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    layers = folders.read_nsd(str(bare))
    assert [keywords["name"] for _, keywords, _ in layers] == ["anatomy"]
    assert len(told) == 1
    assert "lh.floc-faces" in told[0]


def test_subject_folder_with_nothing_in_it(tmp_path):
    (tmp_path / SPACE).mkdir(parents=True)
    with pytest.raises(folders.FolderError, match="must hold T1_to_func1pt8mm.nii.gz"):
        folders.read_nsd(str(tmp_path))


def test_other_folders_are_refused_at_once(tmp_path):
    for name in ("pictures", "sub-01", "derivatives/sub-01/anat", "subj01", "ppdata"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "derivatives/dataset_description.json").write_text(json.dumps({"Name": "fMRIPrep"}))
    (tmp_path / "derivatives/sub-01/anat/sub-01_T1w.nii.gz").write_bytes(b"")
    (tmp_path / "ppdata/subj01").mkdir()
    for path in (tmp_path, *tmp_path.rglob("*"), tmp_path / "nowhere"):
        assert folders.get_reader(str(path)) is None, path
    assert folders.get_reader([str(tmp_path), str(tmp_path)]) is None


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(result_folder(), folder)
    return folder


@pytest.mark.window
def test_output_folder_through_napari(viewer, output, told):
    viewer.open(output, plugin=PLUGIN)
    names = [layer.name for layer in viewer.layers]
    assert names[0] == "anatomy"
    assert names == ["anatomy", "ROI prf-visualrois", "contribution g12"]  # the pictures are in no space of a brain
    assert all(layer.visible for layer in viewer.layers)
    for layer in viewer.layers:
        assert {str(unit) for unit in layer.units} == {"millimeter"}, layer.name

    contribution = viewer.layers["contribution g12"]
    assert about(contribution)["kind"] == "contribution"
    assert about(contribution)["target"] == "g12"
    assert about(contribution)["output"] == str(output)
    assert contribution.colorbar.visible
    assert contribution.colormap.map(np.array([-0.1, 0.5]))[:, 3].tolist() == [0, 1]
    regions = viewer.layers["ROI prf-visualrois"]
    assert about(regions)["family"] == "prf-visualrois"
    assert regions.contour == 1
    assert {"V1v", "hV4"} <= set(regions.features["roi"])
    # regions and maps agree voxel by voxel: they lie on one grid
    np.testing.assert_allclose(np.asarray(regions.affine), np.asarray(contribution.affine))

    strip, found = PictureStrip.of(viewer), find_outputs(output)["sub-01"]
    assert not strip.isHidden()
    first, second, *_ = found.pictures
    for stimulus in (first, second):
        assert strip.stimulus == stimulus
        for name in PICTURES:
            np.testing.assert_array_equal(strip.images[name], read_picture(found.pictures[stimulus][name, 1]))
        strip.on.click()


@pytest.mark.window
def test_pictures_leave_the_sliders_to_the_brain(viewer, output):
    viewer.open(output, plugin=PLUGIN)
    brain = viewer.layers["anatomy"].extent.world
    for axis, span in enumerate(viewer.dims.range):
        assert (span.start, span.stop) == pytest.approx((brain[0][axis], brain[1][axis]), abs=2), axis


def test_subject_folder_of_an_output_folder(viewer, output):
    layers = viewer.open(output / "sub-01", plugin=PLUGIN)
    assert len(layers) == len(folders.read_output(str(output)))
    assert about(layers[0])["output"] == str(output)


def test_several_subjects_in_an_output_folder(output, told):
    shutil.copytree(output / "sub-01", output / "sub-02")
    folders.read_output(str(output))
    assert told == ["sub-01 is shown. The folder also holds sub-02: open the folder of that subject."]


@pytest.mark.window
def test_output_folder_of_an_unfinished_run(viewer, output):
    shutil.rmtree(output / "sub-01/anat")
    for path in [*output.glob("sub-01/*contribution*"), *output.glob("sub-01/recon/*desc-guided*")]:
        path.unlink()
    assert viewer.open(output, plugin=PLUGIN) == []
    assert set(PictureStrip.of(viewer).images) == {"seen", "start", "unguided"}


def test_damaged_files_of_an_output_folder_are_named(output):
    table = next(output.glob("sub-01/anat/*prfvisualrois_dseg.tsv"))
    table.write_text("label\n1\n")
    with pytest.raises(OutputFolderError, match="columns index and name"):
        region_names(table.with_name(table.name.replace(".tsv", ".nii.gz")))
    table.unlink()
    found = find_outputs(output)["sub-01"]
    first = found.pictures[min(found.pictures)]["seen", 1]
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(PictureError, match="must be a whole picture") as caught:
        folders.read_output(str(output))
    assert first.name in str(caught.value)


def test_family_without_sidecar_has_its_short_name(output):
    next(output.glob("sub-01/anat/*prfvisualrois_dseg.json")).unlink()
    assert "prfvisualrois" in find_outputs(output)["sub-01"].regions


def test_foreign_layers_keep_their_camera(viewer, output):
    viewer.add_image(np.zeros((3, 4, 5)))
    before = viewer.scene.camera.orientation
    viewer.open(output, plugin=PLUGIN)
    assert viewer.scene.camera.orientation == before
