"""The whole job on own scans through the command line, beside the same measurements in an NSD tree."""

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.evaluation.folders import evaluate_folders
from napari_neuraldiffuser.core.evaluation.metric import encoder_word
from napari_neuraldiffuser.core.job.run import Job, prepare, run_subject
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.nsd.simulation import brain
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.params import (
    TARGETS,
    BetasParams,
    DiffusionParams,
    EvaluationParams,
    Settings,
    SimulationParams,
)
from tests.support.nsd.own_files import export

pytestmark = pytest.mark.slow
SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
OPTIONS = "--guidance demo --n-stimuli 3 --repeats 1 --n-steps 4".split()


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", (6.0, (25, 32, 26)))
        nsd.simulate.write_subjects(root, SMALL)
    return nsd.Subject(root, "subj01")


@pytest.fixture(scope="module")
def source(subject, tmp_path_factory):
    return export(subject, tmp_path_factory.mktemp("own") / "scans", name="subj07")


def run(scans, out, model_dir, *more):
    return cli.main(["run", str(scans), str(out), "participant", "--models", str(model_dir), *OPTIONS, *more])


def files_of(source: Source, *left_out: str) -> list[str]:
    named = {name: getattr(source, name) for name in cli.OWN_FILES if name not in left_out}
    volumes = [] if "rois" in left_out else ["--roi-volumes", *source.rois]
    return [part for name, path in named.items() for part in (f"--{name}", path)] + volumes


