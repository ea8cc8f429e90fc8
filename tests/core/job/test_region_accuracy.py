"""What single regions decode, as files of a subject's folder."""

from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.job.region_accuracy import NO_TARGETS, region_accuracy
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets

LABELS = np.repeat([1, 2, 0], [10, 6, 4])


class Source:
    """A subject with one family."""

    def __init__(self, betas: Betas) -> None:
        self.family = make_rois("prf-visualrois", LABELS, {1: "V1", 2: "V2"}, betas)

    def mapped_families(self):
        return ["prf-visualrois"]

    def rois(self, name):
        return self.family


@pytest.fixture
def made(tmp_path):
    x, y, x_test, y_test = linear_data(40, 20, m=12)
    train, test = make_betas(x.astype(np.float32)), make_betas(x_test.astype(np.float32), 100 + np.arange(12))
    targets, decoder = tmp_path / "targets.h5", tmp_path / "decoder.h5"
    make_targets(y_test.astype(np.float32), test.stimulus_ids).save(targets)
    RidgeDecoder(DecodingParams(align="none")).fit(train, make_targets(y.astype(np.float32))).save(decoder)
    places = Derivatives(tmp_path, "subj01")
    places.folder.mkdir()

    def run(decoder=decoder, known=None, **params):
        told = []
        written = region_accuracy(
            decoder, train, test, Source(train), (known, targets), places, ContributionParams(**params),
            lambda *what: told.append(what),
        )  # fmt: skip
        return written, told

    return run, places, train, y, tmp_path


def test_the_map_has_the_tables_values_in_the_regions_voxels(made):
    run, places, train, *_ = made
    written, told = run()
    names = ["sub-01_desc-regions_scores.tsv"]
    names += [f"sub-01_space-func1pt8mm_target-{target}_accuracy.nii.gz" for target in ("z", "c", "g02")]
    assert [path.name for path in written] == names and all(path.is_file() for path in written)
    table = pd.read_csv(written[0], sep="\t", na_values="n/a").set_index(["target", "roi"])
    for path, target in zip(written[1:], ("z", "c", "g02"), strict=True):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)[tuple(train.voxels.T)]
        np.testing.assert_allclose(image.affine, train.affine)
        np.testing.assert_allclose(values[LABELS == 1], table.loc[(target, "V1"), "r2"], rtol=1e-5)
        np.testing.assert_allclose(values[LABELS == 2], table.loc[(target, "V2"), "r2"], rtol=1e-5)
        assert (values[LABELS == 0] == 0).all() and np.count_nonzero(image.dataobj) == 16
        # what all voxels know is more than what a region does
        assert table.loc[(target, "all voxels"), "r2"] > table.loc[(target, "V2"), "r2"]
    assert (3, 3, "accuracy of regions") in told


def test_those_of_an_earlier_run_go_when_it_is_turned_off(made):
    run, places, *_ = made
    written, _ = run()
    places.region_scores.with_suffix(".json").write_text("{}")
    assert run(region_accuracy=False)[0] == []
    assert not any(path.exists() for path in written) and not list(places.folder.iterdir())


def test_a_decoder_without_training_targets_takes_those_of_the_run_or_says_so(made):
    run, _, train, y, folder = made
    targets = make_targets(y.astype(np.float32))
    path = folder / "reduced.h5"
    RidgeDecoder(DecodingParams(align="none", ridge_rank=5)).fit(train, targets).save(path)
    written, told = run(path)
    assert written == [] and told == [(0, 0, NO_TARGETS)]
    targets.save(folder / "train.h5")
    exact, _ = run()
    first = pd.read_csv(exact[0], sep="\t")
    second = pd.read_csv(run(path, folder / "train.h5")[0][0], sep="\t")
    pd.testing.assert_frame_equal(first, second, atol=1e-4)


def test_on_a_surface_both_hemispheres_are_written(made, tmp_path):
    from napari_neuraldiffuser.core.decoding.worth import RegionAccuracy
    from napari_neuraldiffuser.core.job.region_accuracy import save

    voxels = np.stack([np.repeat([0, 1], 3), np.tile([2, 5, 9], 2)], axis=1)
    betas = replace(made[2]._rows(np.arange(2)), data=np.zeros((2, 6), np.float32), voxels=voxels, affine=None)
    betas = replace(betas, shape=(2, 12), space="fsaverage")
    found = RegionAccuracy(pd.DataFrame({"roi": ["V1"]}), {"z": np.arange(6.0)})
    written = save(found, betas, Derivatives(tmp_path, "subj01", "fsaverage"))
    assert [p.name for p in written[1:]] == [
        f"sub-01_hemi-{hemi}_space-fsaverage_target-z_accuracy.shape.gii" for hemi in "LR"
    ]
    left, right = (nibabel.load(path).darrays[0].data for path in written[1:])
    assert left[[2, 5, 9]].tolist() == [0, 1, 2] and right[[2, 5, 9]].tolist() == [3, 4, 5]
