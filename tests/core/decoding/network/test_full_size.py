"""One training step of the network at NSD's size: every target, 15,724 voxels, width 4,096."""

import threading
import time

import numpy as np
import psutil
import pytest

from napari_neuraldiffuser.core.decoding.network.basis import Projected, TargetBasis
from napari_neuraldiffuser.core.decoding.network.data import Data, SubjectRows
from napari_neuraldiffuser.core.decoding.network.encoder import Encoder
from napari_neuraldiffuser.core.decoding.network.model import Network, Shape
from napari_neuraldiffuser.core.decoding.network.train import Trained, train
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import LAYERS, DecodingParams

VOXELS, WIDTH, BOTTLENECK, ROWS = 15_724, 4096, 512, 36
SHAPES = {"z": (4, 64, 64), "c": (77, 768)} | dict.fromkeys(LAYERS, (50, 768))
PARAMS = DecodingParams(
    decoder="network",
    network_width=WIDTH,
    network_bottleneck=BOTTLENECK,
    network_blocks=4,
    network_encoder="tuned",
    network_prior="trained",
    network_contrast=0.1,
    network_epochs=1,
    network_batch=32,
    network_held_out=0.1,
    decoder_device="cpu",
)


def rows(rng):
    """Random training rows with everything that a real subject has."""
    ids = np.arange(ROWS)
    values = {
        n: rng.standard_normal((ROWS, *shape), dtype=np.float32).astype(np.float16) for n, shape in SHAPES.items()
    }
    targets = Embeddings(values.pop("z"), values.pop("c"), values, ids)
    projected = {
        name: Projected(rng.standard_normal((ROWS, BOTTLENECK), dtype=np.float32), np.full(ROWS, 2.0 * BOTTLENECK))
        for name in SHAPES
    }
    none = np.zeros(0, np.float32)
    latents = rng.standard_normal((1, ROWS, WIDTH), dtype=np.float32)
    x = rng.standard_normal((ROWS, VOXELS), dtype=np.float32)
    return SubjectRows(Encoder(none, none, none, none), latents, projected, targets, ids, ids, x)


def counted(n_voxels):
    """Parameters that are no components, from the layers' sizes alone."""
    width, b = WIDTH, BOTTLENECK
    blocks = PARAMS.network_blocks * (2 * (width * width + width) + 2 * width)
    heads = len(SHAPES) * (width * b + b)
    upsampler = width * 16 * 256 + 16 * 256 + 2 * (16 * 16 * 9 + 16) + 16 * 4 * 9 + 4
    hidden = 2 * b
    denoiser = 65 * hidden + (2 * b + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * b
    return n_voxels * width + blocks + heads + upsampler + (len(SHAPES) - 1) * denoiser


class Peak:
    """Most memory that the process had within the block, looked at every 5 ms; bytes beyond those before it."""

    def __enter__(self):
        self.process, self.over, self.most = psutil.Process(), threading.Event(), 0
        self.before = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self):
        while not self.over.wait(0.005):
            self.most = max(self.most, self.process.memory_info().rss - self.before)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("basis", ["fixed", "trained"])
def test_one_training_step_at_full_size(basis):
    """AdamW keeps two numbers a trained parameter and its gradient, and the best pass one more."""
    params = PARAMS.but(network_basis=basis)
    columns = {n: (BOTTLENECK, s) for n, s in SHAPES.items()}
    shape = Shape(WIDTH, params.network_blocks, params.network_dropout, True, columns)
    with Peak() as peak:
        network = Network(shape)
        for name in network.heads:
            network.head(name).columns.requires_grad_(basis == "trained")
        model = Trained(network, VOXELS)
        whole = list(SHAPES) if basis == "trained" else ["z"]
        data = Data([rows(np.random.default_rng(0))], list(SHAPES), whole, WIDTH, params)
        bases = {n: TargetBasis(np.zeros(1), np.zeros((1, 1)), float(np.prod(s)), s) for n, s in SHAPES.items()}
        after, start = [], time.process_time()
        history = train(model, data, bases, params, lambda *_: after.append(model.encoder.weight.abs().max().item()))
        spent = time.process_time() - start
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    components = sum((BOTTLENECK + 1) * int(np.prod(s)) for s in SHAPES.values())
    assert kept == (0 if basis == "trained" else components)
    assert trained == counted(VOXELS) + components - kept
    print(
        f"\n{basis}: {trained:,} trained parameters and {kept:,} kept; step of {len(data.train)} stimuli with two "
        f"evaluations: {spent:.1f} CPU s; peak {peak.most / 1e9:.2f} GB beyond the start, data included"
    )
    assert len(history.passes) == 2 and all(np.isfinite(v) for one in history.passes for v in one.values())
    assert after[0] == 0 and after[-1] > 0  # the step reached the first layer
    # what is beside parameters, gradients, both moments and the best pass' weights: data, activations
    bound = 4 * (5 * trained + kept)
    assert bound < 1.05 * peak.most and peak.most < bound + 1.5e9
