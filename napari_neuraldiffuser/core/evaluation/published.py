"""Figures that papers report for the field's eight scores, to stand beside one's own with what they are of."""

COLUMNS = ("pixcorr", "ssim", "alexnet2", "alexnet5", "inception", "clip", "efficientnet", "swav")
ROWS: dict[str, tuple[float, ...]] = {
    "MindEye2": (0.322, 0.431, 0.961, 0.986, 0.954, 0.930, 0.619, 0.344),
    "Brain-Diffuser": (0.273, 0.365, 0.944, 0.966, 0.913, 0.909, 0.728, 0.422),
    "Takagi and Nishimoto": (0.246, 0.410, 0.789, 0.856, 0.838, 0.821, 0.811, 0.504),
    "MindTuner": (0.322, 0.421, 0.958, 0.988, 0.956, 0.938, 0.612, 0.340),
    "Brain-IT": (0.386, 0.486, 0.984, 0.995, 0.973, 0.964, 0.564, 0.320),
}
"""Method -> figures in the order of `COLUMNS`; two-way identification as shares."""
PROTOCOL = (
    "NSD, mean of subjects 1, 2, 5 and 7, all their sessions, as tabulated in later papers; 982 or 1,000 test images "
    "and the repeat that is scored differ from paper to paper. Only scores of as many test images, of the same images, "
    "compared at the same size (PixCorr and SSIM at 425 px) and with the same weights can be read beside them."
)
