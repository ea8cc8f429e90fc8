"""Scores of more pictures than fit in memory."""

import tracemalloc

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation import MetricError, evaluate
from napari_neuraldiffuser.core.params import EvaluationParams

SMALL = EvaluationParams(size=32, batch_size=3, metrics=("pixcorr", "edges", "twoway_features", "repeat_pixcorr"))
SIDE, REPEATS = 160, 4


class Drawn:
    """Pictures that are made when they are asked for."""

    def __init__(self, n, repeats=0, noise=0, side=SIDE):
        self.n, self.repeats, self.noise, self.side = n, repeats, noise, side

    def __len__(self):
        return self.n

    def __getitem__(self, key):
        if isinstance(key, tuple):
            return self[key[0]][key[1]]
        scene = (
            np.random.default_rng(key).integers(0, 256, (8, 8, 3)).repeat(self.side // 8, 0).repeat(self.side // 8, 1)
        )
        if not self.repeats:
            return scene.astype(np.uint8)
        noise = np.random.default_rng([key, 1]).integers(-90, 90, (self.repeats, *scene.shape))
        return np.clip(scene + noise, 0, 255).astype(np.uint8)


def encoder(images):
    return images.reshape(len(images), -1)[:, ::97].astype(np.float32)


def test_pictures_that_are_read_in_their_turn_have_the_scores_of_an_array():
    images, seen = Drawn(4, REPEATS), Drawn(4)
    held = evaluate(np.stack([images[i] for i in range(4)]), np.stack([seen[i] for i in range(4)]), encoder, SMALL)
    read = evaluate(images, seen, encoder, SMALL)
    assert read.protocol == held.protocol and read.chance == held.chance
    assert read.values.keys() == held.values.keys()
    for name, values in read.values.items():
        np.testing.assert_array_equal(values, held.values[name])


def test_twice_as_many_stimuli_take_no_more_memory_than_their_features():
    def peak(n):
        tracemalloc.start()
        evaluate(Drawn(n, REPEATS), Drawn(n), encoder, SMALL)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    more = (peak(10) - peak(5)) / 5
    pictures = REPEATS * SIDE * SIDE * 3
    assert more < 0.5 * pictures


def test_a_picture_of_another_size_is_told():
    class Odd(Drawn):
        def __getitem__(self, key):
            return super().__getitem__(key)[..., : self.side - 8 * (key == 2), :]

    with pytest.raises(MetricError, match=r"images must have one shape for all stimuli, got uint8 \(4, 160, 152, 3\)"):
        evaluate(Odd(3, REPEATS), Drawn(3), None, SMALL)


def test_without_chance_every_picture_is_read_in_its_turn():
    asked = []

    class Told(Drawn):
        def __getitem__(self, key):
            asked.append(key)
            return super().__getitem__(key)

    scores = evaluate(Told(3, REPEATS), Drawn(3), None, SMALL, with_chance=False)
    assert asked == [0, 0, 1, 2] and scores.chance == {}
