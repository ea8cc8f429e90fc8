"""Own scans: the same measurements as an NSD tree give the same betas; files of every kind, and what is wrong there."""

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd.own import family_name
from napari_neuraldiffuser.core.nsd.reading.label_tables import read_dseg_table
from napari_neuraldiffuser.core.nsd.simulation import brain
from napari_neuraldiffuser.core.params import BetasParams, SimulationParams
from tests.support.nsd.own_files import FAMILY, corner, export

PARAMS = SimulationParams(n_sessions=2, n_test=8, train_repeats=3, image_size=32, seed=5)
OWN_FAMILY = FAMILY.replace("-", "")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """6 mm voxels: a quarter of the demo's."""
    root = tmp_path_factory.mktemp("nsd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", (6.0, (25, 32, 26)))
        nsd.simulate.write_subject(root, PARAMS)
    return nsd.Subject(root, "subj01")


@pytest.fixture(scope="module")
def source(subject, tmp_path_factory):
    return export(subject, tmp_path_factory.mktemp("own") / "my scans")


@pytest.fixture(scope="module")
def scans(source):
    return nsd.OwnScans(source)


def same_rows(own, tree, ids):
    """Own ids are indices of the sorted labels, which are the 73k ids with leading zeros."""
    np.testing.assert_array_equal(np.unique(ids)[own.stimulus_ids], tree.stimulus_ids)
    np.testing.assert_array_equal(own.shared, tree.shared)
    np.testing.assert_array_equal(own.repeats, tree.repeats)


@pytest.mark.parametrize(
    "params",
    [
        BetasParams(),
        BetasParams(sessions="2"),
        BetasParams(zscore=False, average_repeats=False),
    ],
    ids=["default", "one session", "single raw trials"],
)
def test_float_volumes_give_the_trees_betas_bit_for_bit(subject, source, params):
    """The file holds the very float32 numbers that the tree's int16 / 300 become."""
    tree, own = nsd.Subject(subject.layout.root, "subj01", params).betas(), nsd.OwnScans(source, params).betas()
    np.testing.assert_array_equal(own.data, tree.data)
    same_rows(own, tree, subject.trials["stimulus_id"])
    np.testing.assert_array_equal(own.voxels + corner(subject), tree.voxels)
    np.testing.assert_allclose(
        nib.affines.apply_affine(own.affine, own.voxels), nib.affines.apply_affine(tree.affine, tree.voxels), atol=1e-4
    )
    assert own.space == nsd.OWN_SPACE and own.shape == nsd.OwnScans(source).shape


def test_int16_with_a_slope_differs_by_rounding_only(subject, tmp_path):
    """int16 x (1/300 as float32) and int16 / 300 differ by some 1e-7 of the value; z-scores by less than 1e-5."""
    own = nsd.OwnScans(export(subject, tmp_path / "int16", stored=np.int16)).betas()
    tree = subject.betas()
    assert np.abs(own.data - tree.data).max() < 1e-5
    same_rows(own, tree, subject.trials["stimulus_id"])


def again(path, folder, reshape=lambda values: values, dtype=None):
    """The volume of a file saved again: with other axes, or in whole numbers with the scaling that nibabel chooses."""
    image = nib.load(path)
    values = reshape(np.asarray(image.dataobj))
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype or values.dtype)
    nib.save(
        nib.Nifti1Image(values.astype(float) if dtype else values, image.affine, header), folder / path.split("/")[-1]
    )
    return str(folder / path.split("/")[-1])


@pytest.mark.parametrize("extra", [(1, -1), (-1, 1)])
def test_the_same_scans_in_other_clothes(source, scans, tmp_path, extra):
    """Axes of one entry, and masks and labels that whole numbers with a header scaling hold."""
    want = scans.betas()
    dressed = replace(
        source,
        betas=again(source.betas, tmp_path, lambda v: v.reshape(*v.shape[:3], *extra)),
        mask=again(source.mask, tmp_path, lambda v: (3.0 * v - 1)[..., None], np.int16),
        anatomy=again(source.anatomy, tmp_path, lambda v: v[..., None, None]),
        rois=(again(source.rois[0], tmp_path, lambda v: v[..., None], np.int16),),
    )
    table = source.rois[0].replace(".nii.gz", ".tsv")
    (tmp_path / table.split("/")[-1]).write_text(open(table).read())
    own = nsd.OwnScans(dressed)
    np.testing.assert_array_equal(own.betas().data, want.data)
    np.testing.assert_array_equal(own.rois(OWN_FAMILY).labels, scans.rois(OWN_FAMILY).labels)
    assert own.rois(OWN_FAMILY).names == scans.rois(OWN_FAMILY).names
    np.testing.assert_array_equal(own.anatomy().dataobj, scans.anatomy().dataobj)
    for expression in ("V1", "mask & V1 + hV4", f"mask - {dressed.mask}"):
        if "- " not in expression:
            np.testing.assert_array_equal(own.voxels(expression), scans.voxels(expression))
        else:
            with pytest.raises(nsd.NSDError, match="empty mask"):
                own.voxels(expression)


