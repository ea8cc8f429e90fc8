"""The whole workflow of a subject: the plain run's files, caching, and somebody else's workflow around a part."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nipype.interfaces.base import traits

from napari_neuraldiffuser.core.job import images as recon_files
from napari_neuraldiffuser.core.job.run import run_subject
from napari_neuraldiffuser.core.nsd import Subject
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.params import WorkflowParams
from nipype_interfaces.workflows import (
    MULTIPROC,
    describe,
    init_contribution_wf,
    init_evaluate_wf,
    init_fit_decoders_wf,
    init_load_wf,
    init_neuraldiffuser_wf,
    init_reconstruct_wf,
    init_report_wf,
    init_subject_wf,
)
from tests.support.nsd.own_files import export
from tests.support.workflows.small import CUT, PLAN, contents, prepared, run_job, times


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory):
    """Files of the plain run of the job, by name."""
    from napari_neuraldiffuser.core.job.spec import Job

    out = tmp_path_factory.mktemp("plain")
    nsd_dir = Path(recipe.source.nsd_dir)
    with_threads = Job(nsd_dir, out, settings=recipe.settings, models=recipe.models, n_stimuli=4)
    from nipype_interfaces.interfaces.base import limited_threads

    with limited_threads(CUT.num_threads):
        run_subject(with_threads)
    return contents(out)


@pytest.mark.parametrize(
    "plugin, cut",
    [
        ("Linear", CUT),
        pytest.param("MultiProc", CUT.but(decoder_parts="targets", chunk_size=1), marks=pytest.mark.slow),
    ],
)
def test_the_workflow_writes_the_files_of_the_plain_run(job, plain, tmp_path, plugin, cut):
    run_job(job, tmp_path / "work", plugin, cut, **({"n_procs": 2, **MULTIPROC} if plugin == "MultiProc" else {}))
    found = contents(job.out_dir)
    assert found == plain
    assert bids.check(job.out_dir) == []


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """Folder with a finished run: `out` and `work`."""
    from napari_neuraldiffuser.core.job.spec import Job

    base = tmp_path_factory.mktemp("finished")
    models = base / "models"
    shutil.copytree(recipe.models, models)
    nsd_dir = base / "nsd"
    shutil.copytree(recipe.source.nsd_dir, nsd_dir)
    job = Job(nsd_dir, base / "out", settings=recipe.settings, models=str(models), n_stimuli=2)
    run_job(job, base / "work")
    return job


def executed(job, **changes):
    """Names of the nodes that a run of the finished job executes again."""
    base = job.out_dir.parent / "work"
    before = {path: at for path, at in times(base, "").items()}
    run_job(dataclasses.replace(job, **changes), base)
    after = times(base, "")
    return {Path(path).name for path, at in after.items() if before.get(path) != at}


ALWAYS = {"index", "check", "sink"}


def test_a_rerun_executes_nothing_and_repairs_the_output_folder(finished):
    files = contents(finished.out_dir)
    (finished.out_dir / "sub-01.html").unlink()
    assert executed(finished) == ALWAYS
    assert contents(finished.out_dir) == files


@pytest.mark.slow
def test_what_changed_decides_what_runs_again(finished):
    settings = finished.settings
    region = dataclasses.replace(settings, betas=settings.betas.but(roi="V1"))
    again = executed(finished, settings=region)
    assert {"betas", "_fit0", "decode", "_recon0", "evaluate", "contribution"} <= again
    assert not again & {"targets", "test_targets"}, "target embeddings come from the stimuli alone"
    executed(finished)
    page = dataclasses.replace(settings, evaluation=settings.evaluation.but(size=64))
    assert executed(finished, settings=page) == ALWAYS | {"evaluate", "report", "results"}
    pull = dataclasses.replace(page, guidance=settings.guidance.but(guidance_scale=2.0))
    again = executed(finished, settings=pull)
    assert {"recon", "_recon0", "evaluate", "report"} <= again
    assert not again & {"betas", "targets", "fit", "decoder", "decode"}
    assert executed(finished, settings=pull) == ALWAYS
    fewer = dataclasses.replace(pull, diffusion=pull.diffusion.but(repeats=1))
    executed(finished, settings=fewer)
    assert not [name for name in contents(finished.out_dir) if "_rep-2_" in name], "images of the run before are gone"
    assert bids.check(finished.out_dir) == []


@pytest.mark.slow
def test_other_weights_and_other_betas_are_seen(finished):
    executed(finished)
    config = Path(finished.models) / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    again = executed(finished)
    assert {"targets", "_recon0", "evaluate"} <= again
    assert "betas" not in again
    session = next((Path(finished.nsd_dir) / "nsddata_betas").rglob("betas_session*"))
    session.touch()
    again = executed(finished)
    assert {"betas", "_fit0", "decoder", "decode", "_recon0"} <= again
    assert not again & {"targets", "test_targets"}, "target embeddings come from the stimuli alone"


@pytest.mark.slow
def test_the_page_names_the_stimuli_that_failed(job, tmp_path, monkeypatch):
    failing = []

    def overflow(batch, *args):
        result = reconstruct_batch(batch, *args)
        failing.extend(batch.stimulus_ids[: 1 - len(failing)])
        result.finite[:] = ~np.isin(batch.stimulus_ids, failing)
        return result

    reconstruct_batch = recon_files.reconstruct_batch
    monkeypatch.setattr(recon_files, "reconstruct_batch", overflow)
    run_job(job, tmp_path / "work")
    rows = job.places.failed.read_text().splitlines()
    assert [row.split("\t")[0] for row in rows[1:]] == [str(failing[0])]
    assert f"Failed and left out: {failing[0]}." in job.places.page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_own_scans_a_subject_of_nsd_and_the_group_in_one_workflow(recipe, job, tmp_path):
    source = export(Subject(recipe.source.nsd_dir, "subj01"), tmp_path / "own")
    own = dataclasses.replace(job, source=source)
    prepared(init_neuraldiffuser_wf([job, own], CUT, group=True), tmp_path / "work").run(plugin="Linear")
    found = contents(job.out_dir)
    assert "sub-07/sub-07_space-native_target-g02_contribution.nii.gz" in found
    assert bids.check(job.out_dir) == []
    scores = (job.out_dir / "group_desc-recon_scores.tsv").read_text().splitlines()
    assert {line.split("\t")[0] for line in scores[1:]} == {"sub-01", "sub-07"}
    page = (job.out_dir / "group.html").read_text()
    assert "sub-01.html" in page and "sub-07.html" in page
    wanted = dataclasses.replace(own, out_dir=tmp_path / "plain")
    run_subject(wanted)
    assert {name for name in found if name.startswith("sub-07")} == {
        name for name in contents(wanted.out_dir) if name.startswith("sub-07")
    }


@pytest.mark.slow
def test_a_part_runs_behind_somebody_elses_preprocessing(recipe, tmp_path):
    """Betas are smoothed by a plain node of another package's workflow; ours takes its NIfTI and gives images."""
    from nipype.interfaces.utility import Function, IdentityInterface
    from nipype.pipeline import engine as pe
    from PIL import Image, ImageOps

    from nipype_interfaces.interfaces import Decode

    source = export(Subject(recipe.source.nsd_dir, "subj01"), tmp_path / "own")
    theirs = pe.Workflow("lab_wf")
    inputnode = pe.Node(IdentityInterface(["betas"]), name="inputnode")
    smooth = pe.Node(Function(function=smoothed, output_names=["out_file"]), name="smooth")
    load, fit = init_load_wf(PLAN, own=True), init_fit_decoders_wf(PLAN)
    decode, recon = pe.Node(Decode(n_stimuli=2, label="sub-07"), name="decode"), init_reconstruct_wf(PLAN)
    for field in ("mask", "trials", "images", "captions", "anatomy"):
        setattr(load.inputs.inputnode, field, getattr(source, field))
    load.inputs.inputnode.trait_set(rois=list(source.rois), subject="subj07")
    fit.inputs.inputnode.models = recon.inputs.inputnode.models = recipe.models
    recon.inputs.inputnode.label = "sub-07"
    shared = ("source", "betas", "train_ids")
    theirs.connect(
        [
            (inputnode, smooth, [("betas", "in_file")]),
            (smooth, load, [("out_file", "inputnode.betas")]),
            (load, fit, [(f"outputnode.{f}", f"inputnode.{f}") for f in shared]),
            (load, decode, [("outputnode.betas", "betas")]),
            (fit, decode, [("outputnode.decoder", "decoder")]),
            (decode, recon, [(f, f"inputnode.{f}") for f in ("embeddings", "stimulus_ids")]),
        ]
    )
    theirs.inputs.inputnode.betas = source.betas
    nodes = {node.name: node for node in prepared(theirs, tmp_path / "work").run(plugin="Linear").nodes()}
    images = [f for chunk in nodes["recon"].result.outputs.images for f in chunk]
    assert len(images) == 2 * PLAN.settings.diffusion.repeats * 2
    # a picture that somebody replaced: the folder has the same name, and yet it is seen
    before, picture = times(tmp_path / "work", ""), sorted(Path(source.images).iterdir())[0]
    with Image.open(picture) as shown:
        ImageOps.invert(shown.convert("RGB")).save(picture)
    theirs.run(plugin="Linear")
    after = times(tmp_path / "work", "")
    again = {name.split("/")[-1] for name in after if after[name] != before.get(name)}
    assert {"targets", "_fit0"} <= again and not {"smooth", "betas"} & again
    assert all(Path(f).is_file() and Path(f).name.startswith("sub-07_stim-") for f in images)
    # what was decoded is what the smoothed betas give, and not the ones before
    used = json.loads(json.dumps(nodes["index"].result.outputs.source))["betas"]
    assert used == nodes["smooth"].result.outputs.out_file != source.betas


