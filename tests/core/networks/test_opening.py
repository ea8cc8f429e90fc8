"""Every weight comes from the files, or the part is refused in one sentence; with and without reading the weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_neuraldiffuser.core.networks import models as m
from napari_neuraldiffuser.core.networks.opening import check_weights
from napari_neuraldiffuser.core.networks.weight_files import NAMES
from tests.support.model_folders import save_whole_clip

NETWORKS = tuple(NAMES)
IDS = torch.arange(8)[None]


def weights(folder, part):
    return folder / part / NAMES[part][0]


def change(folder, part, edit, pickled=False):
    """Write a part's weights anew after `edit(state)`."""
    path = weights(folder, part)
    state = load_file(path)
    edit(state)
    if pickled:
        path.unlink()
        torch.save(state, folder / part / NAMES[part][1])
    else:
        save_file(state, path, metadata={"format": "pt"})


def a_matrix(state):
    return next(name for name in sorted(state) if state[name].ndim > 1)


def drop(state):
    del state[a_matrix(state)]


def drop_all(state):
    state.clear()
    state["something"] = torch.zeros(2)


def add(state):
    state["lora.up.weight"] = torch.zeros(2, 2)


def reshape(state):
    name = a_matrix(state)
    state[name] = torch.zeros(1, *state[name].shape[1:])


def transpose(state):
    name = a_matrix(state)
    state[name] = torch.zeros(state[name].shape[::-1] if len(set(state[name].shape)) > 1 else (3, 2))


def refusal(folder, guide=None):
    """What is said with and without reading weights: the same sentence."""
    said = []
    for open_ in (m.load, check_weights):
        with pytest.raises(m.ModelError) as error:
            open_(folder, guide)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    return said[0]


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("edit", "what"),
    [(drop, "1 missing"), (drop_all, "missing"), (add, "1 unknown (lora.up.weight)"), (reshape, "1 of another shape"),
     (transpose, "1 of another shape")],
)  # fmt: skip
@pytest.mark.parametrize("part", NETWORKS)
def test_weights_that_do_not_fit_are_named(folder, part, edit, what, pickled):
    change(folder, part, edit, pickled)
    said = refusal(folder)
    assert said.startswith(f"Model part {part} must have the weights")
    assert what in said and str(folder / part / NAMES[part][pickled]) in said and "again" in said


def test_a_projection_that_is_missing_has_a_remedy_of_its_own(folder):
    change(folder, "image_encoder", lambda state: state.pop("visual_projection.weight"))
    assert "clip-vit-base-patch32" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("text_encoder", ["text_model.embeddings.position_ids"]),
        ("text_encoder", ["embeddings.position_ids"]),
        ("text_encoder", ["text_projection.weight"]),
        ("image_encoder", ["vision_model.embeddings.position_ids"]),
    ],
)
def test_what_old_files_hold_besides_is_passed_over(folder, model_dir, part, names):
    change(folder, part, lambda state: state.update({name: IDS for name in names}))
    check_weights(folder)
    opened, known = getattr(m.load(folder), part), getattr(m.load(model_dir), part)
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), known.parameters(), strict=True))


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_buffers_of_clip_are_no_excuse_for_others(folder, part):
    change(folder, part, lambda state: state.update({"vision_model.embeddings.position_ids": IDS}))
    assert "1 unknown" in refusal(folder)


@pytest.mark.parametrize("nested", [True, False], ids=["guide", "image_encoder"])
def test_a_whole_clip_is_a_guide(folder, tmp_path, nested):
    """Both towers in one folder, as CLIP is shared: vision is read, text is passed over."""
    clip = save_whole_clip(tmp_path / "clip")
    place = folder / "image_encoder"
    shutil.rmtree(place)
    if not nested:
        shutil.copytree(tmp_path / "clip", place)
    opened = m.load(folder, tmp_path / "clip" if nested else None)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = clip.get_image_features(opened.guide_input(pictures, "model")).pooler_output
    assert np.allclose(opened.image_features(pictures), expected.numpy(), atol=1e-6)
    check_weights(folder, tmp_path / "clip" if nested else None)


def test_a_whole_clip_gives_a_text_encoder(folder, tmp_path, model_dir):
    clip = save_whole_clip(tmp_path / "clip")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(tmp_path / "clip", folder / "text_encoder")
    opened = m.load(folder)
    tokens = opened.tokenizer(["a red ball"], padding="max_length", max_length=8, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = clip.text_model(tokens)[0]
    assert torch.allclose(opened.encode_text(["a red ball"]), expected, atol=1e-6)


def test_names_of_the_first_diffusers_are_known(folder, model_dir):
    """Stable Diffusion 1.4's own VAE has the attention's layers by these."""
    former = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(state):
        for name in list(state):
            old = name
            for new, was in former.items():
                old = old.replace(new, was)
            state[old] = state.pop(name)
        assert any(".query." in name for name in state)

    change(folder, "vae", rename)
    check_weights(folder)
    opened, known = m.load(folder).vae, m.load(model_dir).vae
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), known.parameters(), strict=True))


