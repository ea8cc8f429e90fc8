"""Everything that computes; importable without napari, Qt and nipype."""

from typing import Any

__all__ = ["contribution", "decoding", "embeddings", "evaluation", "models", "nsd", "reconstruct"]


def __getattr__(name: str) -> Any:
    # lazy, so that `import napari_neuraldiffuser.core.params` does not pull torch in
    import importlib

    if name == "reconstruct":
        return importlib.import_module(f"{__name__}.pipeline").reconstruct
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
