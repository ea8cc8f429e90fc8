"""The metrics of the protocol, as `base.registry.METRICS` names them."""

from napari_neuraldiffuser.core.evaluation import metrics
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
    metrics.two_way_repeats,
    of="edges",
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
    metrics.two_way_repeats,
    of="features",
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
