"""Decoding: betas to the embeddings z, c and g that the reconstruction starts from and is guided by."""

from napari_neuraldiffuser.core.decoding.decoder import Decoder, DecodingError, LinearDecoder, TargetFit
from napari_neuraldiffuser.core.decoding.ridge import RidgeDecoder
from napari_neuraldiffuser.core.decoding.store import join_decoders, load, new, read_accuracy, read_notes

__all__ = [
    "Decoder",
    "DecodingError",
    "LinearDecoder",
    "RidgeDecoder",
    "TargetFit",
    "join_decoders",
    "load",
    "new",
    "read_accuracy",
    "read_notes",
]
