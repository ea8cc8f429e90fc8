"""Decoding: betas to the embeddings z, c and g that the reconstruction starts from and is guided by."""

from .errors import DecodingError
from .ridge import RidgeDecoder, TargetFit

__all__ = ["DecodingError", "RidgeDecoder", "TargetFit"]
