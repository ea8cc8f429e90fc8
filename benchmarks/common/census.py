"""Seconds per image on a GPU, estimated by counting operations: no figure in here was measured on a GPU.

TFLOP of Stable Diffusion 1.4 at 512 px, counted layer by layer (docs/performance.md): the UNet 0.80 forward and 0.99
backward per branch, the VAE decoder 2.52 and 2.55, the guide network 0.009 and 0.009.
"""

from dataclasses import dataclass

from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams

UNET, UNET_BACK, DECODER, DECODER_BACK, GUIDE = 0.80, 0.99, 2.52, 2.55, 0.018
STEP = 2 * UNET
GUIDED_STEP = STEP + UNET_BACK + DECODER + DECODER_BACK + GUIDE
CPU_STEP = 114.0
"""Processor seconds of a guided step on one CPU thread, measured by guided_step_full_size.py (docs/performance.md)."""


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
    """TFLOP of one guided and of one unguided image."""
    steps = int(diffusion.strength * diffusion.n_steps)
    guided = n_guided_steps(steps, guidance)
    plain = steps * STEP + DECODER
    return plain + guided * (GUIDED_STEP - STEP), plain


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
        f"on one CPU thread a guided step took {CPU_STEP:g} s of {GUIDED_STEP:.2f} TFLOP (measured)",
    ]
    for device in DEVICES.values():
        seconds = seconds_per_image(device, diffusion, guidance)
        hours = gpu_hours(seconds, pairs, unguided)
        lines.append(f"{device}: {seconds:.2f} s per guided image, {hours:.0f} GPU hours ({HOW})")
    return lines
