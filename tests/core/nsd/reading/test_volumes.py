"""Volumes mean what they meant to who wrote them: labels, masks, axes, places; and files that are none are named."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core.nsd import NSDError
from napari_neuraldiffuser.core.nsd.reading.images import is_oriented, place_note, whole_numbers
from napari_neuraldiffuser.core.nsd.reading.volumes import (
    check_grid,
    open_volume,
    read_inside,
    read_labels,
    read_volume,
    values_of,
)

SHAPE = (5, 6, 7)
AFFINE = nib.affines.from_matvec(np.diag([2.0, 3.0, 4.0]), [-10, -20, 5])
LABELS = np.random.default_rng(0).integers(-1, 4, SHAPE)


def save(path, values, affine=AFFINE, dtype=None, kind=nib.Nifti1Image):
    """As nibabel writes: with a header scaling where `dtype` is whole numbers and `values` are not."""
    header = kind.header_class()
    header.set_data_dtype(dtype or values.dtype)
    nib.save(kind(values, affine, header), path)
    return path


SCALED = [
    (np.int16, LABELS),
    (np.int16, np.where(LABELS == 3, 180, LABELS)),
    (np.uint8, np.maximum(LABELS, 0)),
    (np.int8, LABELS),
    (np.uint16, np.where(LABELS == 3, 1000, np.maximum(LABELS, 0))),
    (np.int32, np.where(LABELS == 3, 12175, LABELS)),
    (np.float32, LABELS),
]


@pytest.mark.parametrize(("dtype", "labels"), SCALED)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mgz"])
def test_labels_and_masks_that_were_saved_with_a_scaling(tmp_path, dtype, labels, suffix):
    if suffix == "mgz":
        kept = np.int32 if np.issubdtype(dtype, np.integer) else np.float32
        path = save(tmp_path / "x.mgz", labels.astype(kept), kind=nib.MGHImage)
    else:
        path = save(tmp_path / f"x.{suffix}", labels.astype(float), dtype=dtype)
    found, affine = read_labels(path)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.int32
    np.testing.assert_allclose(affine, AFFINE)
    np.testing.assert_array_equal(read_inside(path)[0], labels > 0)


def test_the_scaling_of_that_test_leaves_residues(tmp_path):
    stored = nib.load(save(tmp_path / "x.nii", LABELS.astype(float), dtype=np.int16)).get_fdata()
    assert (stored != np.rint(stored)).any() and ((stored > 0) != (LABELS > 0)).any()


def test_whole_numbers_by_hand():
    for values in ([0.99999, 2.0000457], [3.0000457763671875, -1.0, 0.0], [np.nan, 1, 2], [-0.0004, 1]):
        np.testing.assert_array_equal(whole_numbers(np.array(values)), np.rint(np.nan_to_num(values)))
    assert whole_numbers(np.array([0.0, 0.9882, 1.9882]), 3 / 255).tolist() == [0, 1, 2]  # cut off, not rounded
    others = [0.0, 1.5], [1.01, 2], [np.inf, 1], [-np.inf, 1], [0.9882, 0], [0.0004, 0.0001], [0.0, 0.3]
    assert all(whole_numbers(np.array(values)) is None for values in others)
    assert whole_numbers(np.array([0.5, 1.0]), 0.7) is None  # a step that does not tell them apart


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_interpolated_labels_are_refused_however_they_are_stored(tmp_path, dtype):
    with pytest.raises(NSDError, match="ROI volume must hold whole-number labels.*x.nii.*nearest neighbours"):
        read_labels(save(tmp_path / "x.nii", np.linspace(0, 3, 210).reshape(SHAPE), dtype=dtype))
    with pytest.raises(NSDError, match="whole-number labels"):
        read_labels(save(tmp_path / "y.nii", np.full(SHAPE, np.inf)))
    with pytest.raises(NSDError, match="below 2,147,483,648"):
        read_labels(save(tmp_path / "z.nii", np.full(SHAPE, 3e9)))


def test_masks_of_probabilities_keep_every_voxel_above_0(tmp_path):
    rng = np.random.default_rng(1)
    share = np.where(rng.uniform(size=SHAPE) < 0.5, 0.0, rng.uniform(0.05, 1, SHAPE)) - 0.3 * (LABELS < 0)
    for dtype in (np.float32, np.int16, np.uint8):
        np.testing.assert_array_equal(read_inside(save(tmp_path / "x.nii", share, dtype=dtype))[0], share > 0)
    for stored in (np.indices(SHAPE)[0], np.indices(SHAPE)[0] > 2):  # the smallest of 255 steps is above 0
        image = nib.Nifti1Image(stored.astype(np.uint8), AFFINE)
        image.header.set_slope_inter(1 / 255, 0)
        nib.save(image, tmp_path / "x.nii")
        np.testing.assert_array_equal(read_inside(tmp_path / "x.nii")[0], stored > 0)
    small = (share > 0) * 1e-5
    np.testing.assert_array_equal(read_inside(save(tmp_path / "x.nii", small))[0], share > 0)
    small[0, 0, 0] = np.nan
    assert not read_inside(save(tmp_path / "x.nii", small))[0][0, 0, 0]


def changed(path, **fields):
    """`path` with some fields of its header overwritten, past nibabel's own checks."""
    start = bytearray(path.read_bytes())
    header = np.ndarray((), nib.Nifti1Header.template_dtype, start)
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(start)
    return path


