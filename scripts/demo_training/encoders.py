"""Stage ``encoders``: a contrastive image and text encoder pair, CLIP's classes at a tiny size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from demo_training import data
from demo_training.trainer import Recipe, Trainer, batch_on

BATCH = 96
WIDTH = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def text_config():
    """Three layers, width 64."""
    vocab = data.vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=data.MAX_TOKENS,
        projection_dim=WIDTH,
        hidden_act="quick_gelu",
        pad_token_id=vocab["<pad>"],
        bos_token_id=vocab["<bos>"],
        eos_token_id=vocab["<eos>"],
    )


def vision_config():
    """Six layers, width 96, patches of 8 at 64 px."""
    return CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=data.SIZE,
        patch_size=8,
        projection_dim=WIDTH,
        hidden_act="quick_gelu",
    )


class Pair(nn.Module):
    """Both encoders and what only training needs: the temperature and a head that reads the caption slot by slot."""

    def __init__(self):
        super().__init__()
        self.text = CLIPTextModelWithProjection(text_config())
        self.image = CLIPVisionModelWithProjection(vision_config())
        self.log_scale = nn.Parameter(torch.tensor(2.6))
        self.slots = nn.Linear(WIDTH, data.MAX_TOKENS * len(data.vocabulary()))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def embed_image(self, images):
        """Images in [0, 1], (n, 3, 64, 64), to (n, 64)."""
        return self.image(pixel_values=(images - self.mean) / self.std).image_embeds

    def embed_text(self, tokens):
        """Token ids (n, 32) to (n, 64)."""
        return self.text(input_ids=tokens).text_embeds

    def forward(self, images, tokens, canonical):
        """Contrastive loss plus the caption's words predicted from either embedding (it speeds the start)."""
        seen, said = self.embed_image(images), self.embed_text(tokens)
        logits = self.log_scale.clamp(max=4.0).exp() * F.normalize(seen, dim=-1) @ F.normalize(said, dim=-1).T
        target = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        words = self.slots(torch.cat([seen, said])).view(2 * len(images), -1, data.MAX_TOKENS)
        spelling = F.cross_entropy(words, canonical.repeat(2, 1))
        return contrast + spelling, (logits.argmax(1) == target).float().mean()


def train(work, budget, device="cpu", on_save=None):
    """Train or resume; returns the trainer."""
    batch_size = batch_on(device, BATCH)
    torch.manual_seed(20)
    images, tokens = data.load(work)
    tokens = torch.from_numpy(tokens).long()
    trainer = Trainer(Pair().to(device), Recipe("encoders", rate=1.5e-3, weight_decay=0.05), work)

    def loss_of(step):
        draw = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(images), (batch_size,), generator=draw)
        which = torch.randint(data.N_CAPTIONS, (batch_size,), generator=draw)
        batch = data.to_unit(images[chosen.sort().values.numpy()]).to(device)
        chosen = chosen.sort().values
        value, top1 = trainer.model(batch, tokens[chosen, which].to(device), tokens[chosen, 0].to(device))
        return value, f"loss {value.item():.3f} batch top-1 {top1:.2f}"

    trainer.run(loss_of, budget, on_save)
    return trainer


@torch.no_grad()
def hidden_states(pair, tokens, batch=256):
    """Last hidden states of token ids (n, 32): (n, 32, 64)."""
    return torch.cat([pair.text(input_ids=part).last_hidden_state for part in tokens.split(batch)])


@torch.no_grad()
def retrieval(pair, images, tokens, candidates=100):
    """Share of images (in [0, 1]) whose own caption is nearest among ``candidates`` disjoint-block captions."""
    hits = []
    for start in range(0, len(images) - candidates + 1, candidates):
        part = slice(start, start + candidates)
        seen = F.normalize(pair.embed_image(images[part]), dim=-1)
        said = F.normalize(pair.embed_text(tokens[part]), dim=-1)
        hits.append(((seen @ said.T).argmax(1) == torch.arange(candidates)).float())
    return torch.cat(hits).mean().item()
