"""The benchmark of the pipeline: its plain loop against the package's, its counts, its rows."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.loop import noise_for, sample, schedule
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import LAYERS, preset
from tests.package.test_benchmarks import load  # noqa: F401
from tests.support.small_models import small_models


@pytest.fixture(scope="module")
def decoded():
    rng = np.random.default_rng(3)
    z, c = rng.standard_normal((2, 4, 16, 16)), rng.standard_normal((2, 8, 16))
    return Embeddings(z, c, {k: rng.standard_normal((2, 10, 16)) for k in LAYERS}, np.array([13, 7]))


def test_the_plain_loop_draws_the_pictures_of_the_preset(load, decoded):  # noqa: F811
    """In float64, from the first noise to the picture; guidance moves it by a thousand times the tolerance."""
    published = load("common.published_loop")
    models = small_models(torch.float64)
    diffusion, guidance = preset("published")
    diffusion, guidance = diffusion.but(n_steps=20, repeats=1), guidance.but(guidance_scale=3e4)
    plan = schedule(models.scheduler, diffusion)
    start = pipeline.start_latents(decoded, models, diffusion, plan)
    latents = sample(start, plan.steps, build.build_denoiser(decoded, models, diffusion, guidance))
    ours = (models.decode_latents(latents) / 2 + 0.5).clamp(0, 1)
    row = {name: torch.from_numpy(decoded[name][1:]) for name in ("z", "c", *LAYERS)}
    noise = torch.from_numpy(noise_for(diffusion.seed, 0, 0, (4, 16, 16))[None]).double()

    def plain(**changes):
        loop = published.Loop(models, models.encode_text([""]), published.Published(n_steps=20, **changes))
        return loop(row["z"], row["c"], [row[layer] for layer in LAYERS], noise)

    assert (plain(guidance_scale=3e4) - ours[1:]).abs().max() < 1e-6
    for other in (plain(guidance_scale=0.0), plain(guidance_scale=3e4, sag_scale=0.0)):
        assert (other - ours[1:]).abs().max() > 1e-3
