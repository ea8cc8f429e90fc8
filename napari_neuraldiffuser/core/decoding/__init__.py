"""Decoding: betas to the embeddings z, c and g that the reconstruction starts from and is guided by."""

from .errors import DecodingError
from .ridge import RidgeDecoder, TargetFit
from .store import join_decoders, read_accuracy

__all__ = ["DecodingError", "RidgeDecoder", "TargetFit", "join_decoders", "read_accuracy"]
