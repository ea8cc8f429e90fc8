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


@pytest.fixture
def three(folders, tmp_path):
    """Six stimuli, reconstructions with little noise, and others with much."""
    rng = np.random.default_rng(1)
    seen = rng.integers(0, 255, (6, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    for name, noise in (("good", 20), ("bad", 120), ("truth", 0)):
        (tmp_path / name).mkdir()
        for k, picture in enumerate(seen):
            shown = np.clip(picture + noise * rng.standard_normal(picture.shape), 0, 255).astype(np.uint8)
            Image.fromarray(shown).save(tmp_path / name / f"s{k}.png")
    return [str(tmp_path / name) for name in ("good", "truth", "bad")]


def test_two_folders_are_compared_by_the_stimulus(three, capsys):
    good, truth, bad = three
    assert cli.main(["evaluate", good, truth, *SMALL, "--against", bad, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    first, second = (one["arms"]["recon"]["pixcorr"]["mean"] for one in (said, said["against"]))
    paired = said["compared"]["recon"]["pixcorr"]
    assert paired["mean"] == pytest.approx(first - second) and paired["mean"] > 0.1
    assert paired["clear"] and paired["n"] == 6 and paired["worse"] == 0
    assert cli.main(["evaluate", good, truth, *SMALL, "--against", bad]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[3] == ["difference", "metric", "mean", "se", "n", "worse"]
    assert float(lines[4][2]) == pytest.approx(paired["mean"], rel=1e-4)


def test_other_stimuli_are_refused_before_anything_is_scored(three, tmp_path, capsys):
    good, truth, bad = three
    (tmp_path / "bad/s3.png").unlink()
    assert cli.main(["evaluate", good, truth, *SMALL, "--against", bad]) == 2
    told = capsys.readouterr().err
    assert "must have the same stimuli, got s3 in the first and none in the second alone" in told
    assert "scoring" not in told


def test_a_shifted_folder_is_told_of(three, tmp_path, capsys):
    good, truth, _ = three
    (tmp_path / "off").mkdir()
    for k in range(6):
        (tmp_path / f"good/s{(k + 1) % 6}.png").rename(tmp_path / f"off/s{k}.png")
    assert cli.main(["evaluate", str(tmp_path / "off"), truth, *SMALL]) == 0
    assert "1 place after their own" in capsys.readouterr().err


def test_the_page_has_scores_protocol_and_what_stands_beside_them(three, tmp_path, capsys):
    good, truth, bad = three
    page = tmp_path / "page.html"
    assert cli.main(["evaluate", good, truth, *SMALL, "--against", bad, "--page", str(page)]) == 0
    text = page.read_text()
    mean = capsys.readouterr().out.splitlines()[1].split("\t")[2]
    assert f"{float(mean):.3f}" in text and "minus" in text and "PixCorr" in text
    assert "6 images, 1 repeat each" in text and "Test of the pairing" in text and "both resized to 32 px" in text
    assert "MindEye2" in text and "0.322" in text and "982 or 1,000 test images" in text
    assert "http" not in text  # nothing is fetched
