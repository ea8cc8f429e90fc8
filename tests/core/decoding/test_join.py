"""Decoders of parts of the targets, joined, are the decoder of all: bit for bit, and from their files."""

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder, join_decoders, read_accuracy
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets

# few scored columns: which ones are drawn depends on the seed and on the target's place
PARAMS = DecodingParams(cv_targets=3, align="train", seed=4)
NAMES = ("z", "c", "g02", "g04")


def data():
    x, y, x_test, _ = linear_data(30, 20, t=30)
    targets = make_targets(y.astype(np.float32), layers=("g02", "g04"))
    return make_betas(x.astype(np.float32)), make_betas(x_test.astype(np.float32)), targets


def fitted(names=None, params=PARAMS, rows=slice(None)):
    train, test, targets = data()
    return RidgeDecoder(params).fit(train.subset(train.stimulus_ids[rows]), targets, names=names), test


@pytest.mark.parametrize("parts", [[["g04", "g02"], ["z"], ["c"]], [["z", "c", "g02", "g04"]], [[n] for n in NAMES]])
def test_joined_parts_are_the_whole(tmp_path, parts):
    whole, test = fitted()
    paths = [tmp_path / f"{k}.h5" for k in range(len(parts))]
    for names, path in zip(parts, paths, strict=True):
        part, _ = fitted(names)
        assert set(part.names) == set(names)
        part.save(path)
    join_decoders(paths, tmp_path / "joined.h5")
    for path in paths:
        path.unlink()
    joined = RidgeDecoder.load(tmp_path / "joined.h5")
    assert joined.names == whole.names == NAMES
    for align in ("none", "train"):
        one, other = joined.predict(test, align=align), whole.predict(test, align=align)
        for name in NAMES:
            np.testing.assert_array_equal(one[name], other[name])
    for name in NAMES:
        assert joined.accuracy[name].r2 == whole.accuracy[name].r2
        assert joined.accuracy[name].chosen == whole.accuracy[name].chosen
    found = read_accuracy(tmp_path / "joined.h5")
    assert list(found) == list(NAMES)
    assert [fit.best_r2 for fit in found.values()] == [whole.accuracy[name].best_r2 for name in NAMES]


def test_parts_that_do_not_fit_are_refused(tmp_path):
    makers = {
        "z": fitted(["z"]),
        "same": fitted(["z", "c"]),
        "params": fitted(["c"], PARAMS.but(cv_targets=4)),
        "betas": fitted(["c"], rows=slice(0, 29)),
    }
    for name, (decoder, _) in makers.items():
        decoder.save(tmp_path / f"{name}.h5")
    for other, match in (("same", "different targets"), ("params", "same betas"), ("betas", "same betas")):
        with pytest.raises(DecodingError, match=match):
            join_decoders([tmp_path / "z.h5", tmp_path / f"{other}.h5"], tmp_path / "out.h5")
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    for call in (lambda p: join_decoders([p], tmp_path / "out.h5"), read_accuracy):
        for path in (tmp_path / "none.h5", tmp_path / "absent.h5"):
            with pytest.raises(DecodingError, match="decoder file"):
                call(path)
    assert not (tmp_path / "out.h5").exists()


def test_an_unknown_target_is_refused():
    with pytest.raises(DecodingError, match="g12"):
        fitted(["z", "g12"])
