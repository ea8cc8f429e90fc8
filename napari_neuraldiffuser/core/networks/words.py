"""Words of captions that a model's tokenizer does not know: what they say is lost, and the user is told."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import json_object

WORD = re.compile(r"\w+|[^\w\s]")
EXAMPLES = 5
ATTRIBUTE = "unknown_words"
"""Attribute of files of target embeddings, and of decoders fitted to them, that holds `unknown_note`."""


def unknown_words(tokenizer: Any, words: Iterable[str]) -> list[str]:
    """Those of some words that a tokenizer turns into its token for the unknown.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        One that spells words in pieces, as CLIP's does, knows every word.
    words : iterable of str

    Returns
    -------
    list of str
        In the order given.
    """
    listed, mark = list(words), tokenizer.unk_token_id
    if mark is None or not listed:
        return []
    tokens = tokenizer(listed, add_special_tokens=False)["input_ids"]
    return [word for word, ids in zip(listed, tokens, strict=True) if mark in ids]


def unknown_note(tokenizer: Any, captions: Iterable[str]) -> str:
    """One sentence on the words of captions that the text encoder does not know; empty where it knows all.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    captions : iterable of str

    Returns
    -------
    str
        How many words, in how many captions, and the most frequent of them.
    """
    said = [WORD.findall(caption) for caption in captions]
    counts = Counter(word for words in said for word in words)
    unknown = unknown_words(tokenizer, [word for word, _ in counts.most_common()])
    if not unknown:
        return ""
    strange = set(unknown)
    touched = sum(not strange.isdisjoint(words) for words in said)
    examples = ", ".join(unknown[:EXAMPLES]) + (", ..." if len(unknown) > EXAMPLES else "")
    return (
        f"the text encoder does not know {len(unknown):,} of the {len(counts):,} words of the captions ({examples}), "
        f"in {touched:,} of {len(said):,} captions: it reads each as one same word, so that c lacks what they say"
    )


def vocabulary_size(folder: str | Path) -> int | None:
    """Words that a tokenizer reads whole; None for one that spells words in pieces, and so reads any.

    Parameters
    ----------
    folder : path
        A model folder's part `tokenizer`.

    Returns
    -------
    int or None
        Special tokens are not counted.
    """
    content = json_object(Path(folder) / "tokenizer.json") or {}
    model, special = content.get("model"), content.get("added_tokens")
    if not isinstance(model, dict) or model.get("type") != "WordLevel" or not isinstance(model.get("vocab"), dict):
        return None
    return len(model["vocab"]) - len(special if isinstance(special, list) else [])
