"""Folders of the Algonauts 2023 challenge: responses, split, regions, images, captions, and what is refused."""

import json

import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd.describe import describe
from napari_neuraldiffuser.core.params import BetasParams
from tests.support.nsd.challenge_files import MAPPINGS, VERTICES, make_challenge, save


@pytest.fixture
def tree(tmp_path):
    return make_challenge(tmp_path / "algonauts")


def opened(tree, captions=True, **params):
    source = Source(str(tree.root), tree.subject, captions=str(tree.captions) if captions else "")
    return nsd.open_source(source, BetasParams(**params))


def test_responses_are_those_of_the_files_left_before_right(tree):
    betas = opened(tree).betas()
    assert isinstance(opened(tree), nsd.Challenge) and betas.space == "fsaverage" and betas.shape == (2, VERTICES)
    np.testing.assert_array_equal(betas.data, np.concatenate(tree.responses, axis=1))
    assert betas.stimulus_ids.tolist() == tree.ids and betas.data.dtype == np.float32
    assert betas.voxels.tolist() == [[h, int(v)] for h, mask in enumerate(tree.inside) for v in np.flatnonzero(mask)]
    assert betas.affine is None and betas.noise_ceiling["mean"] is None
    assert any("z-scored within sessions" in note for note in betas.notes)


def test_images_are_held_out_by_their_id_and_that_is_said(tree, tmp_path):
    betas = opened(tree, held_out=0.3, held_out_seed=4).betas()
    rank = np.random.default_rng(4).permutation(73000)
    assert betas.shared.tolist() == [bool(rank[one] < 0.3 * 73000) for one in tree.ids]
    assert any("no responses to its test images" in note and "held_out 0.3" in note for note in betas.notes)
    other = make_challenge(tmp_path / "other", "subj01", n_images=60, seed=8)
    pictures = other.folder / "training_split/training_images"
    (picture,) = pictures.glob("train-0030*")  # an image of the first subject, in another place of the second's
    moved = next(one for one, shared in zip(tree.ids, betas.shared, strict=True) if shared)
    picture.rename(pictures / f"train-0030_nsd-{moved:05d}.png")
    again = opened(other, captions=False, held_out=0.3, held_out_seed=4).betas()
    assert again.shared[again.stimulus_ids.tolist().index(moved)]


def test_published_test_responses_are_the_test_set(tree):
    n, ids = 7, [72990 + k for k in range(7)]
    rng = np.random.default_rng(0)
    wanted = []
    for side, mask in zip(("lh", "rh"), tree.inside, strict=True):
        wanted.append(rng.standard_normal((n, mask.sum())).astype(np.float32))
        save(tree.folder / f"test_split/test_fmri/{side}_test_fmri.npy", wanted[-1])
    pictures = tree.folder / "test_split/test_images"
    pictures.mkdir(parents=True)
    first = next((tree.folder / "training_split/training_images").iterdir())
    for k, one in enumerate(ids, 1):
        (pictures / f"test-{k:04d}_nsd-{one:05d}.png").write_bytes(first.read_bytes())
    train, test = opened(tree).betas().split()
    assert test.stimulus_ids.tolist() == ids and train.stimulus_ids.tolist() == tree.ids
    np.testing.assert_array_equal(test.data, np.concatenate(wanted, axis=1))
    assert any("the challenge's own" in note for note in test.notes)


@pytest.mark.parametrize("kept", ("challenge", "fsaverage"))
def test_regions_come_from_either_space_with_their_names(tree, kept):
    for path in tree.masks.glob("*_space.npy"):
        if "all-vertices" not in path.name and kept not in path.name:
            path.unlink()
    found = opened(tree)
    assert found.roi_names() == ["all-vertices", *sorted(MAPPINGS)]
    for name, both in tree.labels.items():
        rois = found.rois(name)
        for k in range(2):
            np.testing.assert_array_equal(rois.labels[k], np.where(tree.inside[k], both[k], 0))
        assert rois.names == {k: v for k, v in MAPPINGS[name].items() if k}
    betas = found.betas("V1 + FFA-1")
    early, faces = tree.labels["prf-visualrois"], tree.labels["floc-faces"]
    parts = zip(tree.inside, early, faces, strict=True)
    wanted = sum((inside & (np.isin(one, (1, 2)) | (other == 2))).sum() for inside, one, other in parts)
    assert betas.n_voxels == wanted and found.mapped_families() == ["prf-visualrois", "floc-faces"]


def test_vertices_without_responses_are_left_out_with_a_note(tree, tmp_path):
    from tests.support.nsd.surface_tree import write_mgh

    write_mgh(tmp_path / "lh.all.mgh", np.ones(VERTICES, np.float32))
    betas = opened(tree).betas(str(tmp_path / "lh.all.mgh"))
    assert betas.n_voxels == tree.inside[0].sum()
    assert any(f"without responses left out: {(~tree.inside[0]).sum()}" in note for note in betas.notes)


