"""Published weights of the scoring networks, in a folder of the user's: found, and checked before one is used."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import file_digest, file_fault

SHOWN = 3
"""Names that a message shows of each kind of fault."""
COUNTERS = "num_batches_tracked"
"""Entries that count batches in training; older files lack them, and nothing reads them."""


class MetricWeightsError(UserError):
    """Weights of a scoring network that are missing or not what they should be; names file, source and digest."""


@dataclass(frozen=True)
class Published:
    """A file of weights as its authors publish it.

    Attributes
    ----------
    network : str
        Its title in messages.
    pattern : str
        Regular expression of the file's name; its group is the beginning of the file's SHA-256, where the name has it.
    name : str
        The name to look for, for messages; of several files that fit, the one of this name counts.
    source : str
        Address of the folder that the file is published in.
    prefix : str
        What stands before every name in it.
    others : str
        Regular expression of what it holds beside the network.
    without : str
        Regular expression of what the network has and it does not: parts that are never run.
    """

    network: str
    pattern: str
    name: str
    source: str
    prefix: str = ""
    others: str = r"(?!)"
    without: str = r"(?!)"

    @property
    def digest(self) -> str:
        """Beginning of the SHA-256 of the named file; nothing where its name has none."""
        return _promised(self, self.name)

    @property
    def remedy(self) -> str:
        """Where to get the file, which nothing here downloads."""
        told = f", SHA-256 {self.digest}..." if self.digest else ", whose name promises no digest"
        return f"Download {self.source}/{self.name}{told}."


def find(published: Published, folder: str | Path) -> Path:
    """The file in the user's folder.

    Raises
    ------
    MetricWeightsError
        If there is no folder, no such file, or several and none of the very name.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise MetricWeightsError(f"metric_weights must be a folder of weights, got {folder}, which is none. Check it.")
    found = sorted(path for path in place.iterdir() if re.fullmatch(published.pattern, path.name))
    named = [path for path in found if path.name == published.name] or found
    if len(named) != 1:
        got = ", ".join(path.name for path in named) or "none"
        raise MetricWeightsError(
            f"metric_weights {folder} must have one file of the weights of {published.network}, got {got}. "
            f"{published.remedy}"
        )
    return named[0]


def load_into(network: nn.Module, published: Published, path: Path) -> str:
    """Give a network, built on any device, the weights in a file; gives the file's SHA-256.

    Raises
    ------
    MetricWeightsError
        If the file cannot be read, its digest is not the one in its name, or a weight lacks, is strange, of another
        shape or not finite.
    """
    if fault := file_fault(path):
        raise MetricWeightsError(
            f"{path} must be the weights of {published.network}, got {fault[0]}. {_again(published)}"
        )
    digest = file_digest(path)
    if not digest.startswith(_promised(published, path.name)):
        raise MetricWeightsError(
            f"{path} must have the SHA-256 that its name promises, {_promised(published, path.name)}..., got "
            f"{digest[:8]}...: cut off or changed. {_again(published)}"
        )
    state = _own(published, _read(published, path))
    _check(network, state, published, path)
    network.load_state_dict(state, strict=False, assign=True)
    return digest


def _promised(published: Published, name: str) -> str:
    found = re.fullmatch(published.pattern, name)
    return (found[1] or "") if found and found.re.groups else ""


def _again(published: Published) -> str:
    return f"{published.remedy.removesuffix('.')} again."


def _read(published: Published, path: Path) -> Mapping[str, torch.Tensor]:
    """What the file holds: names and tensors, nothing that could be run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # of a foreign file torch raises whatever it met
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise MetricWeightsError(
            f"{path} must be the weights of {published.network}, got what cannot be read as tensors alone ({reason}). "
            f"{_again(published)}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise MetricWeightsError(
            f"{path} must be a table of the weights of {published.network} by name, got {type(state).__name__} of "
            f"other things. {_again(published)}"
        )
    return state


def _own(published: Published, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the network by our names."""
    short = {name.removeprefix(published.prefix): value for name, value in state.items()}
    return {name: value for name, value in short.items() if not re.fullmatch(published.others, name)}


def _check(network: nn.Module, state: Mapping[str, torch.Tensor], published: Published, path: Path) -> None:
    """Every name, shape and number."""
    wanted = network.state_dict()
    free = re.compile(rf"{published.without}|.*\.{COUNTERS}")
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    faults = {
        "missing": [name for name in wanted if name not in state and not free.fullmatch(name)],
        "unknown": [name for name in state if name not in wanted],
        "of another shape": [f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}" for name in shapes],
        "not finite": [name for name, value in state.items() if not bool(torch.isfinite(value).all())],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(n)} {what}, such as {', '.join(n[:SHOWN])}" for what, n in faults.items() if n)
        raise MetricWeightsError(
            f"{path} must have exactly the weights of {published.network}, got {told}. {_again(published)}"
        )
