"""The engine's cache: what it keeps, mends, makes room for and gives back."""

import os

import pytest

from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.engine import arms as study_arms
from napari_neuraldiffuser.core.engine import calls as study
from napari_neuraldiffuser.core.engine import decoder as study_decoder
from napari_neuraldiffuser.core.engine.cache import keep_newest, keep_newest_folders, partial_runs
from napari_neuraldiffuser.core.engine.calls import Study
from tests.support.study_cases import DIFFUSION, Log, call


def test_what_a_killed_process_left_is_swept_up(tmp_path):
    folder = tmp_path / "decoders"
    folder.mkdir()
    old, new = folder / ".tmp-old.h5", folder / ".tmp-new.h5"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    Study(tmp_path)
    assert not old.exists()
    assert new.exists()


def test_arms_of_an_earlier_version_and_stray_files_disturb_nothing(given, ready):
    (ready.cache / "arms").mkdir()
    (ready.cache / "arms" / "note.txt").touch()
    (ready.cache / "arms" / "old.npz").touch()
    assert call(Study(ready.cache), "reconstruct", given)["complete"]
    assert [p.name for p in (ready.cache / "arms").iterdir() if p.is_file()] == ["note.txt"]


def test_only_old_partial_runs_make_room(tmp_path, monkeypatch):
    for k, complete in enumerate((False, True, False, False)):
        path = tmp_path / f"run{k}" / "provenance.json"
        write_json(path, {"complete": complete})
        os.utime(path, (k, k))
    (tmp_path / "being written").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/provenance.json").write_text("{")
    keep_newest_folders(partial_runs(tmp_path, "provenance.json"), "provenance.json", 2)
    assert {p.name for p in tmp_path.iterdir()} == {"run1", "run2", "run3", "being written", "damaged"}


@pytest.mark.slow
def test_damaged_files_of_the_cache_are_made_again(given, ready):
    wanted = call(ready, "reconstruct", given)["provenance"]["images"]
    kinds = ("betas", "targets", "decoders", "decoded", "arms")
    files = [(name, path) for name in kinds for path in (ready.cache / name).rglob("*.*")]
    damaged = [path for name, path in files if path.suffix in (".png", ".h5") or name == "arms"]
    assert {p.suffix for p in damaged} == {".png", ".h5", ".json"}
    for path in damaged:
        path.write_bytes(path.read_bytes()[: 1000 if path.suffix != ".json" else 10])
    assert call(Study(ready.cache), "reconstruct", given)["provenance"]["images"] == wanted


def test_a_file_that_another_engine_deleted_disturbs_nothing(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(study.Path, "is_file", lambda path: True)  # it was there when it was asked
    keep_newest(tmp_path, 1)
    assert len({p.name for p in tmp_path.iterdir()} - {"gone"}) == 1


@pytest.mark.slow
def test_clear_gives_the_bytes_back_and_leaves_other_files(given, ready):
    call(ready, "reconstruct", given)
    other = ready.cache / "engine.log"
    other.write_text("log")
    before = ready.call("cache_size", {}, Log().events)["bytes"]
    on_disk = sum(p.stat().st_size for p in ready.cache.rglob("*") if p.is_file()) - 3
    assert before == on_disk > 0
    assert ready.call("clear", {"keep_runs": True}, Log().events)["bytes_freed"] < before
    assert list((ready.cache / "runs").rglob("*.png"))
    ready.call("clear", {}, Log().events)
    assert ready.call("cache_size", {}, Log().events) == {"bytes": 0}
    assert other.read_text() == "log"
    assert not call(ready, "decode", given)["cached"]


@pytest.mark.slow
def test_old_arms_and_decoders_make_room(given, ready, monkeypatch):
    monkeypatch.setattr(study_arms, "KEPT_ARMS", 3)
    monkeypatch.setattr(study_decoder, "KEPT_DECODERS", 2)
    for seed in range(3):
        call(ready, "reconstruct", given.with_stage("diffusion", DIFFUSION.but(seed=seed)))
    assert len(list((ready.cache / "arms").glob("*/arm.json"))) == 3
    for roi in ("V1", "V2", "V3"):
        last = call(ready, "decode", given.with_stage("betas", given.settings.betas.but(roi=roi)))
    kept = list((ready.cache / "decoders").glob("*.h5"))
    assert len(kept) == 2
    assert study.Path(last["decoder"]) in kept
