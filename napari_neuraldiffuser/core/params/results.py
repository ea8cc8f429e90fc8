"""Parameters of contribution maps, scores, and the cutting of a run into nodes.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.fields import Params, param


@dataclass(frozen=True)
class ContributionParams(Params):
    """ROI and voxel contribution maps, and what decoded values are worth on the test stimuli."""

    method: str = param(
        "auto",
        "How the prediction is attributed: additive is the exact split of a linear decoder over voxels, "
        "integrated-gradients is for any with gradients, such as the network, and auto takes the one that fits; haufe "
        "is where voxels vary with a linear prediction; roi-only, leave-out and unique fit ridge anew to a region "
        "alone, or to all but it.",
        choices=registry.ATTRIBUTION_METHODS,
    )
    bootstrap: int = param(
        200,
        "Bootstrap samples of stimuli for the standard error: 200 are enough to read it, 1000 for print.",
        unit="samples",
        low=2,
    )
    roi_permutations: int = param(
        0,
        "Times that stimuli are dealt out anew for p values of regions, with false discovery rate and largest "
        "statistic over regions; 0: none, 1000 for print.",
        low=0,
    )
    hemispheres: str = param(
        "together",
        "Regions of contribution maps as a whole (together), as lh. and rh. parts in a family of their own (apart), or "
        "both.",
        choices=("together", "apart", "both"),
    )
    random_sets: int = param(
        20,
        "Random voxel sets of each region's size that roi-only and leave-out are compared with.",
        unit="sets",
        low=0,
        only=("method", ("roi-only", "leave-out")),
    )
    seed: int = param(0, "Seed of the bootstrap, the permutations and the random sets.", low=0)
    permutations: int = param(
        1000, "Random assignments of decoded to true values that two-way identification is tested against.", low=19
    )
    trial_ceiling: bool = param(
        True,
        "Read single trials of the test images again, for the R² that the decoder would have without their noise.",
    )
    projection: str = param(
        "auto",
        "Project the true targets on the span of the training targets, the best that a linear decoder of these can "
        "give: always (on), where it takes less than about a minute a target (auto), or never (off).",
        choices=("auto", "on", "off"),
    )
    save_projected: bool = param(
        False, "Also write these projections as embeddings, to reconstruct from them beside the decoded ones."
    )
    region_accuracy: bool = param(
        True,
        "Fit ridge to the voxels of each region alone and say how well they decode each target, as a table and a map.",
    )


@dataclass(frozen=True)
class EvaluationParams(Params):
    """Scores of reconstructions against seen images."""

    metrics: tuple[str, ...] = param(
        tuple(name for name in registry.METRICS if name not in registry.NETWORK_METRICS),
        "Scores that are computed; those of features where there is an image encoder.",
        choices=registry.METRICS,
    )
    metric_weights: str = param(
        "",
        "Folder of the published weights of AlexNet, Inception v3, CLIP ViT-L/14, EfficientNet-B1 and SwAV: with it "
        "the scores of these networks are computed too, all of them unless metrics names some. Empty: none.",
    )
    size: int = param(425, "Side at which PixCorr and SSIM compare images; papers have 425.", unit="px", low=16)
    batch_size: int = param(32, "Images encoded at once for two-way identification.", unit="images", low=1)
    trust: str = param(
        "cheap",
        "The trust sheet, what would have come out anyway: cheap takes no further diffusion; full adds the prior "
        "alone, true targets through the generator, fewer numbers of the voxels and kinds of images left out; none "
        "leaves it out.",
        choices=("none", "cheap", "full"),
    )
    trust_stimuli: int = param(
        30,
        "Test stimuli, the first so many, of which the trust sheet makes further pictures.",
        unit="stimuli",
        low=1,
        only=("trust", ("full",)),
    )


@dataclass(frozen=True)
class WorkflowParams(Params):
    """How a run is cut into the nodes of a workflow; none of these changes a result."""

    chunk_size: int = param(
        20,
        "Test stimuli that one node reconstructs, rounded up to whole batches; each node opens the models once.",
        unit="stimuli",
        low=1,
    )
    decoder_parts: str = param(
        "one",
        "Decoders fitted in parallel: one for each of z, c and g (embeddings), one for every target and layer "
        "(targets), or one for all (one). Each decomposes the betas, which at 9,000 images takes the most time.",
        choices=("embeddings", "targets", "one"),
    )
    gpu_mem_gb: float = param(16.0, "Memory of the host that a GPU node asks for.", unit="GB", low=0.1)
    num_threads: int = param(
        0, "Threads of each node and processors it asks for; 0: asks for one, uses all it gets.", low=0
    )

    def parts(self, layers: tuple[str, ...], decoder: str) -> list[list[str]]:
        """Targets of each decoder that is fitted on its own; all in one where the kind learns them together."""
        whole = ["z", "c", *layers]
        if decoder in registry.JOINT:
            return [whole]
        split = {"embeddings": [["z"], ["c"], list(layers)], "targets": [[name] for name in whole], "one": [whole]}
        return split[self.decoder_parts]
