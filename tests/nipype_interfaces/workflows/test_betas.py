"""Betas from BOLD as a workflow: the command line's files, only what changed is run again, and what comes after."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from nipype.pipeline import engine as pe

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.params import BoldParams
from nipype_interfaces.engines.memory import ESTIMATES, bold_bytes
from nipype_interfaces.interfaces import BoldRuns, EstimateBetas
from nipype_interfaces.workflows import init_betas_wf, init_load_wf, init_subject_wf
from tests.support.nsd.bids_files import write_bids
from tests.support.workflows.small import contents

PARAMS = BoldParams(estimator="lss", chunk_voxels=10)


@pytest.fixture
def scanned(tmp_path):
    return write_bids(tmp_path / "bids")


def workflow(scanned, base, params=PARAMS):
    wf = init_betas_wf(params)
    wf.base_dir = str(base)
    wf.inputs.inputnode.bids_dir = str(scanned.raw)
    return wf


def made(base):
    """Files of the join node, by name."""
    return contents(Path(base) / "betas_wf" / "join" / "sub-01")


def fitted(base):
    """When the betas of each run were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in base.rglob("part.h5")}


def test_the_files_are_those_of_the_command(scanned, tmp_path, capsys):
    options = ["--estimator", "lss", "--chunk-voxels", "10"]
    assert cli.main(["betas", str(scanned.raw), str(tmp_path / "out"), *options]) == 0
    workflow(scanned, tmp_path / "work").run("Linear")
    plain, ours = contents(tmp_path / "out" / "sub-01"), made(tmp_path / "work")
    assert set(plain) == set(ours)
    # the page names the command that was typed
    assert {name for name in plain if plain[name] != ours[name]} <= {"sub-01_desc-lss_design.html"}


def test_a_changed_table_fits_its_run_alone_again(scanned, tmp_path):
    base = tmp_path / "work"
    workflow(scanned, base).run("Linear")
    before, fits = made(base), fitted(base)
    scanned.edit_events("a", "2", lambda table: table.assign(duration="2.5"))
    workflow(scanned, base).run("Linear")
    assert {name for name, at in fitted(base).items() if fits[name] != at} == {"_fit1"}
    assert made(base)["sub-01_desc-lss_betas.nii.gz"] != before["sub-01_desc-lss_betas.nii.gz"]


def test_what_comes_after_reads_them(scanned, tmp_path):
    load, whole = init_load_wf(own=True), pe.Workflow(name="whole", base_dir=str(tmp_path / "work"))
    betas = workflow(scanned, tmp_path)
    for name in ("betas", "mask", "trials"):
        whole.connect(betas, f"outputnode.{name}", load, f"inputnode.{name}")
    # pictures are not needed for betas, but the index looks at them
    whole.run("Linear")
    file = next((tmp_path / "work").rglob("betas.h5"))
    found = nsd.load_betas(file)
    assert len(found) == 9 and found.shared.sum() == 3 and np.isfinite(found.data).all()


def test_they_are_the_source_of_a_subject(scanned):
    subject = init_subject_wf(Job(Path(), Path("out"), source=Source(subject="01", betas="of betas_wf")))
    whole = pe.Workflow(name="whole")
    whole.connect(init_betas_wf(), "outputnode.source", subject, "inputnode.source")
    assert whole.get_node("sub_01_wf.inputnode") is not None


def test_runs_can_be_listed(scanned, tmp_path):
    runs = [("a", "1"), ("a", "2"), ("b", "1")]
    node = BoldRuns(mask=str(scanned.file("a", "1", "space-T1w_desc-brain_mask.nii.gz")))
    node.inputs.bold = [str(scanned.file(*run, "space-T1w_desc-preproc_bold.nii.gz")) for run in runs]
    node.inputs.events = [str(scanned.file(*run, "events.tsv", derived=False)) for run in runs]
    node.inputs.confounds_files = [str(scanned.file(*run, "desc-confounds_timeseries.tsv")) for run in runs]
    node.inputs.sessions = ["a", "a", "b"]
    found = node.run(cwd=tmp_path).outputs
    assert [(run["session"], run["run"]) for run in found.runs] == runs
    assert [[run["bold"] for run in group] for group in found.groups] == [[path] for path in node.inputs.bold]
    node.inputs.sessions = ["a"]
    with pytest.raises(Exception, match=r"sessions must have an entry per run of bold \(3\), got 1"):
        node.run(cwd=tmp_path)


def test_memory_is_estimated_from_the_files(scanned, tmp_path):
    wf = workflow(scanned, tmp_path)
    fit, found = wf.get_node("fit"), BoldRuns(bids_dir=str(scanned.raw)).run(cwd=tmp_path).outputs
    estimate, full = ESTIMATES["EstimateBetas"]
    inputs = fit.interface.inputs
    inputs.mask, inputs.chunk_voxels = found.mask, 5
    bytes_of = []
    for runs in (found.groups[0], found.groups[1], found.groups[0] + found.groups[1]):
        inputs.runs = runs
        bytes_of.append(estimate(inputs))
    table = pd.read_csv(scanned.file("a", "1", "desc-confounds_timeseries.tsv"), sep="\t")
    assert len(table) * scanned.mask.sum() * 4 < bytes_of[0] < full
    # a session that is fitted together is the sum of its runs, each without what blocks of a file take
    alone = [one - bold_bytes(0, 0, 0) for one in bytes_of]
    assert alone[2] == pytest.approx(alone[0] + alone[1], rel=0.02)


@pytest.mark.parametrize("trials", [1, 12])
def test_a_node_opens_its_own_run_only(scanned, tmp_path, trials):
    """A run may have one trial, or no stimulus that is shown twice: all runs together decide on that."""
    scanned.edit_events("a", "2", lambda table: table.head(trials))
    found = BoldRuns(bids_dir=str(scanned.raw), estimator="lsa").run(cwd=tmp_path).outputs
    for run in [("a", "1"), ("b", "1")]:
        scanned.file(*run, "events.tsv", derived=False).unlink()
    node = EstimateBetas(runs=found.groups[1], mask=found.mask, stamp=found.stamps[1], estimator="lsa")
    with h5py.File(node.run(cwd=tmp_path).outputs.part) as file:
        assert file["betas"].shape == (trials, scanned.mask.sum())
