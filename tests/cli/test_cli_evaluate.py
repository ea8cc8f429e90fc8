"""`neuraldiffuser evaluate`: what it prints, and what it refuses with one line."""

import json

import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser import cli

PICTURES = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
    for folder, name in (("recon", "img_{}_1.png"), ("seen", "nsd{:05d}.png")):
        (tmp_path / folder).mkdir()
        for k, picture in enumerate(PICTURES):
            Image.fromarray(picture).save(tmp_path / folder / name.format(k))
    return [str(tmp_path / "recon"), str(tmp_path / "seen")]


PATTERNS = ["--pattern", "img_{stimulus}_{repeat}", "--seen-pattern", "nsd{stimulus}"]
SMALL = ["--size", "32", "--metrics", "pixcorr", "twoway_edges"]


def test_scores_with_their_chance_level(folders, capsys):
    assert cli.main(["evaluate", *folders, *PATTERNS, *SMALL]) == 0
    head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["arm", "metric", "mean", "se", "n", "chance"]
    assert all(len(cell.lstrip("-0.")) <= 7 or "e" in cell for row in rows for cell in row[2:]), (
        "six digits tell enough"
    )
    assert [row[:2] for row in rows] == [["recon", "pixcorr"], ["recon", "twoway_edges"]]
    mean, _, n, chance = rows[0][2:]
    assert float(mean) > 0.999 and n == "3" and abs(float(chance)) < 0.2
    assert rows[1][-1] == "0.5"


def test_json_says_who_was_paired_and_how(folders, capsys):
    assert cli.main(["evaluate", *folders, *PATTERNS, *SMALL, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["paired_by"] == "the pattern" and said["stimuli"] == ["nsd00000", "nsd00001", "nsd00002"]
    assert set(said["arms"]["recon"]["pixcorr"]) == {"mean", "se", "n", "chance"}


def test_notes_go_to_stderr(folders, tmp_path, capsys):
    Image.fromarray(PICTURES[0]).save(tmp_path / "recon/overview.png")
    assert cli.main(["evaluate", *folders, *PATTERNS, *SMALL]) == 0
    told = capsys.readouterr()
    assert "overview.png: not of the pattern" in told.err and "overview" not in told.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "got none for 3 of 3: img_0_1.png, img_1_1.png, img_2_1.png."),
        (["--pattern", "img_*"], "pattern must have {stimulus}"),
        (["--pattern", "x{stimulus}"], "must have names of the pattern 'x{stimulus}'"),
    ],
)
def test_doubtful_pairs_are_refused_with_one_line(folders, capsys, more, message):
    assert cli.main(["evaluate", *folders, *more]) == 2
    told = capsys.readouterr()
    (line,) = told.err.strip().splitlines()
    assert line.startswith("neuraldiffuser: ") and message in line and not told.out
