"""The stage that fits: what its decoder's file has of the targets."""

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets


@pytest.mark.parametrize(
    "folder, options, refers",
    [
        ("work", {}, True),
        ("node", {}, False),
        ("work", {"keep_targets": "copy"}, False),
        ("work", {"keep_targets": "half"}, False),
        ("node", {"keep_targets": "refer"}, True),
        ("work", {"ridge_rank": 2}, False),
    ],
    ids=str,
)
def test_a_decoder_refers_to_targets_in_its_own_folder(tmp_path, folder, options, refers):
    x, y, x_test, _ = linear_data(30, 12)
    for name in ("work", "node"):
        (tmp_path / name).mkdir()
    targets, decoder, params = tmp_path / "work/targets.h5", tmp_path / folder / "decoder.h5", DecodingParams(**options)
    make_targets(y.astype(np.float32)).save(targets)
    stages.fit(make_betas(x), targets, decoder, params)
    assert stages.refers(params, targets, decoder) == refers
    with h5py.File(decoder) as file:
        assert ("z" in file) == (not refers and "ridge_rank" not in options)
    with stages.opened(decoder) as known:
        predicted = known.predict(make_betas(x_test))
    stages.fit(make_betas(x), targets, tmp_path / "node/again.h5", params.but(keep_targets="copy"))
    with stages.opened(tmp_path / "node/again.h5") as known:
        expected = known.predict(make_betas(x_test))
    for name in ("z", "c", "g02"):
        np.testing.assert_allclose(predicted[name], expected[name], atol=5e-3 if "keep_targets" in options else 0)
