"""The sink's mark of a complete subject: gone while files are placed, there once all are."""

import shutil

import pytest

from napari_neuraldiffuser.core.outputs.complete import why_incomplete
from napari_neuraldiffuser.core.outputs.group.write import GroupError, write_group
from nipype_interfaces.interfaces import DerivativesSink, sink
from tests.support.output_tree import job_of, write_raw, write_subject


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Files of a subject as nodes leave them, and the sink that places them in `out`."""
    monkeypatch.chdir(tmp_path)
    places = write_subject(tmp_path / "node")
    files = [str(p) for p in sorted(places.folder.rglob("*")) if p.is_file()]
    return lambda: DerivativesSink(out_dir=tmp_path / "out", label="sub-01", files=[*files, str(places.page)]).run()


def full_after(monkeypatch, n):
    """Let the disk be full after `n` more files."""
    copied, copy = [], shutil.copy2

    def limited(source, target):
        copied.append(source)
        if len(copied) > n:
            raise OSError(28, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr(sink.shutil, "copy2", limited)


@pytest.mark.parametrize("n", [0, 5, 20])
def test_a_subject_whose_files_did_not_all_fit_is_not_complete(made, tmp_path, monkeypatch, n):
    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk of .* is full"):
        full_after(patched, n)
        made()
    with pytest.raises(GroupError, match=r"sub-01: (has no sub-01_complete.json|there is no such folder)"):
        write_group(tmp_path / "out")
    made()
    assert write_group(tmp_path / "out").left_out == []


def test_an_older_result_is_not_mixed_with_half_of_a_newer_one(made, tmp_path, monkeypatch):
    places = write_subject(tmp_path / "out", seed=1)
    made()
    assert why_incomplete(places) == ""
    write_subject(tmp_path / "node", seed=2)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk of .* is full"):
        full_after(patched, 3)
        made()
    assert "has no sub-01_complete.json" in why_incomplete(places)
    made()
    assert why_incomplete(places, pictures=True) == ""


def test_parts_of_a_subject_are_not_a_complete_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = write_subject(tmp_path / "node")
    placed = DerivativesSink(out_dir=tmp_path / "out", label="sub-01", files=[str(places.scores)]).run()
    assert [name.rsplit("/", 1)[1] for name in placed.outputs.out_files] == ["sub-01_desc-recon_scores.tsv"]
    assert list((tmp_path / "out/sub-01").iterdir()) == [tmp_path / "out/sub-01/sub-01_desc-recon_scores.tsv"]


def test_regions_and_anatomy_of_an_earlier_run_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places, out = write_subject(tmp_path / "node"), tmp_path / "out"
    older, job = write_subject(out), job_of(out, write_raw(tmp_path / "nsd"))
    older.regions("prf-visualrois").rename(older.regions("floc-faces"))
    files = [str(p) for p in sorted(places.folder.rglob("*")) if p.is_file() and p != places.anatomy]
    about = {"settings": job.settings.to_dict(), "source": job.scans.to_dict(), "models": "demo"}
    DerivativesSink(out_dir=out, label="sub-01", files=files, model_digest="ab" * 32, **about).run()
    assert {path.name for path, _ in older.find("regions")} == {older.regions("prf-visualrois").name}
    assert not older.anatomy.exists() and older.embeddings.is_file()
