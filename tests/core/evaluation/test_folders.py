"""Folders of reconstructed and seen pictures: paired by identity, or refused with the names that are in doubt."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.base.names import LABELS, NUMBERS, numbering
from napari_neuraldiffuser.core.base.pictures import PictureError
from napari_neuraldiffuser.core.evaluation.folders import evaluate_folders
from napari_neuraldiffuser.core.evaluation.name_patterns import PatternError
from napari_neuraldiffuser.core.evaluation.pairing import ImageFolderError, folded
from napari_neuraldiffuser.core.params import EvaluationParams

PIXCORR = EvaluationParams(size=32, metrics=("pixcorr",))
N = 4
PICTURES = np.random.default_rng(0).integers(0, 255, (N, 24, 24, 3), dtype=np.uint8)
PLACES = [3, 10, 11, 500]
OURS = "sub-01_stim-{:05d}_rep-{}_desc-{}_recon.png"


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def fill(folder, names, pictures=PICTURES):
    """Lossless pictures by these names, one after the other."""
    for name, picture in zip(names, pictures, strict=True):
        save(folder / name, picture)
    return folder


@pytest.fixture
def recon(tmp_path):
    return tmp_path / "recon"


@pytest.fixture
def seen(tmp_path):
    return tmp_path / "seen"


def right(result, arm="recon"):
    """Whether every picture was compared with itself."""
    values = result.arms[arm].values["pixcorr"]
    return len(values) == N and bool((values > 0.999).all())


def write_sidecar(folder, labels=(), ids=PLACES):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sub-01_recon.json").write_text(json.dumps(numbering(ids, labels)))


# ---- our own names ----


def test_labels_of_own_scans_decide_and_not_numbers(recon, seen):
    """stim-00003 is a place in a list of labels; pic_003 is another picture."""
    labels = ["pic_002", "pic_003", "pic_010", "pic_011"]
    write_sidecar(recon, labels, range(N))
    for arm in ("guided", "unguided"):
        fill(recon, [OURS.format(k, 1, arm) for k in range(N)])
    fill(seen, [f"{label}.png" for label in labels])
    fill(seen, ["pic_000.png", "pic_001.png", "00001.png", "00003.png"], 255 - PICTURES)
    result = evaluate_folders(recon, seen, None, PIXCORR)
    assert right(result, "guided") and right(result, "unguided")
    assert result.summary()["stimuli"] == labels
    assert result.summary()["paired_by"] == "labels of own scans"


@pytest.mark.parametrize("labels", [["1", "2", "3", "4"], ["a/x", "a/y", "b/x", "b/y"], ["NA", "null", "1e3", "a\\b"]])
@pytest.mark.parametrize("ending", ["", ".png"])
def test_labels_of_every_kind(recon, seen, labels, ending):
    """Numbers from 1, paths with and without ending, and words that tables take for nothing."""
    write_sidecar(recon, [label + ending for label in labels], range(N))
    fill(recon, [OURS.format(k, 1, "guided") for k in range(N)])
    fill(seen, [f"{label}.png".replace("\\", "/") for label in labels])
    fill(seen / "other", ["p.png", "q.png", "r.png", "s.png"], 255 - PICTURES)
    assert right(evaluate_folders(recon, seen, None, PIXCORR), "guided")


SEEN = "sub-02_stim-{:05d}_desc-seen_recon.png"


def run_of_another(folder, labels, pictures=PICTURES):
    """What another subject's run was shown, with its sidecar."""
    fill(folder, [SEEN.format(k) for k in range(N)], pictures)
    (folder / "sub-02_recon.json").write_text(json.dumps(numbering(range(N), labels)))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_two_subjects_with_own_labels_pair_by_label(recon, seen, order):
    """The same number is another label in each of them."""
    labels = ["cat", "cow", "dog", "hen"]
    write_sidecar(recon, labels, range(N))
    fill(recon, [OURS.format(k, 1, "guided") for k in range(N)])
    run_of_another(seen, [labels[k] for k in order], PICTURES[order])
    result = evaluate_folders(recon, seen, None, PIXCORR)
    assert right(result, "guided") and result.summary()["paired_by"] == "labels of own scans"