def smoothed(in_file):
    """Every volume smoothed over space; the source travels to the worker."""
    from pathlib import Path

    import nibabel
    from scipy.ndimage import gaussian_filter

    image = nibabel.load(in_file)
    data = gaussian_filter(image.get_fdata(dtype="float32"), (0.5, 0.5, 0.5, 0))
    out = Path.cwd() / "smoothed.nii"
    nibabel.save(nibabel.Nifti1Image(data, image.affine), out)
    return str(out)


def test_smoothing_changes_the_betas(tmp_path):
    path = tmp_path / "in.nii"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(5, 5, 5, 3)).astype(np.float32), np.eye(4)), path)
    import os

    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        found = nib.load(smoothed(str(path)))
    finally:
        os.chdir(here)
    assert found.shape == (5, 5, 5, 3) and found.get_fdata().std() < nib.load(path).get_fdata().std()


INITS = {
    "load_wf": lambda job: init_load_wf(PLAN),
    "own": lambda job: init_load_wf(PLAN, own=True),
    "fit_decoders_wf": lambda job: init_fit_decoders_wf(PLAN),
    "contribution_wf": lambda job: init_contribution_wf(PLAN),
    "evaluate_wf": lambda job: init_evaluate_wf(PLAN),
    "report_wf": lambda job: init_report_wf(PLAN),
    "sub_01_wf": init_subject_wf,
}


