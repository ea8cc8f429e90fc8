"""The whole job on a small simulated subject with small random models, through the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage import io

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core.job import images as recon_files
from napari_neuraldiffuser.core.job import run as plain
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.outputs.complete import why_incomplete
from napari_neuraldiffuser.core.params import TARGETS
from tests.support.session.whole_job import OPTIONS


@pytest.fixture(scope="module")
def command(nsd_dir, model_dir):
    def run(out: Path, *more: str) -> int:
        start = ["run", str(nsd_dir), str(out), "participant", "--models", str(model_dir), *OPTIONS]
        return cli.main([*start, *more])

    return run


@pytest.fixture(scope="module")
def finished(whole_job, tmp_path_factory):
    """An undisturbed run, to be used again."""
    return Path(shutil.copytree(whole_job.out, tmp_path_factory.mktemp("finished") / "out"))


def recons(out: Path) -> dict[str, np.ndarray]:
    return {p.name: io.imread(p) for p in sorted((out / "sub-01" / "recon").glob("*_rep-*.png"))}


def test_what_decoded_values_are_worth_is_a_table_with_a_ceiling(finished):
    table = pd.read_csv(finished / "sub-01/sub-01_desc-decoding_scores.tsv", sep="\t", na_values="n/a")
    assert table["target"].tolist() == list(TARGETS) and (table["n_test"] == 3).all()
    # test images were shown several times, so that their single trials tell the noise
    assert table["r2_ceiling"].notna().all() and (table["r2_ceiling"] > table["r2"]).all()
    about = json.loads((finished / "sub-01/sub-01_desc-decoding_scores.json").read_text())
    assert set(table.columns) <= set(about) and len(about["Spread"]) == len(TARGETS)
    text = (finished / "sub-01.html").read_text()
    assert "What single regions decode" in text
    assert "What a decoded value is worth" in text and "spread of g02" in text


def test_everything_is_written_under_its_name(finished):
    folder = finished / "sub-01"
    wanted = [
        "sub-01_desc-ridge_embeddings.h5",
        "sub-01_desc-recon_scores.tsv",
        "sub-01_desc-summary_scores.json",
        "sub-01_contribution.tsv",
        "sub-01_desc-decoding_scores.tsv",
        "sub-01_desc-decoding_scores.json",
        "sub-01_desc-regions_scores.tsv",
        "sub-01_desc-regions_scores.json",
        *(f"sub-01_space-func1pt8mm_target-{t}_accuracy.nii.gz" for t in TARGETS),
        "recon/sub-01_recon.json",
        *(f"sub-01_space-func1pt8mm_target-{t}_contribution.nii.gz" for t in TARGETS),
    ]
    assert all((folder / name).is_file() for name in wanted)
    assert (finished / "sub-01.html").stat().st_size > 10_000
    names = list(recons(finished))
    assert len(names) == 3 * 2 * 2
    assert sum("_desc-guided_" in n for n in names) == 6
    assert {n.split("_rep-")[1][0] for n in names} == {"1", "2"}
    assert not (folder / "sub-01_desc-failed_stimuli.tsv").exists()
    assert not [p for p in finished.rglob(".tmp-*")]
    description = json.loads((finished / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["KernelBackend"]
    assert bids.check(finished) == []


def test_summary_and_table_agree(finished):
    folder = finished / "sub-01"
    summary = json.loads((folder / "sub-01_desc-summary_scores.json").read_text())
    table = pd.read_csv(folder / "sub-01_desc-recon_scores.tsv", sep="\t")
    assert set(summary) == {"protocol", "arms", "paired", "controls", "warnings", "alignment", "trust"}
    means = table[table.arm == "guided"].groupby("stim").pixcorr.mean()
    assert summary["arms"]["guided"]["pixcorr"]["mean"] == pytest.approx(means.mean(), rel=1e-6)
    both = table.groupby(["stim", "arm"]).pixcorr.mean().unstack()
    difference = both.guided - both.unguided
    assert summary["paired"]["pixcorr"]["mean"] == pytest.approx(difference.mean(), rel=1e-6)
    assert summary["paired"]["pixcorr"]["worse"] == pytest.approx((difference < 0).mean())
    for control in ("start", "mean"):
        told = summary["controls"][control]["paired"]["pixcorr"]["mean"]
        assert told == pytest.approx((both.guided - both[control]).mean(), rel=1e-6)
        assert control in summary["protocol"]["controls"]


def test_contribution_shares_sum_to_one_total_per_family(finished):
    table = pd.read_csv(finished / "sub-01" / "sub-01_contribution.tsv", sep="\t")
    assert {"roi", "target", "share", "se", "n_voxels"} <= set(table)
    sums = table.groupby(["family", "target"]).share.sum().unstack()
    assert np.allclose(sums, sums.iloc[0], rtol=1e-3, atol=1e-6)


def test_the_arms_start_from_the_same_noise_and_differ(finished):
    images = recons(finished)
    pairs = [(images[n], images[n.replace("desc-guided", "desc-unguided")]) for n in images if "desc-guided" in n]
    assert all((a != b).any() for a, b in pairs)
    sidecar = json.loads((finished / "sub-01" / "recon" / "sub-01_recon.json").read_text())
    assert sidecar["Arms"]["unguided"]["GuidanceParams"]["guidance_scale"] == 0
    assert sidecar["DiffusionParams"]["seed"] == 0


def test_a_second_run_computes_nothing_again(finished, command, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(recon_files, "reconstruct_batch", never)
    monkeypatch.setattr("napari_neuraldiffuser.core.networks.embeddings.encode", never)
    assert command(finished) == 0


def test_an_interrupted_run_continues_to_the_same_bits(finished, command, tmp_path, monkeypatch, capsys):
    real, written = recon_files.write_png, []

    def interrupted(path, image):
        if len(written) == 3:  # in the middle of the second batch
            raise KeyboardInterrupt
        written.append(path)
        real(path, image)

    monkeypatch.setattr(recon_files, "write_png", interrupted)
    assert command(tmp_path) == 130
    assert "continues" in capsys.readouterr().err
    assert not (tmp_path / "sub-01.html").exists()
    monkeypatch.setattr(recon_files, "write_png", real)
    assert command(tmp_path) == 0
    undisturbed, continued = recons(finished), recons(tmp_path)
    assert list(undisturbed) == list(continued)
    assert all(np.array_equal(undisturbed[n], continued[n]) for n in undisturbed)
    for name in ("sub-01_desc-recon_scores.tsv", "sub-01_contribution.tsv"):
        assert (finished / "sub-01" / name).read_bytes() == (tmp_path / "sub-01" / name).read_bytes()


@pytest.mark.slow
def test_an_interrupted_plain_run_takes_the_mark_of_the_finished_one_away(inputs, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished, tmp_path / "out")
    job = Job.of(inputs, out, 2)
    places = job.places
    assert why_incomplete(places) == ""
    with monkeypatch.context() as patched:
        patched.setattr(plain, "prepare", interrupt)
        with pytest.raises(KeyboardInterrupt):
            plain.run_subject(job)
    assert why_incomplete(places) == "", "nothing was written yet"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(plain, "score_arms", interrupt)
        plain.run_subject(job)
    assert "has no sub-01_complete.json" in why_incomplete(places)
    plain.run_subject(job)
    assert bids.check(out) == []


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_changed_parameter_is_computed_anew(finished, command, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    assert command(tmp_path / "out", "--seed", "1") == 0
    before, after = recons(finished), recons(tmp_path / "out")
    assert any((before[n] != after[n]).any() for n in before)


@pytest.mark.slow
def test_failed_stimuli_are_listed_and_the_rest_is_written(command, tmp_path, monkeypatch, capsys):
    real = recon_files.reconstruct_batch

    def overflow(batch, *args):
        result = real(batch, *args)
        result.finite[:] = batch.stimulus_ids != failing[0]
        failing.setdefault(1, batch.stimulus_ids[0])
        return result

    failing: dict = {}
    monkeypatch.setattr(recon_files, "reconstruct_batch", overflow)
    failing[0] = first_stimulus(command, tmp_path / "a", failing)
    assert command(tmp_path / "b") == 1
    failed = pd.read_csv(tmp_path / "b" / "sub-01" / "sub-01_desc-failed_stimuli.tsv", sep="\t")
    assert failed.stim.tolist() == [failing[0]]
    scores = pd.read_csv(tmp_path / "b" / "sub-01" / "sub-01_desc-recon_scores.tsv", sep="\t")
    assert scores.stim.nunique() == 2
    assert "failed_stimuli.tsv" in capsys.readouterr().out
    page = (tmp_path / "b" / "sub-01.html").read_text(encoding="utf-8")
    assert f"Failed and left out: {failing[0]}." in page


def first_stimulus(command, out, failing):
    failing[0] = -1
    assert command(out) == 0
    return int(failing[1])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-stimuli", "0"], "at least 1"),
        (["--guidance-scale", "-1"], "guidance_scale must be at least 0"),
        (["--guidance-scale", "nan"], "guidance_scale must be a finite number"),
        (["--roi", "nothing"], "nothing"),
        (["--participant-label", "09"], "subj09"),
        (["--models", "no/such/folder"], "existing folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(command, tmp_path, capsys, more, message):
    assert command(tmp_path / "out", *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("neuraldiffuser: ")
    assert message in error


def test_an_output_folder_that_cannot_be_written(command, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert command(tmp_path / "file" / "out") == 2
    assert "must be a folder that can be written" in capsys.readouterr().err


def test_a_folder_that_is_not_nsd(tmp_path, capsys):
    assert cli.main(["run", str(tmp_path), str(tmp_path / "out"), "participant"]) == 2
    assert "neuraldiffuser: " in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="must"):
        cli.main(["--debug", "run", str(tmp_path), str(tmp_path / "out"), "participant"])


def test_evaluate_scores_the_written_folder(finished, nsd_dir, tmp_path, capsys):
    from napari_neuraldiffuser.core.nsd import Subject

    stimuli = Subject(nsd_dir, "subj01").stimuli
    seen = {int(n.split("_stim-")[1][:5]) for n in recons(finished)}
    for s in seen:
        io.imsave(tmp_path / f"{s:05d}.png", stimuli[[s]][0], check_contrast=False)
    capsys.readouterr()
    assert cli.main(["evaluate", str(finished / "sub-01" / "recon"), str(tmp_path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    own = json.loads((finished / "sub-01" / "sub-01_desc-summary_scores.json").read_text())
    for arm in ("guided", "unguided"):
        assert summary["arms"][arm]["ssim"]["mean"] == pytest.approx(own["arms"][arm]["ssim"]["mean"], abs=1e-6)


def test_the_trust_sheet_is_in_the_summary_and_on_the_page(finished):
    folder = finished / "sub-01"
    trust = json.loads((folder / "sub-01_desc-summary_scores.json").read_text())["trust"]
    table = pd.read_csv(folder / "sub-01_desc-recon_scores.tsv", sep="\t")
    both = table.groupby(["stim", "arm"]).pixcorr.mean().unstack()
    rows = {row["name"]: row for row in trust["rows"]}
    assert set(rows) == {"other", "mean", "retrieval", "start", "unguided"} and trust["n"] == 3
    for name in ("start", "mean", "unguided"):
        told = rows[name]["paired"]["pixcorr"]["mean"]
        assert told == pytest.approx((both.guided - both[name]).mean(), rel=1e-6)
    first = table[table.rep == 1].pivot(index="stim", columns="arm", values="pixcorr")
    assert trust["single"]["paired"]["pixcorr"]["mean"] == pytest.approx((first.guided - first.unguided).mean())
    (training,) = finished.rglob("fit_decoders_wf/targets/targets.h5")
    assert trust["retrieved"] == _retrieved(folder / "sub-01_desc-ridge_embeddings.h5", training)
    assert [part["n"] for part in trust["nearness"]["parts"]] == [1, 1, 1]
    assert trust["left_out"] == [] and {row["target"] for row in trust["directions"]} == set(TARGETS)
    assert [row["target"] for row in trust["decoding"]] == list(TARGETS)
    page = (finished / "sub-01.html").read_text()
    assert "What would have come out anyway" in page and trust["paragraph"][:40] in page
    assert "With fewer than 5 stimuli none counts" in trust["paragraph"]


def _retrieved(decoded: Path, training: Path) -> list[int]:
    """The training stimulus of the highest mean correlation over layers, one by one."""
    ours, theirs = Embeddings.load(decoded), Embeddings.load(training)
    means = {layer: values.reshape(len(theirs), -1).mean(axis=0) for layer, values in theirs.g.items()}
    found = []
    for i in range(len(ours)):
        likeness = [
            np.mean(
                [
                    np.corrcoef(ours.g[layer][i].ravel() - mean, theirs.g[layer][k].ravel() - mean)[0, 1]
                    for layer, mean in means.items()
                ]
            )
            for k in range(len(theirs))
        ]
        found.append(int(theirs.stimulus_ids[int(np.argmax(likeness))]))
    return found