@pytest.mark.parametrize("slope", [0, np.nan, np.inf, -np.inf])
def test_a_slope_that_is_none_means_unscaled(tmp_path, slope):
    path = changed(save(tmp_path / "x.nii", LABELS.astype(np.int16)), scl_slope=slope, scl_inter=np.nan)
    np.testing.assert_array_equal(read_volume(path)[0], LABELS)
    np.testing.assert_array_equal(read_labels(path)[0], LABELS)


def test_an_intercept_that_is_none_is_refused(tmp_path):
    path = changed(save(tmp_path / "x.nii", LABELS.astype(np.int16)), scl_slope=1, scl_inter=np.inf)
    with pytest.raises(NSDError, match="x.nii must be a complete file of its format, got a damaged header .*intercept"):
        read_volume(path)


@pytest.mark.parametrize("qfac", [0, 1])
def test_qfac_0_is_1(tmp_path, qfac):
    path = changed(save(tmp_path / "x.nii", LABELS.astype(np.int16)), sform_code=0, qform_code=1)
    start = bytearray(path.read_bytes())
    np.ndarray((), nib.Nifti1Header.template_dtype, start)["pixdim"][0] = qfac
    path.write_bytes(start)
    np.testing.assert_allclose(open_volume(path).affine, AFFINE, atol=1e-5)


def test_one_rule_for_sform_and_qform(tmp_path):
    other = AFFINE.copy()
    other[0, 3] += 12
    for codes, affine, note in (
        ((1, 0), AFFINE, ""),
        ((0, 1), other, ""),
        ((4, 1), AFFINE, "sform and qform up to 12 mm apart: the sform is used"),
        ((0, 0), None, "neither sform nor qform: places come from the voxel sizes alone"),
    ):
        image = nib.Nifti1Image(LABELS.astype(np.int16), AFFINE)
        image.set_sform(AFFINE, codes[0])
        image.set_qform(other, codes[1])
        nib.save(image, tmp_path / "x.nii")
        found = open_volume(tmp_path / "x.nii")
        assert place_note(found).startswith(note) and bool(place_note(found)) == bool(note)
        np.testing.assert_allclose(found.affine, nib.load(tmp_path / "x.nii").affine)
        if affine is not None:
            np.testing.assert_allclose(found.affine, affine, atol=1e-5)
        else:
            np.testing.assert_allclose(np.abs(np.diag(found.affine)[:3]), [2, 3, 4])
            with pytest.raises(NSDError, match="mask must have the betas' affine.*header has neither sform nor qform"):
                check_grid("mask", (SHAPE, found.affine), (SHAPE, AFFINE), tmp_path / "x.nii")
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE + 1e-3, 1)
    assert place_note(image) == ""
    freesurfer = nib.MGHImage(LABELS.astype(np.int32), AFFINE.astype(np.float32))
    assert place_note(freesurfer) == ""
    freesurfer.header["goodRASFlag"] = 0
    assert place_note(freesurfer).startswith("neither sform nor qform")