def test_scans_without_a_place_are_read_with_a_note(source, tmp_path):
    """The voxel sizes alone say where voxels are: the same for all files, and left and right are not known."""

    def placed(path, codes):
        image = nib.load(path)
        image.set_sform(image.affine, codes)
        image.set_qform(image.affine, 0)
        nib.save(image, tmp_path / path.split("/")[-1])
        return str(tmp_path / path.split("/")[-1])

    bare = replace(source, betas=placed(source.betas, 0), mask=placed(source.mask, 0), rois=())
    betas = nsd.OwnScans(bare).betas()
    np.testing.assert_array_equal(betas.data, nsd.OwnScans(source).betas().data)
    assert betas.notes == [
        "betas.nii has neither sform nor qform: places come from the voxel sizes alone, left and right cannot be told"
    ]
    with pytest.raises(nsd.NSDError, match="mask must have the betas' affine"):
        nsd.OwnScans(replace(bare, mask=source.mask)).betas()


def test_regions_and_expressions_are_those_of_the_tree(subject, scans):
    assert scans.roi_names() == ["mask", OWN_FAMILY]
    ours, theirs = scans.rois(OWN_FAMILY), subject.rois(FAMILY)
    assert {k: v for k, v in ours.names.items() if k} == theirs.names
    tree_masks, own_masks = theirs.of(subject.betas()), ours.of(scans.betas())
    assert list(tree_masks) == list(own_masks)
    for name, mask in tree_masks.items():
        np.testing.assert_array_equal(own_masks[name], mask)
    for own, tree in (("V1 & mask", "V1 & nsdgeneral"), ("mask - V1 - hV4", "nsdgeneral - V1 - hV4")):
        np.testing.assert_array_equal(scans.voxels(own) + corner(subject), subject.voxels(tree))
        np.testing.assert_array_equal(scans.betas(own).data, subject.betas(tree).data)


