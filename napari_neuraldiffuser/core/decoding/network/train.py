"""Training of the network: passes over the training stimuli until the held-out ones are predicted no better."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.files import fingerprint
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.network import checkpoint, losses, processes
from napari_neuraldiffuser.core.decoding.network.basis import TargetBasis
from napari_neuraldiffuser.core.decoding.network.checkpoint import Progressed
from napari_neuraldiffuser.core.decoding.network.data import Batch, Data
from napari_neuraldiffuser.core.decoding.network.model import Network, Noisy
from napari_neuraldiffuser.core.decoding.network.prior import Prior
from napari_neuraldiffuser.core.decoding.products import checked_device
from napari_neuraldiffuser.core.params import DecodingParams

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""
LARGEST_GRADIENT = 1.0
MIXED = 1 / 3
"""Share of the passes with BiMixCo; SoftCLIP follows."""
TEMPERATURE = 0.1
STEPS_TOLD = 10


class Trained(nn.Module):
    """A network and what is added to the voxel encoder, which is nothing at first."""

    def __init__(self, network: Network, n_voxels: int = 0) -> None:
        super().__init__()
        self.network = network
        self.encoder = nn.Linear(n_voxels, network.about.width, bias=False) if n_voxels else None
        if self.encoder is not None:
            nn.init.zeros_(self.encoder.weight)

    def forward(
        self, latents: torch.Tensor, x: torch.Tensor | None, whole: tuple[str, ...], noisy: Noisy | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """As of Network, from the ridge encoder's latents and, where the encoder is trained, centred betas x (B, p)."""
        if self.encoder is not None:
            latents = latents + self.encoder(x)
        return self.network(latents, whole, noisy)


@dataclass(frozen=True)
class History:
    """Held-out R² of every target after 0, 1, ... passes, and the number of the best pass, whose weights were kept."""

    passes: list[dict[str, float]]
    best: int


def train(
    model: Trained,
    data: Data,
    bases: dict[str, TargetBasis],
    params: DecodingParams,
    progress: Progress | None = None,
    made_from: str = "",
) -> History:
    """Train the parameters that want gradients; the model ends with the weights of the best pass.

    Parameters
    ----------
    model : Trained
        On the CPU; it ends there.
    data : Data
    bases : dict of str to TargetBasis
    params : DecodingParams
    progress : callable, optional
    made_from : str
        Fingerprint of what the data were made from: a checkpoint of other data is not taken up.

    Raises
    ------
    DecodingError
        If the loss is not finite, or the device is not there.
    """
    training = _Training(model, data, bases, params, progress or silent, made_from)
    return training.run() if any(p.requires_grad for p in model.parameters()) else training.only_look()


def accelerator_of(params: DecodingParams, folder: Path | None = None) -> Any:
    """Accelerate's Accelerator on the device of the params, with a TensorBoard log in `folder`.

    Raises
    ------
    DecodingError
        If the device is not there, or Accelerate takes another.
    """
    from accelerate import Accelerator

    processes.forget_former()
    on_cpu = checked_device(params.decoder_device) == "cpu"
    precision = "no" if on_cpu else params.network_precision
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        log_with="tensorboard" if folder else None,
        project_dir=folder,
    )
    if accelerator.device.type != params.decoder_device:
        raise DecodingError(
            f"decoder_device must be the device that Accelerate uses, {accelerator.device.type}, got "
            f"{params.decoder_device}. Change Accelerate's configuration and environment, or decoder_device."
        )
    return accelerator


