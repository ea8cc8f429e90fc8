"""Volumes on fsaverage by NSD's transforms, against a loop over vertices; files written by another hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_neuraldiffuser.core.nsd import Subject
from napari_neuraldiffuser.core.nsd.layout import DEPTHS
from napari_neuraldiffuser.core.nsd.reading.lifting import read_lift
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from tests.support.nsd.surface_tree import write_mgh

SHAPE, OWN, FSAVERAGE = (7, 5, 6), (40, 43), 42
SIDES = ("lh", "rh")


@pytest.fixture
def tree(tmp_path):
    """Transforms of both hemispheres: coordinates from 1, some beyond the volume and some 9999."""
    rng = np.random.default_rng(3)
    made = SimpleNamespace(folder=tmp_path / "transforms", coordinates={}, nearest={})
    for side, n in zip(SIDES, OWN, strict=True):
        for depth in DEPTHS:
            places = rng.uniform(-1, 9, (n, 3)).astype(np.float32)
            places[::9] = 9999
            made.coordinates[side, depth] = places
            write_mgh(made.folder / f"{side}.func1pt8-to-{depth}.mgz", places)
        made.nearest[side] = rng.integers(1, n + 1, FSAVERAGE).astype(np.int32)
        write_mgh(made.folder / f"{side}.white-to-fsaverage.mgz", made.nearest[side])
    return made


def lift_of(tree):
    depths = [[tree.folder / f"{side}.func1pt8-to-{depth}.mgz" for depth in DEPTHS] for side in SIDES]
    return read_lift(depths, [tree.folder / f"{side}.white-to-fsaverage.mgz" for side in SIDES])


def value_at(volume, place):
    """Of one place, counted from 1."""
    if 9999 in place:
        return 0
    index = tuple(round(float(x)) - 1 for x in place)
    return volume[index] if all(0 <= i < n for i, n in zip(index, volume.shape, strict=True)) else 0


def test_a_vertex_has_the_mean_over_the_depths_that_are_in_the_mask(tree):
    rng = np.random.default_rng(4)
    volume = np.where(rng.random(SHAPE) < 0.5, rng.normal(size=SHAPE), 0)
    volume[0, 0, 0] = np.nan  # nowhere
    found = lift_of(tree)(volume)
    assert found.shape == (2, FSAVERAGE) and np.isfinite(found).all()
    clean = np.nan_to_num(volume)
    for k, side in enumerate(SIDES):
        for vertex, own in enumerate(tree.nearest[side]):
            values = [value_at(clean, tree.coordinates[side, depth][own - 1]) for depth in DEPTHS]
            known = [v for v in values if v]
            assert found[k, vertex] == pytest.approx(np.mean(known) if known else 0)
    assert (found == 0).any() and (found != 0).any()


def test_labels_are_those_in_the_middle_of_the_grey_matter(tree):
    labels = np.random.default_rng(5).integers(0, 7, SHAPE).astype(np.int16)
    found = lift_of(tree).labels(labels)
    assert found.dtype == labels.dtype
    for k, side in enumerate(SIDES):
        places = tree.coordinates[side, "layerB2"][tree.nearest[side] - 1]
        assert found[k].tolist() == [value_at(labels, place) for place in places]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("lh.white-to-fsaverage.mgz", np.arange(FSAVERAGE, dtype=np.int32), "must have numbers of the vertices 1"),
        ("rh.white-to-fsaverage.mgz", np.full(FSAVERAGE, 44, np.int32), "Take both from the same subject"),
        ("lh.func1pt8-to-layerB3.mgz", np.zeros((41, 3), np.float32), "depths of one surface"),
        ("rh.func1pt8-to-layerB1.mgz", np.zeros((43, 2), np.float32), "3 coordinates for each vertex, got 2"),
    ],
)
def test_transforms_that_do_not_fit_are_named(tree, name, values, message):
    write_mgh(tree.folder / name, values)
    with pytest.raises(NSDError, match=message):
        lift_of(tree)


def test_a_file_that_ends_early_is_named(tree):
    path = tree.folder / "lh.func1pt8-to-layerB2.mgz"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(NSDError, match="layerB2"):
        lift_of(tree)


def test_a_subject_without_all_transforms_has_none_and_with_them_has_the_lift(nsd_dir, tree, tmp_path):
    root = tmp_path / "nsd"
    root.mkdir()
    for path in nsd_dir.iterdir():
        (root / path.name).symlink_to(path)
    subject = Subject(root, "subj01")
    assert subject.lift() is None
    (root / "nsddata").unlink()
    (root / "nsddata" / "ppdata" / "subj01").mkdir(parents=True)
    for path in (nsd_dir / "nsddata").iterdir():
        if path.name != "ppdata":
            (root / "nsddata" / path.name).symlink_to(path)
    own = root / "nsddata" / "ppdata" / "subj01"
    for path in (nsd_dir / "nsddata" / "ppdata" / "subj01").iterdir():
        (own / path.name).symlink_to(path)
    (own / "transforms").symlink_to(tree.folder)
    lift = Subject(root, "subj01").lift()
    assert [places.shape for places in lift.places] == [(3, FSAVERAGE, 3)] * 2
    (tree.folder / "rh.func1pt8-to-layerB1.mgz").unlink()
    assert Subject(root, "subj01").lift() is None
