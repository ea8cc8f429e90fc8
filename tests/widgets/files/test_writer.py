"""Layers as NIfTI files: what was read goes back bit for bit, what was drawn lies where it was drawn."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec

from napari_neuraldiffuser.core.base.files import OutputError
from napari_neuraldiffuser.widgets.files.reader import read_volume
from napari_neuraldiffuser.widgets.files.writer import WriteError, layer_to_nifti, write, write_image, write_labels

PLUGIN = "napari-neuraldiffuser"
SHAPE = (5, 6, 7)
TURN = nib.eulerangles.euler2mat(0.2, -0.1, 0.3)
SIZES = np.diag([2.0, 3.0, 2.5])


def affine_of(codes):
    """An affine of that orientation with other voxel sizes along every axis."""
    whole = nib.Nifti1Image(np.zeros(SHAPE), from_matvec(SIZES, [-10.5, -20, 5]))
    return whole.as_reoriented(nib.orientations.axcodes2ornt(codes)).affine


AFFINES = {codes: affine_of(codes) for codes in ("RAS", "LAS", "PIR", "SLP")}
OBLIQUE = from_matvec(TURN @ SIZES, [3, -4, 5])


def save(path, data, affine, **header):
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, header.get("sform", 3))
    image.set_qform(affine, header.get("qform", 1))
    image.header["descrip"] = b"kept"
    if data.ndim == 4:
        image.header["pixdim"][4] = 1.6
    nib.save(image, path)
    return path


def blobs(dtype=np.int16, shape=SHAPE):
    labels = np.zeros(shape, dtype)
    labels[:2], labels[2:4, :3], labels[4, 4:] = 1, 7, 3
    return labels


def assert_same_file(written, original):
    new, old = nib.load(written), nib.load(original)
    np.testing.assert_array_equal(new.affine, old.affine)
    np.testing.assert_array_equal(np.asanyarray(new.dataobj), np.asanyarray(old.dataobj))
    assert new.get_data_dtype() == old.get_data_dtype()
    for field in ("sform_code", "qform_code", "xyzt_units", "descrip", "quatern_b", "qoffset_x", "pixdim"):
        np.testing.assert_array_equal(new.header[field], old.header[field], err_msg=field)
    np.testing.assert_array_equal(new.get_sform(), old.get_sform())
    np.testing.assert_array_equal(new.get_qform(), old.get_qform())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("codes", AFFINES)
def test_image_round_trip_through_napari_is_exact(viewer, tmp_path, codes, dtype, shape, suffix):
    data = np.random.default_rng(0).integers(-900, 900, shape).astype(dtype)
    path = save(tmp_path / f"in{suffix}", data, AFFINES[codes])
    (layer,) = viewer.open(path, plugin=PLUGIN)
    assert layer.save(str(tmp_path / f"out{suffix}"), plugin=PLUGIN) == [str(tmp_path / f"out{suffix}")]
    assert_same_file(tmp_path / f"out{suffix}", path)


@pytest.mark.parametrize("affine", [*AFFINES.values(), OBLIQUE], ids=[*AFFINES, "oblique"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_labels_round_trip_is_exact_with_what_was_not_shown(tmp_path, affine, dtype):
    labels = blobs(dtype)
    if dtype is not np.uint8:
        labels[3, 4] = -1  # NSD: not this hemisphere's cortex; shown as background
    path = save(tmp_path / "in.nii.gz", labels, affine)
    data, meta, kind = read_volume(path)
    assert kind == "labels"
    assert write_labels(str(tmp_path / "out.nii.gz"), data, meta) == [str(tmp_path / "out.nii.gz")]
    assert_same_file(tmp_path / "out.nii.gz", path)


def test_quaternion_only_and_nifti2_files_stay_what_they_are(tmp_path):
    data = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    path = save(tmp_path / "q.nii", data, AFFINES["LAS"], sform=0, qform=1)
    write(tmp_path / "q2.nii", read_volume(path))
    assert_same_file(tmp_path / "q2.nii", path)
    nib.save(nib.Nifti2Image(data, AFFINES["PIR"]), tmp_path / "two.nii")
    write(tmp_path / "two2.nii", read_volume(tmp_path / "two.nii"))
    assert isinstance(nib.load(tmp_path / "two2.nii"), nib.Nifti2Image)
    np.testing.assert_array_equal(nib.load(tmp_path / "two2.nii").affine, AFFINES["PIR"])


def test_scaled_integers_come_back_as_the_values_that_were_shown(tmp_path):
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(SHAPE), AFFINES["LAS"])
    image.header.set_slope_inter(1 / 300, 0)
    nib.save(image, tmp_path / "b.nii")
    shown = read_volume(tmp_path / "b.nii")
    write(tmp_path / "c.nii", shown)
    written = nib.load(tmp_path / "c.nii")
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(written.get_fdata(), nib.load(tmp_path / "b.nii").get_fdata().astype(np.float32))


def test_edit_of_oblique_labels_lands_in_the_voxel_under_it(tmp_path):
    labels = blobs(shape=(12, 12, 12))
    labels[5, 5] = -1
    path = save(tmp_path / "in.nii.gz", labels, OBLIQUE)
    data, meta, kind = read_volume(path)
    voxel = np.array([9, 8, 7])
    world = apply_affine(OBLIQUE, voxel)[::-1]
    place = np.rint(apply_affine(np.linalg.inv(meta["affine"]), world)).astype(int)
    data[tuple(slice(p - 1, p + 2) for p in place)] = 9
    image = layer_to_nifti((data, meta, kind))
    written = np.asanyarray(image.dataobj)
    assert written.shape == labels.shape
    np.testing.assert_array_equal(image.affine, nib.load(path).affine)
    assert written[tuple(voxel)] == 9
    changed = np.argwhere(written != labels)
    assert 1 <= len(changed) <= 60
    assert np.abs(changed - voxel).max() <= 3
    assert set(np.unique(written[written != labels])) == {9}


@pytest.mark.parametrize("shape", [(9, 10, 11), (9, 10, 11, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_an_oblique_image_goes_back_to_its_own_grid(tmp_path, shape, dtype):
    stored = (100 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    path = save(tmp_path / "in.nii.gz", stored, OBLIQUE)
    data, meta, kind = read_volume(path)
    assert data.shape[-3:] != shape[2::-1], "it is shown on another grid"
    image = layer_to_nifti((data, meta, kind))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), stored)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)

    edited = np.array(data, dtype=np.float32)
    edited[..., 5:9, 5:9, 5:9] += 1000.0  # drawn on the shown grid
    again = np.asanyarray(layer_to_nifti((edited, meta, kind)).dataobj)
    inner = apply_affine(meta["affine"][-4:, -4:], (6.5, 6.5, 6.5))[::-1]
    index = tuple(np.rint(apply_affine(np.linalg.inv(OBLIQUE), inner)).astype(int))
    np.testing.assert_allclose(again[index], stored[index] + 1000.0, rtol=1e-4)
    np.testing.assert_array_equal(again[0, 0, 0], stored[0, 0, 0])


def test_an_oblique_image_whose_file_is_gone_is_not_saved_on_another_grid(tmp_path):
    path = save(tmp_path / "in.nii.gz", np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32), OBLIQUE)
    read = read_volume(path)
    path.unlink()
    with pytest.raises(WriteError, match="needs the file that it came from"):
        layer_to_nifti(read)


def test_new_labels_drawn_on_a_volume(viewer, tmp_path):
    path = save(tmp_path / "in.nii.gz", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), AFFINES["LAS"])
    (layer,) = viewer.open(path, plugin=PLUGIN)
    viewer.layers.selection.active = layer
    viewer._new_labels()
    drawn = viewer.layers[-1]
    drawn.data[2, 3, 1] = 4
    world = drawn.data_to_world((2, 3, 1))[::-1]
    viewer.layers.selection = {drawn}
    viewer.layers.save(str(tmp_path / "drawn.nii.gz"), selected=True, plugin=PLUGIN)
    written = nib.load(tmp_path / "drawn.nii.gz")
    (voxel,) = np.argwhere(written.dataobj)
    np.testing.assert_allclose(apply_affine(written.affine, voxel), world, atol=1e-4)
    assert written.get_data_dtype() == np.uint8

    # on the grid of the file below it: what a mask for its voxels needs
    mask = layer_to_nifti(drawn, like=layer)
    np.testing.assert_array_equal(mask.affine, nib.load(path).affine)
    assert mask.shape == SHAPE
    (voxel,) = np.argwhere(mask.dataobj)
    np.testing.assert_allclose(apply_affine(mask.affine, voxel), world, atol=1e-4)


def test_like_resamples_to_an_oblique_grid(viewer, tmp_path):
    reference = nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), OBLIQUE)
    path = tmp_path / "oblique.nii.gz"
    nib.save(reference, path)
    (layer,) = viewer.open(path, plugin=PLUGIN)
    drawn = viewer.add_labels(np.zeros(layer.data.shape, int), affine=layer.affine, units=layer.units)
    drawn.data[8:12, 8:12, 8:12] = 1
    mask = layer_to_nifti(drawn, like=layer)
    assert mask.shape == (20, 20, 20)
    np.testing.assert_array_equal(mask.affine, reference.affine.astype(np.float32))
    centre = apply_affine(mask.affine, np.argwhere(mask.dataobj).mean(axis=0))
    np.testing.assert_allclose(centre, layer.data_to_world((9.5, 9.5, 9.5))[::-1], atol=1.0)
    assert int(np.asanyarray(mask.dataobj).sum()) == pytest.approx(64, rel=0.25)


def test_foreign_layer_is_placed_by_scale_translate_and_units(viewer, tmp_path):
    data = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    place = {"scale": (2000.0, 3000.0, 1500.0), "translate": (1000.0, -2000.0, 500.0), "units": ("um",) * 3}
    layer = viewer.add_image(data, **place)
    written = nib.load(layer.save(str(tmp_path / "x.nii.gz"), plugin=PLUGIN)[0])
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), data.transpose())
    expected = from_matvec(np.diag([1.5, 3, 2]), [0.5, -2, 1])
    np.testing.assert_allclose(written.affine, expected, atol=1e-6)
    assert written.header.get_xyzt_units()[0] == "mm"
    # and it is shown again where it was
    _, keywords, _ = read_volume(tmp_path / "x.nii.gz")
    where = np.array(layer.data_to_world((1, 2, 3))) / 1000
    np.testing.assert_allclose(apply_affine(keywords["affine"], (1, 2, 3)), where)


def test_moved_layer_is_written_where_it_is_now(viewer, tmp_path):
    path = save(tmp_path / "in.nii", np.ones(SHAPE, np.float32), AFFINES["PIR"])
    (layer,) = viewer.open(path, plugin=PLUGIN)
    layer.translate = (10, 0, 0)  # 10 voxels up, in the layer's own units before its affine
    image = layer_to_nifti(layer)
    world = layer.data_to_world((1, 2, 3))[::-1]
    np.testing.assert_allclose(apply_affine(image.affine, (3, 2, 1)), world, atol=1e-4)
    assert not np.allclose(world, apply_affine(read_volume(path)[1]["affine"], (1, 2, 3))[::-1])


def test_time_in_seconds_is_kept(viewer):
    layer = viewer.add_image(np.zeros((2, 3, 4, 5)), scale=(1600, 1, 1, 1), units=("ms", "mm", "mm", "mm"))
    header = layer_to_nifti(layer).header
    assert header.get_zooms()[3] == pytest.approx(1.6)
    assert header.get_xyzt_units() == ("mm", "sec")


def test_pixels_are_not_called_millimetres():
    image = layer_to_nifti((np.zeros((2, 3, 4)), {}, "image"))
    assert image.header.get_xyzt_units()[0] == "unknown"


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 200], np.uint8),
        ([0, 300], np.int16),
        ([0, 70_000], np.int32),
        ([-1, 2**40], np.int64),
    ],
)
def test_labels_take_the_smallest_integers_that_hold_them(values, dtype):
    data = np.zeros((2, 2, 2), np.int64)
    data[0, 0] = values
    image = layer_to_nifti((data, {}, "labels"))
    assert image.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), data.transpose())


def test_painted_label_beyond_the_files_integers(tmp_path):
    path = save(tmp_path / "in.nii", blobs(np.uint8), AFFINES["LAS"])
    data, meta, kind = read_volume(path)
    data[0, 0, 0] = 1000
    image = layer_to_nifti((data, meta, kind))
    assert image.get_data_dtype() == np.int16
    assert np.asanyarray(image.dataobj).max() == 1000


@pytest.mark.parametrize(
    ("data", "meta", "kind", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), {"rgb": True}, "image", "one value per voxel"),
        (np.zeros((4, 5)), {}, "image", "three axes of space"),
        (np.zeros((2, 2, 2, 2, 2)), {}, "image", "three axes of space"),
        (np.zeros((2, 2, 2), complex), {}, "image", "real numbers"),
        (np.zeros((2, 2, 2)), {"units": ("s", "mm", "mm")}, "image", "must be lengths"),
        (np.zeros((2, 2, 2)), {"affine": np.zeros((4, 4))}, "image", "invertible"),
        (np.zeros((2, 2, 2, 2)), {"affine": np.eye(5)[[1, 0, 2, 3, 4]]}, "image", "time and space apart"),
        (np.zeros((3, 3)), {}, "points", "Image or Labels"),
    ],
)
def test_layers_without_a_place_are_refused(tmp_path, data, meta, kind, message):
    with pytest.raises(WriteError, match=message) as caught:
        write(tmp_path / "x.nii.gz", (data, {"name": "this layer", **meta}, kind))
    assert "this layer" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_name_that_is_not_nifti(tmp_path):
    with pytest.raises(WriteError, match="must end with"):
        write_image(str(tmp_path / "x.tif"), np.zeros((2, 2, 2)), {})


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.nii.gz"
    write_image(str(path), np.ones((2, 2, 2)), {})
    before = path.read_bytes()

    def broken(image, target):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nib, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        write_image(str(path), np.zeros((2, 2, 2)), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError):
        write_image(str(path / "below.nii"), np.zeros((2, 2, 2)), {})