@pytest.fixture(scope="module")
def tree_run(subject, model_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("tree")
    assert run(subject.layout.root, out, model_dir) == 0
    return out / "sub-01"


@pytest.fixture(scope="module")
def own_run(source, model_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("own_out")
    assert run(source.betas, out, model_dir, *files_of(source), "--participant-label", "07") == 0
    return out / "sub-07"


def test_everything_is_written_under_the_own_label_and_space(own_run):
    names = [
        "sub-07_desc-ridge_embeddings.h5",
        "sub-07_desc-recon_scores.tsv",
        "sub-07_contribution.tsv",
        *(f"sub-07_space-native_target-{target}_contribution.nii.gz" for target in TARGETS),
    ]
    assert all((own_run / name).is_file() for name in names)
    assert (own_run.parent / "sub-07.html").stat().st_size > 10_000
    assert len(list((own_run / "recon").glob("*_rep-1_desc-guided_recon.png"))) == 3
    assert bids.check(own_run.parent) == []


def test_words_that_the_text_encoder_does_not_know_are_told(own_run):
    said = json.loads((own_run / "sub-07_desc-ridge_embeddings.json").read_text())["Notes"]
    assert any(note.startswith("captions: the text encoder does not know ") for note in said)
    assert "the text encoder does not know" in (own_run.parent / "sub-07.html").read_text()


def test_decoded_embeddings_are_the_trees(tree_run, own_run, subject):
    """Equal betas, images and captions: nothing but the names of the stimuli may differ."""
    tree = embeddings.Embeddings.load(tree_run / "sub-01_desc-ridge_embeddings.h5")
    own = embeddings.Embeddings.load(own_run / "sub-07_desc-ridge_embeddings.h5")
    labels = np.unique(subject.trials["stimulus_id"][:750])
    np.testing.assert_array_equal(labels[own.stimulus_ids], tree.stimulus_ids)
    for target in TARGETS:
        np.testing.assert_allclose(own[target], tree[target], rtol=1e-5, atol=1e-6, err_msg=target)


def test_contribution_tells_of_the_label_volumes(tree_run, own_run):
    own = pd.read_csv(own_run / "sub-07_contribution.tsv", sep="\t")
    tree = pd.read_csv(tree_run / "sub-01_contribution.tsv", sep="\t")
    tree = tree[tree.family == "prf-visualrois"].reset_index(drop=True)
    assert set(own.family) == {"prfvisualrois"}
    np.testing.assert_array_equal(own.n_voxels, tree.n_voxels)
    np.testing.assert_allclose(own.share, tree.share, rtol=1e-3, atol=1e-5)
    volume = nib.load(own_run / "sub-07_space-native_target-z_contribution.nii.gz")
    assert (np.asarray(volume.dataobj) != 0).sum() > 100


def as_glmsingle(source: Source, folder: Path) -> list[str]:
    """The same betas as GLMsingle saves them, with its design and a table of conditions; the command's arguments."""
    folder.mkdir()
    trials = pd.read_csv(source.trials, sep="\t", dtype={"stimulus": str}).sort_values("trial")
    labels = sorted(trials["stimulus"].unique())
    order = [labels.index(label) for label in trials["stimulus"]]
    betas = np.asarray(nib.load(source.betas).dataobj)
    np.save(folder / "TYPED_FITHRF_GLMDENOISE_RR.npy", {"betasmd": np.ascontiguousarray(betas), "noisepool": None})
    per_run = [len(order) // 3] * 3
    np.save(folder / "DESIGNINFO.npy", {"stimorder": order, "numtrialrun": per_run, "params": {"wantlss": 0}})
    test = trials.groupby("stimulus")["test"].max()
    rows = [f"{k}\t{label}\t{test[label]}" for k, label in enumerate(labels)]
    (folder / "conditions.tsv").write_text("condition\tstimulus\ttest\n" + "\n".join(rows) + "\n")
    return [str(folder / "TYPED_FITHRF_GLMDENOISE_RR.npy"), "--trials", str(folder / "conditions.tsv")]


def test_glmsingles_outputs_give_the_results_of_the_nifti(source, own_run, model_dir, tmp_path):
    betas, *trials = as_glmsingle(source, tmp_path / "glm")
    files = [*files_of(source, "trials"), *trials, "--participant-label", "07"]
    assert run(betas, tmp_path / "out", model_dir, *files) == 0
    found = tmp_path / "out/sub-07"
    for name in ("sub-07_contribution.tsv", "sub-07_desc-recon_scores.tsv"):
        pd.testing.assert_frame_equal(
            pd.read_csv(found / name, sep="\t"), pd.read_csv(own_run / name, sep="\t"), rtol=1e-5
        )
    for target in TARGETS:
        name = f"sub-07_space-native_target-{target}_contribution.nii.gz"
        got, want = nib.load(found / name), nib.load(own_run / name)
        np.testing.assert_allclose(got.affine, want.affine, atol=1e-5)  # the mask's
        np.testing.assert_allclose(got.get_fdata(), want.get_fdata(), atol=1e-7)
    assert bids.check(tmp_path / "out") == []


def test_a_second_run_computes_nothing_and_another_picture_is_noticed(
    own_run, source, model_dir, tmp_path, monkeypatch
):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in Path(source.images).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    encoded = []
    real = embeddings.encode
    monkeypatch.setattr(embeddings, "encode", lambda *args: encoded.append(len(args[1])) or real(*args))
    again = files_of(replace(source, images=str(folder)))
    assert run(source.betas, own_run.parent, model_dir, *again, "--participant-label", "07") == 0
    # other files, as far as their path tells
    encoded.clear()
    assert run(source.betas, own_run.parent, model_dir, *again, "--participant-label", "07") == 0
    assert encoded == []
    first = sorted(folder.iterdir())[-1]
    Image.new("RGB", (32, 32), (200, 30, 30)).save(first)
    assert run(source.betas, own_run.parent, model_dir, *again, "--participant-label", "07") == 0
    assert sum(encoded) > 200


def test_without_label_volumes_the_table_says_mask_and_anatomy_may_lack(source, model_dir, tmp_path):
    bare = replace(source, rois=(), anatomy="")
    settings = Settings(
        betas=BetasParams(roi="mask", sessions="1"), diffusion=DiffusionParams(repeats=1, n_steps=2, cfg_scale=2.0)
    )
    assert nsd.open_source(bare).mapped_families() == ["mask"]
    result = run_subject(Job(Path(), tmp_path, settings=settings, models=str(model_dir), n_stimuli=2, source=bare))
    assert result.page == tmp_path / "sub-07.html" and result.failed == []
    table = pd.read_csv(tmp_path / "sub-07" / "sub-07_contribution.tsv", sep="\t")
    assert set(table.family) == {"mask"} and set(table.roi) == {"mask", "outside mask"}
    assert json.loads(result.summary.read_text())["protocol"]["n_test_images"] == 2


@pytest.mark.parametrize("equal", ["captions", "words", "pictures", "one stimulus"])
def test_a_target_that_does_not_vary_ends_no_run(source, model_dir, tmp_path, equal):
    """All is computed that can be, and the page says what is not defined."""
    captions, images, n = json.loads(Path(source.captions).read_text()), Path(source.images), 3
    if equal == "captions":
        captions = dict.fromkeys(captions, ["a photograph"])
    if equal == "words":
        captions = {name: [f"qwx{k}zzt"] for k, name in enumerate(captions)}
    if equal == "pictures":
        images = tmp_path / "images"
        images.mkdir()
        for path in Path(source.images).iterdir():
            Image.new("RGB", (32, 32), (90, 90, 90)).save(images / path.name)
    if equal == "one stimulus":
        n = 1
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    scans = replace(source, captions=str(tmp_path / "captions.json"), images=str(images))
    settings = Settings(diffusion=DiffusionParams(repeats=2, n_steps=2, cfg_scale=2.0))
    job = Job(Path(), tmp_path / "out", settings=settings, models=str(model_dir), n_stimuli=n, source=scans)
    result = run_subject(job)
    text, said = result.page.read_text(), " ".join(result.notes)
    of_pictures = [target for target in TARGETS if target != "c"]
    lacking = {"captions": ["c"], "words": ["c"], "pictures": of_pictures, "one stimulus": []}[equal]
    table = pd.read_csv(job.places.contribution_table, sep="\t")
    for target in TARGETS:
        undefined = target in lacking
        assert job.places.contribution(target).is_file() != undefined, target
        assert table[table.target == target].share.isna().all() == undefined, target
    for why, targets in groupby(sorted(lacking, key="c".__eq__), "c".__eq__):
        words = f"{', '.join(targets)}: regions have no share and there is no map, as their test"
        assert words in text and words in said, why
    figures = json.loads(result.summary.read_text())["arms"]["guided"]
    assert figures["ssim"]["n"] == n and (figures["pixcorr"]["n"] == 0) == (equal == "pictures")
    assert (figures["twoway_edges"]["n"] == 0) == (equal in ("pictures", "one stimulus"))
    assert bids.check(job.out_dir) == []


def test_a_workflow_in_which_nothing_varies_ends_with_its_page(source, model_dir, tmp_path, capsys):
    """No target has a map and one stimulus has no other to be told from: all of that is said on stderr."""
    images = tmp_path / "images"
    images.mkdir()
    for path in Path(source.images).iterdir():
        Image.new("RGB", (32, 32), (90, 90, 90)).save(images / path.name)
    captions = dict.fromkeys(json.loads(Path(source.captions).read_text()), "a photograph")
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    scans = files_of(replace(source, captions=str(tmp_path / "captions.json"), images=str(images)))
    out = tmp_path / "out"
    assert run(source.betas, out, model_dir, *scans, "--participant-label", "07", "--n-stimuli", "1") == 0
    told, page = capsys.readouterr().err, (out / "sub-07.html").read_text()
    for words in ("as their test pictures are equal", "as their test captions are equal", "as there is one stimulus"):
        assert words in told and words in page
    assert not list((out / "sub-07").glob("*contribution.nii.gz")) and bids.check(out) == []


def digest(job: Job) -> str:
    """What the records of every stage start from."""
    return prepare(job, lambda *told: None).origin


def test_stage_records_tell_selections_apart(subject, model_dir, tmp_path):
    """Another expression or preparation, and a mask that was drawn again under its old name; equal betas are equal."""
    mask, where = tmp_path / "drawn.nii", np.argwhere(subject.rois("nsdgeneral").labels > 0)

    def of(**betas):
        settings = Settings(betas=BetasParams(**betas))
        return digest(Job(subject.layout.root, tmp_path / "out", settings=settings, models=str(model_dir)))

    def draw(voxels):
        labels = np.zeros(subject.shape, np.uint8)
        labels[tuple(voxels.T)] = 1
        nib.save(nib.Nifti1Image(labels, subject.affine), mask)
        return of(roi=str(mask))

    found = [of(), of(roi="nsdgeneral - FFA"), of(zscore=False), draw(where[:50]), draw(where[1:51])]
    assert len(set(found)) == len(found)
    assert of() == of(sessions="1") == found[0] and draw(where[:50]) == found[3]


def test_stage_records_of_own_scans_follow_the_split_and_what_was_seen(source, model_dir, tmp_path):
    def of(**files):
        changed = replace(source, **files)
        return digest(Job(Path(), tmp_path / "out", models=str(model_dir), source=changed))

    first = of()
    table = pd.read_csv(source.trials, sep="\t", dtype=str)
    one = table[table.test == "0"].stimulus.iloc[0]
    table.loc[table.stimulus == one, "test"] = "1"
    table.to_csv(tmp_path / "trials.tsv", sep="\t", index=False)
    captions = json.loads(Path(source.captions).read_text()) | {one: "a red ball"}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    others = [of(trials=str(tmp_path / "trials.tsv")), of(captions=str(tmp_path / "captions.json"))]
    assert len({first, *others}) == 3 and of() == first


def test_families_of_an_nsd_subject_are_as_before(subject):
    assert subject.mapped_families() == ["prf-visualrois", "floc-faces", "floc-bodies", "floc-places", "floc-words"]


@pytest.mark.parametrize(
    ("left_out", "more", "message"),
    [
        (("mask",), [], "own scans must have mask"),
        (("images",), [], "images must be a folder"),
        ((), ["--participant-label", "01", "02"], "must be one label for own scans"),
        ((), ["--roi", "V9"], "got 'V9'"),
        ((), ["--sessions", "2"], "sessions there are (1)"),
    ],
)
def test_bad_input_is_one_line_and_status_2(source, model_dir, tmp_path, capsys, left_out, more, message):
    assert run(source.betas, tmp_path, model_dir, *files_of(source, *left_out), *more) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_results_say_which_label_a_number_stands_for(own_run, source):
    """In the sidecar of the images, the table, the summary and the page; and `evaluate` gives the run's own scores."""
    said = json.loads((own_run / "recon/sub-07_recon.json").read_text())["StimulusLabels"]
    scores = pd.read_csv(own_run / "sub-07_desc-recon_scores.tsv", sep="\t", dtype={"stimulus": str})
    summary = json.loads((own_run / "sub-07_desc-summary_scores.json").read_text())
    decoded = embeddings.Embeddings.load(own_run / "sub-07_desc-ridge_embeddings.h5")
    labels = nsd.open_source(source).stimuli.labels(decoded.stimulus_ids)
    assert said == summary["stimuli"] == dict(zip((f"{k:05d}" for k in decoded.stimulus_ids), labels, strict=True))
    assert decoded.labels == labels
    assert {(f"{row.stim:05d}", row.stimulus) for row in scores.itertuples()} == set(said.items())
    page = (own_run.parent / "sub-07.html").read_text()
    assert all(f"<b>{label} ({k})</b>" in page for k, label in zip(decoded.stimulus_ids, labels, strict=True))
    again = evaluate_folders(own_run / "recon", source.images, params=EvaluationParams(metrics=("pixcorr",)))
    assert again.stimuli == labels
    for arm in ("guided", "unguided"):
        theirs = scores[scores.arm == arm].sort_values("stim").pixcorr
        np.testing.assert_allclose(again.arms[arm].values["pixcorr"][:, 0], theirs, atol=1e-12)


def test_scores_and_page_name_the_models_that_made_the_features(own_run, model_dir):
    summary = (own_run / "sub-07_desc-summary_scores.json").read_text()
    assert f"twoway_{encoder_word(Path(model_dir).name)}" in json.loads(summary)["arms"]["guided"]
    for text in (summary, (own_run.parent / "sub-07.html").read_text()):
        assert f"image encoder {Path(model_dir).name}" in text
        assert "twoway_demo" not in text and "demo encoder" not in text
