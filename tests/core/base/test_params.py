"""Every parameter has a help text and a default inside its limits; values outside are refused by name."""

import dataclasses
import math
import subprocess
import sys

import pytest

from napari_neuraldiffuser.core import params
from napari_neuraldiffuser.core.params import (
    BetasParams,
    DecodingParams,
    DiffusionParams,
    GuidanceParams,
    ParamError,
    Params,
    default_of,
)

CLASSES = [*Params.__subclasses__(), DecodingParams]
FIELDS = [(cls, field) for cls in CLASSES for field in dataclasses.fields(cls)]
IDS = [f"{cls.__name__}.{field.name}" for cls, field in FIELDS]


def single(value):
    return value[0] if isinstance(value, tuple) else value


def like_default(field, value):
    """`value` as a scalar, or in a tuple as long as the default."""
    return (value,) * len(field.default) if isinstance(field.default, tuple) else value


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=IDS)
def test_every_field_is_described(cls, field):
    assert field.metadata["help"].endswith(".")
    assert field.default is not dataclasses.MISSING
    assert default_of(cls, field.name) == field.default


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=IDS)
def test_limits_are_inclusive_and_held(cls, field):
    for side, outwards in (("low", -math.inf), ("high", math.inf)):
        limit = field.metadata[side]
        if limit is None:
            continue
        beyond = type(single(field.default) or 0)(limit + math.copysign(1, outwards))
        with pytest.raises(ParamError, match=rf"^{field.name} must be at"):
            cls(**{field.name: like_default(field, beyond)})
        at_limit = like_default(field, type(single(field.default) or 0)(limit))
        assert getattr(cls(**{field.name: at_limit}), field.name) == at_limit


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=IDS)
def test_nan_text_and_unknown_choices_are_refused(cls, field):
    if field.metadata["choices"] is not None:
        with pytest.raises(ParamError, match="must be one of"):
            cls(**{field.name: like_default(field, "no such choice")})
    elif isinstance(single(field.default), float):
        for bad in (math.nan, math.inf, "1.0", True):
            with pytest.raises(ParamError, match=rf"{field.name} must be a"):
                cls(**{field.name: like_default(field, bad)})


@pytest.mark.parametrize(("name", "bad"), [("zscore", "no"), ("roi", 3), ("zscore", 1)])
def test_values_of_another_kind_are_refused(name, bad):
    with pytest.raises(ParamError, match=f"{name} must be"):
        BetasParams(**{name: bad})
    with pytest.raises(ParamError, match="seed must be a whole number"):
        DiffusionParams(seed=1.5)


@pytest.mark.parametrize("cls", CLASSES)
def test_dict_round_trip_and_unknown_names(cls):
    values = cls().to_dict()
    assert cls.from_dict(values) == cls()
    with pytest.raises(ParamError, match="got \\['colour'\\]"):
        cls.from_dict({**values, "colour": 1})


def test_params_are_frozen_and_but_checks():
    guidance = GuidanceParams()
    with pytest.raises(dataclasses.FrozenInstanceError):
        guidance.guidance_scale = 1.0
    assert guidance.but(guidance_scale=1.0).guidance_scale == 1.0
    with pytest.raises(ParamError, match="guidance_scale must be at least 0"):
        guidance.but(guidance_scale=-1.0)


@pytest.mark.parametrize(
    "changes", [{"layers": ("g02", "g02")}, {"layers": ()}, {"layers": ("g02",)}, {"layer_weights": (1.0,)}]
)
def test_layers_and_weights_belong_together(changes):
    with pytest.raises(ParamError, match="^layer"):
        GuidanceParams(**changes)


def test_published_defaults():
    """The values that the paper states (Li, Wu and Chen 2025)."""
    assert (DiffusionParams().n_steps, DiffusionParams().strength, DiffusionParams().cfg_scale) == (
        50,
        0.75,
        7.5,
    )
    assert GuidanceParams().layer_weights == (1.5, 1.2, 1, 1, 1, 1)
    for name in ("neuraldiffuser", "published"):
        guidance = params.preset(name)[1]
        strength = (guidance.guidance_scale, guidance.guidance_strength, guidance.normalise)
        assert strength == (300_000, 0.2, "none"), name


def test_without_a_preset_the_strength_is_one_for_any_models():
    assert params.preset("scale-free") == (DiffusionParams(), GuidanceParams())
    assert GuidanceParams().normalise == "rms"
    assert len(params.TARGETS) == 8


def test_params_need_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import napari_neuraldiffuser.core.params; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) - {"napari_neuraldiffuser"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("batch_size", "repeats", "stimuli", "batches"),
    [(10, 5, 2, 4), (12, 5, 2, 4), (3, 5, 1, 7), (70, 5, 14, 1), (0, 5, 9, 1)],
)
def test_a_batch_has_whole_stimuli(batch_size, repeats, stimuli, batches):
    params = DiffusionParams(batch_size=batch_size, repeats=repeats)
    assert params.stimuli_per_batch == stimuli
    assert params.n_batches(7) == batches and params.n_batches(0) == 0


@pytest.mark.parametrize(("n_steps", "strength", "n_run"), [(50, 0.75, 37), (50, 0.0, 0), (50, 1.0, 50), (1, 0.99, 0)])
def test_the_share_of_the_schedule_is_rounded_down(n_steps, strength, n_run):
    assert DiffusionParams(n_steps=n_steps, strength=strength).executed_steps == n_run
