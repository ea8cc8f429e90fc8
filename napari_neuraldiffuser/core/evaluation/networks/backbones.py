"""The networks of the field's scores: what each is shown, what is taken from it, and where its weights come from.

Protocol of MindEye2 (Scotti et al. 2024, `final_evaluations.ipynb`): seen images and reconstructions are brought to
256 px, then to the side of each network, bilinear and antialiased, as torchvision's `Resize` does by default.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_neuraldiffuser.core.base.files import file_digest, json_object
from napari_neuraldiffuser.core.evaluation.networks.alexnet import AlexNet
from napari_neuraldiffuser.core.evaluation.networks.efficientnet import EfficientNetB1
from napari_neuraldiffuser.core.evaluation.networks.inception import InceptionV3
from napari_neuraldiffuser.core.evaluation.networks.resnet import ResNet50
from napari_neuraldiffuser.core.evaluation.networks.weights import MetricWeightsError, Published, find, load_into
from napari_neuraldiffuser.core.networks.folder import Part
from napari_neuraldiffuser.core.networks.models import normalise, resize, to_tensor
from napari_neuraldiffuser.core.networks.opening import open_part
from napari_neuraldiffuser.core.networks.source import ModelError
from napari_neuraldiffuser.core.networks.weight_files import find_weights

COMMON_SIDE = 256
"""Side, px, that every picture is brought to before it is brought to a network's own."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CLIP_FOLDER = "clip-vit-large-patch14"
CLIP_SOURCE = "https://huggingface.co/openai/clip-vit-large-patch14"
CLIP_SHAPE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 768,
}
"""What the configuration of ViT-L/14's image encoder says."""
TORCH = "https://download.pytorch.org/models"


class ClipImages(nn.Module):
    """CLIP's image encoder; gives {"": (n, 768)}, the embedding that texts are compared with."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"": self.encoder(x).image_embeds}


@dataclass(frozen=True)
class Opened:
    """A network with its weights, and how pictures are shown to it.

    Attributes
    ----------
    network : Module
        Images (n, 3, side, side), normalised, to {layer: features (n, d)}.
    side : int
    statistics : tuple
        Mean and standard deviation of the three colours.
    file, digest : str
        Name and SHA-256 of the weights, for the protocol.
    """

    network: nn.Module
    side: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    file: str
    digest: str

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Layer -> features (n, d) float32 of uint8 images (n, H, W, 3)."""
        place = next(self.network.parameters())
        pixels = resize(to_tensor(images, place.device, torch.float32), COMMON_SIDE)
        shown = normalise(resize(pixels, self.side), *self.statistics)
        with torch.inference_mode():
            found = self.network(shown)
        return {layer: features.float().cpu().numpy() for layer, features in found.items()}


@dataclass(frozen=True)
class Backbone:
    """A network that scores are computed from.

    Attributes
    ----------
    side : int
        Of the pictures it is shown, px.
    build : callable
        The network without weights.
    published : Published
    """

    side: int
    build: Callable[[], nn.Module]
    published: Published

    def open(self, folder: str | Path, device: str | torch.device) -> Opened:
        """Read the weights in a folder; MetricWeightsError where they are missing or wrong."""
        path = find(self.published, folder)
        with torch.device("meta"):
            network = self.build()
        digest = load_into(network, self.published, path)
        network = _without_idle_parts(network).eval().requires_grad_(False).to(device, torch.float32)
        return Opened(network, self.side, IMAGENET, path.name, digest)


def _without_idle_parts(network: nn.Module) -> nn.Module:
    """The network without what its file does not hold, which is never run."""
    for name, child in list(network.named_children()):
        if any(weight.is_meta for weight in child.parameters()):
            network.add_module(name, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None
    return network


class ClipBackbone:
    """CLIP ViT-L/14, opened by transformers from a folder of its own."""

    side = 224

    def open(self, folder: str | Path, device: str | torch.device) -> Opened:
        """Read `clip-vit-large-patch14` in a folder; MetricWeightsError where it is missing or wrong."""
        place = Path(folder).expanduser() / CLIP_FOLDER
        remedy = f"Download config.json and model.safetensors of {CLIP_SOURCE} into it; it promises no digest."
        if (config := json_object(place / "config.json")) is None:
            raise MetricWeightsError(
                f"metric_weights {folder} must have CLIP ViT-L/14 in a folder {CLIP_FOLDER} with config.json and "
                f"model.safetensors, got none. {remedy}"
            )
        try:
            weights = find_weights("image_encoder", place)
            encoder = open_part(Part("image_encoder", place, config, weights))
        except ModelError as error:
            raise MetricWeightsError(f"CLIP ViT-L/14 in {place} cannot be opened ({error}) {remedy}") from error
        wrong = {k: getattr(encoder.config, k, None) for k, v in CLIP_SHAPE.items()}
        if wrong != CLIP_SHAPE:
            told = ", ".join(f"{k} {v} for {CLIP_SHAPE[k]}" for k, v in wrong.items() if v != CLIP_SHAPE[k])
            raise MetricWeightsError(f"{place} must be the image encoder of CLIP ViT-L/14, got {told}. {remedy}")
        network = ClipImages(encoder).eval().requires_grad_(False).to(device, torch.float32)
        return Opened(network, self.side, CLIP, f"{CLIP_FOLDER}/{weights.name}", file_digest(weights.files[0]))


BACKBONES: dict[str, Backbone | ClipBackbone] = {
    "alexnet": Backbone(
        256,
        AlexNet,
        Published("AlexNet", r"alexnet-owt-([0-9a-f]{8})\.pth", "alexnet-owt-7be5be79.pth", TORCH),
    ),
    "inception": Backbone(
        342,
        InceptionV3,
        Published("Inception v3", r"inception_v3_google-([0-9a-f]{8})\.pth", "inception_v3_google-0cc3c7bd.pth", TORCH),
    ),
    "clip": ClipBackbone(),
    # MindEye2 used the second set of weights; the first (rwightman) gives other numbers
    "efficientnet": Backbone(
        255,
        EfficientNetB1,
        Published(
            "EfficientNet-B1",
            r"efficientnet_b1(?:_rwightman)?-([0-9a-f]{8})\.pth",
            "efficientnet_b1-c27df63c.pth",
            TORCH,
        ),
    ),
    "swav": Backbone(
        224,
        ResNet50,
        Published(
            "SwAV ResNet-50",
            r"swav_800ep_pretrain\.pth\.tar",
            "swav_800ep_pretrain.pth.tar",
            "https://dl.fbaipublicfiles.com/deepcluster",
            prefix="module.",
            others=r"projection_head\..*|prototypes\..*",
            without=r"fc\..*",
        ),
    ),
}
"""By the name that `Metric.network` has."""
