"""The node of cross-validation gives what the command gives."""

import numpy as np
import pytest

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.decoding.network.files import TENSORS
from napari_neuraldiffuser.core.job.crossval import _made_from as made_from
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import CrossvalParams, DecodingParams, Settings
from nipype_interfaces.engines.memory import ESTIMATES
from nipype_interfaces.interfaces import CrossValidate
from tests.support.nsd.small_set import write_small_set
from tests.support.stand_ins import make_betas


@pytest.fixture(scope="module")
def parts(tmp_path_factory, model_dir):
    """Betas, targets and source of a small set, and the folder of the command's results."""
    folder = tmp_path_factory.mktemp("small")
    scans = write_small_set(folder)
    source = Source(**scans.source())
    nsd.save_betas(nsd.open_source(source).betas(), folder / "betas.h5")
    out = folder / "out"
    options = ("--models", str(model_dir), "--folds", "4", "--permutations", "20", "--category", "prefix")
    assert cli.main(["crossval", *scans.options(), str(out), *options]) == 0
    (targets,) = (out / "work").rglob("*crossvaltargets*.h5")
    return {"betas": str(folder / "betas.h5"), "targets": str(targets), "source": source.to_dict()}, out / "crossval"


def test_the_node_gives_the_bytes_of_the_command(parts, tmp_path, monkeypatch):
    files, results = parts
    monkeypatch.chdir(tmp_path)
    node = CrossValidate(**files, label="sub-07", folds=4, permutations=20, category="prefix")
    made = node.run().outputs
    with open(made.scores, "rb") as mine, open(results / "sub-07_desc-crossval_scores.tsv", "rb") as theirs:
        assert mine.read() == theirs.read()
    ours, its = Embeddings.load(made.embeddings), Embeddings.load(results / "sub-07_desc-crossval_embeddings.h5")
    np.testing.assert_array_equal(ours.z, its.z)
    assert made.stimulus_ids == ours.stimulus_ids.tolist() and ours.labels == its.labels
    estimate, _ = ESTIMATES["CrossValidate"]
    assert estimate(node.inputs) > 2 * 4 * ours.z.size


def test_a_category_without_a_source_is_refused(parts, tmp_path, monkeypatch):
    files, _ = parts
    monkeypatch.chdir(tmp_path)
    node = CrossValidate(betas=files["betas"], targets=files["targets"], category="prefix")
    with pytest.raises(UserError, match="category must have a source to be looked for in, got 'prefix'"):
        node.run()


def test_folds_of_another_pretrained_network_are_not_taken(tmp_path):
    """The folder has the same name, and other weights."""
    betas, params = make_betas(np.ones((4, 3), np.float32)), DecodingParams(network_pretrained=str(tmp_path))
    found = []
    for weights in (b"one", b"other", b"other"):
        (tmp_path / TENSORS).write_bytes(weights)
        found.append(made_from(betas, "stimuli", "models", Settings(decoding=params), CrossvalParams(), None))
    assert found[0] != found[1] == found[2]
    hashes = {CrossValidate(network_digest=digest).inputs.get_hashval()[1] for digest in ("one", "other")}
    assert len(hashes) == 2