@pytest.mark.parametrize(
    ("mine", "theirs", "patterns"),
    [
        (["cat", "cow", "dog", "hen"], ["cow", "dog", "hen", "pig"], {}),
        (["cat", "cow", "dog", "hen"], None, {}),
        (None, ["cow", "dog", "hen", "pig"], {}),
        ((), ["cow", "dog", "hen", "pig"], {}),
        (None, ["cow", "dog", "hen", "pig"], {"seen_pattern": "*_stim-{stimulus}_*"}),
        (None, ["cow", "dog", "hen", "pig"], {"pattern": "*_stim-{stimulus}_*"}),
    ],
)
def test_places_in_a_list_of_labels_are_no_numbers_on_either_side(recon, seen, mine, theirs, patterns):
    """No sidecar (None), NSD's ids (empty), or labels that the other side lacks."""
    fill(recon, [OURS.format(k, 1, "guided") for k in range(N)])
    if mine is not None:
        write_sidecar(recon, mine, range(N))
    if theirs is None:
        fill(seen, [SEEN.format(k) for k in range(N)])
    else:
        run_of_another(seen, theirs)
    with pytest.raises(ImageFolderError, match="must have its seen picture"):
        evaluate_folders(recon, seen, None, PIXCORR, **patterns)


def test_nsd_ids_may_be_the_whole_name_of_a_seen_picture(recon, seen):
    write_sidecar(recon)
    fill(recon, [OURS.format(k, 1, "guided") for k in PLACES])
    fill(seen, [f"{k:06d}.png" for k in PLACES])
    assert right(evaluate_folders(recon, seen, None, PIXCORR), "guided")


def test_numbers_without_a_sidecar_are_not_guessed(recon, seen):
    """They may be places in somebody's list of labels, which count from another number."""
    fill(recon, [OURS.format(k, 1, "guided") for k in range(N)])
    fill(seen, [f"{k:05d}.png" for k in range(N)])
    with pytest.raises(ImageFolderError, match=r"got none for 4 of 4: sub-01_stim-00000.*sub-XX_recon\.json"):
        evaluate_folders(recon, seen, None, PIXCORR)
    assert right(evaluate_folders(recon, seen, None, PIXCORR, seen_pattern="{stimulus}"), "guided")


def test_our_seen_pictures_and_flat_copies_of_ours_pair_by_their_number(recon, seen, tmp_path):
    for arm in ("guided", "unguided"):
        for repeat in (1, 2):
            fill(recon, [OURS.format(k, repeat, arm) for k in PLACES])
    fill(recon, [f"sub-01_stim-{k:05d}_desc-start_recon.png" for k in PLACES], 255 - PICTURES)
    fill(seen, [f"sub-01_stim-{k:05d}_desc-seen_recon.png" for k in PLACES])
    result = evaluate_folders(recon, seen, None, PIXCORR)
    assert right(result, "guided") and result.arms["guided"].values["pixcorr"].shape == (N, 2)
    assert result.stimuli == [f"{k:05d}" for k in PLACES] and len(result.table()) == 16 and not result.notes
    flat = fill(tmp_path / "flat", [f"stim-{k:05d}.png" for k in PLACES])
    assert right(
        evaluate_folders(flat, fill(tmp_path / "also", [p.name for p in sorted(flat.iterdir())]), None, PIXCORR)
    )
    assert right(evaluate_folders(flat, seen, None, PIXCORR))
    fill(recon, [f"sub-01_stim-{k:05d}_desc-seen_recon.png" for k in PLACES])
    assert right(evaluate_folders(recon, recon, None, PIXCORR), "guided")  # a run's folder has its seen pictures


def test_labels_that_have_no_picture_are_listed_with_them(recon, seen):
    write_sidecar(recon, ["cat", "dog", "cow", "hen"])
    fill(recon, [OURS.format(k, 1, "guided") for k in PLACES])
    fill(seen, ["cat.png", "dog.png", "00011.png", "00500.png"])
    with pytest.raises(ImageFolderError, match=r"for 2 of 4: .*00011.*\(of cow\), .*00500.*\(of hen\)\. Name"):
        evaluate_folders(recon, seen, None, PIXCORR)
    with pytest.raises(ImageFolderError, match="none for 2 of 4"):  # known to be no numbers, whatever a pattern says
        evaluate_folders(recon, seen, None, PIXCORR, seen_pattern="{stimulus}")


# ---- other tools' names ----


