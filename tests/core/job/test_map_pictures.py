"""Which pictures a run has of its maps, where they lie, and when they are drawn again."""

import io
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.base.names import Derivatives, kind_of
from napari_neuraldiffuser.core.job.map_pictures import map_pictures
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.nsd import NSDError
from napari_neuraldiffuser.core.nsd.reading.lifting import Lift
from napari_neuraldiffuser.core.outputs.report.flat import DRAWN


@pytest.fixture
def maps():
    rng = np.random.default_rng(6)
    values = {t: np.where(rng.random((8, 9, 7)) < 0.5, rng.random((8, 9, 7)), 0) for t in ("z", "c")}
    images = {t: nib.Nifti1Image(v, np.diag([4.0, 4, 4, 1])) for t, v in values.items()}
    return SimpleNamespace(volumes=lambda: images, surfaces=dict)


class Brain:
    """A subject that has a transform to fsaverage, or none, or a damaged one."""

    def __init__(self, transform):
        self.transform = transform

    def anatomy(self):
        return None

    def roi_names(self):
        return []

    def lift(self):
        if isinstance(self.transform, Exception):
            raise self.transform
        return self.transform


def lift(low=0, high=6):
    rng = np.random.default_rng(7)
    return Lift([rng.uniform(low, high, (3, DRAWN, 3)) for _ in range(2)])


def drawn(maps, brain, folder):
    (folder / "records").mkdir(exist_ok=True)
    places, told = Derivatives(folder / "out", "subj01"), []
    records = Records(folder / "records", True)
    found = map_pictures(maps, "share of R²", brain, places, records, lambda *step: told.append(step))
    return found, places, told


def test_every_target_has_slices_a_glass_brain_and_fsaverage(maps, tmp_path):
    found, places, told = drawn(maps, Brain(lift()), tmp_path)
    assert {t: len(views) for t, views in found.views.items()} == {"z": 2, "c": 2}
    for target in ("z", "c"):
        pictures = [found.slices[target], *found.views[target]]
        assert len(set(pictures)) == 3
        for png in pictures:
            with Image.open(io.BytesIO(png)) as image:
                assert image.format == "PNG" and min(image.size) > 100
        files = [places.slices(target), places.view(target, "glass"), places.view(target, "fsaverage")]
        assert [path.read_bytes() for path in files] == pictures
        assert all(kind_of(path.relative_to(places.out_dir).as_posix()) for path in files)
    (note,) = found.notes
    assert "fsaverage" in note and told
    again, _, told = drawn(maps, Brain(lift()), tmp_path)
    assert again == found and not told  # nothing has changed


def test_without_transforms_the_map_is_not_on_fsaverage_and_nothing_is_said(maps, tmp_path):
    found, places, _ = drawn(maps, Brain(None), tmp_path)
    assert {t: len(views) for t, views in found.views.items()} == {"z": 1, "c": 1} and not found.notes
    assert not places.view("z", "fsaverage").exists()


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (NSDError("lh.white-to-fsaverage.mgz must be complete, got 3 bytes."), "3 bytes"),
        (lift(20, 30), "none of its vertices lies in the mask"),
    ],
)
def test_transforms_that_cannot_be_used_cost_one_picture_and_a_note(maps, tmp_path, transform, said):
    found, _, _ = drawn(maps, Brain(transform), tmp_path)
    assert len(found.views["z"]) == 1
    (note,) = found.notes
    assert note.startswith("maps are not drawn on fsaverage: ") and said in note
