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
