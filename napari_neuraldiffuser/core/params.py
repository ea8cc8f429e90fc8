"""One frozen dataclass per stage: default, limits, unit and help text of every parameter.

The napari controls, the Nipype traits and the command-line options are generated from the field metadata
written here, so a default stands in this file and nowhere else.  Standard library only.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeVar

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.errors import UserError

LAYERS, TARGETS, SPACES = registry.LAYERS, registry.TARGETS, registry.SPACES
KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", tuple: "a list"}


class ParamError(UserError):
    """A parameter is outside what its field allows; the message names it, the rule and the value."""


Value = TypeVar("Value")


def param(
    default: Value,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] | None = None,
) -> Value:
    """A dataclass field that carries its help text, unit, inclusive limits and choices as metadata."""
    meta = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Params:
    """Base of the parameter classes: checks every field when an object is made."""

    def __post_init__(self) -> None:
        for f in fields(self):
            _check_type(f"{type(self).__name__}.{f.name}", getattr(self, f.name), f.default)
            _check(f"{type(self).__name__}.{f.name}", getattr(self, f.name), f.metadata)

    def but(self, **changes: Any) -> Self:
        """A copy with `changes`, checked again."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (tuples become lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The object that `to_dict` described; an unknown name is an error, not silently dropped."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ParamError(f"{cls.__name__} must have fields among {sorted(known)}, got {unknown}.")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _check_type(name: str, value: Any, default: Any) -> None:
    """A value must be of its default's kind; an int serves where a float is the default."""
    pairs = (
        [(v, default[0]) for v in value]
        if isinstance(default, tuple) and isinstance(value, tuple)
        else [(value, default)]
    )
    for item, sample in pairs:
        kinds = (int, float) if isinstance(sample, float) else type(sample)
        if not isinstance(item, kinds) or isinstance(item, bool) != isinstance(sample, bool):
            raise ParamError(f"{name} must be {KINDS[type(sample)]}, got {item!r}.")


def _check(name: str, value: Any, meta: Mapping[str, Any]) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if meta.get("choices") is not None and item not in meta["choices"]:
            raise ParamError(f"{name} must be one of {list(meta['choices'])}, got {item!r}.")
        if isinstance(item, float) and not math.isfinite(item):
            raise ParamError(f"{name} must be a finite number, got {item}.")
        _check_limits(name, item, meta)
    if isinstance(value, tuple) and meta.get("choices") is not None and (not value or len(set(value)) != len(value)):
        raise ParamError(f"{name} must be distinct and not empty, got {value}.")


def _check_limits(name: str, item: Any, meta: Mapping[str, Any]) -> None:
    low, high = meta.get("low"), meta.get("high")
    if low is not None and item < low:
        raise ParamError(f"{name} must be at least {low}, got {item}.")
    if high is not None and item > high:
        raise ParamError(f"{name} must be at most {high}, got {item}.")


def default_of(cls: type, name: str) -> Any:
    """Default of one field, for front ends that build their controls from the class."""
    for f in fields(cls):
        if f.name == name and f.default is not MISSING:
            return f.default
    raise ParamError(f"{cls.__name__} must have a field with a default, got {name!r}.")


@dataclass(frozen=True)
class SimulationParams(Params):
    """What the simulated NSD subjects look like."""

    n_subjects: int = param(1, "Simulated subjects, subj01 onwards.", low=1, high=8)
    seed: int = param(0, "Seed of scenes, trial order and noise.", low=0)
    grid: str = param("demo", "demo: 4 mm whole brain, small; full: NSD's own 1.8 mm matrix.", choices=("demo", "full"))
    n_sessions: int = param(4, "Scan sessions of 750 trials.", low=1, high=40)
    n_test: int = param(60, "Shared test images, each shown three times.", unit="images", low=1, high=1000)
    train_repeats: int = param(2, "How often each training image is shown.", low=1, high=3)
    image_size: int = param(128, "Side of the stored stimuli (NSD's own are 425).", unit="px", low=32, high=425)
    noise: float = param(1.0, "Trial noise, relative to each voxel's nominal level.", low=0.0, high=100.0)


