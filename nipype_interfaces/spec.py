"""Nipype input specs generated from the params dataclasses, so that a default stands in one place only."""

from collections.abc import Collection
from dataclasses import Field, fields
from typing import Any, TypeVar

from napari_neuraldiffuser.core.base.fields import help_of
from napari_neuraldiffuser.core.params import ParamError, Params
from nipype.interfaces.base import BaseInterfaceInputSpec, traits

AnyParams = TypeVar("AnyParams", bound=Params)


class Choice(traits.TraitType):
    """One of the names in a collection; a registry is asked whenever a value is set, so that later entries count.

    Parameters
    ----------
    default : str
    choices : collection of str
    """

    def __init__(self, default: str, choices: Collection[str], **options: Any) -> None:
        super().__init__(default, **options)
        self.choices = choices

    def validate(self, owner: Any, name: str, value: Any) -> Any:
        """`value`, or a TraitError that says what it may be."""
        if isinstance(value, str) and value in self.choices:
            return value
        return self.error(owner, name, value)

    def info(self) -> str:
        """What a value may be, as messages and help say it."""
        return f"one of {', '.join(self.choices)}"


def spec_fields(*classes: type[Params]) -> dict[str, Any]:
    """Traits of every field of `classes`, with default, limits, choices, unit and help text.

    Returns
    -------
    dict
        Field name to trait.

    Raises
    ------
    ParamError
        If two classes have a field of the same name, because one value cannot go to both.
    """
    specs: dict[str, Any] = {}
    for cls in classes:
        for f in fields(cls):
            if f.name in specs:
                raise ParamError(f"params of one spec must have distinct fields, got {f.name!r} twice.")
            specs[f.name] = _trait(f)
    return specs


def params_spec(*classes: type[Params]) -> type[BaseInterfaceInputSpec]:
    """A base class for input specs with every field of the params `classes`.

    A spec that travels to a worker process is pickled by name, so subclass it with a class statement.
    """
    doc = "Inputs generated from " + ", ".join(cls.__name__ for cls in classes)
    return type("ParamsSpec", (BaseInterfaceInputSpec,), {"__doc__": doc, **spec_fields(*classes)})


def params_of(inputs: BaseInterfaceInputSpec, cls: type[AnyParams]) -> AnyParams:
    """The params object that the inputs of a spec describe, checked by its class."""
    values = {f.name: getattr(inputs, f.name) for f in fields(cls)}
    return cls.from_dict({name: list(v) if isinstance(v, (list, tuple)) else v for name, v in values.items()})


def _trait(f: Field[Any]) -> Any:
    options = {"usedefault": True, "desc": help_of(f)}
    if isinstance(f.default, tuple):
        return traits.List(_scalar(f.default[0], f.metadata), value=list(f.default), **options)
    return _scalar(f.default, f.metadata, **options)


def _scalar(default: Any, meta: Any, **options: Any) -> Any:
    if meta["choices"] is not None:
        return Choice(default, meta["choices"], **options)
    kind, limits = type(default), {name: meta[name] for name in ("low", "high") if meta[name] is not None}
    if limits and kind in (int, float):
        return traits.Range(value=default, **{name: kind(limit) for name, limit in limits.items()}, **options)
    return {bool: traits.Bool, int: traits.Int, float: traits.Float, str: traits.Str}[kind](default, **options)
