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
PLAIN = {"x0_blend": False}
VALIDATION: dict[str, dict[str, Any]] = {
    # name -> changes of the base; what the start, the noise it gets and the steps do
    "base": {},
    "strength .34": {"strength": 0.34},
    "strength .75": {"strength": 0.75},
    "8 steps": {"n_steps": 8},
    "24 steps": {"n_steps": 24},
    "inverted start": {"start": "inverted"},
    "dpm++": {"solver": "dpm++"},
    # strength of the text and of guidance
    "cfg 2": {"cfg_scale": 2.0},
    "cfg 5": {"cfg_scale": 5.0},
    "cfg in guided steps": {"cfg_until": 0.67},
    "κ 2.5": {"guidance_scale": 2.5},
    "κ 10": {"guidance_scale": 10.0},
    "every step guided": {"guidance_strength": 1.0},
    "fading": {"phase": "fading"},
    "growing": {"phase": "growing"},
    # what was found, together
    "κ 2.5, cfg 2": {"guidance_scale": 2.5, "cfg_scale": 2.0},
    "κ 2.5, 24 steps": {"guidance_scale": 2.5, "n_steps": 24},
    "κ 2.5, cfg 2, 24 steps": {"guidance_scale": 2.5, "cfg_scale": 2.0, "n_steps": 24},
    # rules
    "dps": {"rule": "dps", **PLAIN},
    "lgd": {"rule": "lgd", "guidance_copies": 2, **PLAIN},
    "freedom": {"rule": "freedom", "recurrence": 2, **PLAIN},
    "mpgd": {"rule": "mpgd", **PLAIN},
    "ugd": {"rule": "ugd", "guidance_scale": 2.5, "leaf_scale": 2.5, "recurrence": 1, **PLAIN},
    "tfg": {"rule": "tfg", "guidance_scale": 2.5, "leaf_scale": 2.5, "recurrence": 1, "guidance_copies": 1, **PLAIN},
    # what costs less
    "gradient to the estimate alone": {"gradient": "leaf"},
    "a gradient for two steps": {"guide_every": 2},
    "tiny decoder": {"guide_decoder": "tiny"},
    "mpgd, tiny decoder": {"rule": "mpgd", "guide_decoder": "tiny", **PLAIN},
    # how z, c and g are decoded
    "spread of z alone": {DECODED: "ridge, spread of z alone"},
    "spread as decoded": {DECODED: "ridge, spread as decoded"},
}
FOUND = {"guidance_scale": 2.5, "cfg_scale": 2.0}
CONFIRMATION: dict[str, dict[str, Any]] = {"chosen": FOUND, "chosen, 8 steps": {**FOUND, "n_steps": 8}}
"""Arms on test stimuli of fresh seeds; the first is the one that was chosen, and has all the controls."""
REFERENCE = "chosen"
"""The arm of the confirmation that others are compared with."""


def cell(changes: dict[str, Any]) -> Cell:
    """A cell of the base with `changes`; "decoded by" is one of `DECODERS`."""
    known = {name: value for name, value in changes.items() if name != DECODED}
    if unknown := sorted(set(known) - set(OF)):
        raise ValueError(f"changes must be of the parameters {sorted(OF)}, got {unknown}.")
    return Cell({**BASE, **known}, changes.get(DECODED, "ridge"))
