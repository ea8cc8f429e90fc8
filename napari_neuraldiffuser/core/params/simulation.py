"""Parameters of simulated subjects and of their simulated BOLD.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params, param


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
    synthetic: bool = param(False, "Write the session of NSD-synthetic, too: 744 trials of 284 drawn patterns.")


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