def test_images_and_captions_by_id(tree):
    stimuli = opened(tree).stimuli
    assert len(stimuli) == 40 and stimuli[tree.ids[:3]].shape == (3, 24, 24, 3)
    assert stimuli.captions(tree.ids[5]) == [f"a picture {tree.ids[5]}", "another"]
    stimuli.check(tree.ids)
    with pytest.raises(nsd.NSDError, match="those of the folder's images"):
        stimuli[1 if 1 not in tree.ids else 2]


@pytest.mark.parametrize("form", ("{:05d}", "nsd-{:05d}", "train-0001_nsd-{:05d}.png", "images/train-0001_nsd-{:05d}"))
def test_captions_may_be_named_by_pictures(tree, form):
    tree.captions.write_text(json.dumps({form.format(one): f"picture {one}" for one in tree.ids}))
    assert opened(tree).stimuli.captions(tree.ids[0]) == [f"picture {tree.ids[0]}"]


def test_captions_are_asked_for_with_the_remedy(tree):
    found = opened(tree, captions=False)
    assert found.stimuli.captions(tree.ids[0])[0] == f"a picture {tree.ids[0]}"  # captions.json of the folder
    tree.captions = tree.captions.rename(tree.root / "coco.json")
    with pytest.raises(nsd.NSDError, match=r"has none, got none\. Write .*--captions FILE"):
        opened(tree, captions=False).stimuli.captions(tree.ids[0])
    tree.captions.write_text('{"1": ["x"]}')
    with pytest.raises(nsd.NSDError, match="must have one entry of captions of NSD's image"):
        opened(tree).stimuli.captions(tree.ids[0])


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _object(path):
    np.save(path, {0: print, 1: "x"}, allow_pickle=True)


DAMAGE = {
    "truncated": (lambda t: cut(t.fmri("rh")), "rh_training_fmri.npy must be a complete file"),
    "no responses": (lambda t: t.fmri("rh").unlink(), r"must hold training_split/.*rh_training_fmri\.npy"),
    "other subject": (lambda t: save(t.fmri("lh"), t.responses[0][:, :-2]), "a column for each of the .* vertices"),
    "other rows": (lambda t: save(t.fmri("rh"), t.responses[1][:-1]), "a row for each of the 40 images .*got 39"),
    "integers": (lambda t: save(t.fmri("lh"), t.responses[0].astype(int)), "as floats, got int64"),
    "no mask": (lambda t: (t.masks / "rh.all-vertices_fsaverage_space.npy").unlink(), "roi_masks of the challenge"),
    "no hemisphere": (lambda t: [p.unlink() for p in t.masks.glob("rh.prf*")], "rh.prf-visualrois"),
    "no fsaverage": (lambda t: [save(p, np.ones(700, int)) for p in t.masks.glob("*all-vert*")], r"163,842\), got 700"),
    "interpolated": (lambda t: save(t.masks / "lh.prf-visualrois_challenge_space.npy", t.inside[0][t.inside[0]] * 0.5),
                     "whole-number label"),
    "labels of another": (lambda t: save(t.masks / "lh.prf-visualrois_challenge_space.npy", np.ones(9, int)),
                          "vertices, got 9"),
    "a program": (lambda t: _object(t.masks / "mapping_prf-visualrois.npy"), "could run a program"),
    "no names": (lambda t: save(t.masks / "mapping_prf-visualrois.npy", {"a": 1}), "whole numbers and names"),
    "a missing picture": (lambda t: next((t.folder / "training_split/training_images").glob("train-0007*")).unlink(),
                          "have number 7"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_and_mismatched_files_get_one_sentence(tree, what):
    damage, text = DAMAGE[what]
    damage(tree)
    with pytest.raises(nsd.NSDError, match=text) as told:
        opened(tree).betas("prf-visualrois")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"sessions": "1-3"}, "sessions must be all"),
        ({"average_repeats": False}, "average_repeats must be on"),
        ({"max_voxels": 5}, "must be 0"),
        ({"held_out": 0.001}, "held_out must leave"),
    ],
)
def test_what_averages_cannot_give_is_refused(tree, params, text):
    with pytest.raises(nsd.NSDError, match=text):
        opened(tree, **params).betas()


def test_vertices_without_numbers_or_variance_are_dropped_and_counted(tree):
    values = tree.responses[0].copy()
    values[3, 2], values[:, 5] = np.nan, 1.5
    save(tree.fmri("lh"), values)
    betas = opened(tree).betas()
    assert betas.dropped == {"nan": 1, "constant": 1}
    np.testing.assert_array_equal(betas.data[:, 3], values[:, 4])


def test_another_subject_or_the_subjects_own_folder_is_said(tree):
    with pytest.raises(nsd.NSDError, match=r"subject must be one of \['subj06'\]"):
        nsd.open_source(Source(str(tree.root), "subj01"))
    with pytest.raises(nsd.NSDError, match="--participant-label subj06"):
        nsd.open_source(Source(str(tree.folder), "subj06"))


def test_the_folder_is_described(tree):
    told = describe(Source(str(tree.root), "subj06"), Events(lambda *_: None))
    assert told["subjects"] == ["subj06"] and told["space"] == "fsaverage" and told["shape"] == [2, VERTICES]
    assert told["families"]["streams"].keys() == {"early", "midventral"} and told["affine"] is None
    assert told["n_train"] + len(told["test_ids"]) == 40
