"""What parameter classes are made of: a field with its help text and limits, and a base that checks every value."""

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeVar

from napari_neuraldiffuser.core.base.errors import UserError

KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", tuple: "a list"}


class ParamError(UserError):
    """A parameter is outside what its field allows; the message names it, the rule and the value."""


Value = TypeVar("Value")


def param(
    default: Value,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] | None = None,
    only: tuple[str, tuple[str, ...]] | None = None,
) -> Value:
    """A dataclass field that carries its help text, unit, inclusive limits and choices as metadata.

    `only` names another field of the class and the values of it for which this one matters.
    """
    meta = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "only": only}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Params:
    """Base of the parameter classes: checks every field when an object is made."""

    def __post_init__(self) -> None:
        for f in fields(self):
            _check_type(f.name, getattr(self, f.name), f.default)
            _check(f.name, getattr(self, f.name), f.metadata)

    def but(self, **changes: Any) -> Self:
        """A copy with `changes`, checked again."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (tuples become lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The object that `to_dict` described; an unknown name is an error, not silently dropped."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ParamError(f"{stage_of(cls)} parameters must be among {sorted(known)}, got {unknown}.")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def stage_of(cls: type) -> str:
    """ "guidance" of `GuidanceParams`: what messages and help call a class of parameters."""
    return cls.__name__.removesuffix("Params").lower()


def _check_type(name: str, value: Any, default: Any) -> None:
    """A value must be of its default's kind; an int serves where a float is the default."""
    pairs = (
        [(v, default[0]) for v in value]
        if isinstance(default, tuple) and isinstance(value, tuple)
        else [(value, default)]
    )
    for item, sample in pairs:
        kinds = (int, float) if isinstance(sample, float) else type(sample)
        if not isinstance(item, kinds) or isinstance(item, bool) != isinstance(sample, bool):
            raise ParamError(f"{name} must be {KINDS[type(sample)]}, got {item!r}.")


def _check(name: str, value: Any, meta: Mapping[str, Any]) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if meta.get("choices") is not None and item not in meta["choices"]:
            raise ParamError(f"{name} must be one of {list(meta['choices'])}, got {item!r}.")
        if isinstance(item, float) and not math.isfinite(item):
            raise ParamError(f"{name} must be a finite number, got {item}.")
        _check_limits(name, item, meta)
    if isinstance(value, tuple) and meta.get("choices") is not None and (not value or len(set(value)) != len(value)):
        raise ParamError(f"{name} must be distinct and not empty, got {value}.")


def _check_limits(name: str, item: Any, meta: Mapping[str, Any]) -> None:
    low, high = meta.get("low"), meta.get("high")
    if low is not None and item < low:
        raise ParamError(f"{name} must be at least {low}, got {item}.")
    if high is not None and item > high:
        raise ParamError(f"{name} must be at most {high}, got {item}.")


def of_one_kind(cls: type) -> tuple[str, ...]:
    """Fields of a params class that matter for some values of another field only, see `param`."""
    return tuple(f.name for f in fields(cls) if f.metadata["only"])


def that_matter(params: Params) -> dict[str, Any]:
    """Plain values of the fields that no other field makes meaningless."""
    known = {f.name: f.metadata["only"] for f in fields(params)}
    return {n: v for n, v in params.to_dict().items() if not (o := known[n]) or getattr(params, o[0]) in o[1]}


def help_of(f: Field[Any]) -> str:
    """Help text of a field, with what it matters for and its unit."""
    only, unit = f.metadata["only"], f.metadata["unit"]
    where = f"For {only[0]} {' or '.join(only[1])}: " if only else ""
    return where + f.metadata["help"] + (f" [{unit}]" if unit else "")


def default_of(cls: type, name: str) -> Any:
    """Default of one field, for front ends that build their controls from the class."""
    for f in fields(cls):
        if f.name == name and f.default is not MISSING:
            return f.default
    raise ParamError(f"{stage_of(cls)} parameters must have one with a default, got {name!r}.")
