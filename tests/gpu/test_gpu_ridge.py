"""Ridge on a CUDA device against the CPU."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.decoding import RidgeDecoder, load
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("options", [{}, {"penalty": "block"}, {"penalty": "target"}, {"ridge_rank": 4}], ids=str)
@pytest.mark.parametrize("n, p", [(300, 200), (150, 200)])
def test_a_cuda_device_decodes_as_the_cpu(tmp_path, options, n, p):
    x, y, x_test, _ = linear_data(n, p, t=600)
    train, test = make_betas(x.astype(np.float32)), make_betas(x_test.astype(np.float32))
    targets = make_targets(y.astype(np.float16))
    params = DecodingParams(**options)
    cpu, cuda = (RidgeDecoder(params.but(decoder_device=device)).fit(train, targets) for device in ("cpu", "cuda"))
    for name in cpu.names:
        np.testing.assert_allclose(cuda.accuracy[name].r2, cpu.accuracy[name].r2, atol=1e-4)
        wanted = cpu.predict(test)[name]
        # random sums decide the directions that are kept, so that those of tiny energy differ
        scale = np.abs(wanted).max() * (1e-2 if "ridge_rank" in options else 1e-4)
        np.testing.assert_allclose(cuda.predict(test)[name], wanted, atol=scale)
    cuda.save(tmp_path / "d.h5")
    np.testing.assert_array_equal(load(tmp_path / "d.h5").predict(test).c, cuda.predict(test).c)
    x = cuda.centre(test)
    q = np.ones((len(x_test), cuda.accuracy["c"].mean.size), np.float32)
    np.testing.assert_allclose(cuda.pull_back("c", q), cpu.pull_back("c", q), rtol=1e-2, atol=1e-3)
