"""Scenes as arrays: images and caption tokens, drawn once into the work directory."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes

SIZE = 64
MAX_TOKENS = 32
N_CAPTIONS = 3
SPECIAL = ("<pad>", "<bos>", "<unk>", "<eos>")  # eos must not be 2: CLIPTextModel treats that id as a legacy flag
TRAIN_SEED, HELD_OUT_SEED = 1, 2


def vocabulary():
    """Token to id, specials first."""
    return {token: index for index, token in enumerate((*SPECIAL, *scenes.scene_vocabulary()))}


def encode(caption, vocab=None):
    """Token ids of a caption, as the exported tokenizer gives them.

    Parameters
    ----------
    caption : str
    vocab : dict, optional

    Returns
    -------
    ndarray of shape (32,), int64
    """
    vocab = vocab or vocabulary()
    words = [vocab.get(word, vocab["<unk>"]) for word in caption.split()][: MAX_TOKENS - 2]
    ids = [vocab["<bos>"], *words, vocab["<eos>"]]
    return np.array(ids + [vocab["<pad>"]] * (MAX_TOKENS - len(ids)), np.int64)


def scene(seed, index):
    """The ``index``-th scene of a stream; each depends only on its own number."""
    return scenes.draw_scene(np.random.default_rng([seed, index]))


def _block(bounds, seed):
    vocab = vocabulary()
    drawn = [scene(seed, index) for index in range(*bounds)]
    images = np.stack([scenes.render(item, SIZE) for item in drawn])
    tokens = np.stack([[encode(text, vocab) for text in scenes.captions(item, N_CAPTIONS)] for item in drawn])
    return images, tokens.astype(np.int16)


def draw(seed, count, processes=None):
    """Draw scenes ``0 .. count-1`` of a stream, on all cores or in so many processes.

    Returns
    -------
    images : ndarray of shape (count, 64, 64, 3), uint8
    tokens : ndarray of shape (count, 3, 32), int16
    """
    bounds = [(start, min(start + 500, count)) for start in range(0, count, 500)]
    with ProcessPoolExecutor(processes) as pool:
        blocks = list(pool.map(partial(_block, seed=seed), bounds))
    return tuple(np.concatenate(part) for part in zip(*blocks, strict=True))


def prepare(work, count):
    """Write ``images.npy`` and ``tokens.npy`` into the work directory unless they are there with ``count`` scenes."""
    work = Path(work)
    if (work / "tokens.npy").exists() and len(np.load(work / "tokens.npy", mmap_mode="r")) == count:
        return
    for name, array in zip(("images", "tokens"), draw(TRAIN_SEED, count), strict=True):
        np.save(work / f"{name}.tmp.npy", array)
        os.replace(work / f"{name}.tmp.npy", work / f"{name}.npy")


def load(work):
    """Images (memory-mapped) and tokens written by `prepare`."""
    return np.load(Path(work) / "images.npy", mmap_mode="r"), np.load(Path(work) / "tokens.npy")


def object_weights(seed, count, side, main=4, other=2):
    """How much each latent pixel of scenes ``0 .. count-1`` counts in a loss: more on objects than on background.

    Such weights speed the learning of small shapes and leave the best prediction, a conditional mean, as it is.

    Returns
    -------
    ndarray of shape (count, side, side), uint8
        1 on background, ``other`` on further objects' squares, ``main`` on the main object's.
    """
    weights = np.ones((count, side, side), np.uint8)
    for index in range(count):
        for number, item in reversed(list(enumerate(scene(seed, index).objects))):
            bounds = [(place - item.size, place + item.size) for place in (item.y, item.x)]
            square = tuple(slice(max(0, int(a * side)), int(np.ceil(b * side))) for a, b in bounds)
            weights[(index, *square)] = other if number else main
    return weights


def hide_words(tokens, share, rng):
    """Token ids with a random share of the words replaced by ``<unk>``."""
    vocab = vocabulary()
    words = tokens >= len(SPECIAL)
    return np.where(words & (rng.random(tokens.shape) < share), vocab["<unk>"], tokens)


def to_unit(images):
    """uint8 (n, 64, 64, 3) to float32 (n, 3, 64, 64) in [0, 1]."""
    import torch

    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
