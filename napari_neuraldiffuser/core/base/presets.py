"""Named settings, as changes of the defaults of `core/params/`.  Standard library only."""

from typing import Any

PAPER: dict[str, Any] = {"guidance_scale": 300000.0, "guidance_strength": 0.2, "normalise": "none"}
"""The paper's strength; found for Stable Diffusion 1.4 with CLIP ViT-B/32, and for no other models."""

RULES: dict[str, dict[str, Any]] = {
    "dps": {},
    "lgd": {"guidance_copies": 4},
    "freedom": {"recurrence": 2},
    "mpgd": {},
    "ugd": {"leaf_scale": 5.0, "leaf_steps": 2, "recurrence": 2},
    "tfg": {"leaf_scale": 5.0, "leaf_steps": 2, "recurrence": 1, "guidance_copies": 1},
}
"""Presets of the guidance rules, which have their names: what each says beside the rule."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # a strength that is relative to the models' own predictions, and so carries over to any models
    "scale-free": {"diffusion": {}, "guidance": {}},
    # the equations of the paper, with the exact clean estimate and the paper's strength
    "neuraldiffuser": {"diffusion": {}, "guidance": PAPER},
    # the loop of the public code, its noise and its rounding; not its decoder, its alignment or its half precision.
    # What it does to targets (FeatureParams: antialias, z_resize, z_target; align="test") is chosen by itself
    "published": {
        "diffusion": {
            "sag_scale": 0.75,
            "start_noise": "published",
            "noise": "shared",
            "seed": 42,
            "rounding": "truncate",
        },
        "guidance": {**PAPER, "x0_estimate": "published"},
    },
    # for the bundled models, chosen on training stimuli of three subjects (docs/guidance.md)
    "demo": {
        "diffusion": {"repeats": 3, "batch_size": 12, "n_steps": 12, "strength": 0.5, "cfg_scale": 2.0},
        "guidance": {"normalise": "rms", "guidance_scale": 2.5, "guidance_strength": 0.67},
    },
    # what saves most, together; scores in docs/performance.md.  Takes models with a vae_tiny
    "fast": {
        "diffusion": {"n_steps": 25, "cache_every": 3, "cfg_until": 0.2},
        "guidance": {"guidance_strength": 0.2, "gradient": "leaf", "guide_decoder": "tiny"},
    },
    # the other rules of the family, at strengths that carry over from one to another
    **{rule: {"diffusion": {}, "guidance": {"rule": rule, "x0_blend": False} | own} for rule, own in RULES.items()},
    # no pull: the baseline arm
    "none": {"diffusion": {}, "guidance": {"guidance_scale": 0.0}},
}
"""Named settings: what each changes of the defaults above."""
