"""Label tables as FreeSurfer, ITK-SNAP, NSD and people write them: names without colours."""

from pathlib import Path

import numpy as np
import pytest

from napari_neuraldiffuser.core.nsd import NSDError, Rois
from napari_neuraldiffuser.core.nsd.describe import region_sizes
from napari_neuraldiffuser.core.nsd.reading.label_tables import beside, parse_label_table, read_dseg_table

SNAP = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "V1 left"
    2    12  200    7     0.53  1  0    "12"
"""
FREESURFER = """#$Id: FreeSurferColorLUT.txt $
#No. Label Name:                R   G   B   A

0   Unknown                     0   0   0   0
2   Left-Cerebral-White-Matter  245 245 245 0
1001 ctx-lh-bankssts            25  100 40  0

"""
TABLES = {
    "FreeSurfer": (FREESURFER, {0: "Unknown", 2: "Left-Cerebral-White-Matter", 1001: "ctx-lh-bankssts"}),
    "FreeSurfer 8": (
        "819 Left-HypoThal  0  80   0 0 2\n853 Mid-AntCom  53  58 210 0 3\n",
        {819: "Left-HypoThal", 853: "Mid-AntCom"},
    ),
    "colour alone": ("1 V1 255 0 0\n2 mid ventral 0 1 2\n", {1: "V1", 2: "mid ventral"}),
    "some with colours": (
        "1 Left Exterior 70 130 180 0\n2 mid ventral\n3 FFA 1\n",
        {1: "Left Exterior", 2: "mid ventral", 3: "FFA 1"},
    ),
    "names that end in numbers": ("1 Area 1 70 130 180 0\n2 Area 2 7 13 18 0\n", {1: "Area 1", 2: "Area 2"}),
    "names that are numbers": ("1 17 255 0 0 0\n2 18 255 0 0 0\n", {1: "17", 2: "18"}),
    "tabs": (
        "1\tVisual Area 1\t70\t130\t180\t0\n2\tVisual Area 2\t1\t1\t1\t0\n",
        {1: "Visual Area 1", 2: "Visual Area 2"},
    ),
    "one tab": ("1 V1v\t255 0 0 0\n2 FFA 1\t255 0 0 0\n", {1: "V1v", 2: "FFA 1"}),
    "stray tabs": (
        "0 Unknown\n1 V1v\t\n2\tV1d \n\n3 FFA 1\n4\tFFA 2\t\n",
        {0: "Unknown", 1: "V1v", 2: "V1d", 3: "FFA 1", 4: "FFA 2"},
    ),
    "quotes": ('1 "V1 left 2" 255 0 0 0\n2 "V 2"\n', {1: "V1 left 2", 2: "V 2"}),
    "commas": ("1, V1\n2, V2 left\n", {1: "V1", 2: "V2 left"}),
    "ITK-SNAP": (SNAP, {0: "Clear Label", 1: "V1 left", 2: "12"}),
    "words of missing values": ("1 NA\n2 None\n3 nan\n", {1: "NA", 2: "None", 3: "nan"}),
}


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize(("encoding", "ending"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\n")])
def test_names_without_colours(tmp_path, form, encoding, ending):
    text, want = TABLES[form]
    path = tmp_path / "x.ctab"
    path.write_bytes(text.replace("\n", ending).encode(encoding))
    assert parse_label_table(path) == want


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be a label table, got an empty file"),
        ("V1 1\n", "'<number> <name>', got 'V1 1'"),
        ("1\n", "'<number> <name>', got '1'"),
        ("1 V1\n2 V2\n1 V3\n", "must name each label once, got 'V1' and 'V3' for 1"),
    ],
)
def test_bad_tables(tmp_path, text, told):
    (tmp_path / "x.ctab").write_text(text)
    with pytest.raises(NSDError, match=told):
        parse_label_table(tmp_path / "x.ctab")


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_bids_tables(tmp_path, separator):
    rows = ["name,index,color", "NA,1,#ff0000", "true,2,n/a", "V 3,3.0,", "007,4,"]
    (tmp_path / "x.tsv").write_text("\n".join(rows).replace(",", separator))
    assert read_dseg_table(tmp_path / "x.tsv") == {1: "NA", 2: "true", 3: "V 3", 4: "007"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.tsv", "index\tname\n1\tV1\n9\tV9\n"),
        ("x.csv", "index,name\n1,V1\n9,V9\n"),
        ("x.ctab", "1 V1\n9 V9\n"),
        ("x.mgz.ctab", "1 V1\n9 V9\n"),
        ("x.label", '1 1 1 1 1 1 1 "V1"\n9 1 1 1 1 1 1 "V9"\n'),
        ("x.txt", "1 V1 1 1 1 0\n9 V9 2 2 2 0\n"),
    ],
)
def test_tables_beside_a_volume(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    all_of_them = name != "x.txt"  # a look-up table names what a volume does not have
    assert beside(Path(tmp_path / "x.nii.gz"), "x", [0, 1]) == ({1: "V1", 9: "V9"} if all_of_them else {1: "V1"})
    assert beside(Path(tmp_path / "y.nii.gz"), "y", [0, 1]) == {}


def test_labels_of_one_name_are_one_region():
    rois = Rois("x", np.array([[[1, 2, 3, 0, -1]]]), {1: "V1", 2: "V2", 3: "V1", 4: "V4"}, np.eye(4))
    assert region_sizes(rois) == {"V1": 2, "V2": 1, "V4": 0}


@pytest.mark.parametrize(
    "notes", ["Drawn by hand.\nLabels:\n1 V1\n", "", "# only a comment\n", "V1, both hemispheres\n", "2024\n"]
)
def test_notes_beside_a_volume_are_no_table(tmp_path, notes):
    (tmp_path / "roi.txt").write_text(notes)
    assert beside(tmp_path / "roi.nii.gz", "roi", [1]) == {}


@pytest.mark.parametrize("content", [b"1 V1\nsecond area\n", b"index name\n1 V1\n2 V2\n", b"1 V1\n2 caf\xe9\n"])
def test_a_table_with_a_fault_is_not_taken_for_notes(tmp_path, content):
    (tmp_path / "roi.txt").write_bytes(content)
    with pytest.raises(NSDError, match=r"roi\.txt"):
        beside(tmp_path / "roi.nii.gz", "roi", [1])
