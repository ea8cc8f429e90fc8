from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.base.memory import FewerAtOnce
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.decoding.worth import WorthParts, assess
from napari_neuraldiffuser.core.diffusion.pipeline import batches, decode_start
from napari_neuraldiffuser.core.networks.embeddings import EmbeddingError, Embeddings
from napari_neuraldiffuser.core.networks.lean import GroupNormSiLU
from napari_neuraldiffuser.core.networks.models import ModelError, Models, load
from napari_neuraldiffuser.core.params import (
    LAYERS,
    ContributionParams,
    DecodingParams,
    DiffusionParams,
    GuidanceParams,
    preset,
)
from tests.support.small_models import small_models
from tests.support.stand_ins import make_betas

QUICK = DiffusionParams(n_steps=8, repeats=2, batch_size=2)
PULL = GuidanceParams(guidance_scale=3.0, guidance_strength=0.5, normalise="rms")


@pytest.fixture(scope="module")
def models():
    return small_models()


@pytest.fixture(scope="module")
def decoded():
    rng = np.random.default_rng(0)
    shapes = {"z": (3, 4, 16, 16), "c": (3, 8, 16), "g": (3, 10, 16)}
    z, c = (rng.standard_normal(shapes[k]).astype(np.float32) for k in "zc")
    return Embeddings(
        z, c, {k: rng.standard_normal(shapes["g"]).astype(np.float32) for k in LAYERS}, np.array([13, 7, 40000])
    )


def test_shapes_and_losses(models, decoded):
    result = reconstruct(decoded, models, QUICK, PULL)
    assert result.images.shape == (3, 2, 32, 32, 3)
    assert result.images.dtype == np.uint8
    assert result.losses.shape == (3, 2, 3)
    assert (result.losses > 0).all()
    assert result.finite.all()
    assert (result.stimulus_ids == decoded.stimulus_ids).all()


def test_any_subset_order_or_batch_size_gives_the_same_images(models, decoded):
    whole = reconstruct(decoded, models, QUICK.but(batch_size=100), PULL).images
    alone = reconstruct(decoded.subset([40000]), models, QUICK, PULL).images
    turned = reconstruct(decoded.subset([40000, 13]), models, QUICK, PULL).images
    for other in (alone[0], turned[0]):
        assert np.array_equal(other, whole[2])


def test_more_repeats_keep_the_first_ones(models, decoded):
    one = decoded.subset([13])
    two, three = (reconstruct(one, models, QUICK.but(repeats=r), PULL).images[0] for r in (2, 3))
    assert np.array_equal(two, three[:2])


def test_strong_guidance_of_the_demo_models_is_the_same_in_any_batch():
    """Guidance makes grey levels of a rounding, so the layers have to round alike; the last batch is partial."""
    demo = load("demo")
    rng = np.random.default_rng(1)
    shapes = {"z": (5, *demo.latent_shape), "c": (5, *demo.encode_text([""]).shape[1:]), "g": (5, 65, 96)}
    random = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    five = Embeddings(random["z"], random["c"], dict.fromkeys(LAYERS, random["g"]), np.arange(5))
    steps, strong = preset("demo", DiffusionParams(sag_scale=0.75))
    steps = steps.but(n_steps=4, repeats=1, batch_size=5)
    whole = reconstruct(five, demo, steps, strong)
    for size in (2, 1):
        parts = reconstruct(five, demo, steps.but(batch_size=size), strong)
        assert np.array_equal(parts.images, whole.images)
        assert np.array_equal(parts.losses, whole.losses)


def test_memory_that_does_not_suffice_halves_the_images_at_once(models, decoded, monkeypatch):
    """A decoder that has room for two images: the pictures are those of a machine with memory enough."""
    whole = reconstruct(decoded, models, QUICK.but(batch_size=6), PULL)
    decode, done = Models.decode_latents, []

    def small(self, latents, *how):
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return decode(self, latents, *how)

    monkeypatch.setattr(Models, "decode_latents", small)
    with pytest.warns(FewerAtOnce, match="for 6 images at once, now 3"):
        got = reconstruct(decoded, models, QUICK.but(batch_size=6), PULL, lambda event: done.append(event.done))
    assert np.array_equal(got.images, whole.images)
    assert np.array_equal(got.losses, whole.losses)
    assert done == list(range(1, 7))
    monkeypatch.undo()
    automatic = reconstruct(decoded, models, QUICK.but(batch_size=0), PULL)
    assert np.array_equal(automatic.images, whole.images)


def test_half_precision_gives_nearly_the_same_images(models, decoded):
    one = decoded.subset([13])
    whole = reconstruct(one, models, QUICK, PULL)
    assert np.array_equal(reconstruct(one, models, QUICK.but(precision="float32"), PULL).images, whole.images)
    half = reconstruct(one, models, QUICK.but(precision="bf16"), PULL)
    difference = np.abs(half.images.astype(int) - whole.images.astype(int))
    assert 0 < difference.mean() < 8
    np.testing.assert_allclose(half.losses, whole.losses, rtol=0.1)


def test_repeats_seeds_and_guidance_differ(models, decoded):
    one = decoded.subset([13])
    base = reconstruct(one, models, QUICK, PULL).images[0]
    seed = reconstruct(one, models, QUICK.but(seed=1), PULL).images[0]
    free = reconstruct(one, models, QUICK, PULL.but(guidance_scale=0.0)).images[0]
    assert not np.array_equal(base[0], base[1])
    assert not np.array_equal(base, seed)
    assert not np.array_equal(base, free)


