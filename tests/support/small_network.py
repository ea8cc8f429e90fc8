"""A small simulated subject for the network decoder: images of a few kinds, whose targets bend with what voxels see."""

import numpy as np

from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import make_betas, make_targets

SMALL = DecodingParams(
    decoder="network",
    align="none",
    network_width=16,
    network_blocks=1,
    network_bottleneck=8,
    network_batch=16,
    network_epochs=3,
    network_patience=10,
    network_contrast=0.03,
    decoder_device="cpu",
)


def bent_data(n, p=40, noise=1.0, subject=0, stimuli=0, n_test=0):
    """Betas and targets of `n` training and `n_test` other stimuli: targets are signs and sizes of 4 hidden numbers.

    `subject` draws the voxels' weights, `stimuli` the images; how targets come of the hidden numbers is the same.
    """
    rng, hidden = np.random.default_rng([subject, 1]), np.random.default_rng([stimuli, 2])
    mixing = np.random.default_rng(3).standard_normal((12, 22))
    s = hidden.standard_normal((n + n_test, 4))
    y = np.concatenate([np.sign(s), np.abs(s), s], 1) @ mixing / 3 + 2
    x = s @ rng.standard_normal((4, p)) + noise * rng.standard_normal((n + n_test, p))
    ids = 10_000 * stimuli + np.arange(n + n_test)
    betas = make_betas(x.astype(np.float32), ids)
    targets = make_targets(y.astype(np.float32), ids)
    targets.attrs.update(model_digest="m", feature_normalisation="imagenet")
    if not n_test:
        return betas, targets
    parts = (make_betas(x[rows].astype(np.float32), ids[rows]) for rows in (slice(0, n), slice(n, None)))
    return (*parts, targets)
