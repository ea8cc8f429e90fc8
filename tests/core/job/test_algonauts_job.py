"""The whole job on a folder of the Algonauts challenge through the command line, Nipype's nodes and all."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.simulation import brain
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.params import SimulationParams
from tests.support.nsd.challenge_files import VERTICES, ChallengeTree, write_challenge

pytestmark = pytest.mark.slow
SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
OPTIONS = "--guidance demo --n-stimuli 3 --repeats 1 --n-steps 4 --held-out 0.1 --held-out-seed 1".split()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Simulated betas in the challenge's files: as many vertices of fsaverage3 as there are voxels, most of them."""
    root = tmp_path_factory.mktemp("nsd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", (6.0, (25, 32, 26)))
        nsd.simulate.write_subjects(root, SMALL)
    subject = nsd.Subject(root, "subj01")
    betas, regions = subject.betas(), subject.rois("prf-visualrois")
    n = min(betas.n_voxels // 2, 400)
    rng = np.random.default_rng(0)
    places = [np.sort(rng.permutation(VERTICES)[:n]) for _ in range(2)]
    inside = tuple(np.isin(np.arange(VERTICES), one) for one in places)
    here = regions.labels[tuple(betas.voxels.T)]
    labels = []
    for k, one in enumerate(places):
        labels.append(np.zeros(VERTICES, int))
        labels[k][one] = np.minimum(here[k * n : (k + 1) * n], 3)
    out = tmp_path_factory.mktemp("algonauts")
    ids = betas.stimulus_ids.tolist()
    captions = out / "captions.json"
    captions.write_text(json.dumps({str(one): subject.stimuli.captions(one) for one in ids}))
    responses = (betas.data[:, :n], betas.data[:, n : 2 * n])
    challenge = ChallengeTree(out, "subj01", responses, inside, {"prf-visualrois": tuple(labels)}, ids, captions)
    return write_challenge(challenge, subject.stimuli[ids])


def test_a_folder_of_the_challenge_becomes_images_maps_and_a_page(tree, model_dir, tmp_path):
    out = tmp_path / "out"
    args = ["run", str(tree.root), str(out), "participant", "--models", str(model_dir), *OPTIONS]
    assert cli.main([*args, "--participant-label", "01", "--captions", str(tree.captions)]) == 0
    assert bids.check(out) == []
    table = pd.read_csv(out / "sub-01/sub-01_contribution.tsv", sep="\t")
    files = [out / f"sub-01/sub-01_hemi-{h}_space-fsaverage_target-z_contribution.shape.gii" for h in "LR"]
    total = sum(nib.load(path).darrays[0].data.sum(dtype=float) for path in files)
    np.testing.assert_allclose(total, table[table.target == "z"].share.sum(), atol=1e-5)
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "training images are held out" in page and "maps are not drawn" in page
    about = json.loads((out / "sub-01/sub-01_desc-ridge_embeddings.json").read_text())
    assert about["Space"] == "fsaverage"
    assert "bids:algonauts:subj01/training_split/training_fmri/rh_training_fmri.npy" in about["Sources"]
    assert len(list((out / "sub-01/recon").glob("*guided_recon.png"))) == 2 * 3


def test_what_is_missing_is_said_before_anything_runs(tree, model_dir, tmp_path, capsys):
    args = ["run", str(tree.root), str(tmp_path / "out"), "participant", "--models", str(model_dir), *OPTIONS]
    hidden = tree.captions.rename(tree.root / "hidden.json")
    try:
        assert cli.main(args) == 2
        assert "--captions FILE" in capsys.readouterr().err
        assert cli.main([*args, "--mask", "mask.nii.gz"]) == 2
        assert "--mask" in capsys.readouterr().err
    finally:
        hidden.rename(tree.captions)
