"""`neuraldiffuser crossval` on own scans without a test column, which `run` refuses."""

import csv
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core.outputs import validate
from tests.support.nsd.small_set import write_small_set


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_small_set(tmp_path_factory.mktemp("scans"))


def crossval(scans, out, model_dir, *more):
    return cli.main(["crossval", *scans.options(), str(out), "--models", str(model_dir), "--folds", "4", *more])


@pytest.fixture(scope="module")
def done(scans, model_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert crossval(scans, out, model_dir, "--permutations", "50", "--category", "prefix") == 0
    return out


def table(out):
    with open(out / "crossval/sub-07_desc-crossval_scores.tsv", encoding="utf-8", newline="") as file:
        return {row["target"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_every_stimulus_is_decoded_and_scored(scans, done):
    rows = table(done)
    assert list(rows)[:2] == ["z", "c"] and {row["n"] for row in rows.values()} == {"24"}
    assert float(rows["z"]["two_way"]) > 0.8 and float(rows["z"]["two_way_p"]) == pytest.approx(1 / 51, rel=1e-4)
    assert all(0 <= float(row["within"]) <= 1 for row in rows.values())
    with h5py.File(done / "crossval/sub-07_desc-crossval_embeddings.h5") as file:
        assert list(file["stimulus_label"].asstr()[...]) == sorted(scans.labels)
        assert file["z"].shape[0] == 24 and np.isfinite(file["z"][...]).all()
    about = json.loads((done / "crossval/sub-07_desc-crossval_scores.json").read_text())
    assert set(about["Folds"]) == set(scans.labels) and set(about["Folds"].values()) == {1, 2, 3, 4}
    assert len(about["PerFold"]["z"]["r2"]) == 4 and "exchanged" in about["NullHypothesis"]
    page = (done / "crossval/sub-07.html").read_text()
    assert "4 folds of 24 stimuli" in page and "12 cat" in page and str(scans.folder) not in json.dumps(about)


def test_the_folder_is_a_valid_data_set_and_keeps_no_folds(done):
    assert validate.check(done) == []
    assert not list((done / "work").rglob("crossval-*"))


def test_an_interrupted_one_goes_on_and_gives_the_same_bytes(scans, done, model_dir, tmp_path, monkeypatch, capsys):
    from napari_neuraldiffuser.core.decoding import RidgeDecoder

    fit, fitted = RidgeDecoder.fit, []

    def third_stops(self, *given, **more):
        fitted.append(1)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return fit(self, *given, **more)

    monkeypatch.setattr(RidgeDecoder, "fit", third_stops)
    options = ("--permutations", "50", "--category", "prefix")
    assert crossval(scans, tmp_path, model_dir, *options) == 130
    assert "the same command continues where it stopped" in capsys.readouterr().err
    assert crossval(scans, tmp_path, model_dir, *options) == 0
    assert len(fitted) == 5
    name = "crossval/sub-07_desc-crossval_scores.tsv"
    assert (tmp_path / name).read_bytes() == (done / name).read_bytes()


def test_run_says_how_to_decode_a_set_without_test_stimuli(scans, tmp_path, model_dir, capsys):
    where = scans.options()
    told = ["run", where[0], str(tmp_path / "out"), "participant", *where[1:], "--models", str(model_dir)]
    assert cli.main(told) == 2
    assert "neuraldiffuser crossval" in (said := capsys.readouterr().err) and "--folds 10" in said


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--folds", "40"], "folds must be at most the number of different stimuli, got 40 for 24"),
        (["--folds", "1"], "folds must be at least 2"),
        (["--category", "species"], "must have the columns stimulus, species"),
        (["--category", "prefix", "--trials", "BARE"], "category prefix must have labels such as cat_012"),
    ],
)
def test_what_is_wrong_is_told(scans, model_dir, tmp_path, capsys, more, told):
    bare = tmp_path / "trials.tsv"
    bare.write_text(Path(scans.trials).read_text().replace("_", ""))
    more = [str(bare) if part == "BARE" else part for part in more]
    assert crossval(scans, tmp_path / "out", model_dir, *more) == 2
    assert told in capsys.readouterr().err


def test_categories_of_a_column(scans, model_dir, tmp_path, capsys):
    lines = Path(scans.trials).read_text().splitlines()
    kinds = ["category", *(line.split("\t")[1].split("_")[0].upper() for line in lines[1:])]
    with_column = tmp_path / "trials.tsv"
    with_column.write_text("\n".join(f"{a}\t{b}" for a, b in zip(lines, kinds, strict=True)) + "\n")
    assert crossval(scans, tmp_path / "out", model_dir, "--trials", str(with_column), "--permutations", "0") == 0
    assert table(tmp_path / "out")["z"]["within_p"] == "n/a"
    assert "12 CAT" in (tmp_path / "out/crossval/sub-07.html").read_text()
    with_column.write_text(with_column.read_text().replace("CAT", "DOG", 1))
    capsys.readouterr()
    assert crossval(scans, tmp_path / "other", model_dir, "--trials", str(with_column)) == 2
    assert "a stimulus must have one category, got 'DOG' and 'CAT'" in capsys.readouterr().err


def test_an_nsd_folder_has_no_categories(nsd_dir, model_dir, tmp_path, capsys):
    told = ["crossval", str(nsd_dir), str(tmp_path), "--models", str(model_dir), "--category", "prefix"]
    assert cli.main(told) == 2
    assert "category must be empty for an NSD folder" in capsys.readouterr().err


def test_pictures_and_volumes_of_the_set_are_what_the_test_believes(scans):
    assert nib.load(scans.betas).shape[3] == 48 and Image.open(scans.images / f"{scans.labels[0]}.png").size == (32, 32)
