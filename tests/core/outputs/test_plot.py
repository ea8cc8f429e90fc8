"""The picture of a decoder's accuracy, also of targets that have none."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.outputs.report.plot import accuracy_plot

ALPHAS = [1.0, 10.0, 100.0]


@pytest.mark.parametrize("lacking", [(), ("c",), ("z", "c")])
def test_targets_without_r2_are_drawn_as_not_known(lacking):
    known = {"z": [0.1, 0.4, 0.3], "c": [-2.0, 0.0, 0.1]}
    r2 = {name: [np.nan] * 3 if name in lacking else values for name, values in known.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = accuracy_plot(
            {name: max(values) if name not in lacking else np.nan for name, values in r2.items()},
            {name: {"tried": ALPHAS, "r2": values, "axis": "penalty"} for name, values in r2.items()},
        )
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert picture.std() > 5


def test_no_bar_says_nan(monkeypatch):
    from matplotlib.axes import Axes

    texts = []
    monkeypatch.setattr(Axes, "bar_label", lambda self, bars, labels, **kw: texts.extend(labels))
    accuracy_plot({"z": 0.404, "c": np.nan}, {})
    assert texts == ["0.40", "n/a"]
