"""Start from an exported model folder: its weights become checkpoints at step 0 that the stages go on from."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file

from demo_training import decoders, encoders, unet, vae
from demo_training.trainer import save_atomically


def read(folder, part):
    """Weights of one exported part, float32."""
    path = next((Path(folder) / part).glob("*model.safetensors"))
    return {name: value.float() for name, value in load_file(path).items()}


def read_encoders(folder):
    """Weights of both encoders under the names of `encoders.Pair`; its slot head and temperature are not stored."""
    projection = load_file(Path(folder) / "text_encoder" / "text_projection.safetensors")["weight"].float()
    found = {
        f"text.text_model.{name.removeprefix('text_model.')}": v for name, v in read(folder, "text_encoder").items()
    }
    seen = {f"image.{name}": value for name, value in read(folder, "image_encoder").items()}
    return {**found, **seen, "text.text_projection.weight": projection}


def start_from(folder, work):
    """Write ``<stage>.pt`` from the folder for every stage without a checkpoint whose recipe has the same layers."""
    parts = {
        "encoders": (encoders.Pair, lambda: read_encoders(folder)),
        "vae": (vae.build, lambda: read(folder, "vae")),
        "unet": (unet.build, lambda: read(folder, "unet")),
    }
    if (Path(folder) / "vae_tiny").is_dir():
        parts["tiny"] = decoders.build_tiny, lambda: read(folder, "vae_tiny")
    for stage, (build, weights) in parts.items():
        path = Path(work) / f"{stage}.pt"
        if path.exists():
            continue
        state, given = build().state_dict(), weights()
        if any(name not in state or state[name].shape != value.shape for name, value in given.items()):
            print(f"{stage}: {folder} has other layers than this recipe, which starts anew", file=sys.stderr)
        else:
            save_atomically({"average": {**state, **given}}, path)
