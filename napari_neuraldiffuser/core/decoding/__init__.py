"""Decoding: betas to the embeddings z, c and g that the reconstruction starts from and is guided by."""

from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.decoding.ridge import RidgeDecoder, TargetFit
from napari_neuraldiffuser.core.decoding.store import join_decoders, read_accuracy

__all__ = ["DecodingError", "RidgeDecoder", "TargetFit", "join_decoders", "read_accuracy"]
