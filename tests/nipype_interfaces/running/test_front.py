"""The group level's exit status and what it says of subjects that are left out."""

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from nipype_interfaces.running import front
from tests.support.output_tree import vouch_all, write_subject


@pytest.fixture
def out(tmp_path):
    for k in (1, 2):
        write_subject(tmp_path / "out", f"subj{k:02d}", seed=k)
    return vouch_all(tmp_path / "out")


def group(out, labels=()):
    return front.run_group(out, list(labels), front.How(out / "work"))


def test_complete_subjects_are_put_together(out, capsys):
    assert group(out) == 0
    said = capsys.readouterr()
    assert [line.rsplit("/", 1)[1] for line in said.out.splitlines()] == [
        "group.html",
        "group_desc-recon_scores.tsv",
        "group_desc-summary_scores.json",
    ]
    assert "left out" not in said.err


def test_who_is_left_out_is_named_and_the_status_is_1(out, capsys):
    (out / "sub-02/sub-02_complete.json").unlink()
    assert group(out) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert "neuraldiffuser: sub-02: has no sub-02_complete.json" in said.err
    # a second time, when nothing but the group's own node is done again
    assert group(out, ["sub-01", "sub-07"]) == 1
    assert "neuraldiffuser: sub-07: there is no such folder" in capsys.readouterr().err


def test_none_that_is_complete_is_bad_input(out):
    for k in (1, 2):
        (out / f"sub-{k:02d}/sub-{k:02d}_complete.json").unlink()
    with pytest.raises(UserError, match="sub-01: has no .* sub-02: has no "):
        group(out)
    assert not list(out.glob("group*"))
