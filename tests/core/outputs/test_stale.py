"""Images and maps of an earlier run do not stand among those of the last one."""

import pytest

from napari_neuraldiffuser.core.outputs.names import ARMS, SHOWN
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from napari_neuraldiffuser.core.outputs.stale import names_of, remove_stale
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
    images = {places.image(s, 2, arm) for s in STIMULI for arm in ARMS}
    images |= {places.image(STIMULI[2], 1, arm) for arm in ARMS}
    images |= {places.shown(STIMULI[2], what) for what in SHOWN}
    assert gone == (maps | images) & before
    assert places.contribution("g02") in gone and places.image(STIMULI[0], 2, "guided") in gone
    assert theirs.is_file()
