"""Caption files as people have them, and pictures by label: the same captions, or one sentence."""

import json
import unicodedata

import pytest
from PIL import Image

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.reading.captions import ByLabel, read_coco_captions, read_label_captions

TEXTS = ["a red ball ", "a ball on a lawn"]


def written(path, content, encoding="utf-8"):
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding)
    return path


FORMS = {
    "texts": {"s1": TEXTS},
    "file names": {"s1.png": TEXTS},
    "file names in capitals": {"s1.JPG": TEXTS},
    "record": {"s1": {"captions": TEXTS}},
    "records": {"s1": [{"caption": text, "score": 0.5} for text in TEXTS]},
    "list of records": [{"image": "s1.png", "caption": text} for text in TEXTS],
    "file_name": [{"file_name": "s1.png", "text": TEXTS, "id": 7}],
    "COCO": {
        "images": [{"id": 9, "file_name": "s1.jpg"}, {"id": 1, "file_name": "s9.jpg"}],
        "annotations": [{"id": 1, "image_id": 9, "caption": text} for text in TEXTS],
    },
    "COCO without images": {"annotations": [{"id": 1, "image_id": "s1", "caption": text} for text in TEXTS]},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_forms_that_say_the_same(tmp_path, form, encoding):
    found = read_label_captions(written(tmp_path / "c.json", FORMS[form], encoding))
    assert found.get("s1") == [TEXTS] and found.get("s2") == []


@pytest.mark.parametrize("one", ["a ball", {"caption": "a ball"}, {"text": "a ball"}, [{"description": ["a ball"]}]])
def test_a_single_caption(tmp_path, one):
    assert read_label_captions(written(tmp_path / "c.json", {"a.b": one})).get("a.b.png") == [["a ball"]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "c.json must be a JSON file of captions, got an empty file"),
        ("{", "c.json must be a JSON of stimulus label to captions, got: "),
        ('{"s1": "a"}\n{"s2": "b"}', "c.json must be a JSON .* got: Extra data"),
        ("3", "got a single value"),
        ('["a ball"]', "got an entry 1 that names no image"),
        ('{"annotations": [{"caption": "a"}]}', "got an entry 1 that names no image"),
        ('{"s1": {"score": 1, "box": 2}}', "got an entry of score, box without caption or captions or text for s1"),
        ('{"s1": ["a", {"words": "b"}]}', "got an entry of words without"),
        ('{"s1": ["a", null]}', "got None for s1"),
        ('{"s1": 3}', "got 3 for s1"),
        ('{"s1": [" "]}', "got ' ' for s1"),
        ('{"s1": [["a"]]}', "got .'a'. for s1"),
        ('{"s1": "a", "s2": "b", "s1": "c"}', "must hold each label once, got 's1' twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, told):
    with pytest.raises(nsd.NSDError, match=told):
        read_label_captions(written(tmp_path / "c.json", content))


def test_coco_ids(tmp_path):
    coco = {"images": [{"id": 9, "file_name": "x.jpg"}], "annotations": [{"id": 1, "image_id": 9, "caption": "a"}]}
    for content in (coco, {"9": "a"}, {"9": ["a"]}):
        assert read_coco_captions(written(tmp_path / "c.json", content)) == {9: ["a"]}
    with pytest.raises(nsd.NSDError, match="c.json must be a JSON of COCO id .a number"):
        read_coco_captions(written(tmp_path / "c.json", {"x": "a"}))


def test_labels_by_name():
    found = ByLabel()
    for name in ("cat.png", "cat.jpg", "dog.PNG", "set/a.b.png", "plain", "cafe\u0301.png"):
        found.add(name, name)
    assert found.get("cat.png") == ["cat.png"] and found.get("cat") == ["cat.png", "cat.jpg"]
    assert found.get("cat.bmp") == [] and found.get("dog.png") == found.get("dog") == ["dog.PNG"]
    assert found.get("set/a.b") == found.get("set\\a.b") == ["set/a.b.png"] and found.get("set/a") == []
    assert found.get("plain.tif") == ["plain"] and found.get("a.b") == []
    assert found.get("caf\u00e9") == ["cafe\u0301.png"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_pictures_and_captions_of_labels_with_accents(tmp_path, on_disk, in_table):
    folder = tmp_path / "pictures"
    folder.mkdir()
    labels = ["café", "Ångström", "한국"]
    for k, label in enumerate(labels):
        Image.new("RGB", (8, 8), (k, k, k)).save(folder / f"{unicodedata.normalize(on_disk, label)}.png")
    names = [unicodedata.normalize(in_table, label) for label in labels]
    path = written(tmp_path / "c.json", {unicodedata.normalize(on_disk, label): label for label in labels})
    stimuli = nsd.OwnStimuli(str(folder), str(path), names)
    assert stimuli[[0, 1, 2]][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert [stimuli.captions(k) for k in range(3)] == [[label] for label in labels]


def test_two_captions_that_one_label_could_mean(tmp_path):
    stimuli = nsd.OwnStimuli("", str(written(tmp_path / "c.json", {"s1.png": "a", "s1.jpg": "b"})), ["s1", "s1.jpg"])
    with pytest.raises(nsd.NSDError, match="one entry of captions of stimulus s1, got 2 entries"):
        stimuli.captions(0)
    assert stimuli.captions(1) == ["b"]


def test_pictures_in_linked_folders(tmp_path):
    folder, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    folder.mkdir(), elsewhere.mkdir()
    Image.new("RGB", (8, 8), (7, 7, 7)).save(elsewhere / "a.png")
    for name in ("set1", "set2"):
        (folder / name).symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    stimuli = nsd.OwnStimuli(str(folder), "", ["set1/a", "set2/a.png"])
    assert stimuli[[0, 1]].min() == 7
