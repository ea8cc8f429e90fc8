"""The checkpoint of a training: one file of tensors and a text, replaced whole, that gives the uninterrupted result."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_neuraldiffuser.core.base.files import array_digest, atomic_path
from napari_neuraldiffuser.core.decoding.network.files import CHECKPOINT


@dataclass
class Progressed:
    """How far a training has come.

    Attributes
    ----------
    recipe : str
        Fingerprint of all that decides the result.
    passes : list of dict
        Held-out R² of every target after 0, 1, ... passes.
    best : int
        Pass with the best mean.
    step : int
        Optimizer steps made.
    scale : dict
        State of float16's gradient scale.
    """

    recipe: str
    passes: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    step: int = 0
    scale: dict[str, Any] = field(default_factory=dict)


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the parameters that are trained."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def digest(model: nn.Module) -> str:
    """Differs when a weight does, trained or not."""
    return array_digest(*(values.detach().cpu().numpy() for values in model.state_dict().values()))


def take_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Give parameters the values of `trained_state`."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, values in state.items():
            parameters[name].copy_(values)


def write(
    folder: Path,
    progressed: Progressed,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, torch.Tensor],
) -> None:
    """Replace the folder's checkpoint."""
    from safetensors.torch import save_file

    tensors = {f"model/{name}": values for name, values in trained_state(model).items()}
    tensors |= {f"best/{name}": values for name, values in best.items()}
    for k, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{k}/{name}": values.detach().cpu() for name, values in state.items()}
    with atomic_path(folder / CHECKPOINT) as path:
        save_file(tensors, path, {"progressed": json.dumps(asdict(progressed))})


def read(
    folder: Path, recipe: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progressed, dict[str, torch.Tensor]] | None:
    """Go on from the folder's checkpoint, if there is one of this recipe; what it says, and the best weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / CHECKPOINT, "pt") as file:
            progressed = Progressed(**json.loads(file.metadata()["progressed"]))
            if progressed.recipe != recipe:
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # a file of a foreign or damaged format is one to begin anew from
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
    take_state(model, _below("model", tensors))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, values in _below("optimizer", tensors).items():
        k, name = key.split("/")
        state.setdefault(int(k), {})[name] = values
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progressed, _below("best", tensors)


def _below(what: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{what}/"): values for key, values in tensors.items() if key.startswith(f"{what}/")}
