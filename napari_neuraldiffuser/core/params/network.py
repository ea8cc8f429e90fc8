"""Parameters of the network decoder.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params, param

ONLY = ("decoder", ("network",))


@dataclass(frozen=True)
class NetworkParams(Params):
    """Parameters of the network decoder; they matter where `decoder` is network."""

    network_pretrained: str = param(
        "",
        "Folder that neuraldiffuser pretrain wrote from other subjects. Empty: the network is trained on this subject "
        "alone. Test images of this subject must not be among the training images of the others: NSD's shared images "
        "never are, those of own scans are yours to keep apart.",
        only=ONLY,
    )
    network_backbone: str = param(
        "tuned",
        "What of a pretrained network is trained on this subject: the voxel encoder alone (frozen), or backbone and "
        "heads as well (tuned).",
        choices=("frozen", "tuned"),
        only=ONLY,
    )
    network_encoder: str = param(
        "ridge",
        "Voxel encoder: the ridge solution as it is (ridge), or trained on from there (tuned).",
        choices=("ridge", "tuned"),
        only=ONLY,
    )
    network_width: int = param(
        256,
        "Size of the latent that all subjects share and of the backbone (published: 4096 or 1024, for targets of full "
        "size). A pretrained network has its own.",
        low=2,
        high=16384,
        only=ONLY,
    )
    network_blocks: int = param(2, "Residual blocks of the backbone.", low=0, high=64, only=ONLY)
    network_bottleneck: int = param(
        256, "Principal components of each target that its head passes through.", low=1, high=8192, only=ONLY
    )
    network_basis: str = param(
        "fixed",
        "Last layer of the heads: the principal components as they are (fixed), or trained on from there (trained), "
        "which takes 16 bytes of memory for every weight.",
        choices=("fixed", "trained"),
        only=ONLY,
    )
    network_prior: str = param(
        "none",
        "Diffusion prior of c and g: none, trained with the rest without being used, or used to predict, which gives "
        "embeddings the spread of real ones and lowers their correlation with the true ones.",
        choices=("none", "trained", "used"),
        only=ONLY,
    )
    network_prior_weight: float = param(30.0, "Weight of the diffusion prior's loss.", low=0.0, only=ONLY)
    network_contrast: float = param(
        0.0, "Weight of the contrastive losses beside the regression's.", low=0.0, only=ONLY
    )
    network_epochs: int = param(30, "Most passes over the training stimuli.", low=1, only=ONLY)
    network_patience: int = param(
        5, "Passes without a better prediction of the held-out stimuli after which training ends.", low=1, only=ONLY
    )
    network_held_out: float = param(
        0.15, "Share of the training stimuli that choose the best pass.", low=0.01, high=0.5, only=ONLY
    )
    network_folds: int = param(
        8,
        "Parts of the training stimuli that the ridge encoder predicts one from the others, so that the network learns "
        "from inputs as noisy as those of new stimuli.",
        low=2,
        high=100,
        only=ONLY,
    )
    network_batch: int = param(128, "Stimuli of a training step.", unit="stimuli", low=2, only=ONLY)
    network_rate: float = param(3e-4, "Largest learning rate of AdamW.", low=1e-8, high=1.0, only=ONLY)
    network_decay: float = param(0.05, "Weight decay of AdamW.", low=0.0, high=10.0, only=ONLY)
    network_dropout: float = param(0.2, "Share of the backbone's units that a step leaves out.", low=0.0, high=0.95,
                                   only=ONLY)  # fmt: skip
    network_precision: str = param(
        "no",
        "Mixed precision of training on a GPU: none, bfloat16 or float16.",
        choices=("no", "bf16", "fp16"),
        only=ONLY,
    )
    network_accumulation: int = param(1, "Batches whose gradients are added up to one step.", low=1, only=ONLY)
    network_folder: str = param(
        "",
        "Folder for the checkpoint of a training that can be resumed and for its TensorBoard log. Empty: neither is "
        "kept.",
        only=ONLY,
    )
