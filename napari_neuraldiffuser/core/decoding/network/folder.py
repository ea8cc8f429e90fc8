"""The folder of a pretrained network, which can be shared: tensors in safetensors, all else in JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_neuraldiffuser.core.base.errors import said
from napari_neuraldiffuser.core.base.files import atomic_path, make_folder, write_json
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.network.basis import Basis, TargetBasis
from napari_neuraldiffuser.core.decoding.network.files import ABOUT, FORMAT, REMEDY, TENSORS, check_network
from napari_neuraldiffuser.core.decoding.network.model import Network, Shape

MADE_FROM = ("model_digest", "feature_normalisation", "antialias")
"""What targets must share with those that a network was trained on."""


@dataclass
class Pretrained:
    """A network, the components that its latent stands for, and `about`: what it was trained on."""

    network: Network
    basis: Basis
    about: dict[str, Any]

    def save(self, folder: str | Path) -> Path:
        """Write the folder; the JSON comes last, and a folder without it is not complete."""
        from safetensors.torch import save_file

        folder = make_folder(folder)
        (folder / ABOUT).unlink(missing_ok=True)
        with atomic_path(folder / TENSORS) as path:
            save_file(tensors_of(self.network, self.basis), path)
        about = {"format": FORMAT, "shape": asdict(self.network.about), "sizes": sizes_of(self.basis)}
        write_json(folder / ABOUT, about | {"about": self.about})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Pretrained":
        """Read a folder.

        Raises
        ------
        DecodingError
            If it is none, of another format, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        about: dict[str, Any] = check_network(folder)
        try:
            network, basis = from_tensors(load_file(folder / TENSORS), about["shape"], about["sizes"])
            made_of = about["about"]
            _check_about(made_of)
        except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise DecodingError(
                f"{folder / TENSORS} must hold the weights that {ABOUT} describes in full, got: {said(error)}. {REMEDY}"
            ) from error
        return cls(network, basis, made_of)

    def check(self, attrs: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise DecodingError unless targets with these attributes and shapes are of the kind it was trained on."""
        for key in MADE_FROM:
            have, want = attrs.get(key), self.about["targets"].get(key)
            if have != want:
                raise DecodingError(
                    f"targets must have the {key} of the pretrained network, {want}, got {have}. Extract the targets "
                    "with the models and settings that it was trained with, or pretrain on these."
                )
        known = {name: one.shape for name, one in self.basis.targets.items()}
        if shapes != known:
            name = next(name for name in (*known, *shapes) if shapes.get(name) != known.get(name))
            raise DecodingError(
                f"targets must be those of the pretrained network, with {name} of shape {known.get(name)}, got "
                f"{shapes.get(name)}. Extract the same targets, or pretrain on these."
            )


def _check_about(about: dict[str, Any]) -> None:
    """ValueError or the like unless it says what subjects and targets a network was trained on."""
    if not isinstance(about["subjects"], list) or not isinstance(about["targets"], dict):
        raise ValueError("no list of subjects, or no targets")


def sizes_of(basis: Basis) -> dict[str, float]:
    """Variance of every target."""
    return {name: one.size for name, one in basis.targets.items()}


def tensors_of(network: Network, basis: Basis) -> dict[str, torch.Tensor]:
    """Weights, and what of the basis they do not have, by name."""
    tensors = {f"network/{name}": values.detach().cpu().contiguous() for name, values in network.state_dict().items()}
    for name, one in basis.targets.items():
        tensors[f"mean/{name}"] = torch.from_numpy(one.mean)
        tensors[f"loadings/{name}"] = torch.from_numpy(basis.loadings[name])
        if not _holds_components(network, name, one):
            tensors[f"components/{name}"] = torch.from_numpy(one.components)
    return tensors


def _holds_components(network: Network, name: str, one: TargetBasis) -> bool:
    """Whether a head's last layer still is the components, which then need not be kept twice."""
    if name not in network.heads:
        return False
    weight = network.head(name).columns.weight.detach().cpu().numpy()
    return bool(np.array_equal(weight.T, one.components))


def from_tensors(
    tensors: dict[str, torch.Tensor], shape: dict[str, Any], sizes: dict[str, float]
) -> tuple[Network, Basis]:
    """Network and basis of `tensors_of`; KeyError, RuntimeError or the like where something does not fit."""
    targets = {name: (int(b), tuple(int(side) for side in size)) for name, (b, size) in shape["targets"].items()}
    network = Network(Shape(shape["width"], shape["blocks"], shape["dropout"], shape["prior"], targets))
    prefix = "network/"
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    bases, loadings = {}, {}
    for name, (_, size) in targets.items():
        kept = tensors.get(f"components/{name}")
        weight = kept if kept is not None else network.head(name).columns.weight.detach().T.contiguous()
        bases[name] = TargetBasis(tensors[f"mean/{name}"].numpy(), weight.numpy().copy(), float(sizes[name]), size)
        loadings[name] = tensors[f"loadings/{name}"].numpy()
    return network, Basis(bases, loadings)


def shape_json(network: Network) -> str:
    """The network's shape as text."""
    return json.dumps(asdict(network.about))