def test_guidance_lowers_the_feature_loss(models, decoded):
    """The guided trajectory must end nearer to g than the same trajectory without the pull."""
    one = decoded.subset([13])
    steps = QUICK.but(n_steps=20, repeats=4)
    pulled = reconstruct(one, models, steps, PULL.but(guidance_scale=10.0)).losses[0]
    # a pull too weak to matter records the losses of the free run
    free = reconstruct(one, models, steps, PULL.but(guidance_scale=1e-9)).losses[0]
    assert pulled[:, -1].mean() < free[:, -1].mean()
    assert np.allclose(pulled[:, 0], free[:, 0], rtol=1e-5)


class Recorder(TorchDispatchMode):
    """Names of the compiled operations that run inside the block."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.namespace == "neuraldiffuser":
            self.seen[operation._schema.name.removeprefix("neuraldiffuser::")] += 1
        return operation(*args, **(kwargs or {}))


def test_every_operation_runs_compiled(models, decoded, implementation):
    """A guided and an unguided step go through the kernels; without them none of their names turns up."""
    with Recorder() as recorder:
        reconstruct(decoded.subset([13]), models, QUICK.but(n_steps=2, strength=1.0), PULL)
    if implementation == "reference":
        assert not recorder.seen
        return
    norms = sum(type(module) is GroupNormSiLU for module in models.vae.decoder.modules())
    once = ("feature_loss_grad", "prepare_image", "prepare_image_backward")
    assert [recorder.seen[name] for name in once] == [1, 1, 1]
    assert recorder.seen["group_norm_silu"] == 2 * norms  # the guided step and the final picture
    assert recorder.seen["group_norm_silu_backward"] == norms
    assert recorder.seen["guided_step"] == 4  # start, clean estimate, two steps


def test_batches_keep_stimuli_whole(decoded):
    sizes = [len(b) for b in batches(decoded, DiffusionParams(repeats=5, batch_size=12))]
    assert sizes == [2, 1]
    assert [len(b) for b in batches(decoded, DiffusionParams(repeats=5, batch_size=1))] == [1, 1, 1]


def test_callback_hears_every_step(models, decoded):
    events = []
    reconstruct(decoded.subset([13]), models, QUICK, PULL, events.append)
    assert [e.done for e in events] == list(range(1, 7))
    assert all(e.total == 6 and e.stimulus_ids == (13,) for e in events)
    assert [e.loss is not None for e in events] == [True] * 3 + [False] * 3
    assert "step 1 of 6" in str(events[0])
    assert "feature loss" in str(events[0])


def test_an_overflow_is_reported_not_hidden(models, decoded):
    broken = decoded.subset([13, 7])
    broken.c[1] = np.inf
    result = reconstruct(broken, models, QUICK, PULL.but(guidance_scale=0.0))
    assert result.finite.tolist() == [True, False]


def test_start_is_the_decoded_z(models, decoded):
    start = decode_start(decoded.z, models)
    with torch.no_grad():
        image = models.decode_latents(torch.from_numpy(decoded.z))
    expected = ((image / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(start - expected).max() <= 0.51


def test_bad_input_is_named(models, decoded):
    with pytest.raises(EmbeddingError, match="z must have shape"):
        reconstruct(Embeddings(decoded.z[..., :8], decoded.c, decoded.g, decoded.stimulus_ids), models)
    with pytest.raises(EmbeddingError, match="missing: g12"):
        g = {k: v for k, v in decoded.g.items() if k != "g12"}
        reconstruct(Embeddings(decoded.z, decoded.c, g, decoded.stimulus_ids), models)
    with pytest.raises(EmbeddingError, match="at least one stimulus"):
        reconstruct(decoded.subset([]), models)
    with pytest.raises(EmbeddingError, match="c must have width 16"):
        reconstruct(Embeddings(decoded.z, decoded.c[..., :4], decoded.g, decoded.stimulus_ids), models)
    with pytest.raises(ModelError, match="first 2 blocks"):
        reconstruct(decoded, small_models(blocks=2), QUICK, PULL)


def test_layers_without_features_are_not_needed(models, decoded):
    g = {"g04": decoded.g["g04"]}
    few = Embeddings(decoded.z, decoded.c, g, decoded.stimulus_ids)
    result = reconstruct(few, models, QUICK, PULL.but(layers=("g04",), layer_weights=(1.0,)))
    assert result.finite.all()


def test_projected_targets_are_reconstructed_like_decoded_ones(models, decoded, tmp_path):
    """Through their file, which a decoder of few training stimuli leaves with save_projected; with nothing lost by the
    projection the picture is that of the true targets."""
    x = np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32)
    train = make_betas(x, decoded.stimulus_ids)
    decoder = RidgeDecoder(DecodingParams(align="none")).fit(train, decoded)
    # a stimulus between the training stimuli lies in their span
    weights = np.array([0.7, 0.2, 0.1], np.float32)
    mixed = Embeddings(
        *(np.tensordot(weights, decoded[name], 1)[None] for name in "zc"),
        {name: np.tensordot(weights, decoded[name], 1)[None] for name in LAYERS},
        np.array([5]),
    )
    found = assess(WorthParts(decoder, make_betas(x[:1], [5]), mixed), ContributionParams(save_projected=True))
    assert found.projected is not None
    path = tmp_path / "sub-01_desc-projected_targets.h5"
    found.projected.save(path)
    pictures = reconstruct(Embeddings.load(path), models, QUICK, PULL)
    true = reconstruct(mixed, models, QUICK, PULL)
    assert pictures.finite.all() and pictures.stimulus_ids.tolist() == [5]
    assert np.abs(pictures.images.astype(int) - true.images.astype(int)).mean() < 2
