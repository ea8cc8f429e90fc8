"""What users read of errors: words, not the names of classes."""

import json
import re
from pathlib import Path

import pytest

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.nsd.reading.captions import read_label_captions
from napari_neuraldiffuser.core.nsd.reading.label_tables import read_dseg_table
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams

CLASS_NAME = re.compile(r"\b[A-Z]\w*(Error|Exception|Params)\b")


@pytest.mark.parametrize(
    "error, words",
    [
        (KeyError("index"), "there is no 'index'"),
        (ValueError("first line\nsecond"), "first line"),
        (ValueError(), "it does not say why"),
        (KeyError(), "it does not say why"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_an_exception_in_words(error, words):
    assert said(error) == words


def test_messages_name_no_class(tmp_path):
    table, captions = tmp_path / "seg.tsv", tmp_path / "captions.json"
    table.write_text("number\tname\n1\tV1\n")
    captions.write_text(json.dumps([1, 2]))
    attempts = [
        lambda: read_dseg_table(table),
        lambda: read_label_captions(captions),
        lambda: GuidanceParams(guidance_scale=-1.0),
        lambda: GuidanceParams(layers=("g02",)),
        lambda: DiffusionParams.from_dict({"steps": 3}),
        lambda: Recipe.from_dict({"arms": ["none"]}),
        lambda: Recipe.from_dict({"where": 1}),
    ]
    for attempt in attempts:
        with pytest.raises(UserError) as raised:
            attempt()
        assert not CLASS_NAME.search(str(raised.value)), str(raised.value)


def test_no_message_is_made_of_the_class_of_an_error():
    for path in Path(napari_neuraldiffuser.__file__).parent.rglob("*.py"):
        if path.name == "remedies.py":  # looks a remedy up by it, and shows that alone
            continue
        assert "type(error).__name__" not in path.read_text(encoding="utf-8"), path
