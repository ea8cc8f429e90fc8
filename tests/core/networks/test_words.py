import numpy as np
import pytest

from napari_neuraldiffuser.core import decoding
from napari_neuraldiffuser.core.networks import embeddings, words
from napari_neuraldiffuser.core.params import DecodingParams, FeatureParams
from tests.support.small_models import small_models, small_tokenizer
from tests.support.stand_ins import make_betas


def spelling_tokenizer():
    """One that spells in pieces and calls its end token unknown, as CLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz", "<end>"]
    core = Tokenizer(models.BPE({one: index for index, one in enumerate(letters)}, [], unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<end>", eos_token="<end>", pad_token="<end>")


def test_unknown_words_are_counted_with_the_most_frequent_first():
    captions = ["a red ball", "a handwritten six", "a handwritten ball", "a six, handwritten"]
    note = words.unknown_note(small_tokenizer(), captions)
    assert "3 of the 6 words of the captions (handwritten, six, ,)" in note
    assert "in 3 of 4 captions" in note


def test_nothing_is_said_of_captions_whose_words_are_known():
    assert words.unknown_note(small_tokenizer(), ["a red ball in a field", "a blue house"]) == ""
    assert words.unknown_note(small_tokenizer(), []) == ""
    assert words.unknown_note(spelling_tokenizer(), ["a handwritten six"]) == ""


class Digits(embeddings.SeenImages):
    """Pictures of digits, whose captions hold no word but "a" that the small models know."""

    def __init__(self, n):
        self.images = np.random.default_rng(0).integers(0, 256, (n, 20, 20, 3), dtype=np.uint8)

    def __getitem__(self, ids):
        return self.images[np.asarray(ids)]

    def captions(self, s):
        return [f"a handwritten {('six', 'nine')[s % 2]}"]


@pytest.mark.parametrize("kind", ["ridge", "contrastive"])
def test_captions_of_unknown_words_end_nothing_and_the_decoder_tells(tmp_path, kind):
    models, n = small_models(), 24
    targets = embeddings.extract(models, Digits(n), range(n), tmp_path / "t.h5", FeatureParams())
    assert "(handwritten, six, nine)" in targets.attrs[words.ATTRIBUTE]
    assert np.ptp(targets["c"][...], axis=0).max() == 0
    betas = make_betas(np.random.default_rng(1).standard_normal((n, 10)))
    decoder = decoding.new(DecodingParams(decoder=kind)).fit(betas, targets)
    decoded = decoder.predict(betas)
    assert np.isfinite(decoded.c).all()
    np.testing.assert_allclose(decoded.c, targets["c"][...], atol=2e-3)
    decoder.save(tmp_path / "decoder.h5")
    targets.close()
    assert any("3 of the 4 words" in note for note in decoding.read_notes(tmp_path / "decoder.h5"))
