"""Parameters of target embeddings and of decoders.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.fields import ParamError, Params, param
from napari_neuraldiffuser.core.base.registry import ALIGN_FORMS, LAYERS, TARGETS
from napari_neuraldiffuser.core.params.contrastive import ContrastiveParams
from napari_neuraldiffuser.core.params.network import NetworkParams


@dataclass(frozen=True)
class FeatureParams(Params):
    """How target embeddings are computed from images and captions."""

    layers: tuple[str, ...] = param(LAYERS, "Guidance layers to extract.", choices=LAYERS)
    feature_normalisation: str = param(
        "imagenet",
        "Mean and standard deviation applied to images before the guide network (published code: imagenet).",
        choices=("imagenet", "clip", "model"),
    )
    antialias: bool = param(
        True,
        "Average over what lies between pixels where images are made smaller for the guide network. Published code: "
        "as its version of torchvision did; off changes the guidance term by a sixth.",
    )
    z_resize: str = param(
        "bilinear",
        "How images are resized for the VAE: bilinear, antialiased; or lanczos, as in the published code, sharper and "
        "with ringing at edges.",
        choices=("bilinear", "lanczos"),
    )
    z_target: str = param(
        "mean",
        "What z is of the VAE's posterior: its mean, which a decoder can learn; or a sample, as in the published code, "
        "which adds noise that no decoder can predict.",
        choices=("mean", "sample"),
    )
    z_seed: int = param(
        0,
        "Which samples; they depend on the seed and the stimulus only.",
        low=0,
        only=("z_target", ("sample",)),
    )
    batch_size: int = param(32, "Images encoded at once.", unit="images", low=1)


@dataclass(frozen=True)
class RidgeParams(Params):
    """What every kind of decoder has, and what ridge has of its own."""

    decoder: str = param(
        "ridge",
        "ridge: one exact linear map; contrastive: a linear map trained on to tell stimuli apart; network: trained, "
        "best from a network that was pretrained on other subjects.",
        choices=registry.DECODERS,
    )
    alphas: tuple[float, ...] = param(
        tuple(10.0**k for k in range(0, 8)),
        "Ridge penalties tried, for voxels of unit variance; the one that predicts left-out images best is taken. A "
        "small one follows the noise, a large one decodes the average picture. Take more where the best is the first "
        "or last.",
        low=1e-12,
    )
    cv_targets: int = param(
        1024,
        "Target columns per group that the cross-validation scores.",
        low=1,
        only=("decoder", ("ridge", "contrastive")),
    )
    align: str = param(
        "train",
        "Give decoded values mean and spread of the training targets, by statistics of training stimuli that were left "
        "out (train) or of the test set as the published code does (test), or leave them (none). A decoder hedges: "
        "without it z, c and g vary too little and the picture comes out flat; train is right for new scans.",
        choices=("none", "train", "test"),
    )
    align_targets: tuple[str, ...] = param(TARGETS, "Targets whose spread is matched.", choices=TARGETS)
    align_form: str = param(
        "auto",
        "How the spread is matched with align=train: by one factor for the target (group), one for every column "
        "(column), halfway between (shrunk), not (none), or by the one of these whose left-out predictions are "
        "distributed most like the training targets (auto; none where they tell no stimuli apart).",
        choices=("auto", *ALIGN_FORMS),
    )
    seed: int = param(
        0,
        "Seed of what is drawn: scored columns and, for decoders that are trained, weights and held-out stimuli.",
        low=0,
    )
    penalty: str = param(
        "group",
        "What has a penalty of its own: each of z, c and the layers of g, scored on some of its columns (group); each "
        "channel of z and token of c and g (block); or each column (target). The latter two read and score all "
        "columns, which for 305,920 takes some minutes more; target helps where columns differ in noise.",
        choices=("group", "block", "target"),
        only=("decoder", ("ridge",)),
    )
    ridge_rank: int = param(
        0,
        "Directions of each target that the decoder keeps: decodes one scan in a fraction of a second from a file of "
        "some hundred MB, and says how far it is from the exact one; 0 keeps all.",
        low=0,
        only=("decoder", ("ridge",)),
    )
    keep_targets: str = param(
        "auto",
        "What a decoder file has of the training targets: all (copy), in half precision (half), or where they are "
        "(refer), so that their file must stay. auto refers to a file in the decoder's own folder of a run, and copies "
        "others.",
        choices=("auto", "copy", "half", "refer"),
        only=("decoder", ("ridge",)),
    )
    decoder_device: str = param(
        "cpu",
        "Where the decoder is fitted, and where ridge and network predict (on the CPU where a saved decoder finds no "
        "GPU); results differ by rounding.",
        choices=("cpu", "cuda"),
    )


@dataclass(frozen=True)
class DecodingParams(NetworkParams, ContrastiveParams, RidgeParams):
    """From betas to embeddings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network_precision != "no" and self.decoder_device == "cpu":
            raise ParamError(
                f"network_precision must be no on a CPU, got {self.network_precision}. Leave it out, or choose "
                "decoder_device cuda."
            )
