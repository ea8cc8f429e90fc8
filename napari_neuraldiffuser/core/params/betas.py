"""Parameters of betas: which are read, and how they are estimated from BOLD.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.fields import ParamError, Params, param
from napari_neuraldiffuser.core.base.registry import SPACES


@dataclass(frozen=True)
class BetasParams(Params):
    """Which betas are read and how they are prepared."""

    roi: str = param(
        "nsdgeneral",
        "Voxels that are used: a family, a region or a mask file, joined by ' + ', ' & ' and ' - ' (without). Early "
        "areas alone give layout and colour, higher ones alone what the scene is about; nsdgeneral has both.",
    )
    space: str = param(SPACES[0], "Space of the betas: NSD's volumes, or the surface fsaverage.", choices=SPACES)
    sessions: str = param("all", "Sessions that are read: all, or ranges such as 1-4,7. Fewer decode worse.")
    version: str = param(
        "betas_fithrf_GLMdenoise_RR",
        "NSD beta version.",
        choices=("betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR"),
    )
    zscore: bool = param(True, "Z-score every voxel within each session; off only for betas that are z-scored already.")
    average_repeats: bool = param(True, "Average the repeats of an image: less noise; off decodes single trials.")
    min_noise_ceiling: float = param(
        0.0,
        "Only voxels whose noise ceiling, for the trials of a test image, is at least this are used; 0 takes all.",
        unit="%",
        low=0.0,
        high=100.0,
    )
    max_voxels: int = param(
        0, "Only so many voxels are used, those of the highest noise ceiling; 0 takes all.", unit="voxels", low=0
    )
    ceiling_from: str = param(
        "auto",
        "Where the noise ceilings that choose voxels come from. ncsnr: NSD's file, computed with the test images too, "
        "so that choosing by it is mildly circular; training: repeats of the training images alone; auto: ncsnr for "
        "NSD, training for own scans.",
        choices=("auto", "ncsnr", "training"),
    )

    held_out: float = param(
        0.1,
        "Share of the images that is held out for testing where the data have no responses to test images, as folders "
        "of the Algonauts challenge; which ones is decided by NSD's id, alike for all subjects.",
        low=0.001,
        high=0.9,
    )
    held_out_seed: int = param(0, "Seed of which images are held out.", low=0)

    @property
    def chooses_voxels(self) -> bool:
        """Whether voxels are chosen by their noise ceiling."""
        return self.min_noise_ceiling > 0 or self.max_voxels > 0


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
