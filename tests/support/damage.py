"""Files damaged at random, for readers that must name them."""

import numpy as np


def damaged(whole: bytes, rng: np.random.Generator, header: int) -> bytes:
    """`whole` cut short, or with some bytes changed, mostly in its first `header` bytes."""
    if rng.random() < 0.2:
        return whole[: rng.integers(0, len(whole))]
    changed = np.frombuffer(whole, np.uint8).copy()
    end = header if rng.random() < 0.8 else len(changed)
    places = rng.integers(0, end, rng.integers(1, 8))
    changed[places] = rng.integers(0, 256, len(places))
    return changed.tobytes()
