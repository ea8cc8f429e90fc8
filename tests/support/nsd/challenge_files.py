"""Folders of the Algonauts 2023 challenge, written by NumPy and Pillow alone as the challenge's own script does."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

VERTICES = 642
MAPPINGS = {
    "prf-visualrois": {0: "Unknown", 1: "V1v", 2: "V1d", 3: "V2v"},
    "floc-faces": {0: "Unknown", 1: "OFA", 2: "FFA-1"},
    "streams": {0: "Unknown", 1: "early", 2: "midventral"},
}


@dataclass
class ChallengeTree:
    """What lies in the folder of one subject; `ids` are NSD's of the training images, in the order of rows."""

    root: Path
    subject: str
    responses: tuple[np.ndarray, np.ndarray]
    inside: tuple[np.ndarray, np.ndarray]
    labels: dict[str, tuple[np.ndarray, np.ndarray]]
    ids: list[int]
    captions: Path

    @property
    def folder(self) -> Path:
        return self.root / self.subject

    @property
    def masks(self) -> Path:
        return self.folder / "roi_masks"

    def fmri(self, side: str) -> Path:
        return self.folder / f"training_split/training_fmri/{side}_training_fmri.npy"


def save(path: Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_challenge(tree: ChallengeTree, images: np.ndarray, spaces=("challenge", "fsaverage")) -> ChallengeTree:
    """Everything of a subject; images (n, H, W, 3) uint8 in the order of `ids`."""
    for k, side in enumerate(("lh", "rh")):
        save(tree.fmri(side), tree.responses[k])
        save(tree.masks / f"{side}.all-vertices_fsaverage_space.npy", tree.inside[k].astype(int))
        for family, both in tree.labels.items():
            labels = np.where(tree.inside[k], both[k], 0)
            if "fsaverage" in spaces:
                save(tree.masks / f"{side}.{family}_fsaverage_space.npy", labels.astype(int))
            if "challenge" in spaces:
                challenge = labels[np.where(tree.inside[k])[0]].astype(int)
                save(tree.masks / f"{side}.{family}_challenge_space.npy", challenge)
    for family in tree.labels:
        save(tree.masks / f"mapping_{family}.npy", MAPPINGS.get(family, {0: "Unknown"}))
    pictures = tree.folder / "training_split/training_images"
    pictures.mkdir(parents=True, exist_ok=True)
    for k, (image, stimulus) in enumerate(zip(images, tree.ids, strict=True), 1):
        Image.fromarray(image).save(pictures / f"train-{k:04d}_nsd-{stimulus:05d}.png")
    return tree


def make_challenge(root: Path, subject: str = "subj06", n_images: int = 40, seed: int = 3) -> ChallengeTree:
    """Random responses of `n_images` images: more vertices on the right, labels from -1."""
    rng = np.random.default_rng(seed)
    inside = tuple(rng.random(VERTICES) < share for share in (0.2, 0.3))
    responses = tuple(rng.standard_normal((n_images, mask.sum())).astype(np.float32) for mask in inside)
    labels = {
        name: tuple(rng.integers(-1, max(names) + 1, VERTICES) for _ in inside) for name, names in MAPPINGS.items()
    }
    ids = sorted(rng.choice(73000, n_images, replace=False).tolist())
    captions = root / "captions.json"
    root.mkdir(parents=True, exist_ok=True)
    captions.write_text(json.dumps({str(one): [f"a picture {one}", "another"] for one in ids}))
    tree = ChallengeTree(root, subject, responses, inside, labels, ids, captions)
    return write_challenge(tree, rng.integers(0, 255, (n_images, 24, 24, 3)).astype(np.uint8))
