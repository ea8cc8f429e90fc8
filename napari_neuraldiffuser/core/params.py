"""One frozen dataclass per stage: default, limits, unit and help text of every parameter.

The napari controls, the Nipype traits and the command-line options are generated from the field metadata
written here, so a default stands in this file and nowhere else.  Standard library only.
"""

from dataclasses import dataclass, fields
from typing import Any

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.fields import ParamError as ParamError
from napari_neuraldiffuser.core.base.fields import Params as Params
from napari_neuraldiffuser.core.base.fields import default_of as default_of
from napari_neuraldiffuser.core.base.fields import param as param
from napari_neuraldiffuser.core.base.presets import PRESETS as PRESETS

LAYERS, TARGETS, SPACES = registry.LAYERS, registry.TARGETS, registry.SPACES


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
class BoldSimulationParams(SimulationParams):
    """What the simulated BOLD looks like: a small experiment, preprocessed as by fMRIPrep."""

    n_sessions: int = param(3, "Scan sessions.", low=1, high=40)
    n_test: int = param(40, "Test images, each shown three times.", unit="images", low=1, high=1000)
    n_runs: int = param(6, "Runs of a session.", unit="runs", low=1, high=50)
    n_trials: int = param(60, "Trials of a run.", unit="trials", low=2, high=500)
    tr: float = param(1.6, "Time between volumes.", unit="s", low=0.2, high=10.0)
    trial_spacing: float = param(4.0, "Time from one trial to the next.", unit="s", low=1.0, high=60.0)
    trial_duration: float = param(3.0, "Time that an image is shown.", unit="s", low=0.1, high=60.0)
    tsnr: float = param(80.0, "Mean over standard deviation of the thermal and autocorrelated noise.", low=1.0)
    autocorrelation: float = param(0.3, "Correlation of the noise from one volume to the next.", low=0.0, high=0.95)
    motion: float = param(0.3, "Size of head motion; its effect on the signal grows with it.", unit="mm", low=0.0)
    hrf_delay: float = param(
        0.5,
        "Mean delay of the response beyond the 6 s of the usual model; 0.5 peaks 0.3 later than that model.",
        unit="s",
        low=-3.0,
        high=3.0,
    )


@dataclass(frozen=True)
class BetasParams(Params):
    """Which betas are read and how they are prepared."""

    roi: str = param(
        "nsdgeneral",
        "Voxels that are used: a family, a region or a mask file, joined by ' + ', ' & ' and ' - ' (without). Early "
        "areas alone give layout and colour, higher ones alone what the scene is about; nsdgeneral has both.",
    )
    space: str = param(SPACES[0], "Volume space of the betas.", choices=SPACES)
    sessions: str = param("all", "Sessions that are read: all, or ranges such as 1-4,7. Fewer decode worse.")
    version: str = param(
        "betas_fithrf_GLMdenoise_RR",
        "NSD beta version.",
        choices=("betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR"),
    )
    zscore: bool = param(True, "Z-score every voxel within each session; off only for betas that are z-scored already.")
    average_repeats: bool = param(True, "Average the repeats of an image: less noise; off decodes single trials.")