@pytest.mark.parametrize(("unit", "factor"), [("micron", 0.001), ("meter", 1000), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_places_are_in_mm_whatever_the_headers_unit(tmp_path, unit, factor, suffix):
    inverse = np.diag([1 / factor] * 3 + [1.0])
    image = nib.Nifti1Image(LABELS.astype(np.int16), inverse @ AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / f"x.{suffix}")
    found = open_volume(tmp_path / f"x.{suffix}")
    np.testing.assert_allclose(found.affine, AFFINE, rtol=1e-5)
    np.testing.assert_allclose(found.header.get_zooms(), [2, 3, 4], rtol=1e-5)
    np.testing.assert_array_equal(found.dataobj, LABELS)


@pytest.mark.parametrize(("unit", "factor"), [("micron", 0.001), ("meter", 1000), ("mm", 1)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("codes", "apart", "note"),
    [
        ((0, 0), 0, "neither sform nor qform"),
        ((4, 1), 30, "sform and qform up to 30 mm apart"),
        ((4, 1), 0.05, ""),
        ((1, 0), 30, ""),
        ((0, 1), 30, ""),
    ],
)
def test_what_is_doubtful_about_places_is_told_in_any_unit(tmp_path, unit, factor, kind, codes, apart, note):
    other = AFFINE.copy()
    other[0, 3] += apart
    inverse = np.diag([1 / factor] * 3 + [1.0])
    image = kind(LABELS.astype(np.int16), inverse @ AFFINE)
    image.header.set_xyzt_units(unit, "sec")
    image.set_sform(inverse @ AFFINE, codes[0])
    image.set_qform(inverse @ other, codes[1])
    nib.save(image, tmp_path / "x.nii")
    raw, found = nib.load(tmp_path / "x.nii"), open_volume(tmp_path / "x.nii")
    for one in (raw, found):
        assert place_note(one).startswith(note) and bool(place_note(one)) == bool(note)
        assert is_oriented(one) == any(codes)
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == codes
    assert found.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(found.header.get_qform(), other, atol=1e-4)
    np.testing.assert_allclose(found.affine, np.diag([factor] * 3 + [1.0]) @ raw.affine, rtol=1e-5)


@pytest.mark.parametrize("extra", [(), (1,), (1, 1), (1, 1, 1)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.AnalyzeImage])
def test_a_volume_with_trailing_axes(tmp_path, extra, kind):
    path = tmp_path / ("x.img" if kind is nib.AnalyzeImage else "x.nii.gz")
    save(path, LABELS.reshape(*SHAPE, *extra).astype(np.int16), kind=kind)
    for axes in (3, None):
        found = open_volume(path, axes=axes)
        assert found.shape == SHAPE and found.get_filename() == str(path)
        np.testing.assert_array_equal(values_of(found, path, "x"), LABELS)
        assert found.affine.shape == (4, 4)
    if extra:
        assert open_volume(path, axes=4).shape == (*SHAPE, 1)
    else:
        with pytest.raises(NSDError, match="betas must have four axes .x, y, z, trial., got shape"):
            open_volume(path, "betas", 4)


@pytest.mark.parametrize("extra", [(4,), (1, 4), (4, 1), (1, 1, 4), (1, 4, 1)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_series_with_axes_of_one(tmp_path, extra, scaled, suffix):
    series = np.random.default_rng(2).normal(size=(*SHAPE, 4)).astype(np.float32)
    path = save(tmp_path / f"x.{suffix}", series.reshape(*SHAPE, *extra), dtype=np.int16 if scaled else None)
    want = nib.load(path).get_fdata().reshape(series.shape)
    for axes in (4, None):
        found = open_volume(path, "betas", axes, keep_file_open=True)
        assert found.shape == series.shape
        np.testing.assert_allclose(values_of(found, path, "x", np.s_[..., 1:3]), want[..., 1:3], rtol=1e-6)
        np.testing.assert_allclose(found.dataobj, want, rtol=1e-6)
    with pytest.raises(NSDError, match="mask must have three axes"):
        open_volume(path, "mask", 3)


def test_two_axes_of_several_entries_are_no_series(tmp_path):
    path = save(tmp_path / "x.nii", np.zeros((*SHAPE, 2, 3), np.float32))
    for axes in (3, 4, None):
        with pytest.raises(NSDError, match=r"must have .* axes .*got shape \(5, 6, 7, 2, 3\)"):
            open_volume(path, axes=axes)


def gifti(folder):
    nib.save(nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(np.zeros(9, np.float32))]), folder / "x.func.gii")
    return folder / "x.func.gii", "values on a surface .GIfTI."


def cifti(kind):
    def write(folder):
        axis = nib.cifti2.BrainModelAxis.from_mask(np.ones(SHAPE, bool), name="other", affine=AFFINE)
        n = 3
        first = nib.cifti2.ScalarAxis(list("abc")) if kind == "dscalar" else nib.cifti2.SeriesAxis(0, 1, n)
        nib.save(nib.Cifti2Image(np.zeros((n, 210), np.float32), (first, axis)), folder / f"x.{kind}.nii")
        return folder / f"x.{kind}.nii", "CIFTI"

    return write


def of(name, values, told, kind=nib.Nifti1Image):
    return lambda folder: (save(folder / name, values, kind=kind), told)


def cut(name, keep, told):
    def write(folder):
        path = save(folder / name, np.random.default_rng(3).normal(size=SHAPE))
        content = path.read_bytes()
        path.write_bytes(content[: keep if keep > 1 else int(len(content) * keep)])
        return path, told

    return write


def header_packed(folder):
    whole = nib.Nifti1Image(LABELS.astype(np.int16), AFFINE).to_bytes()
    (folder / "x.nii.gz").write_bytes(gzip.compress(whole[:352]))
    return folder / "x.nii.gz", "a header without data"


def misnamed(name, pack):
    def write(folder):
        (folder / name).write_bytes(pack(nib.Nifti1Image(LABELS.astype(np.int16), AFFINE).to_bytes()))
        return folder / name, f"a file that is {'' if pack is gzip.compress else 'not '}compressed with gzip"

    return write


def content(name, data, told):
    return lambda folder: ((folder / name, told), (folder / name).write_bytes(data))[0]


def absent(folder):
    return folder / "x.nii", "no such file"


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
NO_VOLUMES = [
    gifti,
    cifti("dscalar"),
    cifti("dtseries"),
    of("x.nii", np.zeros(SHAPE, RGB), "colours .RGB."),
    of("x.nii.gz", np.zeros(SHAPE, np.complex64), "complex numbers"),
    of("x.nii", np.zeros(SHAPE[:2], np.float32), r"shape \(5, 6\)"),
    of("lh.x.mgh", np.zeros((163842, 1, 1), np.float32), "a surface of 163842 vertices", nib.MGHImage),
    of("lh.x.mgz", np.zeros((642, 1, 1, 3), np.float32), "a surface of 642 vertices", nib.MGHImage),
    of("x.nii", np.zeros((40962, 1, 1), np.float32), "a surface of 40962 vertices", nib.Nifti2Image),
    cut("x.nii", 0.5, "a truncated file: 1016 of 2032 bytes"),
    cut("x.nii", 352, "a header without data"),
    cut("x.nii.gz", 0.5, "a truncated or damaged file"),
    *(cut("x.nii.gz", n, "a truncated or damaged file") for n in (20, 100, 300, 500, 900)),
    header_packed,
    misnamed("x.nii.gz", bytes),
    misnamed("x.nii", gzip.compress),
    content("x.nii", b"", "an empty file"),
    content("x.nii.gz", b"", "an empty file"),
    content("x.nii", b"<!doctype html>", "a web page in its place"),
    content("x.nii.gz", b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    content("x.txt", b"1 2 3", "no known image format"),
    absent,
]


@pytest.mark.parametrize("write", NO_VOLUMES)
@pytest.mark.parametrize("read", [read_labels, read_inside, read_volume])
def test_each_file_that_is_no_volume_has_its_own_sentence(tmp_path, write, read):
    path, told = write(tmp_path)
    with pytest.raises(NSDError, match=f"mask {path} must be .*, got .*{told}.*\\. [A-Z]") as caught:
        read(path, "mask")
    assert "\n" not in str(caught.value)
