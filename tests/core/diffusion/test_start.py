"""The inverted start on a critic whose best latents are known, and through VAE and guide."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.diffusion import build, pipeline, start
from napari_neuraldiffuser.core.diffusion.critic import Pull
from napari_neuraldiffuser.core.job import made_from
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams
from tests.support.small_models import small_models

INVERTED = DiffusionParams(start="inverted", start_steps=6, n_steps=4, repeats=2, batch_size=4)
FREE = GuidanceParams(guidance_scale=0.0)


@pytest.fixture(scope="module")
def models():
    return small_models()


@pytest.fixture
def decoded():
    rng = np.random.default_rng(0)
    z, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 16, 16), (2, 8, 16)))
    g = {k: rng.standard_normal((2, 10, 16)).astype(np.float32) for k in LAYERS}
    return Embeddings(z, c, g, np.array([13, 7]))


@pytest.fixture(autouse=True)
def forgotten():
    start._KEPT.clear()


def toward(goal, scale=1.0):
    """A critic that wants the latents themselves to be `goal`."""

    def critic(clean):
        away = clean - goal
        return Pull((away**2).flatten(1).mean(dim=1), 2 * scale * away / away[0].numel(), scale)

    return critic


def test_the_prior_balances_the_features():
    """Both terms are quadratic here, so that the best latents lie at a known share of the way to the goal."""
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(2, 4, 5, 5, generator=generator)
    goal = z + 0.4 * torch.randn(2, 4, 5, 5, generator=generator)
    params = DiffusionParams(start="inverted", start_steps=600, start_rate=0.005, start_prior=20.0)
    began = ((z - goal) ** 2).flatten(1).mean(dim=1)
    pull, prior = 1 / began, 20.0 / z.flatten(1).std(dim=1) ** 2
    share = (pull / (pull + prior)).view(-1, 1, 1, 1)
    for scale in (1.0, 256.0):
        got = start.invert(z, toward(goal, scale), params)
        torch.testing.assert_close(got, z + share * (goal - z), rtol=0, atol=0.02)
    free = start.invert(z, toward(goal), params.but(start_prior=0.0))
    torch.testing.assert_close(free, goal, rtol=0, atol=0.02)


def test_steps_are_adam_s():
    """The same objective under torch's own Adam."""
    generator = torch.Generator().manual_seed(1)
    z, goal = torch.randn(2, 1, 4, 5, 5, generator=generator, dtype=torch.float64)
    params = DiffusionParams(start="inverted", start_steps=20, start_rate=0.1, start_prior=2.0)
    spread = z.std()
    moved = torch.zeros_like(z, requires_grad=True)
    adam = torch.optim.Adam([moved], lr=0.1, eps=1e-10)
    began = ((z - goal) ** 2).mean()
    for _ in range(20):
        adam.zero_grad()
        (((z + spread * moved - goal) ** 2).mean() / began + 2.0 * (moved**2).mean()).backward()
        adam.step()
    got = start.invert(z, toward(goal), params)
    torch.testing.assert_close(got, (z + spread * moved).detach(), rtol=1e-3, atol=1e-3)


def test_one_image_does_not_change_another():
    z, goal = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    goal[1] *= 100
    whole = start.invert(z, toward(goal), INVERTED)
    for i in range(3):
        alone = start.invert(z[i : i + 1], toward(goal[i : i + 1]), INVERTED)
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-6, atol=1e-6)


def test_images_without_a_finite_loss_keep_their_latents():
    z = torch.randn(2, 4, 5, 5)
    goal = z + 1
    goal[1] = torch.inf
    got = start.invert(z, toward(goal), INVERTED)
    assert torch.equal(got[1], z[1])
    assert not torch.equal(got[0], z[0])


def test_the_picture_comes_nearer_to_g(models, decoded):
    losses = []
    critic = build.critic_of(decoded, models, GuidanceParams(), 1)
    z = torch.from_numpy(decoded.z)
    got = start.invert(z, critic, INVERTED.but(start_steps=15), lambda event: losses.append(event.loss))
    assert (losses[-1] < losses[0]).all()
    assert (critic(got).loss < losses[0]).all()


def test_both_arms_begin_from_the_same_and_it_is_computed_once(models, decoded, monkeypatch):
    calls, plain = [], start.invert
    monkeypatch.setattr(pipeline.start, "invert", lambda *args: calls.append(1) or plain(*args))
    plan = pipeline.loop.schedule(models.scheduler, INVERTED)
    begun = [pipeline.begun(decoded, models, INVERTED, guidance) for guidance in (GuidanceParams(), FREE)]
    assert np.array_equal(begun[0].z, begun[1].z) and not np.array_equal(begun[0].z, decoded.z)
    images = reconstruct(decoded, models, INVERTED, FREE).images
    shown = pipeline.start_images(decoded, models, INVERTED, FREE)
    assert np.array_equal(shown, pipeline.decode_start(begun[0].z, models))
    assert calls == [1]
    latents = pipeline.start_latents(begun[0], models, INVERTED, plan)
    assert len(latents) == 4, "one start, noised for every repeat"
    own = reconstruct(begun[0], models, INVERTED.but(start="decoded"), FREE).images
    assert np.array_equal(images, own)


def test_every_gradient_step_is_told_and_can_end_the_run(models, decoded):
    events = []
    reconstruct(decoded, models, INVERTED, FREE, events.append)
    assert [event.done for event in events] == [0] * 6 + [1, 2, 3]
    assert "start, gradient step 1 of 6" in str(events[0])
    start._KEPT.clear()

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(decoded, models, INVERTED, FREE, stop)
    assert not start._KEPT


def test_a_start_from_g_is_in_the_fingerprint_of_both_arms(decoded):
    """Without a guided step g does not count, unless the start was made from it."""
    other = Embeddings(decoded.z, decoded.c, {k: v + 1 for k, v in decoded.g.items()}, decoded.stimulus_ids)
    for params, same in ((INVERTED.but(start="decoded"), True), (INVERTED, False)):
        first, second = (made_from.images(rows, "models", params, FREE) for rows in (decoded, other))
        assert (first == second) is same


def test_rows_of_a_file_are_what_the_start_needs(decoded, tmp_path):
    """As a page reads them: some stimuli, in its order, without what is not asked for."""
    decoded.attrs["antialias"] = "no"
    decoded.save(tmp_path / "decoded.h5")
    with TargetFile(tmp_path / "decoded.h5") as file:
        rows = file.rows([7, 13], ("g04",))
    assert rows.stimulus_ids.tolist() == [7, 13] and list(rows.g) == ["g04"]
    assert np.array_equal(rows.z, decoded.z[::-1]) and np.array_equal(rows.g["g04"], decoded.g["g04"][::-1])
    assert rows.attrs == {"antialias": "no"}
