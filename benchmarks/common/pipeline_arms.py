"""What the benchmark of the pipeline compares: the published loop in plain PyTorch, and settings of the package."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from common.operations import Operations, counted
from common.published_loop import Loop, Published
from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.loop import noise_for, sample, schedule
from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.kernels import backend
from napari_neuraldiffuser.core.networks.lean import restore
from napari_neuraldiffuser.core.params import LAYERS, TARGETS, DiffusionParams, GuidanceParams, preset

PLAIN = "published loop"
EXACT = "exact"


@dataclass(frozen=True)
class Arm:
    """Changes of the preset `neuraldiffuser`, or of another one."""

    diffusion: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=dict)
    preset: str = "neuraldiffuser"


ARMS: dict[str, Arm] = {
    PLAIN: Arm(preset="published"),
    "exact, published": Arm(preset="published"),
    EXACT: Arm(),
    "tiny decoder": Arm(guidance={"guide_decoder": "tiny"}),
    "gradient of the clean estimate": Arm(guidance={"gradient": "leaf"}),
    "gradient held for 2 steps": Arm(guidance={"guide_every": 2}),
    "features held for 3 steps": Arm({"cache_every": 3}),
    "text guidance in the first fifth": Arm({"cfg_until": 0.2}),
    "half the steps": Arm({"n_steps": 25}),
    "fast, all steps": Arm({"cache_every": 3, "cfg_until": 0.2}, {"guide_decoder": "tiny", "gradient": "leaf"}),
    "fast": Arm({"cache_every": 3, "cfg_until": 0.2, "n_steps": 25}, {"guide_decoder": "tiny", "gradient": "leaf"}),
}


@dataclass(frozen=True)
class Strength:
    """What depends on the models and not on the arm; the time does not depend on it."""

    cfg_scale: float = 7.5
    guidance_scale: float = 5.0


SIZES = {"demo": Strength(cfg_scale=3.0), "full": Strength()}
"""Models by name, with the strength that suits them (that of the preset `demo` for the bundled ones)."""


def parameters(name: str, size: str, repeats: int) -> tuple[DiffusionParams, GuidanceParams]:
    """Parameters of an arm: 37 of 50 steps, 7 of them guided, where the arm does not say otherwise."""
    arm, strength = ARMS[name], SIZES[size]
    diffusion, guidance = preset(arm.preset)
    diffusion = diffusion.but(repeats=repeats, batch_size=repeats, cfg_scale=strength.cfg_scale)
    guidance = guidance.but(normalise="rms", guidance_scale=strength.guidance_scale, guidance_strength=0.2)
    return diffusion.but(**arm.diffusion), guidance.but(**arm.guidance)


def open_models(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> models.Models:
    """The networks of a benchmark; on the meta device without numbers."""
    if size == "demo":
        return models.load("demo").to(device, dtype)
    from tests.support.session.full_size import full_size_models
    from tests.support.small_models import sd14_scheduler

    with torch.device("meta") if device == "meta" else nullcontext():
        networks = full_size_models(dtype)
    networks.scheduler = sd14_scheduler()  # its numbers are needed on the meta device too
    return networks.to(device)


def random_targets(networks: models.Models, n: int = 1) -> Embeddings:
    """z, c and g of random numbers."""
    rng = np.random.default_rng(0)
    vision, text = models.vision_model(networks.image_encoder).config, networks.text_encoder.config
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1

    def draw(*shape):
        return rng.standard_normal((n, *shape), dtype=np.float32)

    c = draw(text.max_position_embeddings, text.hidden_size)
    g = {layer: draw(tokens, vision.hidden_size) for layer in LAYERS}
    return Embeddings(draw(*networks.latent_shape), c, g, np.arange(n))


@contextmanager
def layers_of(name: str, networks: models.Models) -> Iterator[None]:
    """Inside the block the networks are plain for the published loop, and the package's own for everything else."""
    if name != PLAIN:
        yield
        return
    for network in networks.networks:
        restore(network)
    try:
        with backend.reference_only():
            yield
    finally:
        networks.own_layers()


