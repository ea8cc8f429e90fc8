"""Whether guidance ruins images rather than helping: one rule for an image and one for a run, for every front end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.evaluation.differences import ERRORS, LEAST, Difference
from napari_neuraldiffuser.core.evaluation.metric import label, main_figures

SCORE, WORSE = "pixcorr", 0.1
"""A guided score that is lower than the unguided one by more than this: guidance leads away from what was seen."""
CLIPPED = 0.1
"""So much more of the picture at the end of the brightness scale: the guided latents have left the range of the
unguided ones, which the decoder of the latents then answers with black, white and glaring colours."""
FIGURES = ("mean", "standard deviation", "largest absolute value")
"""What is kept of an image's final latents, `latent_figures` in this order."""
SPREAD, WIDER, OUTSIDE = FIGURES.index("standard deviation"), 1.5, 0.1
"""Latents whose standard deviation is above the largest unguided one times `WIDER`, or below the smallest over it, have
left the range; so much of a run's images may.  With the demo models the largest one of eight images grows by at most a
tenth up to three times the chosen strength, by half at eight times, and 25-fold at the paper's strength over ten."""
RULE = (
    f"Guidance ruins an image where its {SCORE} is lower than without guidance by more than {WORSE}, where more than "
    f"{CLIPPED:.0%} more of its pixels are at the end of the brightness scale, or where its final latents overflow or "
    f"have a standard deviation outside the range of the unguided ones, widened by {WIDER - 1:.0%}."
)

RUN_RULE = (
    f"Guidance harms a run where a main score is lower than without guidance by more than {ERRORS} standard errors, of "
    f"at least {LEAST} stimuli (over fewer, where {SCORE} is lower by more than {WORSE}), or where its pictures have "
    f"{CLIPPED:.0%} more pixels at the end of the brightness scale, or where the final latents of more than "
    f"{OUTSIDE:.0%} of its images have a standard deviation outside the range of the unguided ones, widened by "
    f"{WIDER - 1:.0%}."
)
REMEDY = (
    "Choose a strength for these models (neuraldiffuser tune, or Tune on the Reconstruct page), lower guidance_scale, "
    "or leave guidance out (--guidance none)."
)


def harm(
    paired: Mapping[str, Difference],
    shares: tuple[float, float] | None = None,
    latents: tuple[np.ndarray, np.ndarray] | None = None,
) -> str:
    """A sentence where a run's guided images are worse than its unguided ones, or nothing (`RUN_RULE`).

    Parameters
    ----------
    paired : mapping of column to Difference
        Guided minus unguided, paired by stimulus.
    shares : (float, float), optional
        Mean share of pixels at the end of the brightness scale, guided and unguided.
    latents : (ndarray, ndarray), optional
        `FIGURES` of each image's final latents (n_images, 3), guided and unguided.
    """
    # repeats that agree less with each other may each be nearer to what was seen
    scores = [name for name in main_figures(list(paired)) if not name.startswith("repeat_")]
    worse = [f"{label(name)} {d}" for name in scores if _is_worse(name, d := paired[name])]
    found = [f"guided minus unguided, {', '.join(worse)}"] if worse else []
    if shares is not None and shares[0] > shares[1] + CLIPPED:
        found.append(
            f"{shares[0]:.0%} of the pixels are at the end of the brightness scale, without guidance {shares[1]:.0%}"
        )
    does = "makes these images worse" if found else "may harm these images"
    if latents is not None:
        found += filter(None, [out_of_range(*latents)])
    return f"Guidance {does}: {'; '.join(found)}. {REMEDY}" if found else ""


def out_of_range(guided: np.ndarray, unguided: np.ndarray) -> str:
    """That guided latents have left the range of the unguided ones, or nothing; figures (..., 3), NaN where unknown."""
    ours, theirs = (known[np.isfinite(known)] for known in (guided[..., SPREAD], unguided[..., SPREAD]))
    if not ours.size or not theirs.size:
        return ""
    outside = (ours > theirs.max() * WIDER) | (ours < theirs.min() / WIDER)
    if outside.mean() <= OUTSIDE:
        return ""
    return (
        f"the final latents have standard deviations of {_between(ours)}, outside the range without guidance, "
        f"{_between(theirs)}"
    )


def _between(values: np.ndarray) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _is_worse(name: str, d: Difference) -> bool:
    if d.mean is None or d.mean >= 0:
        return False
    return d.clear or (name == SCORE and not (d.n or 0) >= LEAST and d.mean < -WORSE)


@dataclass(frozen=True)
class Watched:
    """Pictures that remember, as they are read, how much of each stimulus is at the end of the brightness scale."""

    pictures: Pictures
    shares: dict[int, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Any) -> np.ndarray:
        found = np.asarray(self.pictures[key])
        if not isinstance(key, tuple) and key not in self.shares:
            self.shares[key] = clipped(found)
        return found

    @property
    def share(self) -> float:
        """Mean over the stimuli that were read."""
        return float(np.mean(list(self.shares.values()))) if self.shares else 0.0


def ruined(
    guided: np.ndarray,
    unguided: np.ndarray,
    guided_scores: Sequence[dict[str, Any]],
    unguided_scores: Sequence[dict[str, Any]],
    finite: bool = True,
    latents: tuple[np.ndarray, np.ndarray] | None = None,
) -> str:
    """Why the guided images of one stimulus are worse than none, or nothing (`RULE`).

    Parameters
    ----------
    guided, unguided : uint8 array (repeats, H, W, 3)
        From the same start and noise.
    guided_scores, unguided_scores : rows of `scores_table` of that stimulus and arm
    finite : bool
        False where a guided latent overflowed.
    latents : (ndarray, ndarray), optional
        `FIGURES` of the final latents of its images (repeats, 3), guided and unguided.
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
    return out_of_range(*latents) if latents is not None else ""


def clipped(images: np.ndarray) -> float:
    """Share of pixels (..., 3) uint8 of which a channel is 0 or 255."""
    return float(((images == 0) | (images == 255)).any(axis=-1).mean())
