"""What the command line says before and after a workflow runs, and with which exit status."""

import dataclasses
import os
import shutil
from concurrent.futures.process import BrokenProcessPool

import pytest
from safetensors.torch import load_file, save_file

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.lock import BusyError, held, output_lock
from nipype_interfaces.running import front, model_check
from tests.support.output_tree import vouch_all, write_subject
from tests.support.workflows.small import CUT


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


def with_roi(job, roi):
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, betas=job.settings.betas.but(roi=roi)))


@pytest.mark.parametrize("plugin", ["Linear", "MultiProc", "SLURM"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_known_is_said_before_any_node_runs(job, tmp_path, plugin, dry_run):
    how = front.How(tmp_path / "work", plugin, dry_run=dry_run)
    jobs = [with_roi(job, "V9"), dataclasses.replace(with_roi(job, "gone.nii.gz"), subject="subj01")]
    with pytest.raises(UserError, match=r"roi must be made of .*\nneuraldiffuser: ROI mask must be an existing"):
        front.run_participants(jobs, CUT, how)
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


@pytest.mark.parametrize("where", ["out", "work"])
def test_folders_that_cannot_be_written(job, tmp_path, where):
    (tmp_path / "file").write_text("")
    work = tmp_path / ("file/work" if where == "work" else "work")
    out = tmp_path / ("file/out" if where == "out" else "out")
    jobs = [dataclasses.replace(job, out_dir=out, work_dir=work)]
    with pytest.raises(UserError, match="must be a folder that can be written"):
        front.run_participants(jobs, CUT, front.How(work))


def test_a_gpu_that_is_not_there_is_told_where_the_nodes_run_here(job, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    jobs = [dataclasses.replace(job, device="cuda")]
    for plugin in ("Linear", "MultiProc"):
        with pytest.raises(UserError, match="torch sees no CUDA GPU"):
            front.run_participants(jobs, CUT, front.How(tmp_path / "work", plugin))
    assert front.run_participants(jobs, CUT, front.How(tmp_path / "work", "SLURM", dry_run=True)) == 0


def test_a_second_run_into_one_output_folder_is_refused_from_another_work_folder_too(job, tmp_path):
    with held(*output_lock(job.out_dir, "sub-01")):
        with pytest.raises(BusyError, match=r"sub-01 in .*out must be written by one process .* another OUT_DIR"):
            front.run_participants([job], CUT, front.How(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere/neuraldiffuser_wf").exists()


def test_two_group_levels_do_not_mix_their_files(out):
    with held(*output_lock(out, "group")), pytest.raises(BusyError, match="group in "):
        group(out)
    assert not list(out.glob("group*"))


@pytest.fixture
def lacking(model_dir, tmp_path):
    """A model folder whose guide has no projection."""
    folder = shutil.copytree(model_dir, tmp_path / "models")
    path = folder / "image_encoder" / "model.safetensors"
    state = load_file(path)
    del state["visual_projection.weight"]
    save_file(state, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("plugin", ["Linear", "MultiProc", "SLURM"])
def test_weights_are_compared_before_any_node_runs(job, lacking, tmp_path, plugin):
    with pytest.raises(UserError, match="Model part image_encoder .*1 missing .visual_projection.weight"):
        front.run_participants(
            [dataclasses.replace(job, models=str(lacking))], CUT, front.How(tmp_path / "work", plugin)
        )
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_weights_are_compared_once_for_files_as_they_are(model_dir, tmp_path, monkeypatch):
    folder, compared = shutil.copytree(model_dir, tmp_path / "models"), []
    monkeypatch.setattr(model_check, "_compare", lambda *models: compared.append(models))
    for _ in range(2):
        model_check.compare_weights(str(folder), None, tmp_path / "work", apart=False)
    assert compared == [(str(folder), None)]
    os.utime(folder / "unet" / "config.json", (1, 1))
    model_check.compare_weights(str(folder), None, tmp_path / "work", apart=False)
    assert len(compared) == 2


def test_a_process_that_was_killed_has_compared_nothing(model_dir, tmp_path, monkeypatch):
    class Killed:
        def __init__(self, *arguments):
            pass

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

        def submit(self, *arguments):
            raise BrokenProcessPool

    monkeypatch.setattr(model_check, "ProcessPoolExecutor", Killed)
    model_check.compare_weights(str(model_dir), None, tmp_path, apart=True)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--nprocs", "2"]])
@pytest.mark.parametrize("what", ["typo", "hub id", "pointer", "guide"])
def test_files_of_models_are_looked_at_first_of_all(model_dir, tmp_path, hub_cache, capsys, what, options):
    folder = shutil.copytree(model_dir, tmp_path / "models")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    typed = {"typo": f"{tmp_path}/modles", "hub id": "owner/not-fetched", "pointer": str(folder), "guide": "demo"}
    models, guide = typed[what], ["--guide", "owner/clip"] if what == "guide" else []
    argv = ["run", str(tmp_path / "nsd"), str(tmp_path / "out"), "participant", "--models", models, *guide, *options]
    assert cli.main(argv) == 2
    said = capsys.readouterr().err.strip()
    expected = {"typo": f"Did you mean {folder}?", "hub id": "hf download owner/not-fetched", "pointer": "git lfs pull"}
    assert expected.get(what, "hf download owner/clip") in said and "\n" not in said
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
