"""Everything that computes; importable without napari, Qt and nipype."""

import importlib
from typing import Any

PLACES = {
    # name -> where it is; opened when it is asked for, so that `core.params` does not pull torch in
    "contribution": "attribution",
    "decoding": "decoding",
    "embeddings": "networks.embeddings",
    "evaluation": "evaluation",
    "models": "networks.models",
    "nsd": "nsd",
}
__all__ = [*PLACES, "reconstruct"]


def __getattr__(name: str) -> Any:
    if name == "reconstruct":
        return importlib.import_module(f"{__name__}.diffusion.pipeline").reconstruct
    if name in PLACES:
        return importlib.import_module(f"{__name__}.{PLACES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