def test_whole_names_pair(recon, seen):
    names = ["a.png", "photo 12.png", "sub/c.d.png", "7.png"]
    fill(recon, names)
    fill(seen, names)
    fill(seen, ["b.png", "12.png", "sub/c.png", "70.png"], 255 - PICTURES)
    assert right(evaluate_folders(recon, seen, None, PIXCORR))
    flat = fill(recon.with_name("flat"), [name.rsplit("/", 1)[-1] for name in names])
    assert right(evaluate_folders(flat, seen, None, PIXCORR))


def test_rep_and_desc_are_no_part_of_the_name(recon, seen):
    fill(seen, [f"{word}.png" for word in ("cat", "dog", "cow", "hen")])
    for repeat in (1, 2, 3):
        fill(recon, [f"{word}_rep-{repeat}_desc-mine_recon.png" for word in ("cat", "dog", "cow", "hen")])
    result = evaluate_folders(recon, seen, None, PIXCORR)
    assert right(result, "mine") and result.arms["mine"].values["pixcorr"].shape == (N, 3)


@pytest.mark.parametrize(
    ("name", "seen_name"),
    [("img_{:04d}.png", "stim-{:05d}_seen.png"), ("recon_{}.png", "{}.png"), ("{}.png", "coco_{:012d}.png"),
     ("00{}_12.png", "12_{}.png")],
)  # fmt: skip
def test_a_number_that_names_share_is_no_pair(recon, seen, name, seen_name):
    fill(recon, [name.format(k) for k in PLACES])
    fill(seen, [seen_name.format(k) for k in PLACES])
    with pytest.raises(ImageFolderError, match="every reconstruction of .* got none for 4 of 4: .*--pattern") as caught:
        evaluate_folders(recon, seen, None, PIXCORR)
    assert name.format(PLACES[0]) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "seen_name", "pattern", "seen_pattern"),
    [
        ("img_{:04d}.png", "stim-{:05d}_seen.png", "img_{stimulus}", ""),
        ("recon_{}.png", "shared_nsd{:05d}.png", "recon_{stimulus}", "*_nsd{stimulus}"),
        ("{}.png", "coco_{:012d}.png", "", "coco_{stimulus}"),
        ("run7_{}_12.png", "12_{}.png", "run*_{stimulus}_{repeat}", "12_{stimulus}"),
    ],
)
def test_a_pattern_says_what_the_number_is(recon, seen, name, seen_name, pattern, seen_pattern):
    fill(recon, [name.format(k) for k in PLACES])
    fill(seen, [seen_name.format(k) for k in PLACES])
    result = evaluate_folders(recon, seen, None, PIXCORR, pattern=pattern, seen_pattern=seen_pattern)
    assert right(result)


def test_a_pattern_gives_repeats_and_arms(recon, seen):
    fill(seen, [f"{k}.png" for k in PLACES])
    for arm in ("ours", "theirs"):
        for repeat in (0, 1, 2):
            fill(recon / arm, [f"{k}_{repeat}.png" for k in PLACES])
    save(recon / "overview.png", PICTURES[0])
    result = evaluate_folders(recon, seen, None, PIXCORR, pattern="{arm}/{stimulus}_{repeat}")
    assert set(result.arms) == {"ours", "theirs"} and result.arms["ours"].values["pixcorr"].shape == (N, 3)
    assert right(result, "ours") and "overview.png" in result.notes[0] and "left out" in result.notes[0]
    with pytest.raises(ImageFolderError, match=r"names of the pattern 'x_\{stimulus\}', got .*Correct it"):
        evaluate_folders(recon, seen, None, PIXCORR, pattern="x_{stimulus}")
    with pytest.raises(PatternError, match="must have"):
        evaluate_folders(recon, seen, None, PIXCORR, pattern="x_*")


def test_spellings_of_one_name_pair_with_a_note(recon, seen):
    names = ["Café", "ÉCLAIR", "straße", "0012"]
    fill(recon, [f"{unicodedata.normalize('NFC', name)}.png" for name in names])
    others = ["café", "éclair", "STRASSE", "12"]
    fill(seen, [f"{unicodedata.normalize('NFD', name)}.PNG" for name in others])
    result = evaluate_folders(recon, seen, None, PIXCORR)
    assert right(result) and "spelled otherwise" in result.notes[0]
    assert folded("e\u0301") == folded("É") == "é" and folded("007") == "7" != folded("7a")


