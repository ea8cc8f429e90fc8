"""One table of names: files go to their places, are found there, and those of an earlier run go."""

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import (
    KINDS,
    SHOWN,
    VIEWS,
    bids_label,
    kind_of,
    names_of,
    nsd_name,
    remove_stale,
)
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from tests.support.output_tree import STIMULI, TARGETS, job_of, write_raw, write_subject


@pytest.fixture
def places(tmp_path):
    found = write_subject(tmp_path / "out")
    write_sidecars(found, Facts.of(job_of(tmp_path / "out", write_raw(tmp_path / "nsd")), "ab" * 32))
    return found


def files(places):
    return {path for path in places.out_dir.rglob("*") if path.is_file()}


def test_nothing_of_the_last_run_goes(places):
    before = files(places)
    assert remove_stale(places, names_of(places, TARGETS, STIMULI, 2)) == []
    assert files(places) == before


def test_other_targets_stimuli_and_repeats_go_and_no_other_file(places):
    before = files(places)
    theirs = places.recon / "notes_of_mine.png"
    theirs.touch()
    remove_stale(places, names_of(places, ["z"], STIMULI[:2], 1))
    gone = before - files(places)
    maps = {places.contribution("g02"), places.contribution("g02").with_name(
        places.contribution("g02").name.replace(".nii.gz", ".json")), places.slices("g02")}  # fmt: skip
    maps |= {places.view("g02", view) for view in VIEWS}
    images = {places.image(s, 2, arm) for s in STIMULI for arm in ARMS}
    images |= {places.image(STIMULI[2], 1, arm) for arm in ARMS}
    images |= {places.shown(STIMULI[2], what) for what in SHOWN}
    assert gone == (maps | images) & before
    assert places.contribution("g02") in gone and places.image(STIMULI[0], 2, "guided") in gone
    assert theirs.is_file()


@pytest.mark.parametrize("name", ["subj01", "sub-01", "01"])
def test_a_subject_has_two_names(name):
    assert (bids_label(name), nsd_name(name)) == ("sub-01", "subj01")


@pytest.mark.parametrize("name", ["", "sub-", "a b", "sub-0_1", "../x"])
def test_a_subject_without_a_label_is_refused(name):
    with pytest.raises(UserError, match="participant label must look like subj01"):
        nsd_name(name)


def test_what_is_written_is_found_again(places):
    """Paths go through the table and back: the kind, and the values of every entity."""
    found = {path: (kind, said) for kind in KINDS for path, said in places.find(kind)}
    written = {path for path in files(places) if path.is_relative_to(places.folder) and path.suffix != ".json"}
    assert written <= set(found)
    for path, (kind, said) in found.items():
        assert KINDS[kind].name(**said) == path.name
        assert kind_of(path.relative_to(places.out_dir).as_posix()) == KINDS[kind]
    kind, said = found[places.image(STIMULI[0], 2, "guided")]
    assert (kind, said) == ("image", {"sub": "sub-01", "stim": f"{STIMULI[0]:05d}", "rep": "2", "arm": "guided"})


def test_files_of_another_subject_are_not_found(places):
    theirs = places.folder / "sub-02_space-func1pt8mm_target-z_contribution.nii.gz"
    theirs.touch()
    assert theirs not in [path for path, _ in places.find("map")]
    assert theirs in [path for path, _ in KINDS["map"].find(places.folder)]