@dataclass(frozen=True)
class BetasParams(Params):
    """Which betas are read and how they are prepared."""

    roi: str = param(
        "nsdgeneral",
        "Voxels that are used: a family, a region or a mask file, joined by ' + ', ' & ' and ' - ' (without).",
    )
    space: str = param(SPACES[0], "Volume space of the betas.", choices=SPACES)
    sessions: str = param("all", "Sessions that are read: all, or numbers and ranges such as 1-4,7.")
    version: str = param(
        "betas_fithrf_GLMdenoise_RR",
        "NSD beta version.",
        choices=("betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR"),
    )
    zscore: bool = param(True, "Z-score every voxel within each session.")
    average_repeats: bool = param(True, "Average the repeats of an image.")


@dataclass(frozen=True)
class FeatureParams(Params):
    """How target embeddings are computed from images and captions."""

    layers: tuple[str, ...] = param(LAYERS, "Guidance layers to extract.", choices=LAYERS)
    feature_normalisation: str = param(
        "imagenet",
        "Mean and standard deviation applied to images before the guide network (published code: imagenet).",
        choices=("imagenet", "clip", "model"),
    )
    batch_size: int = param(32, "Images encoded at once.", unit="images", low=1)


@dataclass(frozen=True)
class DecodingParams(Params):
    """From betas to embeddings."""

    decoder: str = param("ridge", "Kind of decoder that is fitted.", choices=registry.DECODERS)
    alphas: tuple[float, ...] = param(
        tuple(10.0**k for k in range(0, 8)), "Ridge penalties tried, for voxels of unit variance.", low=1e-12
    )
    cv_targets: int = param(1024, "Target columns per group that the cross-validation scores.", low=1)
    align: str = param(
        "train",
        "Match mean and spread of the decoded z to the training targets (train), to the test set's own "
        "statistics as the published code does (test), or not at all (none).",
        choices=("none", "train", "test"),
    )
    seed: int = param(0, "Seed of the choice of scored target columns.", low=0)