@dataclass(frozen=True)
class Run:
    """One image of an arm, step by step."""

    start: torch.Tensor
    n_steps: int
    take: Callable[[torch.Tensor, int], torch.Tensor]
    finish: Callable[[torch.Tensor], torch.Tensor]


def run_of(name: str, size: str, networks: models.Models, decoded: Embeddings, repeats: int = 1) -> Run:
    """The first stimulus in an arm; of the published loop always one repeat."""
    diffusion, guidance = parameters(name, size, repeats)
    if name == PLAIN:
        return plain_run(networks, decoded, diffusion, 0, 0)
    plan = schedule(networks.scheduler, diffusion)
    one = decoded.subset(decoded.stimulus_ids[:1])
    denoiser = build.build_denoiser(one, networks, diffusion, guidance)
    return Run(
        pipeline.start_latents(one, networks, diffusion, plan),
        len(plan.steps),
        lambda latents, index: sample(latents, plan.steps[index : index + 1], denoiser),
        lambda latents: decode(networks, latents),
    )


def plain_run(networks: models.Models, decoded: Embeddings, diffusion: DiffusionParams, row: int, repeat: int) -> Run:
    """One image of the published loop."""

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(networks.device, networks.dtype)

    stimulus = 0 if diffusion.noise == "shared" else int(decoded.stimulus_ids[row])
    noise = noise_for(diffusion.seed, stimulus, repeat, decoded.z.shape[1:])
    loop = Loop(networks, networks.encode_text([""]), Published(cfg_scale=diffusion.cfg_scale))
    z, c, *g = (tensor(decoded[target][row : row + 1]) for target in TARGETS)
    start = loop.start(z, tensor(noise[None]))
    return Run(start, loop.executed, lambda latents, index: loop.take(latents, index, c, g), loop.decode)


def decode(networks: models.Models, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return networks.decode_latents(latents)


def draw(name: str, size: str, networks: models.Models, decoded: Embeddings, repeats: int) -> np.ndarray | None:
    """All images of some stimuli in one arm, (n, repeats, H, W, 3) uint8; nothing for the published loop."""
    diffusion, guidance = parameters(name, size, repeats)
    with layers_of(name, networks):
        if name != PLAIN:
            return pipeline.reconstruct(decoded, networks, diffusion, guidance).images
        for row, repeat in product(range(len(decoded)), range(repeats)):
            whole(plain_run(networks, decoded, diffusion, row, repeat)).cpu()
    return None


def whole(run: Run) -> torch.Tensor:
    """The picture after all steps."""
    latents = run.start
    for index in range(run.n_steps):
        latents = run.take(latents, index)
    return run.finish(latents)


def kinds(name: str) -> list[int]:
    """Of each executed step the first one that computes the same: told by operations counted in a small model."""
    from tests.support.small_models import small_models

    small = small_models()
    with layers_of(name, small):
        run = run_of(name, "full", small, random_targets(small))
        seen: dict[int, int] = {}
        latents, firsts = run.start, []
        for index in range(run.n_steps):
            with Operations() as operations:
                latents = run.take(latents, index)
            firsts.append(seen.setdefault(operations.total, index))
    return firsts


def spread_over_steps(run: Run, firsts: list[int], measure: Callable[[Callable[[], Any]], float]) -> float:
    """What a whole image takes, of which one step of each kind is measured, and the decoded picture."""
    latents, total = run.start, 0.0
    for index in sorted(set(firsts)):
        done: list[torch.Tensor] = []
        total += firsts.count(index) * measure(partial(_take, run, latents, index, done))
        latents = done[-1]
    return total + measure(lambda: run.finish(latents))


def _take(run: Run, latents: torch.Tensor, index: int, done: list[torch.Tensor]) -> None:
    done.append(run.take(latents, index))


def operations_of(name: str, networks: models.Models, decoded: Embeddings) -> float:
    """Operations of one image of Stable Diffusion 1.4's size, of networks on the meta device."""
    with layers_of(name, networks):
        return spread_over_steps(run_of(name, "full", networks, decoded), kinds(name), counted)
