"""Parameters of the network decoder.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params


@dataclass(frozen=True)
class NetworkParams(Params):
    """Parameters of the network decoder; they matter where `decoder` is network."""
