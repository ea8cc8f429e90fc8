"""Parameters of the diffusion run and of guidance, and their presets.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.fields import ParamError, Params, param
from napari_neuraldiffuser.core.base.presets import PRESETS
from napari_neuraldiffuser.core.base.registry import LAYERS

AUTOMATIC_IMAGES = 48
"""Images of a batch where `batch_size` is 0: a continued run computes the same batches on any machine."""


@dataclass(frozen=True)
class DiffusionParams(Params):
    """The image-to-image DDIM run (method.md eq. 21-28, 36)."""

    n_steps: int = param(
        50,
        "DDIM steps of the full schedule. More give finer pictures and take longer in proportion: 20 to look around, "
        "50 for results, above 100 hardly anything changes.",
        unit="steps",
        low=1,
        high=1000,
    )
    strength: float = param(
        0.75,
        "Share of the schedule that is run from the noised z. Low stays close to the blurred picture that z shows, "
        "high invents more from c; 0.6 to 0.85 are usual, 1 forgets z.",
        low=0.0,
        high=1.0,
    )
    cfg_scale: float = param(
        7.5,
        "Classifier-free guidance scale s: how strictly the picture follows the decoded text c. 1 follows it loosely, "
        "3 to 8 are usual, above 12 colours glare and layout is lost.",
        low=0.0,
    )
    sag_scale: float = param(
        0.0,
        "Self-attention guidance scale: sharpens what the model attends to, at half as much time again. 0 is off, the "
        "published code has 0.75, above 1 edges are overdrawn.",
        low=0.0,
    )
    solver: str = param(
        "ddim",
        "How the noise is taken away: ddim; euler, the same arithmetic at the noise levels of its own schedule; dpm++, "
        "of second order in the model's own noise; lcm, for latent consistency models alone. ddim is usual, and a "
        "high-order solver gains nothing where few steps are guided.",
        choices=registry.SOLVERS,
    )
    guided_ode: str = param(
        "split",
        "split: the model's own noise is stepped with the second order and what guidance adds with the first; whole: "
        "both with the second order, which extrapolates the gradient and fails. Use split.",
        choices=("split", "whole"),
        only=("solver", ("dpm++",)),
    )
    cfg_until: float = param(
        1.0,
        "Share of the executed steps with classifier-free guidance, from the first on; after it the picture follows "
        "the text at scale 1, in half the time a step. 1 is usual; the guided share loses nothing and is faster.",
        low=0.0,
        high=1.0,
    )
    cache_every: int = param(
        1,
        "The whole UNet runs at every so manieth step after the guided ones; in between its deep features are those "
        "of the last time. 1 is exact; 2 or 3 take half the time or a third, at fewer details.",
        unit="steps",
        low=1,
        high=10,
    )
    start: str = param(
        "decoded",
        "What is noised to begin with: the decoded z, or inverted, latents near it whose decoded picture has the "
        "decoded features g, by some gradient steps. Both arms begin from it.",
        choices=("decoded", "inverted"),
    )
    start_steps: int = param(
        30,
        "Gradient steps of an inverted start, each through VAE decoder and guide. 10 to 50.",
        unit="steps",
        low=1,
        high=1000,
        only=("start", ("inverted",)),
    )
    start_rate: float = param(
        0.05,
        "How far a gradient step goes, as a share of the spread of z. 0.02 to 0.1; more makes a pattern of noise.",
        low=1e-6,
        only=("start", ("inverted",)),
    )
    start_prior: float = param(
        1.0,
        "What it costs to leave the decoded z by its own spread, against the feature loss there. 0 leaves it freely.",
        low=0.0,
        only=("start", ("inverted",)),
    )
    start_noise: str = param(
        "executed",
        "Noise level of the start: of the first executed timestep, or the published int(executed / n_steps * 1000), "
        "which is a little more noise than the first step takes away. Change it only to repeat published figures.",
        choices=("executed", "published"),
    )
    noise: str = param(
        "own",
        "own: every stimulus has its own noise; shared: all stimuli have the same, one per repeat, as in the published "
        "code, so that what images have in common may be the noise's. Change it only to repeat published figures.",
        choices=("own", "shared"),
    )
    rounding: str = param(
        "nearest",
        "How image values become 0 to 255: the nearest whole number, or the one below (truncate), half a level darker, "
        "as in the published code.",
        choices=("nearest", "truncate"),
    )
    repeats: int = param(
        5,
        "Reconstructions per stimulus, each from its own noise: what they share was decoded, what differs was "
        "invented. 1 to look around, 3 to 5 for scores.",
        low=1,
    )
    seed: int = param(
        0,
        "Which noise the pictures start from; it depends on (seed, stimulus, repeat) only. Another seed gives other "
        "details and no better picture; keep it when parameters are compared.",
        low=0,
    )
    batch_size: int = param(
        10,
        "Most images denoised at once; 0 takes as many as memory has room for, by what one takes. It changes memory "
        "and time, not the picture (on a GPU to rounding), and is halved by itself when memory does not suffice.",
        unit="images",
        low=0,
    )
    precision: str = param(
        "auto",
        "Bits that the networks compute in, forward and backward: float32; bf16 or fp16 by autocast, faster on a GPU "
        "and a little different; auto, which is bf16 on a GPU that has it and float32 on a CPU. fp16 on a GPU is what "
        "the published code has.",
        choices=("auto", "float32", "bf16", "fp16"),
    )

    @property
    def executed_steps(self) -> int:
        """DDIM steps that are run of every batch: the last of the schedule (method.md eq. 22)."""
        return int(self.strength * self.n_steps)

    @property
    def stimuli_per_batch(self) -> int:
        """Whole stimuli, as many as fit `batch_size` images with all their repeats; at least one.

        They are computed and kept together, whatever part of them is in memory at once.
        """
        return max(1, (self.batch_size or AUTOMATIC_IMAGES) // self.repeats)

    def n_batches(self, n_stimuli: int) -> int:
        """Batches that some stimuli are cut into."""
        return -(-n_stimuli // self.stimuli_per_batch)


@dataclass(frozen=True)
class GuidanceParams(Params):
    """The pull toward the decoded guidance features g (method.md eq. 29-35)."""

    guidance_scale: float = param(
        5.0,
        "Weight kappa of the feature gradient: how hard the picture is pulled toward the decoded edges, textures and "
        "parts g. 0 turns guidance off; too little changes nothing, too much burns the picture out. Sensible: 1 to 15 "
        "with normalise rms, for any models; about 300000 with none, for Stable Diffusion 1.4 alone.",
        low=0.0,
    )
    guidance_strength: float = param(
        0.67,
        "Share eta of the executed steps that are guided, from the first on. Early steps settle layout, so 0.2 already "
        "moves shapes; to 0.7 details follow too, and every guided step takes several times as long.",
        low=0.0,
        high=1.0,
    )
    layers: tuple[str, ...] = param(
        LAYERS,
        "Guidance layers whose features are compared: early ones (g02) pull edges and colours, late ones (g12) parts "
        "and kinds of things. Usually all.",
        choices=LAYERS,
    )
    layer_weights: tuple[float, ...] = param(
        (1.5, 1.2, 1.0, 1.0, 1.0, 1.0),
        "Weight a_l of each layer, in the order of layers: more on early layers for layout, more on late ones for "
        "content. 0.5 to 2 are sensible.",
        low=0.0,
    )
    x0_estimate: str = param(
        "exact",
        "Clean latent from the noise prediction: exact, or the published (1 - abar) for its root, for its figures.",
        choices=("exact", "published"),
    )
    guide_decoder: str = param(
        "vae",
        "What shows guidance the picture on its way: vae, the models' own decoder; tiny, a small one that their folder "
        "must have as vae_tiny, at a fraction of time and memory. The result is decoded by the VAE either way.",
        choices=("vae", "tiny"),
    )
    x0_blend: bool = param(True, "Decode a blend of the clean estimate and the noisy latent (published). Usually on.")
    normalise: str = param(
        "rms",
        "none: the gradient is multiplied by guidance_scale; rms: scaled so that its rms is guidance_scale times that "
        "of the conditional minus unconditional noise prediction. rms is for any models, and kappa is then 1 to 15; "
        "none needs a kappa found for these models.",
        choices=("none", "rms"),
    )
    rule: str = param(
        "noise",
        "Where the gradient enters. noise: it is added to the noise prediction; dps, lgd, freedom: z is shifted after "
        "the step; mpgd: the clean estimate is corrected, a fifth faster; ugd: noise and estimate; tfg: z and it.",
        choices=registry.GUIDANCE_RULES,
    )
    gradient: str = param(
        "through",
        "Whether the gradient passes back through the UNet, or (leaf) only to the clean estimate, with the noise "
        "prediction held: a fifth less time with the bundled models, in a direction that knows less.",
        choices=("through", "leaf"),
        only=("rule", ("noise", "dps", "lgd", "freedom")),
    )
    guidance_copies: int = param(
        4,
        "Noisy copies of the clean estimate that a gradient is averaged over. Each costs a decoding and its way back.",
        unit="copies",
        low=1,
        only=("rule", ("lgd", "tfg")),
    )
    copies_noise: float = param(
        0.1,
        "Noise gamma of these copies, in units of the noise that z still has. 0 is no copies; LGD's paper has 1, which "
        "leaves little of a latent.",
        low=0.0,
        only=("rule", ("lgd", "tfg")),
    )
    leaf_scale: float = param(
        5.0,
        "Weight mu of the steps on the clean estimate, as guidance_scale is of the gradient through the UNet.",
        low=0.0,
        only=("rule", ("ugd", "tfg")),
    )
    leaf_steps: int = param(
        1,
        "Gradient steps on the clean estimate in each guided step. With rms they share what one would do.",
        unit="steps",
        low=1,
        only=("rule", ("mpgd", "ugd", "tfg")),
    )
    recurrence: int = param(
        2,
        "How often each guided step is taken: in between, z is noised again, so that the model can mend what guidance "
        "tore. Time rises in proportion.",
        low=1,
        only=("rule", ("freedom", "ugd", "tfg")),
    )
    guide_every: int = param(
        1,
        "A fresh gradient every so many guided steps; those between take the last one again at hardly any cost. 2 "
        "nearly halves the time of guidance.",
        unit="steps",
        low=1,
    )
    phase: str = param(
        "constant",
        "How strength goes over the guided steps: constant, fading from nearly twice to nearly none, or growing.",
        choices=("constant", "fading", "growing"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layer_weights) != len(self.layers):
            raise ParamError(
                f"layer_weights must have one weight per layer ({len(self.layers)}), "
                f"got {len(self.layer_weights)}. Give both layers and layer_weights."
            )


def preset(name: str, diffusion: DiffusionParams | None = None) -> tuple[DiffusionParams, GuidanceParams]:
    """Diffusion and guidance parameters of a named preset; `diffusion` supplies what the preset leaves open.

    Raises
    ------
    ParamError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ParamError(f"guidance preset must be one of {sorted(PRESETS)}, got {name!r}.")
    changes = PRESETS[name]
    base = diffusion or DiffusionParams()
    return base.but(**changes["diffusion"]), GuidanceParams(**changes["guidance"])
