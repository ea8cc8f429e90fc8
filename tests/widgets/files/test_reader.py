"""NIfTI files as layers: every voxel stays at its place in mm, labels are labels, bad files are named."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.testing import data_path

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.files import reader

SHAPE = (4, 5, 6)


def save(path, data, affine):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def random_volume(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SLP"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_voxel_keeps_its_place(tmp_path, codes, suffix):
    data = random_volume()
    affine = nib.affines.from_matvec(np.diag([2.0, 3.0, 4.0]), [-10, -20, 5])
    orientation = nib.orientations.axcodes2ornt(codes)
    path = tmp_path / f"x{suffix}"
    nib.save(nib.Nifti1Image(data, affine).as_reoriented(orientation), path)
    stored = nib.load(path)

    shown, keywords, kind = reader.read_volume(path)
    assert kind == "image"
    assert keywords["units"] == ("mm",) * 3
    assert keywords["axis_labels"] == ("S", "A", "R")
    for index in np.ndindex(stored.shape):
        x, y, z = apply_affine(stored.affine, index)
        # napari's world is (superior, anterior, right), so mm are reversed
        place = np.rint(apply_affine(np.linalg.inv(keywords["affine"]), (z, y, x))).astype(int)
        assert shown[tuple(place)] == stored.dataobj[index]


def test_real_4d_file_keeps_volumes_and_affine():
    path = f"{data_path}/example4d.nii.gz"
    stored = nib.as_closest_canonical(nib.load(path))
    shown, keywords, kind = reader.read_volume(path)
    assert shown.ndim == 4
    assert shown.shape[0] == 2
    assert kind == "image"
    assert keywords["units"] == ("second", "mm", "mm", "mm")
    assert keywords["affine"][0, 0] == nib.load(path).header["pixdim"][4] == 2000  # as the file has it
    np.testing.assert_array_equal(keywords["metadata"]["affine"], nib.load(path).affine)
    # this file is oblique by 0.2 degrees and more: resampled, and says so
    assert nib.affines.obliquity(stored.affine).max() > reader.OBLIQUE_RADIANS
    assert "oblique" in keywords["metadata"]["notes"][0]
    spatial = keywords["affine"][1:4, 1:4]
    np.testing.assert_allclose(spatial, np.diag(np.diag(spatial)), atol=1e-9)


def test_oblique_volume_is_resampled_to_the_same_place(tmp_path):
    turn = nib.eulerangles.euler2mat(0.3, 0, 0)
    affine = nib.affines.from_matvec(turn @ np.diag([2.0, 2.0, 2.0]), [1, 2, 3])
    centre = np.array([12, 7, 9])
    distance = np.square(np.indices((20, 20, 20)) - centre[:, None, None, None]).sum(0)
    blob = np.exp(-distance / 8).astype(np.float32)
    shown, keywords, _ = reader.read_volume(save(tmp_path / "x.nii", blob, affine))
    found = apply_affine(keywords["affine"], np.unravel_index(shown.argmax(), shown.shape))[::-1]
    np.testing.assert_allclose(found, apply_affine(affine, centre), atol=1.1)  # mm, half a voxel each way


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
def test_roi_volume_becomes_labels(tmp_path, dtype):
    rois = np.zeros(SHAPE, dtype)
    rois[:2], rois[2:, :3] = 1, 5
    if dtype is not np.uint8:
        rois[3, 4] = -1
    shown, keywords, kind = reader.read_volume(save(tmp_path / "roi.nii.gz", rois, np.eye(4)))
    assert kind == "labels"
    assert shown.dtype == np.int32
    assert set(np.unique(shown)) == {0, 1, 5}
    assert bool(keywords["metadata"]["notes"]) == (dtype is not np.uint8)


def test_integer_anatomy_stays_an_image(tmp_path):
    anatomy = np.random.default_rng(0).integers(0, 255, (12, 12, 12)).astype(np.uint8)
    assert reader.read_volume(save(tmp_path / "t1.nii", anatomy, np.eye(4)))[2] == "image"


def test_mni_template_and_mask_that_nilearn_ships(tmp_path):
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    for resolution, load, kind in ((8, load_mni152_template, "image"), (8, load_mni152_brain_mask, "labels")):
        path = tmp_path / f"{kind}.nii.gz"
        nib.save(load(resolution=resolution), path)
        assert reader.read_volume(path)[2] == kind


def test_scaled_integers_are_scaled(tmp_path):
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(1 / 300, 0)
    nib.save(image, tmp_path / "b.nii")
    shown, _, _ = reader.read_volume(tmp_path / "b.nii")
    np.testing.assert_allclose(shown.T.ravel(), np.arange(120) / 300, rtol=1e-3)


@pytest.mark.parametrize(
    ("unit", "step", "seconds"),
    [
        ("sec", 2.0, 2.0),
        ("msec", 1600.0, 1.6),
        ("usec", 8e5, 0.8),
        ("unknown", 2.0, 0),
        ("hz", 2.0, 0),
        ("sec", 0.0, 0),
    ],
)
def test_time_runs_in_seconds_where_the_header_says_so(tmp_path, viewer, unit, step, seconds):
    image = nib.Nifti1Image(random_volume((*SHAPE, 3)), np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = step
    nib.save(image, tmp_path / "bold.nii.gz")
    (layer,) = viewer.open(tmp_path / "bold.nii.gz", plugin="napari-neuraldiffuser")
    assert [str(one) for one in layer.units] == ["second" if seconds else "pixel", *["millimeter"] * 3]
    assert viewer.dims.range[0].step == pytest.approx(seconds or 1)
    index = tuple(np.rint(layer.world_to_data((2 * (seconds or 1), 2, 4, 6))).astype(int))
    assert layer.data[index] == image.dataobj[3, 2, 1, 2]
    viewer.add_image(np.zeros(SHAPE), units=("mm",) * 3)  # seconds and millimetres live beside each other
    assert [str(one) for one in viewer.layers[-1].units] == ["millimeter"] * 3


def test_volumes_of_freesurfer(tmp_path):
    data, affine = random_volume((*SHAPE, 2)), nib.affines.from_matvec(np.diag([-1.0, 2, 3]), [5, -6, 7])
    image = nib.MGHImage(data, affine)
    image.header.set_zooms((1, 2, 3, 2500.0))  # ms
    for name in ("aseg.mgz", "ASEG.MGZ", "t1.mgh"):
        nib.save(image, tmp_path / name.lower())
        path = tmp_path / name
        (tmp_path / name.lower()).rename(path)
        assert reader.get_reader(str(path)) is not None
        shown, keywords, _ = reader.read_volume(path)
        assert keywords["affine"][0, 0] == 2.5
        assert keywords["name"] == name.partition(".")[0]
        place = apply_affine(affine, (1, 2, 3))[::-1]
        index = np.rint(apply_affine(np.linalg.inv(keywords["affine"][1:, 1:]), place)).astype(int)
        assert shown[(1, *index)] == data[1, 2, 3, 1]


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
def test_places_are_mm_whatever_the_header_s_unit(tmp_path, unit, factor):
    image = nib.Nifti1Image(random_volume(), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "x.NII.GZ")
    _, keywords, _ = reader.get_reader(str(tmp_path / "x.NII.GZ"))(str(tmp_path / "x.NII.GZ"))[0]
    np.testing.assert_allclose(np.diag(keywords["affine"]), [4 * factor, 3 * factor, 2 * factor, 1])
    assert keywords["name"] == "x"


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1), (*SHAPE, 3, 1), (*SHAPE, 1, 3)])
def test_axes_of_one_entry_at_the_end_do_not_matter(tmp_path, shape):
    data = random_volume(shape)
    shown, keywords, _ = reader.read_volume(save(tmp_path / "x.nii", data, np.eye(4)))
    np.testing.assert_array_equal(shown.T, data.squeeze())
    assert len(keywords["units"]) == shown.ndim


def test_reader_hook_takes_nifti_only(tmp_path):
    assert reader.get_reader("x.tif") is None
    assert reader.get_reader(["a.nii", "b.png"]) is None
    paths = [str(save(tmp_path / name, random_volume(), np.eye(4))) for name in ("a.nii", "b.nii.gz")]
    assert len(reader.get_reader(paths)(paths)) == 2


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_large_4d_files_are_read_when_looked_at_and_equal(tmp_path, monkeypatch, suffix, scaled, oblique):
    turn = nib.eulerangles.euler2mat(0.2, 0.1, 0) if oblique else np.diag([-1.0, 1, 1])
    affine = nib.affines.from_matvec(turn @ np.diag([2.0, 3.0, 2.5]), [4, 5, 6])
    data = np.random.default_rng(0).integers(-900, 900, (*SHAPE, 7)).astype(np.int16)
    image = nib.Nifti1Image(data, affine)
    if scaled:
        image.header.set_slope_inter(1 / 300, 0)
    path = tmp_path / f"betas{suffix}"
    nib.save(image, path)
    whole, whole_keywords, _ = reader.read_volume(path)
    monkeypatch.setattr(reader, "LAZY_BYTES", 0)
    shown, keywords, kind = reader.read_volume(path)
    assert kind == "image"
    assert not isinstance(shown, np.ndarray)
    assert shown.chunks[0] == (1,) * 7
    assert shown.dtype == whole.dtype
    for t in (0, 6, 3):
        np.testing.assert_array_equal(np.asarray(shown[t]), whole[t])
    np.testing.assert_array_equal(keywords["affine"], whole_keywords["affine"])
    assert "Volumes are read when they are shown." in keywords["metadata"]["notes"]
    low, high = keywords["contrast_limits"]
    assert whole[0].min() <= low < high <= whole[0].max()


def test_lazy_reading_touches_one_volume(tmp_path, monkeypatch):
    path = save(tmp_path / "betas.nii", random_volume((*SHAPE, 5)), np.eye(4))
    monkeypatch.setattr(reader, "LAZY_BYTES", 0)
    read, one = [], reader._one_volume
    monkeypatch.setattr(reader, "_one_volume", lambda image, path, t: read.append(t) or one(image, path, t))
    shown, _, _ = reader.read_volume(path)
    assert read == [0]
    np.asarray(shown[3])
    assert read == [0, 3]


def test_truncated_large_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LAZY_BYTES", 0)
    path = save(tmp_path / "betas.nii", random_volume((*SHAPE, 5)), np.eye(4))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(reader.ReadError, match="betas.nii must be a volume .*, got a truncated file: "):
        reader.read_volume(path)
    path = save(tmp_path / "packed.nii.gz", random_volume((*SHAPE, 5)), np.eye(4))
    path.write_bytes(path.read_bytes()[:-400])
    shown, _, _ = reader.read_volume(path)  # the end of a compressed file cannot be looked at quickly
    with pytest.raises(reader.ReadError, match="must be complete"):
        np.asarray(shown[4])


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("nsd/nsddata/ppdata/subj02/func1pt8mm/T1_to_func1pt8mm.nii.gz", "anatomy", {}),
        ("nsd/nsddata/ppdata/subj02/func1pt8mm/roi/lh.floc-faces.nii.gz", "roi", {"family": "floc-faces"}),
        ("nsd/nsddata/ppdata/subj02/func1pt8mm/mean.nii.gz", "volume", {}),
        ("out/sub-01/sub-01_space-func1pt8mm_target-g02_contribution.nii.gz", "contribution", {"target": "g02"}),
        ("out/sub-01/anat/sub-01_space-func1mm_seg-flocfaces_dseg.nii.gz", "roi", {"family": "flocfaces"}),
        ("elsewhere/t1.nii", "volume", {}),
    ],
)
def test_panels_are_told_what_a_file_is(tmp_path, name, kind, told):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    _, keywords, _ = reader.read_volume(save(path, random_volume(), np.eye(4)))
    about = keywords["metadata"]["neuraldiffuser"]
    assert about["kind"] == kind
    assert {key: about[key] for key in told} == told
    nsd = name.startswith("nsd")
    source = about["source"] and Source.from_dict(about["source"])
    assert source == (Source(str(tmp_path / "nsd"), "subj02") if nsd else None)
    assert about["output"] == (str(tmp_path / "out") if name.startswith("out") else None)


def test_betas_file_of_nsd_is_betas(tmp_path):
    path = tmp_path / "nsd/nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz"
    path.parent.mkdir(parents=True)
    _, keywords, _ = reader.read_volume(save(path, random_volume((*SHAPE, 2)), np.eye(4)))
    about = keywords["metadata"]["neuraldiffuser"]
    assert about["kind"] == "betas"
    assert about["source"]["nsd_dir"] == str(tmp_path / "nsd")


def truncated(path):
    whole = gzip.compress(nib.Nifti1Image(random_volume((20, 20, 20)), np.eye(4)).to_bytes())
    path.write_bytes(whole[: len(whole) // 2])


def flat(path):
    save(path, random_volume((5, 5)), np.eye(4))


def five(path):
    save(path, random_volume((2, 2, 2, 2, 2)), np.eye(4))


def singular(path):
    image = nib.Nifti1Image(random_volume(), np.eye(4))
    image.header["srow_x"] = 0
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    header = image.header.structarr.tobytes() + b"\0" * 4
    path.write_bytes(gzip.compress(header + random_volume().tobytes()))


def colours(path):
    save(path, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4))


def surface(path):
    nib.save(nib.Nifti2Image(np.zeros((40962, 1, 1), np.float32), np.eye(4)), path)


def complex_numbers(path):
    save(path, random_volume().astype(np.complex64), np.eye(4))


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int8])
def test_labels_saved_with_a_header_scaling_are_labels(tmp_path, dtype):
    labels = np.zeros((6, 7, 8))
    labels[:2], labels[2:4], labels[4] = 1, 2, 3
    if dtype is not np.uint8:
        labels[5] = -1
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(labels, np.eye(4), header), tmp_path / "x.nii.gz")
    shown, keywords, kind = reader.read_volume(tmp_path / "x.nii.gz")
    assert kind == "labels" and shown.dtype == np.int32
    np.testing.assert_array_equal(shown.T, np.maximum(labels, 0))
    if dtype is not np.uint8:
        np.testing.assert_array_equal(keywords["metadata"]["nifti"]["stored"], labels)


def test_a_map_of_small_numbers_is_no_label_volume(tmp_path):
    small = np.where(random_volume() > 0, 1e-4, 0).astype(np.float32)
    shown, _, kind = reader.read_volume(save(tmp_path / "x.nii", small, np.eye(4)))
    assert kind == "image" and shown.max() == np.float32(1e-4)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("extra", "ndim"), [((1,), 3), ((1, 1), 3), ((1, 4), 4), ((4, 1), 4), ((1, 4, 1), 4)])
def test_axes_of_one_entry_are_left_out(tmp_path, monkeypatch, extra, ndim, lazy):
    monkeypatch.setattr(reader, "LAZY_BYTES", 0 if lazy else 2**40)
    data = random_volume((*SHAPE, *extra))
    for suffix in (".nii", ".nii.gz"):
        shown, keywords, _ = reader.read_volume(save(tmp_path / f"x{suffix}", data, np.eye(4)))
        np.testing.assert_array_equal(np.asarray(shown).T, data.reshape(*SHAPE, *([4] if ndim == 4 else [])))
        assert len(keywords["units"]) == len(keywords["axis_labels"]) == ndim
        assert keywords["metadata"]["nifti"]["shape"] == shown.T.shape


def test_places_of_a_file_in_microns_are_in_mm(tmp_path):
    image = nib.Nifti1Image(random_volume(), np.diag([2000.0, 2000, 2000, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "x.nii")
    _, keywords, _ = reader.read_volume(tmp_path / "x.nii")
    np.testing.assert_allclose(np.diag(keywords["affine"]), [2, 2, 2, 1])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"not a volume"), "no known image format"),
        (truncated, "must be complete, got a truncated or damaged file"),
        (flat, r"must be a volume of real numbers, got shape \(5, 5\)"),
        (five, r"must have three axes .* or four axes .*, got shape \(2, 2, 2, 2, 2\)"),
        (colours, "must be a volume of real numbers, got colours"),
        (surface, r"must be a volume of real numbers, got a surface of 40962 vertices"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "a pointer of Git LFS"),
        (complex_numbers, "must be a volume of real numbers, got complex numbers"),
        (singular, "an affine that cannot be inverted"),
    ],
)
def test_bad_files_are_named(tmp_path, write, message):
    path = tmp_path / "bad.nii.gz"
    write(path)
    with pytest.raises(reader.ReadError, match=message) as caught:
        reader.read_volume(path)
    assert "bad.nii.gz" in str(caught.value)
