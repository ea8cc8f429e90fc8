"""Parameters of the choice of guidance strength and schedule for a model folder.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params, param


@dataclass(frozen=True)
class TuneParams(Params):
    """What `neuraldiffuser tune` tries, on training stimuli that its decoder has not seen."""

    n_stimuli: int = param(
        24,
        "Training stimuli of each subject that settings are compared on; the decoder is fitted on others. Half of them "
        "screen all settings, all of them decide among the best. 12 to look around, 24 to 60 to rely on it.",
        unit="stimuli",
        low=4,
    )
    repeats: int = param(2, "Reconstructions of each: more make the comparison less noisy, as more stimuli do.", low=1)
    split_seed: int = param(0, "Which training stimuli are held out.", low=0)
    factors: tuple[float, ...] = param(
        (0.2, 0.4, 1.0, 2.0, 4.0),
        "Strengths that are tried, as multiples of the starting preset's guidance_scale.",
        low=0.0,
    )
    shares: tuple[float, ...] = param(
        (0.33, 0.67, 1.0), "Values of guidance_strength that are tried, the share of guided steps.", low=0.0, high=1.0
    )
    cfg_scales: tuple[float, ...] = param((1.5, 3.0, 7.5), "Values of cfg_scale that are tried.", low=0.0)
    steps: tuple[int, ...] = param((12, 24, 50), "Values of n_steps that are tried.", unit="steps", low=1)
    finer: tuple[float, ...] = param(
        (0.7, 1.4), "In the end: multiples of the guidance_scale that was found, a little weaker and stronger.", low=0.0
    )
    finalists: int = param(3, "Settings that are compared on all stimuli in the end.", low=1)

    def most_evaluations(self, n_starts: int = 1) -> tuple[int, int]:
        """How many settings are tried at most on half of the stimuli, and on all of them."""
        values = (self.factors, self.shares, self.cfg_scales, self.steps, self.finer)
        return 1 + n_starts + sum(map(len, values)), self.finalists + 2
