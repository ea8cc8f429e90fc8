"""The whole job on fsaverage through the command line: from MGH betas to GIfTI maps, regions and page."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.simulation import brain
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.outputs.report.flat import DRAWN
from napari_neuraldiffuser.core.params import TARGETS, BetasParams, SimulationParams
from tests.support.nsd.surface_tree import on_fsaverage

pytestmark = pytest.mark.slow
SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
OPTIONS = "--guidance demo --n-stimuli 3 --repeats 1 --n-steps 4 --space fsaverage".split()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", (6.0, (25, 32, 26)))
        nsd.simulate.write_subjects(root, SMALL)
    volume = nsd.Subject(root, "subj01", BetasParams(zscore=False, average_repeats=False))
    betas = volume.betas("nsdgeneral")
    trials = SimpleNamespace(
        data=betas.data, voxels=betas.voxels, n_voxels=betas.n_voxels, rois=volume.rois("prf-visualrois")
    )
    on_fsaverage(root, "subj01", trials, DRAWN)
    return root


@pytest.fixture(scope="module")
def out(tree, model_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert run(tree, out, model_dir) == 0
    return out


def run(tree, out, model_dir, *more):
    return cli.main(["run", str(tree), str(out), "participant", "--models", str(model_dir), *OPTIONS, *more])


def test_maps_are_gifti_of_both_hemispheres_and_sum_to_the_total(out):
    table = pd.read_csv(out / "sub-01/sub-01_contribution.tsv", sep="\t")
    for target in TARGETS:
        files = [out / f"sub-01/sub-01_hemi-{h}_space-fsaverage_target-{target}_contribution.shape.gii" for h in "LR"]
        maps = [nib.load(path).darrays[0].data for path in files]
        assert [one.shape for one in maps] == [(DRAWN,)] * 2
        rows = table[(table.target == target) & (table.family == "prf-visualrois")]
        np.testing.assert_allclose(sum(one.sum(dtype=float) for one in maps), rows.share.sum(), atol=1e-5)
        about = json.loads((files[0].parent / files[0].name.replace(".shape.gii", ".json")).read_text())
        assert about["Space"] == "fsaverage" and "vertex" in about["Description"] and about["Target"] == target
        assert any(source.endswith("lh.betas_session01.mgh") for source in about["Sources"])


def test_regions_are_gifti_labels_with_their_names(out, tree):
    rois = nsd.SurfaceSubject(tree, "subj01", BetasParams(space="fsaverage")).rois("prf-visualrois")
    for k, hemi in enumerate("LR"):
        image = nib.load(out / f"sub-01/anat/sub-01_hemi-{hemi}_space-fsaverage_seg-prfvisualrois_dseg.label.gii")
        np.testing.assert_array_equal(image.darrays[0].data, np.maximum(rois.labels[k], 0))
        names = image.labeltable.get_labels_as_dict()
        assert {k: v for k, v in names.items() if k} == rois.names


def test_the_page_shows_flat_maps_and_needs_no_anatomy(out):
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert page.count('alt="contribution slices of') == len(TARGETS)
    assert all((out / f"sub-01/figures/sub-01_target-{t}_contribution.png").is_file() for t in TARGETS)
    assert not list((out / "sub-01/anat").glob("*T1w*")) and not list(out.glob("sub-01/*.nii.gz"))


def test_the_folder_is_valid_and_a_second_run_writes_nothing(out, tree, model_dir):
    assert bids.check(out) == []
    before = {path: path.stat().st_mtime_ns for path in (out / "sub-01").rglob("*") if path.suffix == ".gii"}
    assert run(tree, out, model_dir) == 0
    assert before and before == {path: path.stat().st_mtime_ns for path in before}
