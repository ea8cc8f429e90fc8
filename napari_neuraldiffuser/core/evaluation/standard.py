"""The metrics of the package and the field's eight, as `base.registry.METRICS` names them."""

from napari_neuraldiffuser.core.evaluation import identification, metrics
from napari_neuraldiffuser.core.evaluation.metric import Metric

PIXCORR = Metric(
    "PixCorr",
    "Pearson correlation with the seen image over pixels and channels, both resized to {size} px.",
    lambda one: one.pixcorr[0],
    card=1,
)
SSIM = Metric(
    "SSIM",
    "Structural similarity with the seen image, grey at {size} px, Gaussian window of sigma 1.5, "
    "population covariance, data range 1.",
    lambda one: one.ssim[0],
    card=2,
)
EDGES = Metric(
    "Edges (HOG)",
    "Pearson correlation of HOG features with those of the seen image (grey, 128 px, 9 orientations, "
    "8 x 8 px cells, 2 x 2 cell blocks, L2-Hys).",
    lambda one: one.edge_agreement[0],
    card=3,
)
TWOWAY_EDGES = Metric(
    "Two-way by edges",
    "Two-way identification with those HOG features; chance {chance}.",
    identification.two_way,
    of="edges",
    matrix=True,
    chance=0.5,
)
REPEAT_PIXCORR = Metric(
    "Repeats: PixCorr", "Mean PixCorr between the repeats of a stimulus.", lambda one: one.pixcorr[1], card=6
)
REPEAT_SSIM = Metric("Repeats: SSIM", "Mean SSIM between the repeats of a stimulus.", lambda one: one.ssim[1])
REPEAT_EDGES = Metric(
    "Repeats: edges",
    "Mean HOG correlation between the repeats of a stimulus.",
    lambda one: one.edge_agreement[1],
    card=5,
)
TWOWAY_FEATURES = Metric(
    "Two-way identification",
    "Two-way identification with features of the image encoder {encoder}: r = corr(seen_i, recon_j); for each j the "
    "share of i != j with r_ij < r_jj; chance {chance}.",
    identification.two_way,
    of="features",
    matrix=True,
    column="twoway_{encoder}",
    chance=0.5,
    card=4,
)
REPEAT_FEATURES = Metric(
    "Repeats: features",
    "Mean correlation of features of the image encoder {encoder} between the repeats of a stimulus.",
    lambda features, seen: metrics.repeat_agreement(features),
    of="features",
)
REPEAT_IDENTIFICATION = Metric(
    "Repeats: identification",
    "Share of comparisons in which two repeats of a stimulus are closer to each other "
    "(HOG correlation) than to a repeat of another stimulus; chance {chance}.",
    lambda edges, seen: metrics.repeat_identification(edges),
    of="edges",
    chance=0.5,
)


def _one_of(n: int) -> float:
    """Chance of n-way identification among n stimuli."""
    return 1 / min(n, identification.WAYS)


def _middle(n: int) -> float:
    """Mean rank of a guess among n stimuli."""
    return (n + 1) / 2


NWAY = (
    f"{identification.WAYS}-way identification with {{what}}: probability, exact from the ranks, that the own image "
    f"correlates most with a reconstruction among it and {identification.WAYS - 1} others, drawn at random (all, where "
    "there are fewer)."
)
RANK = "Mean place of the own image among all that were scored, by correlation of {what}: 1 is best."
HOG, ENCODED = "those HOG features", "features of the image encoder {encoder}"
NWAY_EDGES = Metric(
    f"{identification.WAYS}-way with edges",
    NWAY.format(what=HOG),
    identification.n_way,
    of="edges",
    matrix=True,
    chance=_one_of,
)
RANK_EDGES = Metric(
    "Rank by edges", RANK.format(what=HOG), identification.rank, of="edges", matrix=True, chance=_middle, lower=True
)
NWAY_FEATURES = Metric(
    f"{identification.WAYS}-way identification",
    NWAY.format(what=ENCODED),
    identification.n_way,
    of="features",
    matrix=True,
    column="nway_{encoder}",
    chance=_one_of,
)
RANK_FEATURES = Metric(
    "Rank",
    RANK.format(what=ENCODED),
    identification.rank,
    of="features",
    matrix=True,
    column="rank_{encoder}",
    chance=_middle,
    lower=True,
)

SHOWN = "pictures at 256 px, then {side} px; weights {{encoder}}"
BY_TWO = f"Two-way identification with {{what}}, {SHOWN}; chance {{{{chance}}}}."
APART = f"Correlation distance of {{what}} to those of the seen image, {SHOWN}; lower is better."


def _network(label: str, what: str, side: int, network: str, layer: str = "") -> Metric:
    """One of the field's two-way identifications."""
    text = BY_TWO.format(what=what, side=side)
    compute = identification.two_way
    return Metric(label, text, compute, of="network", matrix=True, network=network, layer=layer, chance=0.5)


def _apart(label: str, what: str, side: int, network: str) -> Metric:
    """One of the field's distances."""
    text = APART.format(what=what, side=side)
    return Metric(label, text, identification.distance, of="network", matrix=True, network=network, lower=True)


ALEXNET2 = _network("AlexNet(2)", "the second layer of AlexNet (features.4)", 256, "alexnet", "2")
ALEXNET5 = _network("AlexNet(5)", "the fifth layer of AlexNet (features.11)", 256, "alexnet", "5")
INCEPTION = _network("Inception", "the pooled features of Inception v3", 342, "inception")
CLIP = _network("CLIP", "the image embedding of CLIP ViT-L/14", 224, "clip")
EFFICIENTNET = _apart("EffNet-B1", "the pooled features of EfficientNet-B1", 255, "efficientnet")
SWAV = _apart("SwAV", "the pooled features of SwAV's ResNet-50", 224, "swav")
CLIP_FEATURES = f"the image embedding of CLIP ViT-L/14 ({SHOWN})".format(side=224)
CLIP_NWAY = Metric(
    f"CLIP {identification.WAYS}-way",
    NWAY.format(what=CLIP_FEATURES),
    identification.n_way,
    of="network",
    matrix=True,
    network="clip",
    chance=_one_of,
)
CLIP_RANK = Metric(
    "CLIP rank",
    RANK.format(what=CLIP_FEATURES),
    identification.rank,
    of="network",
    matrix=True,
    network="clip",
    chance=_middle,
    lower=True,
)
