"""Every format of NSD's betas from files written by hand: betas, a decoder, and maps in that space."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core import attribution, nsd
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.nsd.reading.images import place_note
from napari_neuraldiffuser.core.params import BetasParams, DecodingParams, default_of
from tests.support.nsd.nifti_bytes import nifti_bytes, write_nifti
from tests.support.nsd.tree import N, expected, hdf5, make_tree
from tests.support.stand_ins import make_targets

VERSIONS = ("betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR")
SPACES = {"func1mm": ((9, 8, 6), 1.0), "func1pt8mm": ((7, 6, 5), 1.8)}
FAMILY = "prf-visualrois"


def centred(shape, size):
    """NSD's affine: diagonal, the origin in the middle of the volume."""
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2
    return affine


def write_tree(root, space, version, kind, seed=11):
    """A subject whose betas lie in one space and version only; ROIs as float64 with -1, the T1 stored LIA."""
    shape, size = SPACES[space]
    rng, affine = np.random.default_rng(seed), centred(shape, size)
    tree = make_tree(root, ())
    tree.mask = rng.uniform(size=shape) < 0.3
    tree.raw = {k: rng.integers(-3000, 3000, (*shape, N)).astype("<i2") for k in (1, 2)}
    places = nsd.Subject(root, "subj02", BetasParams(space=space, version=version)).layout
    for session, raw in tree.raw.items():
        path = places.session_file(session, kind)
        if kind == "hdf5":
            hdf5(path, raw, chunks=(N, 1, 1, 1))
        else:
            write_nifti(path, raw, affine)
    labels = np.where(tree.mask, rng.integers(1, 8, shape), rng.integers(-1, 1, shape)).astype("<f8")
    write_nifti(places.roi_folder / "nsdgeneral.nii.gz", np.where(tree.mask, 1.0, labels.clip(-1, 0)), affine)
    for side, keep in (("lh", slice(None, shape[0] // 2)), ("rh", slice(shape[0] // 2, None))):
        half = np.full(shape, -1.0)
        half[keep] = labels[keep]
        write_nifti(places.roi_folder / f"{side}.{FAMILY}.nii.gz", half, affine)
    lia = np.array([[-size, 0, 0, 3], [0, 0, size, -4], [0, -size, 0, 5], [0, 0, 0, 1.0]])
    write_nifti(places.anatomy, rng.integers(0, 900, (shape[0], shape[2], shape[1])).astype("<i2"), lia)
    return tree, affine, labels, lia


@pytest.mark.parametrize(
    ("space", "version", "kind"),
    [
        *(("func1mm", version, "nii.gz") for version in VERSIONS),
        ("func1mm", VERSIONS[2], "nii"),
        ("func1mm", VERSIONS[1], "hdf5"),
        *(("func1pt8mm", version, kind) for version, kind in zip(VERSIONS, ("nii", "hdf5", "nii.gz"), strict=True)),
    ],
)
def test_files_betas_decoder_and_maps_in_each_space_and_version(tmp_path, space, version, kind):
    tree, affine, labels, _ = write_tree(tmp_path / "nsd", space, version, kind)
    subject = nsd.Subject(tree.root, "subj02", BetasParams(space=space, version=version))
    betas = subject.betas()
    values, ids = expected(tree)
    np.testing.assert_allclose(betas.data, values, atol=2e-6)
    np.testing.assert_array_equal(betas.stimulus_ids, ids)
    np.testing.assert_array_equal(betas.voxels, np.argwhere(tree.mask))  # -1 is not in the mask
    np.testing.assert_allclose(betas.affine, affine, atol=1e-6)
    assert betas.space == space and betas.shape == SPACES[space][0] and betas.n_voxels < tree.mask.size / 2

    train, test = betas.split()
    rng = np.random.default_rng(0)
    y = rng.normal(size=(len(train), 22))
    decoder = RidgeDecoder(DecodingParams()).fit(train, make_targets(y, train.stimulus_ids))
    truth = make_targets(rng.normal(size=(len(test), 22)), test.stimulus_ids)
    rois = subject.rois(FAMILY)
    np.testing.assert_array_equal(rois.labels, labels)
    maps = attribution.map(decoder, test, [rois], truth)
    paths = maps.save(tmp_path / "sub-02", "sub-02")
    (z,) = [path for path in paths if "_target-z_" in path.name]
    assert z.name == f"sub-02_space-{space}_target-z_contribution.nii.gz"
    image = nib.load(z)
    assert image.shape == SPACES[space][0] and image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_allclose(image.get_fdata()[tree.mask], maps.voxel_shares["z"], rtol=1e-5, atol=1e-12)
    assert len(set(maps.table["roi"])) >= 7


def test_a_version_or_space_that_is_not_there_is_named(tmp_path):
    tree, *_ = write_tree(tmp_path / "nsd", "func1mm", VERSIONS[0], "nii.gz")
    for space, version in (("func1mm", VERSIONS[2]), ("func1pt8mm", VERSIONS[0])):
        with pytest.raises(nsd.NSDError, match=f"{space}/{version} must hold betas_sessionNN.hdf5, .nii or .nii.gz"):
            nsd.Subject(tree.root, "subj02", BetasParams(space=space, version=version)).betas()
    assert default_of(BetasParams, "version") == VERSIONS[2]


def test_a_t1_that_is_stored_lia_keeps_its_places(tmp_path):
    tree, _, _, lia = write_tree(tmp_path / "nsd", "func1mm", VERSIONS[0], "nii.gz")
    anatomy = nsd.Subject(tree.root, "subj02", BetasParams(space="func1mm", version=VERSIONS[0])).anatomy()
    assert nib.aff2axcodes(anatomy.affine) == ("L", "I", "A")
    np.testing.assert_allclose(anatomy.affine, lia)
    upright = nib.as_closest_canonical(anatomy)
    voxel = np.array([2, 1, 3, 1])
    mm = anatomy.affine @ voxel
    there = np.rint(np.linalg.inv(upright.affine) @ mm).astype(int)
    assert upright.get_fdata()[tuple(there[:3])] == anatomy.get_fdata()[2, 1, 3]


@pytest.mark.parametrize("kind", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("header", "factor"),
    [
        ({}, 1.0),  # NSD's: slope 0, units 0, qfac 0
        ({"qfac": -1.0}, 1.0),
        ({"slope": 1.0, "units": 10}, 1.0),
        ({"slope": 2.0}, 2.0),
        ({"slope": float("nan")}, 1.0),
        ({"slope": float("inf")}, 1.0),
    ],
)
def test_headers_of_sessions_byte_for_byte(tmp_path, kind, header, factor):
    from napari_neuraldiffuser.core.nsd.reading.sessions import read_session
    from napari_neuraldiffuser.core.nsd.reading.volumes import open_volume

    affine = centred((4, 3, 5), 1.8)
    raw = np.random.default_rng(0).integers(-3000, 3000, (4, 3, 5, 12)).astype("<i2")
    write_nifti(tmp_path / f"x.{kind}", raw, affine, **header)
    voxels = np.array([[3, 0, 2], [0, 2, 4], [1, 1, 1]])
    found = read_session(tmp_path / f"x.{kind}", voxels, 12, ((4, 3, 5), affine))
    np.testing.assert_allclose(found, factor * raw[tuple(voxels.T)].T / 300, rtol=1e-6)
    image = open_volume(tmp_path / f"x.{kind}", axes=4)
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    assert place_note(image) == ""


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0), (8, 1.0)])
def test_units_byte_for_byte(tmp_path, unit, factor):
    """Unknown means mm; 8 is seconds with no unit of length."""
    from napari_neuraldiffuser.core.nsd.reading.volumes import read_inside

    affine = centred((4, 3, 5), 1.8)
    inverse = np.diag([1 / factor] * 3 + [1.0])
    values = np.eye(4, 3, dtype="<i2")[..., None].repeat(5, 2)
    (tmp_path / "x.nii").write_bytes(nifti_bytes(values, inverse @ affine, units=unit))
    inside, found = read_inside(tmp_path / "x.nii")
    np.testing.assert_allclose(found, affine, rtol=1e-5)
    assert inside.sum() == 15


def test_a_mask_of_everything_but_minus_one_is_not_made(tmp_path):
    """`!= -1` would take unlabelled cortex too, seven times as many voxels."""
    tree, *_ = write_tree(tmp_path / "nsd", "func1mm", VERSIONS[0], "nii.gz")
    subject = nsd.Subject(tree.root, "subj02", BetasParams(space="func1mm", version=VERSIONS[0]))
    assert len(subject.voxels("nsdgeneral")) == tree.mask.sum()
    assert (subject.rois("nsdgeneral").labels != -1).sum() > 1.5 * tree.mask.sum()