def test_of_two_spellings_the_same_one_is_meant_and_none_is_guessed(recon, seen):
    fill(recon, NAMES)
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    save(seen / "A.png", 255 - PICTURES[0])
    assert right(evaluate_folders(recon, seen, None, PIXCORR))
    (seen / "a.png").rename(seen / "á.png")
    save(seen / "Á.png", PICTURES[0])
    (recon / "a.png").rename(recon / unicodedata.normalize("NFD", "Á.png"))
    with pytest.raises(ImageFolderError, match="must be of one seen picture, got several that fit"):
        evaluate_folders(recon, seen, None, PIXCORR)


# ---- what is partial or in doubt ----


def test_reconstructions_without_a_seen_picture_are_refused_and_listed(recon, seen):
    fill(recon, NAMES)
    fill(seen, ["a.png", "b.png", "c.png", "other.png"])
    with pytest.raises(ImageFolderError, match=r"got none for 1 of 4: d\.png\. Name"):
        evaluate_folders(recon, seen, None, PIXCORR)
    fill(recon, [f"x{k}.png" for k in range(30)], [PICTURES[0]] * 30)
    with pytest.raises(ImageFolderError, match=r"got none for 31 of 34: .* \.\.\. \(31 in all\)"):
        evaluate_folders(recon, seen, None, PIXCORR)


def test_several_seen_pictures_of_one_name_are_refused(recon, seen):
    fill(recon, NAMES)
    fill(seen, ["x/a.png", "b.png", "c.png", "d.png"])
    save(seen / "y/a.png", PICTURES[0])
    with pytest.raises(
        ImageFolderError, match=r"a\.png must be of one seen picture, got several.*x/a\.png, .*y/a\.png"
    ):
        evaluate_folders(recon, seen, None, PIXCORR)


def test_two_files_of_one_repeat_are_refused(recon, seen):
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    fill(recon, ["a.png", "b.png", "c.png", "run1/a.png"])
    with pytest.raises(ImageFolderError, match="one file per stimulus, repeat and arm, got .*run1/a.png"):
        evaluate_folders(recon, seen, None, PIXCORR)


def test_arms_and_stimuli_must_be_whole(recon, seen):
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    fill(recon, [f"{k}_rep-1_desc-one.png" for k in "abcd"])
    fill(recon, [f"{k}_rep-1_desc-two.png" for k in "ab"], PICTURES[:2])
    with pytest.raises(ImageFolderError, match=r"same stimuli, got none of c \(two\), d \(two\)"):
        evaluate_folders(recon, seen, None, PIXCORR)
    fill(recon, [f"{k}_rep-1_desc-two.png" for k in "cd"], PICTURES[2:])
    save(recon / "a_rep-2_desc-one.png", PICTURES[0])
    with pytest.raises(ImageFolderError, match="equally many for every stimulus"):
        evaluate_folders(recon, seen, None, PIXCORR)


def test_a_folder_is_not_scored_against_itself(seen):
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    with pytest.raises(ImageFolderError, match="other files than recon_dir"):
        evaluate_folders(seen, seen, None, PIXCORR)


def test_folders_without_pictures(recon, seen, tmp_path):
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    recon.mkdir()
    for folders in ((recon, seen), (seen, recon), (seen, tmp_path / "absent")):
        with pytest.raises(ImageFolderError, match="must be a folder with images"):
            evaluate_folders(*folders, None, PIXCORR)
    fill(recon, [f"sub-01_stim-{k:05d}_desc-start_recon.png" for k in PLACES])
    with pytest.raises(ImageFolderError, match="must have pictures of its kind"):
        evaluate_folders(recon, seen, None, PIXCORR)


# ---- pictures ----


def test_unreadable_pictures_are_named(recon, seen):
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    fill(recon, NAMES)
    (recon / "c.png").write_bytes((recon / "c.png").read_bytes()[:60])
    with pytest.raises(PictureError, match=r"c\.png must be a whole picture"):
        evaluate_folders(recon, seen, None, PIXCORR)


def test_reconstructions_have_one_size(recon, seen):
    fill(seen, ["a.png", "b.png", "c.png", "d.png"])
    fill(recon, ["a.png", "b.png", "c.png"], PICTURES[:3])
    save(recon / "d.png", PICTURES[3, :16, :16])
    with pytest.raises(ImageFolderError, match="must have the size of"):
        evaluate_folders(recon, seen, None, PIXCORR)