def test_a_pickle_that_runs_code_is_never_run(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    for part in NETWORKS:
        broken = shutil.copytree(folder, tmp_path / part)
        weights(broken, part).unlink()
        torch.save({"a": Evil()}, broken / part / NAMES[part][1])
        assert f"Model part {part} must have tensors and nothing else" in refusal(broken)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
def test_pickles_of_tensors_open(folder, model_dir, legacy):
    for part in NETWORKS:
        state = load_file(weights(folder, part))
        weights(folder, part).unlink()
        torch.save(state, folder / part / NAMES[part][1], _use_new_zipfile_serialization=not legacy)
    opened, known = m.load(folder), m.load(model_dir)
    check_weights(folder)
    for part in NETWORKS:
        pairs = zip(getattr(opened, part).parameters(), getattr(known, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), part


def test_shards_of_pickles_that_lack_a_weight(folder, model_dir):
    """A table of shards that promises more than they hold."""
    unet = m.load(model_dir).unet
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="5KB", safe_serialization=False)
    shard = sorted((folder / "unet").glob("*-00001-*.bin"))[0]
    state = torch.load(shard, weights_only=True)
    lost = sorted(state)[0]
    del state[lost]
    torch.save(state, shard)
    with pytest.raises(m.ModelError, match=f"1 missing .{lost}"):
        m.load(folder)


def edit_json(path, **values):
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, **values}))


@pytest.mark.parametrize("field", ["block_out_channels", "num_hidden_layers"])
def test_a_configuration_of_another_model_is_refused(folder, field):
    part, value = ("unet", [32, 64]) if field == "block_out_channels" else ("image_encoder", 7)
    edit_json(folder / part / "config.json", **{field: value})
    assert f"Model part {part} must have the weights that its config.json describes" in refusal(folder)


def test_a_tokenizer_of_more_words_than_the_text_encoder(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["cat", "toy"])
    tokenizer.save_pretrained(folder / "tokenizer")
    assert "no more words than the text encoder, 11, got 13" in refusal(folder)


def test_a_word_of_too_high_a_number(folder):
    path = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"]["field"] = 40
    path.write_text(json.dumps(told))
    assert "no more words than the text encoder, 11, got 41" in refusal(folder)


def save_clip_words(folder):
    """Words as CLIP shares them: a table and merges."""
    shutil.rmtree(folder)
    folder.mkdir()
    words = ["r", "e", "d", "d</w>", "re", "red</w>", "a</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    special = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **special}))


def test_words_as_clip_shares_them(folder):
    save_clip_words(folder / "tokenizer")
    opened = m.load(folder)
    assert opened.tokenizer(["red a"], padding="max_length", max_length=6).input_ids == [[7, 5, 6, 8, 8, 8]]
    assert opened.encode_text(["red a"]).shape == (1, 8, 16)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    assert "Model part tokenizer must be readable" in refusal(folder)


def test_a_tokenizer_without_padding(folder):
    path = folder / "tokenizer" / "tokenizer_config.json"
    known = json.loads(path.read_text())
    known.pop("pad_token")
    path.write_text(json.dumps(known))
    assert "must have a padding token" in refusal(folder)


@pytest.mark.parametrize("content", ['{"version": "1.0"}', "[]", "{"])
def test_a_tokenizer_that_is_none(folder, content):
    (folder / "tokenizer" / "tokenizer.json").write_text(content)
    assert "Model part tokenizer must be readable" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[1]",
        '{"image_mean": [0.5], "image_std": 3}',
        '{"image_mean": [0.5], "image_std": [0, 0.5, 0.5]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0, 0.5, 0.5]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [-1, 0.5, 0.5]}',
        '{"image_mean": [0.5, NaN, 0.5], "image_std": [0.5, 0.5, 0.5]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [Infinity, 0.5, 0.5]}',
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": ["a", 0.5, 0.5]}',
        '{"image_mean": [0.5, 0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5, 0.5]}',
    ],
)
def test_pixel_statistics_that_are_none(folder, content):
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(content)
    assert "must have image_mean and image_std" in refusal(folder)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "image_encoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(folder, part, value):
    """One of them makes every picture black, with no error; half precision is no excuse."""

    def spoil(state):
        name = a_matrix(state)
        state[name] = state[name].clone()
        state[name].view(-1)[-1] = value

    change(folder, part, spoil)
    with pytest.raises(m.ModelError, match=f"Model part {part} must have finite weights in .*got NaN or infinity in 1"):
        m.load(folder)


def test_a_guide_brings_its_own_pixel_statistics(folder, tmp_path):
    shutil.move(folder / "image_encoder", tmp_path / "clip")
    (folder / "feature_extractor").mkdir()
    values = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(values))
    assert m.load(folder, tmp_path / "clip").normalisation("model")[0] == (0.5, 0.5, 0.5)
    values["image_mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(values))
    assert m.load(folder, tmp_path / "clip").normalisation("model")[0] == (0.1, 0.2, 0.3)
