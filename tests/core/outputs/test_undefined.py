"""What has no value is said in words, with the reason."""

import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core.evaluation.scores import evaluate, summarise
from napari_neuraldiffuser.core.outputs.undefined import undefined
from napari_neuraldiffuser.core.params import EvaluationParams

SMALL = EvaluationParams(size=32)


def summary(n=3, repeats=2, flat=False):
    recon = np.random.default_rng(0).integers(0, 255, (n, repeats, 32, 32, 3), dtype=np.uint8)
    seen = np.full((n, 32, 32, 3), 90, np.uint8) if flat else recon[:, 0]
    return summarise({arm: evaluate(recon, seen, None, SMALL) for arm in ("guided", "unguided")})


def shares(**targets):
    rows = [{"roi": roi, "target": t, "share": v} for t, v in targets.items() for roi in ("V1", "outside visual")]
    return pd.DataFrame(rows)


def test_nothing_is_said_where_all_is_defined():
    assert undefined(summary(), shares(z=0.2, c=0.0), {"z": 0.4, "c": -0.1}) == []


def test_images_without_captions_are_not_told_of_as_equal_ones():
    (note,) = undefined(summary(), shares(z=0.2, c=np.nan), {"c": 0.1}, captioned=False)
    assert note.startswith("c: the test images have no captions") and "left out" in note


@pytest.mark.parametrize(
    ("target", "why"), [("c", "captions are equal, or have only words"), ("g04", "pictures are equal")]
)
def test_targets_that_do_not_vary(target, why):
    split, both = (
        undefined(summary(), shares(z=0.2, **{target: np.nan}), r2) for r2 in (None, {"z": 0.1, target: np.nan})
    )
    (note,) = split
    assert note.startswith(f"{target}: regions have no share and there is no map, as their test {why}")
    assert both[1:] == split and both[0].startswith(f"{target}: not decoded, as their training {why}")


@pytest.mark.parametrize(
    ("changed", "named", "why"),
    [
        ({"repeats": 1}, "Repeats: PixCorr", "one repeat"),
        ({"n": 1}, "Two-way by edges", "one stimulus"),
        ({"flat": True}, "PixCorr", "the same all over"),
    ],
)
def test_scores_without_a_value(changed, named, why):
    (note,) = undefined(summary(**changed), shares(z=0.2))
    assert named in note and note.endswith(why) and note.count(named + ",") <= 1
    assert "SSIM:" not in note and not note.startswith("SSIM")


def test_targets_of_one_reason_stand_together():
    nothing = dict.fromkeys(("z", "c", "g02", "g12"), np.nan)
    notes = undefined(summary(), shares(**nothing), nothing)
    assert [note.split(":")[0] for note in notes] == ["z, g02, g12", "c", "z, g02, g12", "c"]


def test_one_constant_picture_is_not_said_to_lack_others():
    notes = undefined(summary(n=1, flat=True), shares(z=0.2))
    assert [note.split("as ")[-1] for note in notes] == ["pictures are the same all over", "there is one stimulus"]
    assert notes[1].startswith("Two-way by edges") and "PixCorr" in notes[0]
