"""How well one colour is read on another."""

Rgb = tuple[float, float, float]
"""Red, green and blue, 0 ... 1."""


def luminance(colour: Rgb) -> float:
    """Relative luminance of an sRGB colour."""
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: Rgb, other: Rgb) -> float:
    """Contrast ratio of two colours, 1 ... 21 (Web Content Accessibility Guidelines 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