@pytest.mark.parametrize("name", INITS)
def test_every_workflow_has_its_ends_and_documents_them(job, name):
    wf = INITS[name](job)
    assert wf.name == name.replace("own", "load_wf")
    inputnode, outputnode = wf.get_node("inputnode"), wf.get_node("outputnode")
    doc = init_load_wf.__doc__ if name == "own" else globals()[f"init_{name.replace('sub_01', 'subject')}"].__doc__
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"(?m)^    ([\w, ]+?)(?: :.*)?$", doc.split("Inputs")[1]))))
    assert {*inputnode.inputs.copyable_trait_names(), *outputnode.inputs.copyable_trait_names()} <= listed
    wf._create_flat_graph()  # every connection has its two ends
    # every field says what it wants, and in words that are somewhere in the docs of an interface
    told = dict(line.split(": ", 1) for line in describe(wf).splitlines())
    assert set(told) == set(inputnode.inputs.copyable_trait_names()) and all(len(text) > 4 for text in told.values())
    assert [name for name in told if "stamp" in name] == []


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("own", "betas", "/nowhere.nii"),
        ("own", "mask", 3),
        ("own", "rois", ["/nowhere.nii"]),
        ("fit_decoders_wf", "train_ids", "13"),
        ("fit_decoders_wf", "source", "/data/nsd"),
        ("reconstruct", "models", None),
        ("reconstruct", "stimulus_ids", [1.5]),
        ("evaluate_wf", "images", ["/nowhere.png"]),
        ("report_wf", "n_stimuli", -1),
        ("sub_01_wf", "n_stimuli", "all"),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_is_set(job, name, field, value):
    wf = init_reconstruct_wf(PLAN) if name == "reconstruct" else INITS[name](job)
    with pytest.raises(traits.TraitError, match=field):
        setattr(wf.inputs.inputnode, field, value)
    copy = wf.clone("copy")
    with pytest.raises(traits.TraitError, match=field):
        setattr(copy.inputs.inputnode, field, value)


