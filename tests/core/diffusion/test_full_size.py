"""One guided step of the full-size Stable Diffusion 1.4 configuration on the CPU."""

import resource

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.loop import sample, schedule
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams
from tests.support import ROOT
from tests.support.session.processes import in_a_process

PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
"""Of Stable Diffusion 1.4 (its model card and checkpoints)."""


@pytest.mark.serial
@pytest.mark.timeout(1500)
def test_one_guided_step_at_full_size(record_property):
    # a process of its own: a peak that an earlier test reached would be taken for this one's
    peak = float(in_a_process(f"from {__name__} import one_guided_step; print(one_guided_step())", cwd=ROOT))
    record_property("peak_memory_GiB", peak)
    print(f"peak memory {peak:.1f} GiB")
    assert peak < 16


def one_guided_step() -> float:
    """Take the step, look at it, and return the peak memory of this process in GiB."""
    from tests.support.session.full_size import full_size_models

    models = full_size_models()
    for part, count in PARAMETERS.items():
        assert sum(p.numel() for p in getattr(models, part).parameters()) == count
    assert models.latent_shape == (4, 64, 64)
    assert models.image_size == 512
    rng = np.random.default_rng(0)
    decoded = Embeddings(
        rng.standard_normal((1, 4, 64, 64), dtype=np.float32),
        rng.standard_normal((1, 77, 768), dtype=np.float32),
        {layer: rng.standard_normal((1, 50, 768), dtype=np.float32) for layer in LAYERS},
        np.array([13]),
    )
    diffusion, guidance = DiffusionParams(repeats=1), GuidanceParams(normalise="rms", guidance_scale=1.0)
    pipeline.check_fit(decoded, models, diffusion, guidance)
    plan = schedule(models.scheduler, diffusion)
    start = pipeline.start_latents(decoded, models, diffusion, plan)
    denoiser = build.build_denoiser(decoded, models, diffusion, guidance)
    seen = []
    after = sample(start, plan.steps[:1], denoiser, lambda step, prediction, z: seen.append(prediction))
    assert after.shape == (1, 4, 64, 64)
    assert torch.isfinite(after).all()
    assert seen[0].loss.item() > 0
    base = denoiser.denoiser(start, plan.steps[0])
    pull = (seen[0].noise - base.noise).square().mean().sqrt()
    spread = (base.noise_cond - base.noise_uncond).square().mean().sqrt()
    assert pull.item() == pytest.approx(spread.item(), rel=1e-3)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
