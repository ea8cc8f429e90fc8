"""`neuraldiffuser betas` with several participants: what one of them lacks is told before any is fitted."""

import shutil

import pytest

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import bold
from tests.support.nsd.bids_files import write_bids

OPTIONS = ("--estimator", "lsa", "--participant-label", "01", "02")


@pytest.fixture
def two(tmp_path):
    """Folders of two participants with the same run."""
    made = write_bids(tmp_path / "bids", [("a", "1")])
    for root in (made.raw, made.fmriprep):
        shutil.copytree(root / "sub-01", root / "sub-02")
        for path in [one for one in (root / "sub-02").rglob("sub-01*") if one.is_file()]:
            path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    return made


def of_second(made, end):
    return next(one for root in (made.raw, made.fmriprep) for one in (root / "sub-02").rglob(f"*{end}"))


@pytest.mark.parametrize("end", ["events.tsv", "brain_mask.nii.gz", "desc-confounds_timeseries.tsv"])
def test_what_the_second_lacks_is_told_before_the_first_is_fitted(two, tmp_path, capsys, monkeypatch, end):
    fit, told = bold.make_betas, []

    def watched(*given, **more):
        told.append(capsys.readouterr().err)
        return fit(*given, **more)

    of_second(two, end).unlink()
    monkeypatch.setattr(bold, "make_betas", watched)
    assert cli.main(["betas", str(two.raw), str(tmp_path / "out"), *OPTIONS]) == 1
    assert len(told) == 1 and "neuraldiffuser: 02: " in told[0]
    assert [path.name for path in (tmp_path / "out").glob("sub-*")] == ["sub-01"]


def test_nothing_is_written_where_all_lack_something(two, tmp_path, capsys):
    for path in two.raw.rglob("*events.tsv"):
        path.unlink()
    assert cli.main(["betas", str(two.raw), str(tmp_path / "out"), *OPTIONS]) == 2
    told = capsys.readouterr().err
    assert told.count("neuraldiffuser: 0") == 2 and not (tmp_path / "out").exists()


def test_all_are_fitted_where_nothing_is_wrong(two, tmp_path):
    assert cli.main(["betas", str(two.raw), str(tmp_path / "out"), *OPTIONS]) == 0
    assert len(list((tmp_path / "out").glob("sub-*/*_betas.nii.gz"))) == 2
