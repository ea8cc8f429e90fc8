"""The layer profile: which rows and columns it has, what they add up to, and the files it becomes."""

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.names import KINDS, Derivatives
from napari_neuraldiffuser.core.outputs.report.profile import (
    layer_profile,
    profile_picture,
    profile_values,
    save_profile,
)

REGIONS = {"prf-visualrois": ("V1v", "V1d", "hV4", "outside prf-visualrois"), "floc-faces": ("FFA-1", "empty")}


def table(kind="product-measure", targets=("g02", "c", "z")):
    rows = [
        {"family": family, "roi": roi, "target": target, "n_voxels": int(roi != "empty"), "kind": kind}
        for target in targets
        for family in ("floc-faces", "prf-visualrois")
        for roi in REGIONS[family]
    ]
    return pd.DataFrame(rows).assign(share=np.linspace(-0.02, 0.3, len(rows)))


def test_rows_run_from_early_to_ventral_and_areas_add_up():
    rows = table()
    values = profile_values(rows)
    assert list(values) == ["z", "c", "g02"]
    assert list(values.index) == [("prf-visualrois", "V1"), ("prf-visualrois", "hV4"), ("floc-faces", "FFA-1")]
    for target in values:
        share = rows[rows.target == target].set_index("roi").share
        np.testing.assert_allclose(values[target], [share["V1v"] + share["V1d"], share["hV4"], share["FFA-1"]])


def test_figures_that_do_not_add_up_stay_apart():
    assert [roi for _, roi in profile_values(table("roi-only")).index] == ["V1v", "V1d", "hV4", "FFA-1"]


def test_one_colour_scale_and_dots_where_significant():
    rows = table().assign(p_fdr=0.5)
    rows.loc[(rows.roi == "V1d") & (rows.target == "c"), "p_fdr"] = 0.04
    figure = layer_profile(rows)
    axis, bar = figure.axes
    (image,) = axis.get_images()
    values = profile_values(rows)
    np.testing.assert_allclose(image.get_array(), values)
    assert image.get_clim() == (0, values.to_numpy().max()) and "below 0" in bar.get_ylabel()
    dotted = [text.get_text() for text in axis.texts if "•" in text.get_text()]
    assert dotted == [f"{values.loc[('prf-visualrois', 'V1'), 'c']:.3f}•"]
    assert len(axis.texts) == values.size
    assert "p ≤ 5%" in axis.get_xlabel() and not layer_profile(table()).axes[0].get_xlabel()


def test_files_are_the_same_for_the_same_table_and_go_without_shares(tmp_path):
    places = Derivatives(tmp_path, "subj01", "func1pt8mm")
    places.profile[0].parent.mkdir(parents=True)
    first = []
    for _ in range(2):
        save_profile(table(), places.profile)
        first.append([path.read_bytes() for path in places.profile])
    assert first[0] == first[1] and first[0][0] == profile_picture(table())
    assert all(KINDS["profile"].entities(path.name) for path in places.profile)
    save_profile(table().assign(share=np.nan), places.profile)
    assert not any(path.exists() for path in places.profile) and profile_picture(table().assign(share=np.nan)) is None
