"""The whole job on a simulated session of NSD-synthetic through the command line, Nipype's nodes and all."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd.simulation import brain
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.params import SimulationParams

pytestmark = pytest.mark.slow
SMALL = SimulationParams(n_sessions=2, n_test=8, train_repeats=3, image_size=32)
OPTIONS = "--guidance demo --n-stimuli 3 --repeats 1 --n-steps 4".split()


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One subject with the further session, and the same without."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", (6.0, (25, 32, 26)))
        for synthetic in (True, False):
            folders[synthetic] = tmp_path_factory.mktemp("nsd")
            nsd.simulate.write_subjects(folders[synthetic], SMALL.but(synthetic=synthetic))
    return folders


@pytest.fixture(scope="module")
def root(roots):
    return roots[True]


def test_the_core_experiment_is_the_same_with_and_without_the_further_session(roots):
    sessions = [nsd.Subject(folder, "subj01").betas() for folder in roots.values()]
    np.testing.assert_array_equal(*(betas.data for betas in sessions))


def test_what_was_seen_is_decoded_from_the_further_sessions_rows(root):
    """A ridge from training scenes to a coarse picture tells patterns apart, and one with shifted rows does not."""
    subject = nsd.open_source(Source(nsd_dir=str(root), test_set="synthetic"))
    train, test = subject.betas().split()

    def coarse(ids):
        images = np.stack([subject.stimuli[int(one)] for one in ids]).astype(float)
        return images.reshape(len(ids), 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(ids), -1)

    known, seen = coarse(train.stimulus_ids), coarse(test.stimulus_ids)
    x = train.data - train.data.mean(0)
    gram = x @ x.T
    dual = np.linalg.solve(gram + np.trace(gram) / len(x) * np.eye(len(x)), known - known.mean(0))
    decoded = (test.data - train.data.mean(0)) @ x.T @ dual
    kept = np.flatnonzero(seen.std(1) > 0)

    def told(shift):
        r = np.corrcoef(decoded[kept], np.roll(seen[kept], shift, axis=0))[: len(kept), len(kept) :]
        return ((r < r.diagonal()).sum(0) / (len(kept) - 1)).mean()

    shifted = [told(k) for k in range(20, 240, 20)]
    assert told(0) > np.mean(shifted) + 6 * np.std(shifted) and told(0) > 0.58


def test_a_further_test_set_becomes_images_maps_and_a_page(root, model_dir, tmp_path):
    out = tmp_path / "out"
    args = ["run", str(root), str(out), "participant", "--models", str(model_dir), *OPTIONS]
    assert cli.main([*args, "--participant-label", "01", "--test-set", "synthetic"]) == 0
    assert bids.check(out) == []
    summary = json.loads((out / "sub-01/sub-01_desc-summary_scores.json").read_text())
    assert summary["protocol"]["test_set"] == "NSD-synthetic"
    names = {path.name for path in (out / "sub-01/recon").glob("*guided_recon.png")}
    arms = ("guided", "unguided")
    assert names == {f"sub-01_stim-{k}_rep-1_desc-{arm}_recon.png" for k in (73000, 73001, 73002) for arm in arms}
    shares = pd.read_csv(out / "sub-01/sub-01_contribution.tsv", sep="\t")
    assert shares[shares.target == "c"].share.isna().all() and shares[shares.target == "z"].share.notna().all()
    assert not list((out / "sub-01").glob("*target-c_*.nii.gz"))
    total = nib.load(next((out / "sub-01").glob("*target-z_contribution.nii.gz"))).get_fdata().sum()
    np.testing.assert_allclose(total, shares[shares.target == "z"].total.iloc[0], atol=1e-5)
    worth = pd.read_csv(out / "sub-01/sub-01_desc-decoding_scores.tsv", sep="\t", index_col="target")
    assert np.isnan(worth.loc["c", "r2"]) and worth.loc["z", "r2_ceiling"] == worth.loc["z", "r2_ceiling"]
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "test set NSD-synthetic: 284 images" in page and "the test images have no captions" in page
    assert "of one colour inside that square: 16" in page
    about = json.loads((out / "sub-01/sub-01_desc-ridge_embeddings.json").read_text())
    assert any(one.endswith("nsdsynthetic_expdesign.mat") for one in about["Sources"])


def test_cross_validation_has_no_further_test_set(root, model_dir, tmp_path):
    from napari_neuraldiffuser.core.base.errors import UserError
    from napari_neuraldiffuser.core.job.crossval import run_crossval
    from napari_neuraldiffuser.core.job.spec import Job

    job = Job(root, tmp_path, models=str(model_dir), source=Source(nsd_dir=str(root), test_set="synthetic"))
    with pytest.raises(UserError, match="test_set must be core"):
        run_crossval(job)
