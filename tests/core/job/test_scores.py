"""Scores of a job: the encoder in their names is the one that made the features."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_neuraldiffuser.core.job.scores import score
from napari_neuraldiffuser.core.params import EvaluationParams


def silent(*told):
    pass


@pytest.mark.parametrize(
    ("models", "guide", "column", "shown"),
    [
        ("demo", "", "twoway_demo", "image encoder demo:"),
        ("/data/models/sd14", "", "twoway_sd14", "image encoder sd14:"),
        ("/data/models/SD-1.4/", "/nets/CLIP_B32", "twoway_clip_b32", "image encoder CLIP_B32:"),
        ("CompVis/sd", "openai/clip", "twoway_openai_clip", "image encoder openai/clip:"),
        ("./demo2", "", "twoway_demo2", "image encoder demo2:"),
    ],
)
def test_the_encoder_has_the_name_of_the_guide_or_else_of_the_models(models, guide, column, shown):
    seen = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    opened = SimpleNamespace(
        name=models, guide=guide, image_features=lambda images: images.reshape(len(images), -1).astype(float)
    )
    params = EvaluationParams(size=32, metrics=("twoway_features", "repeat_features"))
    scores = score(seen[:, None], seen, opened, params, silent)
    assert set(scores.values) == {column, "repeat_features"}
    assert shown in scores.protocol["metrics"][column]
    assert shown[:-1] in scores.protocol["metrics"]["repeat_features"]
