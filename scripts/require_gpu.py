"""Exit with a sentence when torch sees no CUDA device."""

import sys

import torch

if not torch.cuda.is_available():
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
    sys.exit(
        f"A CUDA device must be usable, got none: torch {torch.__version__} is {built}. "
        "Run this on a machine with an NVIDIA GPU, with a CUDA build of torch in .venv (docs/gpu.md)."
    )
