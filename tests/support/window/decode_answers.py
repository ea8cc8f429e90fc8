"""What `decode` answers, as tests give it."""

import io
import shutil

import numpy as np
from PIL import Image

from napari_neuraldiffuser.core.networks.digest import DEMO_FOLDER


def png(width=400, height=300):
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(stream, format="png")
    return np.frombuffer(stream.getvalue(), np.uint8)


def decoded(**changes):
    return {
        "accuracy": {"z": 0.25, "c": 0.5},
        "chosen": {"z": 1000.0, "c": 1e7},
        "curves": {},
        "plot": png(),
        "test_ids": [13, 27],
        "captions": ["a ball", "a house"],
        "n_voxels": 2000,
        "n_train": 1410,
        "n_test": 60,
        "repeats_mean": 3.0,
        "notes": ["2 voxels dropped"],
        "decoder": "/d.h5",
        "embeddings": "/e.h5",
        "loaded": False,
        "cached": False,
        **changes,
    }


def run(panel, **changes):
    panel.run_button.click()
    panel.session.engine.answer("decode", decoded(**changes))


def model_folder(place, *left_out):
    """The bundled models as a folder of the user's, without some parts."""
    return shutil.copytree(DEMO_FOLDER, place, ignore=lambda folder, names: {*left_out} & {*names})
