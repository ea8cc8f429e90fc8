"""Parameters of the linear decoder that is trained by contrast.  Standard library only."""

from dataclasses import dataclass

from napari_neuraldiffuser.core.base.fields import Params


@dataclass(frozen=True)
class ContrastiveParams(Params):
    """Parameters of the linear decoder that is trained by contrast; they matter where `decoder` is contrastive."""
