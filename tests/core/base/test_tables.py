"""Tables as spreadsheets, R and people write them: cells mean what they say, and what cannot be read is named."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.tables import (
    flag_column,
    read_table,
    read_text,
    spelled,
    text_column,
    whole_column,
)

NEEDED = ("trial", "stimulus")


class Refused(UserError):
    """The class that a caller asks for."""


@pytest.fixture
def written(tmp_path):
    """A function that writes the content and reads it back as a table."""

    def write(content, **options):
        path = tmp_path / "trials.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, NEEDED, ("test",), Refused, **options)

    return write


WORDS = ["NA", "None", "null", "nan", "NaN", "N/A", "true", "007", "1.0", "1e3", "-", "#N/A", "a b", "é"]


@pytest.mark.parametrize("wide", [False, True])
def test_a_cell_is_the_text_that_stands_there(written, wide):
    table = written("trial\tstimulus\n" + "".join(f"{k}\t{word}\n" for k, word in enumerate(WORDS)), wide=wide)
    assert table["stimulus"].tolist() == WORDS
    assert whole_column(table, "trial", "x").tolist() == list(range(len(WORDS)))


def test_only_empty_cells_and_not_available_are_missing(written):
    table = written("trial\tstimulus\ttest\n0\tn/a\t1\n1\t\tn/a\n2\t  \t\n3\ta\n\n\t\t\n4\tb\t 0 \n")
    assert table["stimulus"].isna().tolist() == [True, True, True, False, False]
    assert table["test"].tolist()[0] == "1" and table["test"].isna().tolist() == [False, True, True, True, False]
    assert table["test"].tolist()[-1] == "0"
    with pytest.raises(Refused, match="trials.tsv must have a label .* stimulus, got a missing one in row 1 .and in 2"):
        text_column(table, "stimulus", "trials.tsv", Refused)


PLAIN = "trial\tstimulus\ttest\n0\tcafé\t1\n1\tb\t0\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        "\n\n" + PLAIN,
        PLAIN.replace("\t", ","),
        PLAIN.replace("\t", ";"),
        PLAIN.replace("\t", " \t "),
        PLAIN.replace("trial\tstimulus\ttest", "Trial\tSTIMULUS\t Test "),
        PLAIN.replace("trial\tstimulus\ttest", '"trial"\t"stimulus"\t"test"').replace("café", '"café"'),
        PLAIN.replace("trial", "trial\tnote, free").replace("\n0", "\n0\tx, y").replace("\n1", "\n1\t"),
        PLAIN.replace("test\n", "test\tonset\tonset\n").replace("\t1\n", "\t1\t2\t3\n").replace("\t0\n", "\t0\t2\t3\n"),
    ],
)
def test_forms_that_mean_the_same(written, content):
    table = written(content)
    assert list(table) == ["trial", "stimulus", "test"]
    assert table.to_numpy().tolist() == [["0", "café", "1"], ["1", "b", "0"]]


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize(
    "rows",
    [
        ["0|cow|0", '1|"dog|1', '2|hen"|0', "3|pig|0"],
        ["0|cow|0", '1|dog|"1', '2|hen|0"', "3|pig|0"],
        ['0|"cow|0', "1|dog|1", "2|hen|0", '3|pig"|0'],
        ["0|cow|0", '1|"dog', 'black"|1', "2|hen|0"],
    ],
)
def test_a_quote_does_not_swallow_rows(written, separator, rows):
    text = "\n".join(["trial|stimulus|test", *rows]) + "\n"
    for end in ("\n", "\r\n", "\r"):
        with pytest.raises(Refused, match="trials.tsv must have every row in one line, got a quote that goes on over"):
            written(text.replace("|", separator).replace("\n", end))
    with pytest.raises(Refused, match="every row in one line"):  # a column that nobody asked for
        written(text.replace("test", "note").replace("|", separator))


def test_tabs_in_cells_of_a_table_of_tabs_are_refused(written):
    with pytest.raises(Refused, match="every row in one line"):
        written('trial\tstimulus\n0\t"a\tb"\n1\tc\n')


def test_quoted_cells_hold_separators(written):
    assert written('trial,stimulus\n0,"a, b"\n1,c\n')["stimulus"].tolist() == ["a, b", "c"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"be a table, got an empty file \(0 bytes\)"),
        ("trial\tstimulus\n", "have rows below its header, got none"),
        ("trial\tstimulus\n\t\nn/a\tn/a\n", "have rows below its header, got none"),
        ("\n \n", "got blank lines"),
        ("trial\tlabel\n0\ta\n", "got no stimulus but 'trial', 'label' .separated by tabs"),
        ("trial,label\n0,a\n", "got no stimulus but 'trial', 'label' .separated by commas"),
        ("trial stimulus\n0 a\n", "got no trial, stimulus but 'trial stimulus' .*Separate its columns by tabs"),
        ("trial\tstimulus\ttrial\n0\ta\t1\n", "have one column trial, got 2"),
        ("trial\tstimulus\tTest\tTEST\n0\ta\t1\t1\n", "have one column test, got 2"),
        ("trial\tstimulus\n0\ta\tb\n", "rows of one length, got: Expected 2 fields in line 2, saw 3"),
        ('trial\tstimulus\n0\t"a\n1\tb\n', "rows of one length, got: EOF inside string"),
        ("trial\tstimulus\n0\tcafé\n".encode("latin-1"), "be text in UTF-8, got other bytes in line 2"),
        (b"\xff\xfet", "be text in UTF-8"),
        ("<!DOCTYPE html>", "a web page in its place"),
    ],
)
def test_what_is_wrong_is_said(written, content, told):
    with pytest.raises(Refused, match=f"trials.tsv must .*{told}"):
        written(content)


@pytest.mark.parametrize("cell", ["1.5", "one", "", "n/a", "inf", "1e400", "nan"])
def test_whole_numbers(written, cell):
    table = written(f"trial\tstimulus\n0\ta\n1.0\tb\n2\tc\n{cell}\td\n")
    with pytest.raises(Refused, match="must have whole numbers in column trial, got .* in row 4. Correct it"):
        whole_column(table, "trial", "x", Refused)
    assert whole_column(table.iloc[:3], "trial", "x").dtype == np.int64


def test_both_spellings_of_an_accent_are_one_label(written):
    table = written("trial\tstimulus\n0\tcafe\u0301\n1\tcaf\u00e9\n")
    assert text_column(table, "stimulus", "x").tolist() == ["caf\u00e9"] * 2
    assert spelled("A\u030a") == "\u00c5"


def test_text_without_its_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "x.txt").write_text("1 V1\n", encoding=encoding)
        assert read_text(tmp_path / "x.txt") == "1 V1\n"


def test_flags(written):
    cells = ["1", "0", "TRUE", "False", "1.0", "0.0", "n/a", ""]
    table = written("trial\tstimulus\ttest\n" + "".join(f"1\ta\t{cell}\n" for cell in cells))
    assert flag_column(table, "test", "t.tsv") == [True, False, True, False, True, False, None, None]
    empty = written("trial\tstimulus\ttest\n1\ta\tn/a\n2\tb\t\n")
    assert flag_column(empty, "test", "t.tsv") == [None, None]


@pytest.mark.parametrize("cell", ["2", "yes", "0.5", "-1"])
def test_what_is_no_flag_is_named(written, cell):
    table = written(f"trial\tstimulus\ttest\n1\ta\t1\n2\tb\t{cell}\n")
    with pytest.raises(UserError, match=f"t.tsv must have 0/1 or true/false in column test, got '{cell}' in row 2"):
        flag_column(table, "test", "t.tsv")
