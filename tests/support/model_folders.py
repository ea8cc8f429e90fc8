"""Model folders as strangers have them: in the hub's cache, as a whole CLIP, of other files."""

from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_cache(cache: Path, hub_id: str, folder: Path) -> Path:
    """Put a folder into a cache of the hub as its programs do: a commit's snapshot, and a branch that names it."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / COMMIT).symlink_to(folder)
    return repository / "snapshots" / COMMIT


def save_whole_clip(folder: Path) -> Any:
    """Write both towers of a small CLIP in one folder, as CLIP is shared; returns the model."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    common = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 12}
    text = {"vocab_size": 11, "num_hidden_layers": 1, "max_position_embeddings": 8}
    tokens = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    vision = {"num_hidden_layers": 6, "image_size": 24, "patch_size": 8}
    config = CLIPConfig(text_config=common | text | tokens, vision_config=common | vision, projection_dim=12)
    clip = CLIPModel(config).eval()
    clip.save_pretrained(folder)
    return clip
