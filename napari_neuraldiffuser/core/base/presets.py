"""Named settings, as changes of the defaults of `core/params/`.  Standard library only."""

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # the equations of the paper, with the exact clean estimate
    "neuraldiffuser": {"diffusion": {}, "guidance": {}},
    # what the public code computes
    "published": {
        "diffusion": {"sag_scale": 0.75, "start_noise": "published"},
        "guidance": {"x0_estimate": "published"},
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
