"""Everything that decides what a run computes.  Standard library only."""

from dataclasses import dataclass, fields
from typing import Any

from napari_neuraldiffuser.core.base.fields import ParamError
from napari_neuraldiffuser.core.params.betas import BetasParams
from napari_neuraldiffuser.core.params.decoding import DecodingParams, FeatureParams
from napari_neuraldiffuser.core.params.diffusion import DiffusionParams, GuidanceParams
from napari_neuraldiffuser.core.params.results import ContributionParams, EvaluationParams


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
