"""Time and memory of the scores of many pictures, which are drawn when they are asked for.

python scripts/time_scores.py --stimuli 1000 --repeats 1 --metrics pixcorr ssim edges
"""

import argparse
import resource
import time

import numpy as np

from napari_neuraldiffuser.core.evaluation import evaluate
from napari_neuraldiffuser.core.params import EvaluationParams

SEEN, RECON, BLOCKS, NOISE = 425, 512, 9, 25
MIB = 1024


class Drawn:
    """Random blocks, with noise of its own for each repeat; an item as `contracts.Pictures` has it."""

    def __init__(self, n: int, repeats: int = 0) -> None:
        self.n, self.repeats = n, repeats

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: int | tuple[int, int]) -> np.ndarray:
        if isinstance(key, tuple):
            return self._one(key[0], key[1] + 1)
        if not self.repeats:
            return self._one(key, 0)
        return np.stack([self._one(key, k + 1) for k in range(self.repeats)])

    def _one(self, i: int, repeat: int) -> np.ndarray:
        side = RECON if repeat else SEEN
        blocks = np.random.default_rng(i).integers(0, 200, (BLOCKS, BLOCKS, 3)).astype(np.float32)
        wide = side // BLOCKS + 1
        picture = np.kron(blocks, np.ones((wide, wide, 1), np.float32))[:side, :side]
        if repeat:
            rng = np.random.default_rng([i, repeat])
            picture += NOISE * rng.standard_normal(picture.shape, dtype=np.float32)
        return np.clip(picture, 0, 255).astype(np.uint8)


def peak() -> float:
    """Largest memory of this process until now, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def main() -> None:
    """Score, and print processor seconds without those of drawing, and memory beyond the start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stimuli", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--metrics", nargs="+", default=["pixcorr", "ssim", "edges"])
    parser.add_argument("--chance", action="store_true", help="also chance levels, as a run has them")
    options = parser.parse_args()
    images, seen = Drawn(options.stimuli, options.repeats), Drawn(options.stimuli)
    params = EvaluationParams(metrics=tuple(options.metrics))
    evaluate(Drawn(2, options.repeats), Drawn(2), None, params)  # imports
    few, start, before = min(options.stimuli, 50), peak(), time.process_time()
    for i in range(few):
        images[i], seen[i]
    drawing = (time.process_time() - before) / few * options.stimuli
    before = time.process_time()
    evaluate(images, seen, None, params, with_chance=options.chance)
    spent = time.process_time() - before - drawing
    print(f"{options.stimuli} x {options.repeats}: {spent:.1f} CPU s, {peak() - start:.0f} MiB beyond {start:.0f}")


if __name__ == "__main__":
    main()