def test_the_default_roi_is_the_mask_unless_there_is_such_a_family(scans, source, tmp_path):
    mask = np.asarray(nib.load(source.mask).dataobj) > 0
    assert scans.params.roi == "nsdgeneral"
    for roi in (None, "nsdgeneral", "mask", source.mask):
        np.testing.assert_array_equal(scans.voxels(roi), np.argwhere(mask))
    half = mask.copy()
    half[: mask.shape[0] // 2] = False
    nib.save(nib.Nifti1Image(half.astype(np.uint8), scans.affine), tmp_path / "nsdgeneral.nii")
    other = nsd.OwnScans(replace(source, rois=(str(tmp_path / "nsdgeneral.nii"),)))
    np.testing.assert_array_equal(other.voxels(), np.argwhere(half))
    with pytest.raises(nsd.NSDError, match="Families: mask"):
        scans.voxels("nsdgeneral + V1")


def test_the_mask_is_also_known_by_its_files_name(source, tmp_path):
    (tmp_path / "grey.nii.gz").write_bytes(open(source.mask, "rb").read())
    scans = nsd.OwnScans(replace(source, mask=str(tmp_path / "grey.nii.gz")))
    assert scans.rois("grey").name == scans.rois().name == "mask"
    assert scans.rois().names == {1: "mask"}


def test_trials_stimuli_captions_and_anatomy(subject, scans):
    trials = scans.trials
    assert len(trials) == 1500 and set(trials["session"]) == {"1", "2"}
    np.testing.assert_array_equal(trials["stimulus"].astype(int), subject.trials["stimulus_id"])
    for column in ("shared", "trial", "trial_in_session", "repeat"):
        np.testing.assert_array_equal(trials[column], subject.trials[column])
    labels = [int(name) for name in scans.stimuli.names]
    ids = [0, 7, 3]
    np.testing.assert_array_equal(scans.stimuli[ids], subject.stimuli[[labels[k] for k in ids]])
    np.testing.assert_array_equal(scans.stimuli[7], subject.stimuli[labels[7]])
    assert scans.stimuli.captions(7) == subject.stimuli.captions(labels[7])
    assert len(scans.stimuli) == len(labels) and scans.stimuli.notes == []
    assert scans.anatomy().shape == scans.shape


def test_own_sessions_are_chosen_by_label(source, tmp_path):
    text = open(source.trials).read().splitlines()
    rows = [line.split("\t") for line in text[1:]]
    renamed = [text[0], *("\t".join([t, s, {"1": "monday", "2": "ses-2"}[k], test]) for t, s, k, test in rows)]
    (tmp_path / "trials.tsv").write_text("\n".join(renamed) + "\n")
    source = replace(source, trials=str(tmp_path / "trials.tsv"))
    one = nsd.OwnScans(source, BetasParams(sessions="ses-2", average_repeats=False)).betas()
    both = nsd.OwnScans(source, BetasParams(sessions="monday, ses-2", average_repeats=False)).betas()
    np.testing.assert_array_equal(one.data, both.data[750:])
    assert one.notes == ["sessions left out by choice: monday"] and both.notes == []
    with pytest.raises(nsd.NSDError, match=r"sessions there are \(monday, ses-2\).*got 'tuesday'"):
        nsd.OwnScans(source, BetasParams(sessions="tuesday")).betas()


@pytest.mark.parametrize("packed", [False, True])
def test_reading_stays_streamed(source, tmp_path, monkeypatch, packed):
    """No block is larger than allowed, whatever the number of trials: mapped where it can be, else read."""
    from napari_neuraldiffuser.core.nsd.reading import sessions

    whole = nsd.OwnScans(source).betas().data
    if packed:
        (tmp_path / "betas.nii.gz").write_bytes(gzip.compress(open(source.betas, "rb").read(), 1))
        source = replace(source, betas=str(tmp_path / "betas.nii.gz"))
    volume = int(np.prod(nsd.OwnScans(source).shape)) * (8 if packed else 4)
    monkeypatch.setattr(sessions, "BLOCK_BYTES", volume * 11)
    read, mapped = [], []
    real, memmap = nib.arrayproxy.ArrayProxy.__getitem__, np.memmap
    monkeypatch.setattr(
        nib.arrayproxy.ArrayProxy, "__getitem__", lambda self, key: read.append(real(self, key)) or read[-1]
    )
    monkeypatch.setattr(np, "memmap", lambda *args: mapped.append(memmap(*args)) or mapped[-1])
    np.testing.assert_array_equal(nsd.OwnScans(source).betas().data, whole)
    sizes = [block.shape[-1] for block in read] if packed else [block.shape[0] for block in mapped]
    assert max(sizes) == 11 and len(sizes) == 2 * 69 and bool(read) == packed


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "u1"])
@pytest.mark.parametrize("scaling", [(1.0, 0.0), (0.25, -3.0), (np.nan, np.nan)])
@pytest.mark.parametrize("extra", [(), (1,)])
def test_mapped_volumes_are_what_nibabel_reads(tmp_path, dtype, scaling, extra):
    """Any byte order and scaling, axes of one, voxels in any order, trials from anywhere."""
    from napari_neuraldiffuser.core.nsd.reading.series import open_series

    rng = np.random.default_rng(3)
    stored = rng.integers(0, 200, (5, 6, 7, *extra, 30)).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(stored.dtype)
    image = nib.Nifti1Image(stored, np.eye(4), header)
    if np.isfinite(scaling[0]) and scaling != (1.0, 0.0):
        image.header.set_slope_inter(*scaling)
    nib.save(image, tmp_path / "x.nii")
    wanted = nib.load(tmp_path / "x.nii").get_fdata().reshape(5, 6, 7, 30)
    voxels = rng.permutation(np.argwhere(np.ones((5, 6, 7))))[:50]
    trials = np.array([3, 4, 9, 28])
    found = open_series(tmp_path / "x.nii").read(voxels, trials)
    np.testing.assert_allclose(found, wanted[tuple(voxels.T)][:, trials].T, rtol=1e-6)
    assert found.dtype == np.float32


def test_label_tables_beside_the_volume(source, tmp_path):
    labels = np.zeros(nsd.OwnScans(source).shape, np.int16)
    labels[2:4, 2, 2], labels[5, 5, 5] = 1, 2
    for name in ("areas", "plain"):
        nib.save(nib.Nifti1Image(labels, nsd.OwnScans(source).affine), tmp_path / f"{name}.nii.gz")
    (tmp_path / "areas.ctab").write_text("0 Unknown 0 0 0 0\n1 V1 255 0 0 0\n2 V2 0 255 0 0\n")
    scans = nsd.OwnScans(replace(source, rois=(str(tmp_path / "areas.nii.gz"), str(tmp_path / "plain.nii.gz"))))
    assert scans.roi_names() == ["mask", "areas", "plain"]
    assert scans.rois("areas").names == {1: "V1", 2: "V2"}
    assert scans.rois("plain").names == {1: "plain-1", 2: "plain-2"}
    assert scans.voxels("V2").tolist() == [[5, 5, 5]]
    (tmp_path / "plain.tsv").write_text("name\tindex\tcolor\n V3 \t2\t#fff\nbackground\t0\t#000\n")
    assert scans.rois("plain").names == {1: "plain-1", 2: "V3"}
    for bad in ("index\tlabel\n1\tV1\n", "index\tname\n1.5\tV1\n", "index\tname\n1\t\n"):
        (tmp_path / "plain.tsv").write_text(bad)
        with pytest.raises(nsd.NSDError, match="plain.tsv must have"):
            read_dseg_table(tmp_path / "plain.tsv")


