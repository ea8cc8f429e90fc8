"""The error of this room."""

from napari_neuraldiffuser.core.base.errors import UserError


class DecodingError(UserError):
    """Betas, targets or a decoder file do not fit; the message names what, the rule and the remedy."""
