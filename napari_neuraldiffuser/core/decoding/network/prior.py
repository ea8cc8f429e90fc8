"""The diffusion prior of c and g: from the heads' predictions to scores that have the spread of real ones."""

from typing import Any

import numpy as np
import torch

from napari_neuraldiffuser.core.decoding.network.model import Network, Noisy
from napari_neuraldiffuser.core.networks.opening import prior_schedule

TIMESTEPS = 100
SAMPLING_STEPS = 20


class Prior:
    """Noise for training, and sampling, of the scores of every target that has a denoiser."""

    def __init__(self) -> None:
        self.schedule: Any = prior_schedule(TIMESTEPS)

    def noisy(self, network: Network, scores: dict[str, torch.Tensor], generator: torch.Generator) -> Noisy:
        """Scores in the denoisers' units with the noise of random timesteps (method.md eq. 68)."""
        out = {}
        for name in network.denoisers:
            clean = scores[name] / network.denoiser(name).unit
            t = torch.randint(TIMESTEPS, (len(clean),), generator=generator)
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            out[name] = (self.schedule.add_noise(clean, noise, t.to(clean.device)), t.to(clean.device))
        return out

    @torch.no_grad()
    def sample(
        self, network: Network, name: str, predicted: torch.Tensor, stimulus_ids: np.ndarray, seed: int
    ) -> torch.Tensor:
        """Scores (m, b) denoised in `SAMPLING_STEPS` steps; a stimulus' noise depends on it and the seed alone."""
        denoiser, n = network.denoiser(name), predicted.shape[1]
        start = [np.random.Generator(np.random.Philox(key=[seed, int(s)])).standard_normal(n) for s in stimulus_ids]
        x = torch.from_numpy(np.stack(start)).to(predicted)
        self.schedule.set_timesteps(SAMPLING_STEPS)
        for t in self.schedule.timesteps:
            clean = denoiser(x, t.expand(len(x)).to(x.device), predicted)
            x = self.schedule.step(clean, t, x).prev_sample
        return x * denoiser.unit
