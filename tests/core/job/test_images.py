"""Sidecars of chunks of images become one; stimuli that failed are named."""

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import make_folder, read_json, write_json
from napari_neuraldiffuser.core.base.names import LABELS, Derivatives, numbering
from napari_neuraldiffuser.core.job.images import latents_told, merge_sidecars, write_failed


def chunk(path, labels):
    losses = {arm: {"FeatureLossPerGuidedStep": {str(k): [0.5]}} for arm in ("guided",) for k in labels}
    write_json(path, {"Arms": losses, **numbering(labels, labels.values())})
    return path


def test_labels_of_all_chunks_are_in_the_one_sidecar(tmp_path):
    parts = [chunk(tmp_path / f"{k}.json", {k: name}) for k, name in enumerate(["cat", "NA", "straße"])]
    merge_sidecars(parts, tmp_path / "whole.json")
    assert read_json(tmp_path / "whole.json")[LABELS] == {"00000": "cat", "00001": "NA", "00002": "straße"}


def test_figures_of_latents_are_merged_and_read_back_where_there_are_any(tmp_path):
    told = [{"3": [[0.1, 0.9, 3.0], [None, 1.0, 2.0]]}, {}, {"4": [[0.0, 0.8, 2.5], [0.2, 0.7, 2.0]]}]
    parts = []
    for k, figures in enumerate(told):
        parts.append(chunk(tmp_path / f"{k}.json", {k: str(k)}))
        about = read_json(parts[-1])
        about["Arms"]["guided"] |= {"FinalLatents": figures} if figures else {}  # the second is of an earlier version
        write_json(parts[-1], about)
    whole = tmp_path / "whole.json"
    merge_sidecars(parts, whole)
    figures = [[0.0, 0.8, 2.5], [0.2, 0.7, 2.0], [0.1, 0.9, 3.0], [np.nan, 1.0, 2.0]]
    np.testing.assert_array_equal(latents_told(whole, "guided", np.array([4, 3, 1])), figures)
    assert latents_told(parts[1], "guided", [1]).shape == latents_told(whole, "unguided", [3]).shape == (0, 3)
    assert latents_told(tmp_path / "none.json", "guided", [3]).shape == (0, 3)


def test_failed_stimuli_have_their_labels(tmp_path):
    places = Derivatives(tmp_path, "subj07")
    make_folder(places.recon)
    chunk(places.recon_sidecar, {3: "cat", 12: "NA"})
    write_failed(places, [12])
    table = pd.read_csv(places.failed, sep="\t", dtype=str, keep_default_na=False)
    assert table[["stim", "stimulus"]].values.tolist() == [["12", "NA"]]
    write_json(places.recon_sidecar, {"Arms": {}, **numbering([12])})
    write_failed(places, [12])
    assert "stimulus" not in pd.read_csv(places.failed, sep="\t")
    write_failed(places, [])
    assert not places.failed.exists()