@dataclass(frozen=True)
class DiffusionParams(Params):
    """The image-to-image DDIM run (method.md eq. 14-21, 29)."""

    n_steps: int = param(50, "DDIM steps of the full schedule.", unit="steps", low=1, high=1000)
    strength: float = param(0.75, "Share of the schedule that is run from the noised z.", low=0.0, high=1.0)
    cfg_scale: float = param(7.5, "Classifier-free guidance scale s.", low=0.0)
    sag_scale: float = param(0.0, "Self-attention guidance scale (published code: 0.75).", low=0.0)
    start_noise: str = param(
        "executed",
        "Noise level of the start: of the first executed timestep, or the published int(executed / n_steps * 1000).",
        choices=("executed", "published"),
    )
    repeats: int = param(5, "Reconstructions per stimulus, each from its own noise.", low=1)
    seed: int = param(0, "Noise depends on (seed, stimulus, repeat) only.", low=0)
    batch_size: int = param(10, "Most images denoised at once; whole stimuli are kept together.", unit="images", low=1)

    @property
    def executed_steps(self) -> int:
        """DDIM steps that are run of every batch: the last of the schedule (method.md eq. 15)."""
        return int(self.strength * self.n_steps)

    @property
    def stimuli_per_batch(self) -> int:
        """Whole stimuli, as many as fit `batch_size` images with all their repeats; at least one."""
        return max(1, self.batch_size // self.repeats)

    def n_batches(self, n_stimuli: int) -> int:
        """Batches that some stimuli are cut into."""
        return -(-n_stimuli // self.stimuli_per_batch)


@dataclass(frozen=True)
class GuidanceParams(Params):
    """The pull toward the decoded guidance features g (method.md eq. 22-28)."""

    guidance_scale: float = param(300000.0, "Weight kappa of the feature gradient; 0 turns guidance off.", low=0.0)
    guidance_strength: float = param(0.2, "Share eta of the executed steps that are guided.", low=0.0, high=1.0)
    layers: tuple[str, ...] = param(LAYERS, "Guidance layers whose features are compared.", choices=LAYERS)
    layer_weights: tuple[float, ...] = param(
        (1.5, 1.2, 1.0, 1.0, 1.0, 1.0), "Weight a_l of each layer, in the order of layers.", low=0.0
    )
    x0_estimate: str = param(
        "exact",
        "Clean latent from the noise prediction: exact, or the published (1 - abar) for its root.",
        choices=("exact", "published"),
    )
    x0_blend: bool = param(True, "Decode a blend of the clean estimate and the noisy latent (published).")
    normalise: str = param(
        "none",
        "none: the gradient is multiplied by guidance_scale; rms: scaled so that its rms is guidance_scale times "
        "that of the conditional minus unconditional noise prediction.",
        choices=("none", "rms"),
    )
    rule: str = param(
        "noise", "Where the gradient enters: noise adds it to the noise prediction.", choices=registry.GUIDANCE_RULES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layer_weights) != len(self.layers):
            raise ParamError(
                f"GuidanceParams.layer_weights must have one weight per layer ({len(self.layers)}), "
                f"got {len(self.layer_weights)}. Give both layers and layer_weights."
            )


@dataclass(frozen=True)
class ContributionParams(Params):
    """ROI and voxel contribution maps."""

    method: str = param(
        "additive",
        "How the prediction is attributed: additive is the exact additive split over voxels.",
        choices=registry.ATTRIBUTION_METHODS,
    )
    bootstrap: int = param(200, "Bootstrap samples of stimuli for the standard error.", unit="samples", low=2)
    seed: int = param(0, "Seed of the bootstrap.", low=0)


@dataclass(frozen=True)
class EvaluationParams(Params):
    """Scores of reconstructions against seen images."""

    metrics: tuple[str, ...] = param(
        tuple(registry.METRICS),
        "Scores that are computed; those of features where there is an image encoder.",
        choices=registry.METRICS,
    )
    size: int = param(425, "Side at which PixCorr and SSIM compare images.", unit="px", low=16)
    batch_size: int = param(32, "Images encoded at once for two-way identification.", unit="images", low=1)


@dataclass(frozen=True)
class WorkflowParams(Params):
    """How a run is cut into the nodes of a workflow; none of these changes a result."""

    chunk_size: int = param(
        20,
        "Test stimuli that one node reconstructs, rounded up to whole batches; each node opens the models once.",
        unit="stimuli",
        low=1,
    )
    decoder_parts: str = param(
        "embeddings",
        "Decoders fitted in parallel: one for each of z, c and g (embeddings), one for every target and layer "
        "(targets), or one for all (one).",
        choices=("embeddings", "targets", "one"),
    )
    gpu_mem_gb: float = param(16.0, "Memory of the host that a GPU node asks for.", unit="GB", low=0.1)
    num_threads: int = param(
        0, "Threads of each node and processors it asks for; 0: asks for one, uses all it gets.", low=0
    )

    def parts(self, layers: tuple[str, ...]) -> list[list[str]]:
        """Targets of each decoder that is fitted on its own."""
        whole = ["z", "c", *layers]
        split = {"embeddings": [["z"], ["c"], list(layers)], "targets": [[name] for name in whole], "one": [whole]}
        return split[self.decoder_parts]


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes, one object per stage."""

    betas: BetasParams = BetasParams()
    features: FeatureParams = FeatureParams()
    decoding: DecodingParams = DecodingParams()
    diffusion: DiffusionParams = DiffusionParams()
    guidance: GuidanceParams = GuidanceParams()
    contribution: ContributionParams = ContributionParams()
    evaluation: EvaluationParams = EvaluationParams()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values of every stage."""
        return {f.name: getattr(self, f.name).to_dict() for f in fields(self)}


def settings_from_dict(values: dict[str, dict[str, Any]]) -> Settings:
    """The Settings that `to_dict` described; a stage that is left out has its defaults, an unknown one is an error."""
    stages = {name: type(default) for name, default in vars(Settings()).items()}
    if not isinstance(values, dict) or not all(isinstance(params, dict) for params in values.values()):
        raise ParamError(f"Settings must have a dict for every stage, got {values!r}.")
    unknown = sorted(set(values) - set(stages))
    if unknown:
        raise ParamError(f"Settings must have stages among {sorted(stages)}, got {unknown}.")
    return Settings(**{name: stages[name].from_dict(params) for name, params in values.items()})


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # the equations of the paper, with the exact clean estimate
    "neuraldiffuser": {"diffusion": {}, "guidance": {}},
    # what the public code computes
    "published": {
        "diffusion": {"sag_scale": 0.75, "start_noise": "published"},
        "guidance": {"x0_estimate": "published"},
    },
    # for the bundled models, chosen on training stimuli (docs/demo.md)
    "demo": {
        "diffusion": {"repeats": 3, "batch_size": 12, "n_steps": 24, "cfg_scale": 3.0},
        "guidance": {"normalise": "rms", "guidance_scale": 5.0, "guidance_strength": 0.67},
    },
    # no pull: the baseline arm
    "none": {"diffusion": {}, "guidance": {"guidance_scale": 0.0}},
}
"""Named settings: what each changes of the defaults above."""


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
