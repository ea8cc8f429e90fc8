"""A small simulated subject, small random models, decoded embeddings, and a job that takes seconds."""

import multiprocessing.forkserver
from pathlib import Path

import numpy as np
import pytest

from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks import models as core_models
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import LAYERS
from tests.support.workflows.small import IDS


@pytest.fixture(autouse=True)
def quiet(caplog):
    # nipype gives a job's number as text to a %d of its own log call; pytest makes such a slip an error
    caplog.set_level("ERROR", "nipype.workflow")


@pytest.fixture
def new_forkserver():
    """Workers begin with the environment and stderr of this test, not those of the first one that had workers."""
    multiprocessing.forkserver._forkserver._stop()


@pytest.fixture(scope="session")
def recipe(inputs):
    """A simulated subject, models, and settings of few steps, as a Recipe."""
    return inputs


@pytest.fixture
def job(recipe, tmp_path) -> Job:
    """All of that as a job of four test stimuli that writes to a fresh folder."""
    return Job(
        Path(recipe.source.nsd_dir), tmp_path / "out", settings=recipe.settings, models=recipe.models, n_stimuli=4
    )


@pytest.fixture(scope="session")
def decoded(recipe, tmp_path_factory) -> Path:
    """File of decoded embeddings of `IDS`: noise, which no image needs to be made from."""
    import torch

    models = core_models.load(recipe.models)
    pixels = torch.zeros(1, 3, models.guide_size(), models.guide_size())
    shape, rng = models.features(pixels)[0].shape[1:], np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=(len(IDS), *shape)).astype(np.float32)

    c = models.encode_text(["a red ball"])[0].shape
    g = {layer: draw(*shape) for layer in LAYERS}
    attrs = {"feature_normalisation": "imagenet", "model_digest": models.digest}
    path = tmp_path_factory.mktemp("decoded") / "decoded.h5"
    Embeddings(draw(*models.latent_shape), draw(*c), g, np.array(IDS), attrs).save(path)
    return path
