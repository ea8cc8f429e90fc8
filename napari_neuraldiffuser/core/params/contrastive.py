"""Parameters of the linear decoder that is trained by contrast.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params, param
from napari_neuraldiffuser.core.base.registry import LAYERS, TARGETS

ONLY = ("decoder", ("contrastive",))


@dataclass(frozen=True)
class ContrastiveParams(Params):
    """Parameters of the linear decoder that is trained by contrast; they matter where `decoder` is contrastive."""

    contrastive_targets: tuple[str, ...] = param(
        ("c", *LAYERS),
        "Targets that are trained by contrast; the others keep the ridge start, with a penalty per direction.",
        choices=TARGETS,
        only=ONLY,
    )
    contrastive_rank: int = param(
        256, "Directions of each target that are decoded: the rank of the linear map.", low=1, high=4096, only=ONLY
    )
    contrastive_loss: str = param(
        "softclip",
        "softclip: stimuli with like targets may be taken for each other; infonce: each is its own alone.",
        choices=("softclip", "infonce"),
        only=ONLY,
    )
    contrastive_regression: float = param(
        20.0,
        "Weight of the squared error beside the contrastive loss: smaller tells stimuli apart better, and predicts "
        "their values worse.",
        low=0.0,
        only=ONLY,
    )
    contrastive_temperature: float = param(
        0.05, "Temperature of the cosines with which training starts; it is learnt.", low=1e-3, high=10.0, only=ONLY
    )
    contrastive_soft_temperature: float = param(
        0.05, "Temperature of the cosines between targets in softclip.", low=1e-3, high=10.0, only=ONLY
    )
    contrastive_epochs: int = param(60, "Most passes over the training stimuli.", low=0, only=ONLY)
    contrastive_patience: int = param(
        10, "Passes without a better loss of held-out stimuli after which training ends.", low=1, only=ONLY
    )
    contrastive_held_out: float = param(
        0.2, "Share of the training stimuli that choose the best pass.", low=0.01, high=0.5, only=ONLY
    )
    contrastive_batch: int = param(256, "Stimuli that are contrasted at once.", unit="stimuli", low=2, only=ONLY)
    contrastive_rate: float = param(0.01, "Learning rate of Adam.", low=1e-8, high=1.0, only=ONLY)
