"""Images and captions."""

import json

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd


@pytest.fixture
def stimuli(tree):
    subject = nsd.Subject(tree.root, "subj02")
    images = np.random.default_rng(3).integers(0, 256, (11, 5, 7, 3), dtype=np.uint8)
    subject.layout.stimuli.parent.mkdir(parents=True)
    with h5py.File(subject.layout.stimuli, "w") as file:
        file["imgBrick"] = images
    subject.layout.stim_info.write_text("cocoId,nsdId,shared1000\n532,3,True\n77,4,False\n")
    return subject.stimuli, images, subject.layout.captions


def test_any_order_and_repeats(stimuli):
    opened, images, _ = stimuli
    assert len(opened) == 11
    np.testing.assert_array_equal(opened[[9, 2, 2]], images[[9, 2, 2]])
    np.testing.assert_array_equal(opened[np.int64(4)], images[4])
    assert opened[[]].shape == (0, 5, 7, 3)


def test_bad_ids(stimuli):
    with pytest.raises(nsd.NSDError, match="0 ... 10"):
        stimuli[0][[11]]
    with pytest.raises(nsd.NSDError, match="0 ... 10"):
        stimuli[0][-1]
    with pytest.raises(nsd.NSDError, match="whole numbers"):
        stimuli[0][[0.5]]


@pytest.mark.parametrize("coco", [False, True])
def test_captions_from_a_plain_map_or_cocos_file(stimuli, coco):
    opened, _, path = stimuli
    rows = [{"image_id": 532, "caption": "a cat"}, {"image_id": 532, "caption": "one cat"}]
    path.write_text(json.dumps({"annotations": rows} if coco else {"532": ["a cat", "one cat"]}))
    assert opened.captions(3) == ["a cat", "one cat"]
    with pytest.raises(nsd.NSDError, match="COCO image 77"):
        opened.captions(4)
    with pytest.raises(nsd.NSDError, match="stimulus_id"):
        opened.captions(5)


def test_missing_files_are_named(tree, stimuli):
    with pytest.raises(nsd.NSDError, match="captions.json must hold the captions"):
        stimuli[0].captions(3)
    stimuli[2].write_text("[1, 2]")
    with pytest.raises(nsd.NSDError, match="captions.json must be a JSON .*got an entry 1 that names no image"):
        stimuli[0].captions(3)
    subject = nsd.Subject(tree.root, "subj02")
    subject.layout.stimuli.unlink()
    with pytest.raises(nsd.NSDError, match="nsd_stimuli.hdf5 must be NSD's stimulus file"):
        len(subject.stimuli)
