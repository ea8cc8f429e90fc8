"""Successive narrowing: which settings are tried, in which order, and how the search comes to one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from napari_neuraldiffuser.core.job.tune_choice import Choice, Setting, Tried, choose, least_harmful
from napari_neuraldiffuser.core.params import TuneParams

Measure = Callable[[Setting, bool], Tried]
"""Scores of a setting on half of the stimuli, or on all of them where the flag is set."""
AXES = {
    # parameter that is narrowed down, in this order -> field of TuneParams with its values
    "guidance_scale": "factors",
    "guidance_strength": "shares",
    "cfg_scale": "cfg_scales",
    "n_steps": "steps",
}


@dataclass
class Found:
    """What a search came to.

    Attributes
    ----------
    chosen : Tried or None
        On all stimuli; None where no setting helps.
    unguided : Tried
        Its own schedule without guidance, on all stimuli; that of the start where there is none.
    baseline : Tried
        The start's schedule without guidance, on all stimuli.
    screened, finals : list of Tried
        On half of the stimuli and on all.
    half : Tried
        `baseline` on half of the stimuli.
    """

    chosen: Tried | None
    unguided: Tried
    baseline: Tried
    screened: list[Tried]
    finals: list[Tried]
    half: Tried


@dataclass
class Search:
    """Tries every setting once and remembers it."""

    measure: Measure
    params: TuneParams
    screened: dict[Setting, Tried] = field(default_factory=dict)

    def run(self, starts: Sequence[Setting]) -> Found:
        """Narrow down from the best of some starting settings."""
        half = self.measure(starts[0].unguided, False)
        present = self._best(starts, half)
        for axis in AXES:
            present = self._best(self.around(present, axis, starts), half)
        present = self._best([present, *(scaled(present, factor) for factor in self.params.finer)], half)
        ranked = choose(self.screened.values(), half).eligible
        finalists = list(dict.fromkeys([present, *(one.setting for one in ranked)]))[: self.params.finalists]
        finals = [self.measure(setting, True) for setting in finalists]
        baseline = self.measure(starts[0].unguided, True)
        chosen = choose(finals, baseline).best
        unguided = baseline if chosen is None else self.measure(chosen.setting.unguided, True)
        return Found(chosen, unguided, baseline, list(self.screened.values()), finals, half)

    def around(self, present: Setting, axis: str, starts: Sequence[Setting]) -> list[Setting]:
        """The present setting, and it with the other values of one axis."""
        values = getattr(self.params, AXES[axis])
        others = [scaled(present, v) if axis == "guidance_scale" else present.but(axis, v) for v in values]
        return list(dict.fromkeys([present, *others]))

    def _best(self, settings: Sequence[Setting], half: Tried) -> Setting:
        tried = [self._screen(setting) for setting in settings]
        best: Choice = choose(tried, half)
        return (best.best or least_harmful(tried, half)).setting

    def _screen(self, setting: Setting) -> Tried:
        if setting not in self.screened:
            self.screened[setting] = self.measure(setting, False)
        return self.screened[setting]


def scaled(setting: Setting, factor: float) -> Setting:
    """The setting at another strength, rounded so that it can be read."""
    return setting.but("guidance_scale", float(f"{setting.guidance.guidance_scale * factor:.3g}"))