def test_seen_pictures_of_other_shapes_are_cut_as_a_run_cuts_its_stimuli(recon, seen):
    fill(recon, NAMES)
    frame = [np.pad(picture, ((0, 0), (9 + 2 * k, 9 + 2 * k), (0, 0))) for k, picture in enumerate(PICTURES)]
    fill(seen, ["a.png", "b.png", "c.png", "d.png"], frame)
    result = evaluate_folders(recon, seen, None, PIXCORR)
    assert right(result) and "centre square" in result.notes[0]
    wide = [np.pad(picture, ((0, 0), (9, 9), (0, 0))) for picture in PICTURES]
    fill(recon, ["a.png", "b.png", "c.png", "d.png"], wide)
    fill(seen, ["a.png", "b.png", "c.png", "d.png"], wide)
    whole = evaluate_folders(recon, seen, None, PIXCORR)  # both have that shape: compared as they are
    assert right(whole) and not whole.notes
    assert whole.arms["recon"].protocol["resolution"]["seen"] == [24, 42]


def test_the_words_of_the_sidecar(recon):
    assert numbering([3])[NUMBERS].endswith("73k images") and LABELS not in numbering([3])
    assert numbering([3], ["cat"])[LABELS] == {"00003": "cat"}


# ---- folders that are not what they were taken for ----


NAMES = ["a.png", "b.png", "c.png", "d.png"]


@pytest.mark.parametrize(("names", "repeats"), [(NAMES, 1), (NAMES, 2), ([f"stim-{k:05d}.png" for k in PLACES], 2)])
def test_folders_in_the_wrong_order_are_told(recon, seen, names, repeats):
    fill(seen, names)
    for rep in range(1, repeats + 1):
        fill(recon, [name.replace(".png", f"_rep-{rep}_desc-x_recon.png") for name in names])
    assert right(evaluate_folders(recon, seen, None, PIXCORR), "x") or repeats > 1
    with pytest.raises(ImageFolderError, match="swapped"):
        evaluate_folders(seen, recon, None, PIXCORR)


def test_two_files_of_one_seen_picture_are_not_taken_for_the_wrong_order(recon, seen):
    fill(recon, NAMES)
    fill(seen, NAMES)
    fill(seen, ["a.bmp"], PICTURES[:1])
    with pytest.raises(ImageFolderError, match="several that fit"):
        evaluate_folders(recon, seen, None, PIXCORR)


@pytest.mark.parametrize("subjects", [["sub-01"], ["sub-01", "sub-02"]])
def test_a_whole_output_folder_is_told_from_its_images(tmp_path, seen, subjects):
    """The work folder has the same images, without the sidecar that says what their numbers are."""
    out = tmp_path / "out"
    for subject in subjects:
        names = [OURS.format(k, 1, "guided").replace("sub-01", subject) for k in range(N)]
        for place in (out / subject / "recon", out / "work" / subject / "images"):
            fill(place, names)
        (out / subject / "recon" / f"{subject}_recon.json").write_text(json.dumps(numbering(range(N), list("abcd"))))
    fill(seen, [f"{label}.png" for label in "abcd"])
    with pytest.raises(ImageFolderError, match="whole output.*Give .*out/sub-01/recon"):
        evaluate_folders(out, seen, None, PIXCORR)
    assert right(evaluate_folders(out / "sub-01" / "recon", seen, None, PIXCORR), "guided")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (None, "is not there. Check the path"),
        ("a file", "a file. Give its folder"),
        ("empty", "got none in .*Give the folder of the picture files"),
    ],
)
@pytest.mark.parametrize("which", ["recon_dir", "seen_dir"])
def test_a_folder_without_pictures_says_what_it_is(recon, seen, tmp_path, made, told, which):
    fill(recon, NAMES)
    other = tmp_path / "other"
    if made == "a file":
        other.write_text("x")
    elif made:
        other.mkdir()
    folders = (other, recon) if which == "recon_dir" else (recon, other)
    with pytest.raises(ImageFolderError, match=f"{which} must be a folder with images.*{told}"):
        evaluate_folders(*folders, None, PIXCORR)