def test_family_names():
    assert family_name("/a/sub-01_space-native_seg-visual_dseg.nii.gz") == "visual"
    assert family_name("sub-01_atlas-HCP_dseg.nii") == "HCP"
    assert family_name("lateral occipital.nii.gz") == "lateral occipital"
    assert family_name("aparc+aseg.MGZ") == "aparc+aseg"


def test_regions_and_masks_of_freesurfer(source, scans, tmp_path):
    labels = np.zeros(scans.shape, np.int32)
    labels[2:4, 2, 2], labels[5, 5, 5] = 1005, 2
    nib.save(nib.MGHImage(labels, scans.affine.astype(np.float32)), tmp_path / "aparc+aseg.mgz")
    (tmp_path / "aparc+aseg.txt").write_text("#No. Label Name: R G B A\n\n2 White 245 245 245 0\n3 Cortex 1 1 1 0\n")
    own = nsd.OwnScans(replace(source, rois=(str(tmp_path / "aparc+aseg.mgz"),)))
    assert own.rois("aparc+aseg").names == {2: "White", 1005: "aparc+aseg-1005"}
    assert own.voxels("White").tolist() == own.voxels(f'"{tmp_path}/aparc+aseg.mgz" - aparc+aseg-1005').tolist()
    assert {path.name for path in own.region_files()} == {"aparc+aseg.mgz", "aparc+aseg.txt"}


@pytest.mark.parametrize("name", ["betas", "mask", "trials"])
def test_files_that_are_needed(source, name):
    with pytest.raises(nsd.NSDError, match=f"must have {name}, .*got /no/where, which is no file.*Check the path"):
        nsd.open_source(replace(source, **{name: "/no/where"}))
    if name != "betas":
        with pytest.raises(nsd.NSDError, match=f"must have {name}, .*got none"):
            nsd.open_source(replace(source, **{name: ""}))


@pytest.mark.parametrize("name", ["images", "captions", "anatomy", "rois"])
def test_files_that_may_be_left_out_but_not_be_wrong(source, name):
    wrong = ("/no/where.nii",) if name == "rois" else "/no/where"
    with pytest.raises(nsd.NSDError, match="must have existing files, got .*/no/where"):
        nsd.open_source(replace(source, **{name: wrong}))
    left_out = nsd.open_source(replace(source, **{name: type(wrong)()}))
    assert left_out.betas().n_voxels > 100
    if name == "anatomy":
        assert left_out.anatomy() is None
    if name == "images":
        with pytest.raises(nsd.NSDError, match="images must be a folder .* got none. Choose the folder"):
            left_out.stimuli[0]
    if name == "captions":
        with pytest.raises(nsd.NSDError, match="captions must be given"):
            left_out.stimuli.captions(0)


def test_bad_regions(source, tmp_path):
    scans = nsd.OwnScans(replace(source, rois=(source.mask,)))
    with pytest.raises(nsd.NSDError, match="distinct names other than 'mask'"):
        scans.roi_names()
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "small.nii")
    scans = nsd.OwnScans(replace(source, rois=(str(tmp_path / "small.nii"),)))
    with pytest.raises(nsd.NSDError, match="ROI small must have the betas' shape"):
        scans.rois("small")
    with pytest.raises(nsd.NSDError, match=r"roi must be one of \['mask', 'small'\], got 'V9'"):
        scans.rois("V9")
    with pytest.raises(nsd.NSDError, match="anatomy must have three axes"):
        nsd.OwnScans(replace(source, anatomy=source.betas)).anatomy()


def test_open_source(subject, source):
    assert isinstance(nsd.open_source(source), nsd.OwnScans)
    params = BetasParams(sessions="1")
    opened = nsd.open_source(Source(str(subject.layout.root), "subj01"), params)
    assert isinstance(opened, nsd.Subject) and opened.params is params
    with pytest.raises(nsd.NSDError, match="NSD folder or own scans, got neither. Choose"):
        nsd.open_source(Source())
    with pytest.raises(nsd.NSDError, match="got mask, trials without betas"):
        nsd.open_source(Source(mask="m.nii", trials="t.tsv"))
    with pytest.raises(nsd.NSDError, match="must be a folder"):
        nsd.open_source(Source("/no/where"))
