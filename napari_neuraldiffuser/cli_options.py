"""Command-line options generated from the params dataclasses: name, type, limits, help and default stand there only."""

import argparse
from dataclasses import fields
from typing import Any

from napari_neuraldiffuser.core import params
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.fields import help_of, of_one_kind, stage_of
from napari_neuraldiffuser.core.params import Params, Settings

STAGES: dict[str, tuple[type[Params], tuple[str, ...]]] = {
    # stage of Settings -> its class and the fields that become options
    "betas": (
        params.BetasParams,
        (
            *("roi", "sessions", "space", "version", "zscore"),
            *("min_noise_ceiling", "max_voxels", "ceiling_from"),
            *("held_out", "held_out_seed"),
        ),
    ),
    "features": (params.FeatureParams, ("feature_normalisation", "antialias", "z_resize", "z_target", "z_seed")),
    "decoding": (
        params.DecodingParams,
        (
            "decoder",
            "decoder_device",
            "alphas",
            "align",
            "align_form",
            "align_targets",
            *of_one_kind(params.DecodingParams),
        ),
    ),
    "diffusion": (
        params.DiffusionParams,
        (
            *("repeats", "seed", "n_steps", "strength", "cfg_scale", "sag_scale", "cfg_until", "cache_every"),
            *("solver", "guided_ode", "start", "start_steps", "start_rate", "start_prior"),
            *("start_noise", "noise", "rounding", "batch_size", "precision"),
        ),
    ),
    "guidance": (
        params.GuidanceParams,
        (
            *("guidance_scale", "guidance_strength", "layers", "layer_weights"),
            *("x0_estimate", "x0_blend", "guide_decoder", "normalise", "rule", "guide_every", "phase"),
            *of_one_kind(params.GuidanceParams),
        ),
    ),
    "contribution": (
        params.ContributionParams,
        (
            *("method", "roi_permutations", "hemispheres", "random_sets"),
            *("projection", "save_projected", "trial_ceiling", "region_accuracy"),
        ),
    ),
    "evaluation": (params.EvaluationParams, ("metrics", "metric_weights", "trust", "trust_stimuli")),
}


def add_params(
    parser: argparse.ArgumentParser, cls: type[Params], names: tuple[str, ...], defaults: Params | None = None
) -> None:
    """One option per field, its help with its value in `defaults`; one that is not given stays absent."""
    values = defaults or cls()
    groups = {"": parser.add_argument_group(f"{stage_of(cls)} parameters", (cls.__doc__ or "").strip())}
    for f in fields(cls):
        if f.name in names:
            what, kinds = f.metadata["only"] or ("", ())
            kind = f"{' and '.join(kinds)} {what}".strip()
            if kind not in groups:
                told = f"for --{what} {' or '.join(kinds)}"
                groups[kind] = parser.add_argument_group(f"{kind} parameters", told)
            groups[kind].add_argument("--" + f.name.replace("_", "-"), **_options(f, getattr(values, f.name)))


def _options(f: Any, value: Any) -> dict[str, Any]:
    default = " ".join(map(str, value)) if isinstance(value, tuple) else value
    options: dict[str, Any] = {
        "help": f"{help_of(f)} (default: {default})".replace("%", "%%"),
        "default": argparse.SUPPRESS,
        "dest": f.name,
    }
    if isinstance(f.default, bool):
        return options | {"action": argparse.BooleanOptionalAction}
    sample = f.default[0] if isinstance(f.default, tuple) else f.default
    options |= {"type": type(sample), "metavar": type(sample).__name__.upper()}
    if f.metadata["choices"]:
        options |= {"choices": f.metadata["choices"], "metavar": None}
    if isinstance(f.default, tuple):
        options["nargs"] = "+"
    return options


def given(args: argparse.Namespace, cls: type[Params], names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of `cls` that the user gave."""
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def settings_from(args: argparse.Namespace, base: Settings) -> Settings:
    """`base` with every option that was given; layers without weights get weight 1 each."""
    changed = {}
    for stage, (cls, names) in STAGES.items():
        values = given(args, cls, names)
        if "layers" in values and "layer_weights" not in values:
            values["layer_weights"] = (1.0,) * len(values["layers"])
        changed[stage] = getattr(base, stage).but(**values)
        _check_that_they_matter(changed[stage], values)
    return Settings(**changed)


def _check_that_they_matter(params: Params, given: dict[str, Any]) -> None:
    """Raise UserError for an option that was given although another one makes it meaningless."""
    for f in fields(params):
        only = f.metadata["only"]
        if f.name in given and only and getattr(params, only[0]) not in only[1]:
            name, other = (one.replace("_", "-") for one in (f.name, only[0]))
            raise UserError(
                f"--{name} must stand beside --{other} {' or '.join(only[1])}, got {getattr(params, only[0])}. "
                f"Leave it out, or choose that {other}."
            )
