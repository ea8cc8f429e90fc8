import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core.base.contracts import SeenImages
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks.embeddings import EmbeddingError, Embeddings, TargetFile
from napari_neuraldiffuser.core.params import LAYERS, TARGETS, FeatureParams
from tests.support.small_models import small_models


class FewStimuli(SeenImages):
    """Images and captions in memory; counts how many images were asked for."""

    def __init__(self, n=7):
        self.images = np.random.default_rng(0).integers(0, 256, (n, 20, 20, 3), dtype=np.uint8)
        self.asked = 0

    def __getitem__(self, ids):
        self.asked += len(ids)
        return self.images[np.asarray(ids)]

    def captions(self, s):
        return ["a red ball", "a blue house in a field"][: 1 + s % 2]


@pytest.fixture(scope="module")
def models():
    return small_models()


def test_extracted_targets_are_what_the_networks_say(models, tmp_path):
    stimuli = FewStimuli()
    file = embeddings.extract(models, stimuli, [5, 1, 3], tmp_path / "t.h5", FeatureParams(batch_size=2))
    assert list(file) == list(TARGETS)
    assert file.stimulus_ids.tolist() == [5, 1, 3]
    assert np.allclose(file["z"][1], models.encode_images(stimuli.images[[1]])[0], atol=1e-5)
    text = models.encode_text(["a red ball", "a blue house in a field"]).mean(0)
    assert np.allclose(file["c"][0], text, atol=2e-3)  # half precision on disk
    assert file["g06"].dtype == np.float16
    assert file.attrs["feature_normalisation"] == "imagenet"
    direct = embeddings.encode(models, stimuli.images[[3]], [["a red ball"]], FeatureParams())
    assert np.allclose(file["g10"][2], direct["g10"][0], atol=2e-3)


def test_extraction_is_not_repeated_and_continues(models, tmp_path):
    path, params = tmp_path / "t.h5", FeatureParams(batch_size=2)
    stimuli = FewStimuli()

    def stop(done, total, what):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embeddings.extract(models, stimuli, range(7), path, params, stop)
    assert not path.exists()
    stimuli.asked = 0
    continued = embeddings.extract(models, stimuli, range(7), path, params)
    assert stimuli.asked == 3
    whole = embeddings.extract(models, FewStimuli(), range(7), tmp_path / "u.h5", params)
    for target in TARGETS:
        assert np.array_equal(continued[target][...], whole[target][...])
    stimuli.asked = 0
    continued.close()
    embeddings.extract(models, stimuli, range(7), path, params).close()
    assert stimuli.asked == 0
    embeddings.extract(models, stimuli, range(7), path, params.but(feature_normalisation="clip")).close()
    assert stimuli.asked == 7


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    emb = Embeddings(
        rng.standard_normal((3, 4, 2, 2)).astype("f4"),
        rng.standard_normal((3, 5, 2)).astype("f4"),
        {layer: rng.standard_normal((3, 4, 2)).astype("f4") for layer in LAYERS[:2]},
        np.array([9, 2, 72999]),
        {"feature_normalisation": "clip"},
    )
    emb.save(tmp_path / "e.h5")
    back = Embeddings.load(tmp_path / "e.h5")
    assert list(back) == ["z", "c", "g02", "g04"]
    assert back.attrs["feature_normalisation"] == "clip"
    for target in back:
        assert np.array_equal(back[target], emb[target])
    with h5py.File(tmp_path / "e.h5") as file:
        assert {"z", "c", "g/g02", "stimulus_id"} <= {*file, *(f"g/{k}" for k in file["g"])}


def test_labels_of_own_scans_go_with_their_rows(tmp_path):
    z, labels = np.zeros((3, 4, 2, 2)), ["NA", "straße", "007"]
    emb = Embeddings(z, z[..., 0], {}, np.array([0, 1, 2]), labels=labels)
    emb.save(tmp_path / "e.h5")
    back = Embeddings.load(tmp_path / "e.h5")
    assert back.labels == labels and back.subset([2, 0]).labels == ["007", "NA"]
    Embeddings(z, z[..., 0], {}, np.array([0, 1, 2])).save(tmp_path / "nsd.h5")
    assert Embeddings.load(tmp_path / "nsd.h5").labels == []


def test_subset_is_by_stimulus_id():
    z = np.arange(3.0).reshape(3, 1, 1, 1)
    emb = Embeddings(z, z[..., 0], {}, np.array([10, 20, 30]))
    assert emb.subset([30, 10]).z.ravel().tolist() == [2.0, 0.0]
    with pytest.raises(EmbeddingError, match="missing 1 of 2, first: 40"):
        emb.subset([10, 40])


def test_a_test_set_without_captions_has_no_c(models, tmp_path):
    class Synthetic(FewStimuli):
        test_set = "NSD-synthetic"

        def captions(self, s):
            return ["a dog"] if s == 4 else []

    file = embeddings.extract(models, Synthetic(), [1, 3], tmp_path / "t.h5", FeatureParams())
    assert list(file) == [name for name in TARGETS if name != "c"] and file.attrs["without"]
    plain = embeddings.extract(models, FewStimuli(), [1, 3], tmp_path / "plain.h5", FeatureParams())
    np.testing.assert_array_equal(file["z"][...], plain["z"][...])
    with pytest.raises(EmbeddingError, match="stimulus 3 must have a caption"):
        embeddings.extract(models, Synthetic(), [4, 3], tmp_path / "some.h5", FeatureParams())


def test_bad_files_and_targets(tmp_path, models):
    (tmp_path / "no.h5").write_bytes(b"not hdf5")
    with pytest.raises(EmbeddingError, match="must be an embeddings file"):
        TargetFile(tmp_path / "no.h5")
    with pytest.raises(EmbeddingError, match="one row per stimulus"):
        Embeddings(np.zeros((2, 4, 1, 1)), np.zeros((1, 2, 2)), {}, np.array([1, 2]))
    stimuli = FewStimuli()
    stimuli.captions = lambda s: []
    with pytest.raises(EmbeddingError, match="stimulus 2 must have a caption"):
        embeddings.extract(models, stimuli, [2], tmp_path / "t.h5")