@dataclass(frozen=True)
class BoldParams(Params):
    """From a scanner's BOLD to single-trial betas."""

    estimator: str = param(
        "lsa",
        "lsa: one model with a regressor per trial; lss: a model per trial with all other trials in one regressor, "
        "steadier where scanner noise is far above the differences between trials; glmsingle: a library of responses, "
        "denoising and ridge, where GLMsingle is installed.",
        choices=registry.ESTIMATORS,
    )
    hrf_model: str = param(
        "spm",
        "Haemodynamic response of a trial; with a derivative a response may come earlier or later.",
        choices=("spm", "spm + derivative", "glover", "glover + derivative"),
    )
    drift: str = param("cosine", "Slow drift in the model of a run.", choices=("cosine", "polynomial", "none"))
    high_pass: float = param(0.008, "Cosines below this frequency are drift.", unit="Hz", low=0.0, high=0.1)
    drift_order: int = param(3, "Order of a polynomial drift.", low=1, high=10)
    confounds: tuple[str, ...] = param(
        ("motion", "compcor"),
        "Columns of the confounds table in the model: motion (six), motion24 (with derivatives and squares), compcor, "
        "tissue (csf and white_matter), global (global_signal), or none.",
        choices=("motion", "motion24", "compcor", "tissue", "global", "none"),
    )
    n_compcor: int = param(5, "Components of compcor that are used, the first ones.", low=1, high=100)
    confound_columns: str = param(
        "", "More columns of the confounds table, separated by commas; * stands for any letters."
    )
    fd_threshold: float = param(
        0.5, "Volumes with a larger framewise displacement are left out of the fit; 0 keeps all.", unit="mm", low=0.0
    )
    smoothing_fwhm: float = param(0.0, "Spatial smoothing of the BOLD; 0 for none.", unit="mm", low=0.0, high=20.0)
    scale: str = param(
        "percent", "percent: signal change relative to each voxel's mean; none: as stored.", choices=("percent", "none")
    )
    stimulus_column: str = param("", "Column of the events that names what was seen; empty: stim_file, else stimulus.")
    trial_types: str = param(
        "", "Values of trial_type that are trials, separated by commas; empty: all with a stimulus."
    )
    other_types: str = param("", "Values of trial_type that are modelled but get no betas, separated by commas.")
    test_rule: str = param(
        "auto",
        "Which stimuli are held out: those of the test column (column), those shown more often than the others "
        "(repeats), the first of both that says something (auto), or none.",
        choices=("auto", "column", "repeats", "none"),
    )
    test_column: str = param("test", "Column of the events with 1 for held-out stimuli and 0 for others.")
    tr: float = param(0.0, "Time between volumes; 0: as the files say.", unit="s", low=0.0, high=60.0)
    chunk_voxels: int = param(20000, "Voxels that are fitted at once.", unit="voxels", low=1)
    n_jobs: int = param(1, "Runs that are fitted at once, each with its volumes in memory.", unit="runs", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "none" in self.confounds and len(self.confounds) > 1:
            raise ParamError(f"confounds must be none or a list without it, got {self.confounds}.")
        if {"motion", "motion24"} <= set(self.confounds):
            raise ParamError("confounds must have motion or motion24, got both. motion24 has all of motion.")


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
        tuple(10.0**k for k in range(0, 8)),
        "Ridge penalties tried, for voxels of unit variance; the one that predicts left-out images best is taken. A "
        "small one follows the noise, a large one decodes the average picture. Take more where the best is the first "
        "or last.",
        low=1e-12,
    )
    cv_targets: int = param(1024, "Target columns per group that the cross-validation scores.", low=1)
    align: str = param(
        "train",
        "Match mean and spread of the decoded z to the training targets (train), to the test set's own statistics as "
        "the published code does (test), or not at all (none). Without it the decoded z has little contrast and the "
        "picture comes out flat; train is right for new scans.",
        choices=("none", "train", "test"),
    )
    seed: int = param(0, "Seed of the choice of scored target columns.", low=0)


@dataclass(frozen=True)
class DiffusionParams(Params):
    """The image-to-image DDIM run (method.md eq. 14-21, 29)."""

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
    start_noise: str = param(
        "executed",
        "Noise level of the start: of the first executed timestep, or the published int(executed / n_steps * 1000), "
        "which is a little more noise than the first step takes away. Change it only to repeat published figures.",
        choices=("executed", "published"),
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
        "Most images denoised at once; whole stimuli are kept together. It changes memory and time, not the picture: "
        "lower it when memory does not suffice.",
        unit="images",
        low=1,
    )

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

    guidance_scale: float = param(
        300000.0,
        "Weight kappa of the feature gradient: how hard the picture is pulled toward the decoded edges, textures and "
        "parts g. 0 turns guidance off; too little changes nothing, too much burns the picture out. Sensible: about "
        "300000 with normalise none and Stable Diffusion 1.4, 1 to 15 with rms.",
        low=0.0,
    )
    guidance_strength: float = param(
        0.2,
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
    x0_blend: bool = param(True, "Decode a blend of the clean estimate and the noisy latent (published). Usually on.")
    normalise: str = param(
        "none",
        "none: the gradient is multiplied by guidance_scale; rms: scaled so that its rms is guidance_scale times that "
        "of the conditional minus unconditional noise prediction. rms is for any models, and kappa is then 1 to 15; "
        "none needs a kappa found for these models.",
        choices=("none", "rms"),
    )
    rule: str = param(
        "noise", "Where the gradient enters: noise adds it to the noise prediction.", choices=registry.GUIDANCE_RULES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layer_weights) != len(self.layers):
            raise ParamError(
                f"layer_weights must have one weight per layer ({len(self.layers)}), "
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
    bootstrap: int = param(
        200,
        "Bootstrap samples of stimuli for the standard error: 200 are enough to read it, 1000 for print.",
        unit="samples",
        low=2,
    )
    seed: int = param(0, "Seed of the bootstrap.", low=0)


@dataclass(frozen=True)
class EvaluationParams(Params):
    """Scores of reconstructions against seen images."""

    metrics: tuple[str, ...] = param(
        tuple(registry.METRICS),
        "Scores that are computed; those of features where there is an image encoder.",
        choices=registry.METRICS,
    )
    size: int = param(425, "Side at which PixCorr and SSIM compare images; papers have 425.", unit="px", low=16)
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
