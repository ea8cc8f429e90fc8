"""Which files a part is read from, and what stands in their place."""

import json
import shutil

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.networks import models as m
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.networks.opening import check_weights
from napari_neuraldiffuser.core.networks.weight_files import NAMES, find_weights, with_variant

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:3d2\nsize 492265874\n"
NETWORKS = tuple(NAMES)


@pytest.fixture(scope="module")
def known(model_dir):
    return m.load(model_dir)


def same(a, b):
    """Whether two models have the same weights."""
    pairs = [zip(getattr(a, p).parameters(), getattr(b, p).parameters(), strict=True) for p in NETWORKS]
    return all(torch.equal(x, y) for pair in pairs for x, y in pair)


def refusal(folder):
    with pytest.raises(m.ModelError) as error:
        check_folder(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_variants_are_found_for_every_part(folder, known, variant):
    for part, (name, _) in NAMES.items():
        (folder / part / name).rename(folder / part / with_variant(name, variant))
        assert find_weights(part, folder / part).variant == variant
    check_weights(folder)
    assert same(m.load(folder), known)


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("part", NETWORKS)
def test_shards_are_found(folder, known, part, variant, pickled):
    shutil.rmtree(folder / part)
    options = {"safe_serialization": False} if pickled and part in ("vae", "unet") else {}
    getattr(known, part).save_pretrained(folder / part, max_shard_size="5KB", variant=variant, **options)
    assert len(find_weights(part, folder / part).files) > 2
    check_weights(folder)
    assert same(m.load(folder), known)


def test_older_names_of_shards_of_a_variant(folder, known):
    """`...-00001-of-0000N.fp16.safetensors` and a table `...safetensors.fp16.index.json`."""
    shutil.rmtree(folder / "unet")
    known.unet.save_pretrained(folder / "unet", max_shard_size="5KB")
    table = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    values = json.loads(table.read_text())
    for shard in set(values["weight_map"].values()):
        (folder / "unet" / shard).rename(folder / "unet" / with_variant(shard, "fp16"))
    values["weight_map"] = {name: with_variant(shard, "fp16") for name, shard in values["weight_map"].items()}
    table.unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors.fp16.index.json").write_text(json.dumps(values))
    check_weights(folder)
    assert same(m.load(folder), known)


def test_whole_precision_is_read_where_both_are_there(folder):
    for part, (name, pickled) in NAMES.items():
        shutil.copy(folder / part / name, folder / part / with_variant(name, "fp16"))
        (folder / part / pickled).write_bytes(b"never read")
        assert find_weights(part, folder / part).name == name


def test_a_variant_that_was_fetched_is_read_beside_pointers(folder, known):
    """As `git lfs pull --include "*.fp16.safetensors"` leaves it."""
    for part, (name, _) in NAMES.items():
        (folder / part / name).rename(folder / part / with_variant(name, "fp16"))
        (folder / part / name).write_text(POINTER)
    assert same(m.load(folder), known)


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (POINTER.encode(), "a pointer of Git LFS", "git lfs pull"),
        (b"/annex/objects/SHA256E-s492265874--3d2.safetensors\n", "a pointer of git-annex", "git annex get"),
        (b"", "an empty file", "download it again"),
        (b"version https://git-xet.org/spec/v1\n", "a pointer of Git Xet", "git xet pull"),
        (b"<!DOCTYPE html>\n<html><head><title>404</title>", "a web page", "download the file itself"),
        (b'\n <?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page", "download the file itself"),
        (b'{"error": "Repository not found"}', "no weights", "Download it again"),
        (b"\0" * 1000, "no weights", "Download it again"),
    ],
)
@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("kind", [0, 1], ids=["safetensors", "bin"])
def test_what_is_no_weights_is_named(folder, part, kind, content, what, remedy):
    (folder / part / NAMES[part][0]).unlink()
    path = folder / part / NAMES[part][kind]
    path.write_bytes(content)
    said = refusal(folder)
    assert said.startswith(f"Model part {part} must have weights in {path}, got ")
    assert what in said and remedy in said


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("part", ["unet", "image_encoder"])
def test_what_was_cut_short_is_named(folder, known, part, pickled, share):
    path = folder / part / NAMES[part][pickled]
    if pickled:
        (folder / part / NAMES[part][0]).unlink()
        torch.save(getattr(known, part).state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "cut short" in refusal(folder)


def test_a_file_that_was_mended_is_looked_at_again(folder):
    path = folder / "vae" / NAMES["vae"][0]
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert "cut short" in refusal(folder)
    path.write_bytes(data)
    check_folder(folder)


@pytest.mark.parametrize("part", NETWORKS)
def test_a_folder_in_the_place_of_weights_is_named(folder, part):
    path = folder / part / NAMES[part][0]
    path.unlink()
    path.mkdir()
    assert f"must have weights in {path}, got a folder" in refusal(folder)


def test_links_to_nothing_are_named(folder):
    """As git-annex and a cache that was cleared leave them."""
    path = folder / "unet" / NAMES["unet"][0]
    path.unlink()
    path.symlink_to(folder / "gone")
    assert "a link to a file that is not there" in refusal(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', POINTER])
def test_a_table_of_shards_that_is_none(folder, known, content):
    shutil.rmtree(folder / "unet")
    known.unet.save_pretrained(folder / "unet", max_shard_size="5KB")
    (folder / "unet" / f"{NAMES['unet'][0]}.index.json").write_text(content)
    assert "must have a table of its shards" in refusal(folder)


def test_shards_that_are_missing_or_lack_a_weight(folder, known):
    shutil.rmtree(folder / "unet")
    known.unet.save_pretrained(folder / "unet", max_shard_size="5KB")
    shards = sorted((folder / "unet").glob("*.safetensors"))
    shutil.copy(shards[1], shards[0])
    assert "must have in its shards what" in refusal(folder)
    shards[0].unlink()
    assert f"{shards[0]}, got no such file" in refusal(folder)
    for table in (folder / "unet").glob("*.index.json"):
        table.unlink()
    assert "must have a table of its shards" in refusal(folder)


@pytest.mark.parametrize("others", [[], ["flax_model.msgpack", "tf_model.h5"], ["model.onnx"]])
@pytest.mark.parametrize("part", NETWORKS)
def test_no_weights_at_all(folder, part, others):
    (folder / part / NAMES[part][0]).unlink()
    for name in others:
        (folder / part / name).write_bytes(b"something")
    said = refusal(folder)
    assert f"must have its weights {NAMES[part][0]} or" in said
    assert ", ".join(others) in said


def test_images_are_those_of_the_whole_models(folder, known):
    """Half precision that was stored is not what is computed with."""
    for part, (name, _) in NAMES.items():
        (folder / part / name).rename(folder / part / with_variant(name, "fp16"))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    opened = m.load(folder)
    assert opened.dtype == torch.float32
    assert np.array_equal(opened.image_features(pictures), known.image_features(pictures))
