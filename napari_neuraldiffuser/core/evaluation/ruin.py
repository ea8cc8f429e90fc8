"""Whether a guidance strength ruins an image rather than helping it: one rule for every front end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.evaluation.metric import label

SCORE, WORSE = "pixcorr", 0.1
"""A guided score that is lower than the unguided one by more than this: guidance leads away from what was seen."""
CLIPPED = 0.1
"""So much more of the picture at the end of the brightness scale: the guided latents have left the range of the
unguided ones, which the decoder of the latents then answers with black, white and glaring colours."""
RULE = (
    f"Guidance ruins an image where its {SCORE} is lower than without guidance by more than {WORSE}, where more than "
    f"{CLIPPED:.0%} more of its pixels are at the end of the brightness scale, or where its latents overflow."
)


def ruined(
    guided: np.ndarray,
    unguided: np.ndarray,
    guided_scores: Sequence[dict[str, Any]],
    unguided_scores: Sequence[dict[str, Any]],
    finite: bool = True,
) -> str:
    """Why the guided images of one stimulus are worse than none, or nothing (`RULE`).

    Parameters
    ----------
    guided, unguided : uint8 array (repeats, H, W, 3)
        From the same start and noise.
    guided_scores, unguided_scores : rows of `scores_table` of that stimulus and arm
    finite : bool
        False where a guided latent overflowed.
    """
    if not finite:
        return "a latent overflowed"
    known = (
        [row[SCORE] for row in guided_scores if SCORE in row],
        [row[SCORE] for row in unguided_scores if SCORE in row],
    )
    if all(known):
        with_it, without = (float(np.mean(values)) for values in known)
        if with_it < without - WORSE:
            return f"{label(SCORE)} is {with_it:.2f} with guidance and {without:.2f} without"
    share, usual = clipped(guided), clipped(unguided)
    if share > usual + CLIPPED:
        return f"{share:.0%} of the pixels are at the end of the brightness scale, without guidance {usual:.0%}"
    return ""


def clipped(images: np.ndarray) -> float:
    """Share of pixels (..., 3) uint8 of which a channel is 0 or 255."""
    return float(((images == 0) | (images == 255)).any(axis=-1).mean())
