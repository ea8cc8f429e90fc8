"""Seconds per image on a GPU, estimated by counting operations: no figure in here was measured on a GPU.

TFLOP of Stable Diffusion 1.4 at 512 px, counted layer by layer (docs/performance.md): the UNet 0.77 forward and 0.89
backward per branch, 1.50 forward for both branches together, the VAE decoder 2.13 and 2.17, the guide network 0.009
and 0.009.
"""

from dataclasses import dataclass

from napari_neuraldiffuser.core.diffusion.guidance import n_gradients, n_rounds
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams

UNET, UNET_BACK, DECODER, DECODER_BACK, GUIDE = 0.77, 0.89, 2.13, 2.17, 0.018
STEP = 1.50
"""Both branches together: what the UNet computes before the text is computed once."""
GUIDED_STEP = 2 * UNET + UNET_BACK + DECODER + DECODER_BACK + GUIDE
CPU_STEP, CPU_STEP_TFLOP = 114.0, 7.68
"""Processor seconds of a guided step on one CPU thread, measured by guided_step_full_size.py (docs/performance.md), and
its operations when it was measured."""


HOW = "estimated by counting, not measured"


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet: peak TFLOP/s of dense arithmetic, and the share of it that is assumed to be reached."""

    name: str
    peak: float
    share: float

    @property
    def rate(self) -> float:
        return self.peak * self.share

    def __str__(self) -> str:
        return f"{self.name}, {100 * self.share:.0f} % of {self.peak:g} TFLOP/s"


DEVICES = {
    # the pipeline computes in float32, in which PyTorch lets convolutions use TF32: the truth lies between the rows
    "a100-fp32": Device("A100 SXM, float32 without tensor cores", 19.5, 0.7),
    "a100-tf32": Device("A100 SXM, TF32", 156.0, 0.35),
    "h100-fp32": Device("H100 SXM, float32 without tensor cores", 67.0, 0.7),
    "h100-tf32": Device("H100 SXM, TF32", 495.0, 0.3),
}


def image_tflop(diffusion: DiffusionParams, guidance: GuidanceParams) -> tuple[float, float]:
    """TFLOP of one guided and of one unguided image, each gradient through the UNet and of one copy.

    A step that is taken again (`recurrence`) costs its forwards once more, and one that reuses a gradient
    (`guide_every`) costs no more than an unguided one.
    """
    steps = diffusion.executed_steps
    gradients = n_gradients(steps, guidance)
    again = gradients - gradients // n_rounds(guidance)
    plain = steps * STEP + DECODER
    return plain + gradients * (GUIDED_STEP - STEP) + again * STEP, plain


def share_unguided(diffusion: DiffusionParams, guidance: GuidanceParams) -> float:
    """Cost of an unguided image in units of a guided one, by counting."""
    guided, plain = image_tflop(diffusion, guidance)
    return plain / guided


def seconds_per_image(device: Device, diffusion: DiffusionParams, guidance: GuidanceParams) -> float:
    """Seconds of one guided image, by counting."""
    return image_tflop(diffusion, guidance)[0] / device.rate


def gpu_hours(seconds: float, pairs: int, unguided: float) -> float:
    """GPU hours of so many (guided, unguided) pairs of images."""
    return pairs * seconds * (1 + unguided) / 3600


def table(diffusion: DiffusionParams, guidance: GuidanceParams, pairs: int) -> list[str]:
    """What every device would cost, as lines of text."""
    (guided, plain), unguided = image_tflop(diffusion, guidance), share_unguided(diffusion, guidance)
    lines = [
        f"one guided image {guided:.1f} TFLOP, one unguided {plain:.1f} (counted); {pairs} pairs; "
        f"on one CPU thread a guided step took {CPU_STEP:g} s of {CPU_STEP_TFLOP:g} TFLOP (measured)",
    ]
    for device in DEVICES.values():
        seconds = seconds_per_image(device, diffusion, guidance)
        hours = gpu_hours(seconds, pairs, unguided)
        lines.append(f"{device}: {seconds:.2f} s per guided image, {hours:.0f} GPU hours ({HOW})")
    return lines
