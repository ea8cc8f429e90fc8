"""Traits carry the params' defaults, limits, choices and help, and refuse what the params refuse."""

import os
import pickle
from copy import deepcopy
from dataclasses import fields

import pytest
from nipype.interfaces.base import traits

from napari_neuraldiffuser.core.base.fields import help_of
from napari_neuraldiffuser.core.params import (
    ContributionParams,
    DecodingParams,
    DiffusionParams,
    EvaluationParams,
    FeatureParams,
    GuidanceParams,
    ParamError,
    Params,
)
from nipype_interfaces.interfaces import ContributionMap, EvaluateReconstruction, FitDecoder, GuidedReconstruct
from nipype_interfaces.spec import params_of, params_spec, spec_fields
from tests.support.toys import TOYS, registered

CLASSES = [*Params.__subclasses__(), DecodingParams]


def listed(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_spec_has_every_field_with_its_default_and_help(cls):
    inputs = params_spec(cls)()
    for f in fields(cls):
        assert getattr(inputs, f.name) == listed(f.default), f.name
        desc = inputs.trait(f.name).desc
        assert desc == help_of(f)
        assert inputs.trait(f.name).usedefault
    assert params_of(inputs, cls) == cls()


@pytest.mark.parametrize(
    ("cls", "name", "bad"),
    [
        (GuidanceParams, "guidance_scale", -1.0),
        (GuidanceParams, "guidance_strength", 1.5),
        (GuidanceParams, "normalise", "l2"),
        (GuidanceParams, "layers", ["g02", "g03"]),
        (DiffusionParams, "n_steps", 0),
        (DiffusionParams, "n_steps", 2.5),
        (FeatureParams, "batch_size", "many"),
    ],
)
def test_traits_refuse_what_the_params_refuse(cls, name, bad):
    inputs = params_spec(cls)()
    with pytest.raises(traits.TraitError, match=name):
        setattr(inputs, name, bad)


def test_rules_between_fields_are_held_when_the_params_are_made():
    inputs = params_spec(GuidanceParams)()
    inputs.layers = ["g02"]
    with pytest.raises(ParamError, match="one weight per layer"):
        params_of(inputs, GuidanceParams)
    inputs.layer_weights = [2.0]
    assert params_of(inputs, GuidanceParams).layer_weights == (2.0,)


def test_the_same_name_twice_is_an_error():
    with pytest.raises(ParamError, match="'batch_size' twice"):
        spec_fields(DiffusionParams, FeatureParams)


@pytest.mark.parametrize(
    ("interface", "cls", "field", "taken"),
    [
        (FitDecoder, DecodingParams, "decoder", "mean"),
        (GuidedReconstruct, GuidanceParams, "rule", "no-pull"),
        (ContributionMap, ContributionParams, "method", "even"),
        (EvaluateReconstruction, EvaluationParams, "metrics", ["ssim", "brightness"]),
    ],
)
def test_nodes_take_what_is_registered(interface, cls, field, taken):
    made = interface()
    with pytest.raises(traits.TraitError, match="one of "):
        setattr(made.inputs, field, taken)
    with registered(*TOYS[field]):
        setattr(made.inputs, field, taken)
        for same in (made.inputs, deepcopy(made.inputs), pickle.loads(pickle.dumps(made)).inputs):
            assert listed(getattr(params_of(same, cls), field)) == taken


def test_telemetry_is_off():
    assert os.environ["NO_ET"] == os.environ["NIPYPE_NO_ET"] == "1"