class _Training:
    """One call of `train`."""

    def __init__(
        self,
        model: Trained,
        data: Data,
        bases: dict[str, TargetBasis],
        params: DecodingParams,
        report: Progress,
        made_from: str,
    ) -> None:
        self.model, self.data, self.bases, self.params, self.report = model, data, bases, params, report
        self.folder = Path(params.network_folder) if params.network_folder else None
        self.accelerator = accelerator_of(params, self.folder)
        self.prior = Prior() if model.network.denoisers else None
        self.done = Progressed(_recipe(model, params, made_from))
        self.best: dict[str, torch.Tensor] = {}

    def only_look(self) -> History:
        """Where nothing is trained: the held-out R² of the network as it is."""
        self.wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        found = self._evaluate()
        self.model.cpu()
        return History([found], 0)

    def run(self) -> History:
        self._prepare()
        if not self.done.passes:
            self._judge()
        while len(self.done.passes) <= self.params.network_epochs and not self._exhausted:
            self._pass(len(self.done.passes))
            self._judge()
            self._keep()
        if self.folder:
            self.accelerator.end_training()
        self.model.cpu()
        checkpoint.take_state(self.model, self.best)
        return History(self.done.passes, self.done.best)

    @property
    def _exhausted(self) -> bool:
        return len(self.done.passes) - 1 - self.done.best >= self.params.network_patience

    def _prepare(self) -> None:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, self.params.network_rate, weight_decay=self.params.network_decay)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        if self.folder:
            self.accelerator.init_trackers("log")
            found = checkpoint.read(self.folder, self.done.recipe, self.model, self.optimizer.optimizer)
            if found:
                self.done, self.best = found
                if self.accelerator.scaler and self.done.scale:
                    self.accelerator.scaler.load_state_dict(self.done.scale)

    def _pass(self, number: int) -> None:
        """One pass over the training stimuli; what is random in it depends on the seed and its number alone."""
        seed = int(np.random.default_rng([self.params.seed, 64, number]).integers(2**62))
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.wrapped.train()
        some, steps = self.params.network_accumulation, self.data.steps
        for k, batch in enumerate(self.data.passing(number)):
            # a pass ends with a step, so that a checkpoint needs no gradients
            last = (k + 1) % some == 0 or k + 1 == steps
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                loss = self._loss(self._share(batch).to(self.accelerator.device), number, generator)
                self._check(loss)
                self.accelerator.backward(loss / min(some, steps - k // some * some))
            if last:
                self._step()
            if k % STEPS_TOLD == 0:
                self._tell(number, k)

    def _share(self, batch: Batch) -> Batch:
        """This process' part of a batch."""
        n = self.accelerator.num_processes
        return batch if n == 1 else batch.part(self.accelerator.process_index, n)

    def _step(self) -> None:
        size = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), LARGEST_GRADIENT)
        # float16's scale is lowered where gradients overflow, and the step left out
        if self.accelerator.scaler is None:
            self._check(size)
        for group in self.optimizer.param_groups:
            group["lr"] = self.params.network_rate * self._rate(self.done.step)
        self.done.step += 1
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _rate(self, step: int) -> float:
        """Share of the largest learning rate: a linear rise, then half a cosine to nothing."""
        steps = self.params.network_epochs * -(-self.data.steps // self.params.network_accumulation)
        warm = max(1, round(WARM_UP * steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    def _loss(self, batch: Batch, number: int, generator: torch.Generator) -> torch.Tensor:
        """Regression, contrast and prior (method.md eq. 67)."""
        mixing = number <= MIXED * self.params.network_epochs
        mix = losses.Mix.draw(len(batch.latents), generator) if mixing else None
        latents, x, targets, scores = batch.latents, batch.x, batch.targets, batch.scores
        if mix:
            latents, x = mix.of(latents), None if x is None else mix.of(x)
            scores = {name: mix.of(values) for name, values in scores.items()}
        noisy = self.prior.noisy(self.model.network, scores, generator) if self.prior else None
        predicted, clean = self.wrapped(latents, x, tuple(self.data.whole), noisy)
        parts = [self._target_loss(name, values, targets[name], mix) for name, values in predicted.items()]
        total = torch.stack(parts).mean()
        if clean:
            units = {name: scores[name] / self.model.network.denoiser(name).unit for name in clean}
            errors = [(clean[name] - units[name]).float().square().mean() for name in clean]
            total = total + self.params.network_prior_weight * torch.stack(errors).mean()
        return total

    def _target_loss(
        self, name: str, predicted: torch.Tensor, target: torch.Tensor, mix: losses.Mix | None
    ) -> torch.Tensor:
        size = self.bases[name].size
        wanted = mix.of(target) if mix else target
        regression = (losses.absolute if name == "z" else losses.squared)(predicted, wanted, size)
        if not self.params.network_contrast or len(target) < 2:
            return regression
        if name in self.data.whole:
            # cosines are of deviations from the mean, in whichever form a target comes
            mean = self.model.network.head(name).columns.bias.detach()
            predicted, target = predicted - mean, target - mean
        if mix:
            contrast = losses.bimixco(predicted, target, mix, TEMPERATURE)
        else:
            contrast = losses.softclip(predicted, target, TEMPERATURE)
        return regression + self.params.network_contrast * contrast

    def _check(self, value: torch.Tensor) -> None:
        if not torch.isfinite(value):
            raise DecodingError(
                f"The network's loss and gradient must be finite, got {value.item()} in pass {len(self.done.passes)}. "
                "Lower network_rate, and check the betas for extreme values."
            )

    def _judge(self) -> None:
        """Held-out R² after the last pass, and the weights if it is the best one."""
        found = self._evaluate()
        self.done.passes.append(found)
        last = len(self.done.passes) - 1
        if last == 0 or mean_r2(found) > mean_r2(self.done.passes[self.done.best]):
            self.done.best, self.best = last, checkpoint.trained_state(self.model)
        self._tell(last, self.data.steps)
        if self.folder:
            self.accelerator.log({f"held-out R2/{name}": value for name, value in found.items()}, step=last)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """R² of every target over all columns of the held-out stimuli (method.md eq. 69)."""
        self.wrapped.eval()
        error, total = dict.fromkeys(self.data.names, 0.0), dict.fromkeys(self.data.names, 0.0)
        for batch in self.data.holding():
            batch = batch.to(self.accelerator.device)
            predicted, _ = self.wrapped(batch.latents, batch.x, tuple(self.data.whole))
            for name in self.data.names:
                wrong = (predicted[name] - batch.targets[name]).double().square().sum().item()
                total[name] += float(batch.energy[name].sum())
                if name not in self.data.whole:
                    # the part of the target that no component has
                    wrong += float(batch.energy[name].sum()) - batch.scores[name].double().square().sum().item()
                error[name] += wrong
        return {name: 1.0 - error[name] / total[name] if total[name] else math.nan for name in self.data.names}

    def _keep(self) -> None:
        if self.folder and self.accelerator.is_main_process:
            self.done.scale = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
            checkpoint.write(self.folder, self.done, self.model, self.optimizer.optimizer, self.best)
        self.accelerator.wait_for_everyone()

    def _tell(self, number: int, k: int) -> None:
        passes, steps = self.params.network_epochs, self.data.steps
        done = max(0, (number - 1) * steps + k) if number else 0
        r2 = mean_r2(self.done.passes[self.done.best]) if self.done.passes else math.nan
        self.report(done, passes * steps, f"network training, pass {number} of at most {passes}, R² {r2:.3f}")


def _recipe(model: Trained, params: DecodingParams, made_from: str) -> str:
    """Fingerprint of all that decides the result, the weights that training starts from included."""
    # where files lie and where it runs decide nothing
    values = params.but(network_folder="", network_pretrained="", decoder_device="cpu").to_dict()
    trained = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    code = [ALGORITHM_VERSION, napari_neuraldiffuser.__version__]
    return fingerprint([code, made_from, values, trained, checkpoint.digest(model)])


def mean_r2(found: dict[str, float]) -> float:
    """Mean over targets that have an R²."""
    return float(np.nanmean(list(found.values())))
