"""Stage ``classifier``: a judge that reads main colour, main kind and background from pixels; it is not shipped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from demo_training import data
from demo_training.trainer import Recipe, Trainer, batch_on
from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes

BATCH = 64
HEADS = {  # question: (where the answer stands among a caption's token ids, possible answers)
    "colour": (3, scenes.COLOUR_NAMES),
    "kind": (4, scenes.OBJECT_KINDS),
    "background": (9, scenes.BACKGROUND_KINDS),
}


class Judge(nn.Module):
    """Five strided convolutions and one linear head per question."""

    def __init__(self):
        super().__init__()
        layers, widths = [], (3, 24, 48, 64, 96, 128)
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 4, len(words)) for name, (_, words) in HEADS.items()})

    def forward(self, images):
        """Images in [0, 1], (n, 3, 64, 64), to logits per question."""
        features = self.body(images * 2 - 1)
        return {name: head(features) for name, head in self.heads.items()}


def labels(tokens):
    """Class indices per question from canonical captions' token ids (n, 32): the words stand at fixed slots."""
    vocab, found = data.vocabulary(), {}
    for name, (slot, words) in HEADS.items():
        ids = torch.tensor([vocab[word] for word in words])
        found[name] = (tokens[:, slot, None] == ids).int().argmax(1)
    return found


def train(work, budget, device="cpu", on_save=None):
    """Train or resume; returns the trainer."""
    batch_size = batch_on(device, BATCH)
    torch.manual_seed(40)
    images, tokens = data.load(work)
    truth = labels(torch.from_numpy(tokens[:, 0]).long())
    trainer = Trainer(Judge().to(device), Recipe("classifier", rate=2e-3, weight_decay=0.05, ema=0.99), work)

    def loss_of(step):
        draw = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(images), (batch_size,), generator=draw).sort().values
        batch = data.to_unit(images[chosen.numpy()])
        grain = 0.04 * torch.rand(batch_size, 1, 1, 1, generator=draw) * torch.randn(batch.shape, generator=draw)
        logits = trainer.model((batch + grain).to(device))
        value = sum(F.cross_entropy(logits[name], truth[name][chosen].to(device)) for name in HEADS)
        return value, f"loss {value.item():.3f}"

    trainer.run(loss_of, budget, on_save)
    return trainer


@torch.no_grad()
def agreement(judge, images, tokens):
    """Share of images (n, 3, 64, 64) whose reading agrees with the caption: per question, and colour with background.

    Returns
    -------
    dict of str to float
    """
    truth, logits = labels(tokens), judge(images)
    right = {name: logits[name].argmax(1) == truth[name] for name in HEADS}
    right["colour and background"] = right["colour"] & right["background"]
    return {name: value.float().mean().item() for name, value in right.items()}
