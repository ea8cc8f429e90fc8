"""The error that decoding raises for bad input."""


class DecodingError(ValueError):
    """Betas, targets or a decoder file do not fit; the message names what, the rule and the remedy."""
