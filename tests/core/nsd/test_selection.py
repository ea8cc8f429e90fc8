"""ROI expressions against boolean algebra on the volumes, and lists of sessions."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.selection import (
    Term,
    as_term,
    chosen_sessions,
    listed,
    parse,
    select,
    unparse,
    with_masks,
)
from napari_neuraldiffuser.core.params import BetasParams
from tests.support.nsd.tree import AFFINE, SHAPE, expected, volume

PRF, FACES, ATLAS = "prf-visualrois", "floc-faces", "Kastner2015"
TABLES = {
    PRF: ("V1v", "V1d", "V2v", "hV4"),
    FACES: ("OFA", "FFA-1", "FFA-2", "mTL-faces"),
    ATLAS: ("V2v", "SPL1", "mid ventral"),
}


@pytest.fixture
def labelled(tree):
    """Three families of random labels, -1 outside cortex, every label there."""
    rng = np.random.default_rng(3)
    labels = {}
    for family, names in TABLES.items():
        labels[family] = rng.integers(-1, len(names) + 1, SHAPE).astype(np.int16)
        volume(tree.roi / f"{family}.nii.gz", labels[family])
        table = tree.root / f"nsddata/freesurfer/fsaverage/label/{family}.mgz.ctab"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    return nsd.Subject(tree.root, "subj02"), labels, tree


def region(labels, family, *names):
    return np.isin(labels[family], [TABLES[family].index(name) + 1 for name in names])


def drawn(folder, name, values=None, affine=AFFINE):
    values = np.random.default_rng(1).integers(0, 2, SHAPE).astype(np.uint8) if values is None else values
    volume(folder / name, values, affine)
    return folder / name, values


def test_parse_splits_at_operators_between_spaces_only():
    assert parse("V1") == [Term("V1")]
    assert parse("  nsdgeneral & V1v + floc-faces/FFA-1 -  a b.nii ") == [
        Term("nsdgeneral"),
        Term("V1v", "&"),
        Term("floc-faces/FFA-1", "+"),
        Term("a b.nii", "-"),
    ]
    assert [term.is_mask for term in parse("V1 + x.nii + Y.NII.GZ + nii")] == [False, True, True, False]


@pytest.mark.parametrize("path", ["/a/b - c & d + e.nii.gz", r"C:\my scans\a - b.nii", "/with space/x.nii", " x.nii"])
def test_quoted_paths_are_one_term(path):
    assert parse(f"V1 + {as_term(path)} & V2") == [Term("V1"), Term(path, "+"), Term("V2", "&")]


@pytest.mark.parametrize("name", ['a"b.nii', "V1 -", "+ V1", ""])
def test_a_name_that_no_expression_can_hold_is_refused(name):
    with pytest.raises(nsd.NSDError, match="without double quotes"):
        as_term(name)


def test_unparse_is_the_inverse_of_parse():
    """On every text of a few awkward pieces that is an expression, and 2,000 longer ones."""
    pieces = ["V1", "a b", "é\u00a0ü", '"', " - ", " + ", " & ", "-", " ", "/x.nii", "\\", "'"]
    rng, read = np.random.default_rng(11), 0
    texts = ["".join(some) for n in (1, 2, 3) for some in itertools.product(pieces, repeat=n)]
    for text in [*texts, *("".join(rng.choice(pieces, n)) for n in rng.integers(4, 12, 2000))]:
        try:
            terms = parse(text)
        except nsd.NSDError:
            continue
        assert parse(unparse(terms)) == terms, text
        read += 1
    assert read > 1000


def test_masks_get_other_paths_and_the_rest_stays():
    text = ' V1 +  "early - late" - "a - b.nii" & c.nii.gz'
    assert with_masks(text, lambda path: f"/x/{path}") == ('V1 + "early - late" - "/x/a - b.nii" & /x/c.nii.gz')
    assert with_masks(text, str) == text


@pytest.mark.parametrize("bad", ["", "  ", "V1 +", "+ V1", "V1 + & V2", "V1 + + V2", "- V1", "-", 'V1 + ""'])
def test_a_missing_term(bad):
    with pytest.raises(nsd.NSDError, match="on both sides of every operator|close every"):
        parse(bad)
    with pytest.raises(nsd.NSDError, match="close every double quote"):
        parse('V1 + "a - b.nii')


@pytest.mark.parametrize(
    "expression, want",
    [
        ("V1v", lambda r, m: r(PRF, "V1v")),
        ("V1", lambda r, m: r(PRF, "V1v", "V1d")),
        ("FFA", lambda r, m: r(FACES, "FFA-1", "FFA-2")),
        ("mTL-faces", lambda r, m: r(FACES, "mTL-faces")),
        ("mid ventral", lambda r, m: r(ATLAS, "mid ventral")),
        (f"{ATLAS}/V2v", lambda r, m: r(ATLAS, "V2v")),
        (f"{PRF}/V2", lambda r, m: r(PRF, "V2v")),
        ("floc-faces", lambda r, m: r(FACES, *TABLES[FACES])),
        ("nsdgeneral - FFA", lambda r, m: m & ~r(FACES, "FFA-1", "FFA-2")),
        ("nsdgeneral & V1 + hV4", lambda r, m: (m & r(PRF, "V1v", "V1d")) | r(PRF, "hV4")),
        ("hV4 + V1 & nsdgeneral", lambda r, m: (r(PRF, "hV4") | r(PRF, "V1v", "V1d")) & m),
        ("nsdgeneral - V1 - FFA-1", lambda r, m: m & ~r(PRF, "V1v", "V1d") & ~r(FACES, "FFA-1")),
    ],
)
def test_expressions_are_boolean_algebra_from_left_to_right(labelled, expression, want):
    subject, labels, tree = labelled
    wanted = want(lambda family, *names: region(labels, family, *names), tree.mask)
    np.testing.assert_array_equal(select(subject, expression), wanted)
    np.testing.assert_array_equal(subject.voxels(expression), np.argwhere(wanted))


def test_a_drawn_mask_with_odd_path_and_nan(labelled, tmp_path):
    subject, labels, tree = labelled
    values = np.where(np.random.default_rng(1).integers(0, 2, SHAPE), 0.5, np.nan).astype(np.float32)
    path, _ = drawn(tmp_path / "my - masks", "drawn & kept.nii.gz", values)
    np.testing.assert_array_equal(select(subject, as_term(path)), values > 0)
    np.testing.assert_array_equal(select(subject, f"nsdgeneral - {as_term(path)}"), tree.mask & ~(values > 0))
    with pytest.raises(nsd.NSDError, match="between double quotes"):
        select(subject, str(path))


def test_bad_masks(labelled, tmp_path):
    subject, *_ = labelled
    with pytest.raises(nsd.NSDError, match="must be an existing NIfTI file, got nowhere.nii. Check the path"):
        select(subject, "nsdgeneral + nowhere.nii")
    other, _ = drawn(tmp_path, "other.nii", np.ones((3, 4, 5), np.uint8))
    with pytest.raises(nsd.NSDError, match="other.nii must have the betas' shape.*resample"):
        select(subject, str(other))
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.8
    moved, _ = drawn(tmp_path, "moved.nii", affine=shifted)
    with pytest.raises(nsd.NSDError, match="moved.nii must have the betas' affine.*Resample"):
        select(subject, str(moved))
    (tmp_path / "text.nii.gz").write_text("not an image")
    with pytest.raises(nsd.NSDError, match="text.nii.gz must be .*, got a file of no known image format"):
        select(subject, str(tmp_path / "text.nii.gz"))
    empty, _ = drawn(tmp_path, "empty.nii", np.zeros(SHAPE, np.uint8))
    with pytest.raises(nsd.NSDError, match=r"must have voxels above 0, got none \(empty mask\): .*empty.nii has 0"):
        subject.voxels(str(empty))


def test_an_unknown_name_lists_close_ones_and_the_families(labelled):
    subject, *_ = labelled
    with pytest.raises(nsd.NSDError, match="Did you mean .*nsdgeneral.*Families: .*floc-faces.*nsdgeneral"):
        subject.voxels("nsdgenral")
    with pytest.raises(nsd.NSDError, match=r"got 'ffa'. Did you mean FFA\b"):
        subject.voxels("nsdgeneral - ffa")
    with pytest.raises(nsd.NSDError, match="Did you mean floc-faces/FFA-1"):
        subject.voxels("floc-face/FFA-1")
    with pytest.raises(nsd.NSDError, match="got 'floc-faces/V1v'"):
        subject.voxels("floc-faces/V1v")
    with pytest.raises(nsd.NSDError, match="got 'xyzzy'. Families"):
        subject.voxels("xyzzy")


def test_a_region_of_several_families_says_which(labelled):
    subject, *_ = labelled
    with pytest.raises(nsd.NSDError, match=f"2 families have: {ATLAS}, {PRF}. Write {ATLAS}/V2v or {PRF}/V2v"):
        subject.voxels("V2v")
    with pytest.raises(nsd.NSDError, match=f"Write {ATLAS}/V2 or {PRF}/V2"):
        subject.voxels("nsdgeneral & V2")


@pytest.mark.parametrize("expression", ["V1+V2v", "nsdgeneral-FFA", "V1 +hV4", "nsdgeneral&V1v"])
def test_an_operator_without_spaces_is_explained(labelled, expression):
    with pytest.raises(nsd.NSDError, match="needs a space on each side"):
        labelled[0].voxels(expression)


def test_a_name_with_a_hyphen_is_no_operator_without_spaces(labelled):
    with pytest.raises(nsd.NSDError) as error:
        labelled[0].voxels("floc-hands")
    assert "space on each side" not in str(error.value)


def test_nothing_left_says_what_each_term_has(labelled):
    subject, labels, tree = labelled
    n = int(region(labels, PRF, "V1v").sum())
    with pytest.raises(nsd.NSDError, match=rf"empty mask\): V1v has {n}, V1 has \d+. Choose another"):
        subject.voxels("V1v - V1")


def test_a_volume_without_labels_hides_no_regions(labelled):
    subject, labels, tree = labelled
    volume(tree.roi / "Rsquare.nii.gz", np.full(SHAPE, 0.3, np.float32))
    np.testing.assert_array_equal(select(subject, "V1v"), region(labels, PRF, "V1v"))
    with pytest.raises(nsd.NSDError, match="whole-number labels"):
        select(subject, "Rsquare")


def test_names_are_read_once(labelled, monkeypatch):
    subject, *_ = labelled
    read = []
    real = type(subject).rois
    monkeypatch.setattr(type(subject), "rois", lambda self, name: read.append(name) or real(self, name))
    subject.voxels("V1v")
    assert sorted(read[:-1]) == sorted(subject.roi_names()) and read[-1] == PRF
    del read[:]
    subject.voxels("FFA")
    assert read == [FACES]


def test_voxels_read_no_betas(labelled, monkeypatch):
    subject, *_ = labelled
    monkeypatch.setattr("napari_neuraldiffuser.core.nsd.subject.read_session", None)
    assert len(subject.voxels("V1")) > 0


def test_betas_of_an_expression_are_the_columns_of_its_voxels(labelled):
    subject, labels, tree = labelled
    mask = tree.mask & ~region(labels, FACES, "FFA-1", "FFA-2") | region(labels, PRF, "hV4")
    betas = subject.betas("nsdgeneral - FFA + hV4")
    np.testing.assert_array_equal(betas.voxels, np.argwhere(mask))
    np.testing.assert_allclose(betas.data, expected(tree, mask)[0], atol=2e-6)
    other = nsd.Subject(tree.root, "subj02", BetasParams(roi="nsdgeneral - FFA + hV4")).betas()
    np.testing.assert_array_equal(other.data, betas.data)


def test_a_plain_family_is_read_as_before(labelled):
    """Bit for bit what the mask of voxels > 0 gives."""
    subject, _, tree = labelled
    where = np.argwhere(np.asarray(nib.load(tree.roi / "nsdgeneral.nii.gz").dataobj) > 0)
    np.testing.assert_array_equal(subject.voxels(), where)
    volume(tree.roi / "again.nii.gz", tree.mask.astype(np.float64))
    np.testing.assert_array_equal(subject.betas("again").data, subject.betas().data)


@pytest.mark.parametrize(
    "text, want",
    [
        ("all", "1 2 3 5 7"),
        (" All ", "1 2 3 5 7"),
        ("2", "2"),
        ("1-3,7", "1 2 3 7"),
        ("7, 1 - 2 ,2", "1 2 7"),
        ("02", "2"),
    ],
)
def test_lists_of_sessions(text, want):
    assert chosen_sessions(text, ["1", "2", "3", "5", "7"]) == want.split()


@pytest.mark.parametrize("text", ["", "1,", "4", "1-4", "3-1", "8", "0-2", "one", "1;2", "1-", "-1", "1-999999999"])
def test_sessions_that_are_not_there_name_those_that_are(text):
    with pytest.raises(nsd.NSDError, match=r"sessions there are \(1-3, 5, 7\)"):
        chosen_sessions(text, ["1", "2", "3", "5", "7"])


def test_labels_of_own_sessions():
    labels = ["01", "02", "2-3", "baseline"]
    assert chosen_sessions("baseline,01", labels) == ["01", "baseline"]
    assert chosen_sessions("2-3", labels) == ["2-3"]
    assert chosen_sessions("1-2", labels) == ["01", "02"]
    assert listed(labels) == "01-02, 2-3, baseline"
    assert listed(["a"]) == "a"


def test_only_chosen_sessions_are_read(tree, monkeypatch):
    read = []
    real = nsd.Subject._read
    monkeypatch.setattr(nsd.Subject, "_read", lambda self, k, *rest: read.append(k) or real(self, k, *rest))
    betas = nsd.Subject(tree.root, "subj02", BetasParams(sessions="2")).betas()
    assert read == [2]
    assert betas.notes == ["sessions left out by choice: 1"]
    tree.raw.pop(1)
    values, ids = expected(tree)
    np.testing.assert_allclose(betas.data, values, atol=2e-6)
    np.testing.assert_array_equal(betas.stimulus_ids, ids)


def test_chosen_sessions_are_zscored_as_among_all(tree):
    """Single trials of session 2 are the same bits whether or not session 1 is read too."""
    both = nsd.Subject(tree.root, "subj02", BetasParams(average_repeats=False)).betas()
    one = nsd.Subject(tree.root, "subj02", BetasParams(average_repeats=False, sessions="2")).betas()
    np.testing.assert_array_equal(one.data, both.data[750:])
    np.testing.assert_array_equal(one.stimulus_ids, both.stimulus_ids[750:])
    np.testing.assert_array_equal(one.shared, both.shared[750:])


def test_a_session_that_is_not_on_disk_is_an_error_where_it_was_asked_for(tree):
    with pytest.raises(nsd.NSDError, match=r"sessions there are \(1-2\).*got '3'"):
        nsd.Subject(tree.root, "subj02", BetasParams(sessions="1,3")).betas()
    assert "3, 4" in nsd.Subject(tree.root, "subj02").betas().notes[0]


def test_sessions_without_test_images_cannot_be_split(tree, monkeypatch):
    subject = nsd.Subject(tree.root, "subj02", BetasParams(sessions="1"))
    subject.trials.loc[subject.trials["session"] == 1, "shared"] = False
    with pytest.raises(nsd.NSDError, match="must hold test stimuli"):
        subject.betas().split()
