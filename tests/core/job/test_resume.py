import os

import pytest

from napari_neuraldiffuser.core.job.resume import Records


def stage(folder, made_from, text="x", resume=True, fail=False):
    target = folder / "out.txt"

    def work():
        target.write_text(text)
        if fail:
            raise KeyboardInterrupt

    return Records(folder / "records", resume).make("stage", made_from, [target], work)


def test_a_complete_stage_is_skipped(tmp_path):
    assert stage(tmp_path, {"a": 1})
    assert not stage(tmp_path, {"a": 1})


@pytest.mark.parametrize("change", ["inputs", "deleted", "truncated", "no resume", "interrupted"])
def test_a_stage_runs_again_when_it_must(tmp_path, change):
    if change == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            stage(tmp_path, {"a": 1}, fail=True)
    else:
        stage(tmp_path, {"a": 1})
    if change == "deleted":
        (tmp_path / "out.txt").unlink()
    if change == "truncated":
        (tmp_path / "out.txt").write_text("")
    assert stage(tmp_path, {"a": 2 if change == "inputs" else 1}, resume=change != "no resume")


def test_an_interrupted_rerun_leaves_no_old_record(tmp_path):
    stage(tmp_path, {"a": 1})
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, {"a": 2}, text="y", fail=True)
    assert stage(tmp_path, {"a": 1})


def test_what_another_run_left_at_the_same_place_is_not_taken_for_ours(tmp_path):
    """Two work folders, one output: files of one shape are equally large, whatever is in them."""
    target = tmp_path / "out.h5"

    def make(work, text, when):
        def write():
            target.write_text(text)
            os.utime(target, ns=(when, when))

        return Records(tmp_path / work).make("decoded", text, [target], write)

    assert make("first", "aaaa", 10**18) and not make("first", "aaaa", 10**18)
    assert make("second", "bbbb", 10**18 + 1)
    assert make("first", "aaaa", 10**18 + 2) and target.read_text() == "aaaa"
    assert make("second", "bbbb", 10**18 + 3) and target.read_text() == "bbbb"
