"""What the guidance study compares: a base, changes of it for the validation, and the arms of the confirmation."""

from typing import Any

from common.guidance_cells import OF, Cell

DECODED = "decoded by"
BASE: dict[str, Any] = {
    "n_steps": 12,
    "cfg_scale": 3.0,
    "strength": 0.5,
    "repeats": 2,
    "normalise": "rms",
    "guidance_scale": 5.0,
    "guidance_strength": 0.67,
}
VALIDATION: dict[str, dict[str, Any]] = {
    # name -> changes of the base
    "base": {},
    "8 steps": {"n_steps": 8},
    "24 steps": {"n_steps": 24},
    "strength .5": {"strength": 0.5},
    "κ 10": {"guidance_scale": 10.0},
    "κ 10, every step": {"guidance_scale": 10.0, "guidance_strength": 1.0},
    "cfg 2": {"cfg_scale": 2.0},
    "spread of z alone": {DECODED: "ridge, spread of z alone"},
    "spread as decoded": {DECODED: "ridge, spread as decoded"},
}
CONFIRMATION: dict[str, dict[str, Any]] = {"base": {}}
"""Arms on test stimuli of fresh seeds; the first is the one that was chosen, and has all the controls."""
REFERENCE = "base"
"""The arm of the rule `neuraldiffuser` that others are compared with."""


def cell(changes: dict[str, Any]) -> Cell:
    """A cell of the base with `changes`; "decoded by" is one of `DECODERS`."""
    known = {name: value for name, value in changes.items() if name != DECODED}
    if unknown := sorted(set(known) - set(OF)):
        raise ValueError(f"changes must be of the parameters {sorted(OF)}, got {unknown}.")
    return Cell({**BASE, **known}, changes.get(DECODED, "ridge"))
