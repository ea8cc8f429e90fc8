"""Named settings, as changes of the defaults of `core/params/`.  Standard library only."""

from typing import Any

PAPER: dict[str, Any] = {"guidance_scale": 300000.0, "guidance_strength": 0.2, "normalise": "none"}
"""The paper's strength; found for Stable Diffusion 1.4 with CLIP ViT-B/32, and for no other models."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # a strength that is relative to the models' own predictions, and so carries over to any models
    "scale-free": {"diffusion": {}, "guidance": {}},
    # the equations of the paper, with the exact clean estimate and the paper's strength
    "neuraldiffuser": {"diffusion": {}, "guidance": PAPER},
    # the loop of the public code
    "published": {
        "diffusion": {"sag_scale": 0.75, "start_noise": "published"},
        "guidance": {**PAPER, "x0_estimate": "published"},
    },
    # for the bundled models, chosen on training stimuli (docs/demo.md)
    "demo": {
        "diffusion": {"repeats": 3, "batch_size": 12, "n_steps": 24, "cfg_scale": 3.0},
        "guidance": {"normalise": "rms", "guidance_scale": 5.0, "guidance_strength": 0.67},
    },
    # no pull: the baseline arm
    "none": {"diffusion": {}, "guidance": {"guidance_scale": 0.0}},
}
"""Named settings: what each changes of the defaults above."""