def test_models_are_checked_once_in_a_subject_and_once_in_a_part_alone(job):
    def checks(wf):
        return [node for node in wf._create_flat_graph().nodes() if type(node.interface).__name__ == "CheckModels"]

    assert len(checks(init_subject_wf(job))) == 1
    for init in (init_fit_decoders_wf, init_reconstruct_wf, init_contribution_wf, init_evaluate_wf, init_report_wf):
        assert len(checks(init(PLAN))) == 1
        checked = init(PLAN, checked=True)
        assert checks(checked) == [] and "model_digest" in describe(checked)


@pytest.mark.slow
def test_a_number_of_repeats_on_one_node_alone_is_followed_everywhere(job, tmp_path):
    wf = prepared(init_neuraldiffuser_wf([job], CUT), tmp_path / "work")
    recon = wf.get_node("sub_01_wf.reconstruct_wf.recon")
    recon.inputs.repeats = 3
    wf.run(plugin="Linear")
    assert {name.split("_rep-")[1][0] for name in contents(job.out_dir) if "_rep-" in name} == {"1", "2", "3"}
    assert bids.check(job.out_dir) == []
    scores = pd.read_csv(job.places.scores, sep="\t")
    assert sorted(scores.rep.unique()) == [1, 2, 3]
    assert json.loads(job.places.recon_sidecar.read_text())["DiffusionParams"]["repeats"] == 3


def test_subjects_run_beside_each_other_and_the_group_after_them(job):
    jobs = [job, dataclasses.replace(job, subject="subj02")]
    wf = init_neuraldiffuser_wf(jobs, CUT, group=True)
    graph = wf._create_flat_graph()
    by_name = {str(node): node for node in graph.nodes()}
    group = by_name["neuraldiffuser_wf.group"]
    from networkx import ancestors

    before = {str(node) for node in ancestors(graph, group)}
    for subject in ("sub_01_wf", "sub_02_wf"):
        assert f"neuraldiffuser_wf.{subject}.sink" in before
    first = by_name["neuraldiffuser_wf.sub_02_wf.load_wf.betas"]
    assert not any("sub_01" in str(node) for node in ancestors(graph, first))
    assert group.inputs.labels == ["sub-01", "sub-02"]


@pytest.mark.parametrize("parts, n", [("embeddings", 3), ("targets", 8), ("one", 1)])
def test_decoders_are_fitted_in_as_many_parts_as_asked_for(job, parts, n):
    wf = init_subject_wf(job, WorkflowParams(decoder_parts=parts))
    fit = wf.get_node("fit_decoders_wf.fit")
    assert len(fit.inputs.fit_targets) == n
    assert sorted(t for part in fit.inputs.fit_targets for t in part) == ["c", *sorted(
        ("g02", "g04", "g06", "g08", "g10", "g12")), "z"]  # fmt: skip
