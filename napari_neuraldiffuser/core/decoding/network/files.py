"""Files of a pretrained network's folder, known without torch."""

from pathlib import Path

from napari_neuraldiffuser.core.base.files import file_digest, json_object
from napari_neuraldiffuser.core.decoding.decoder import DecodingError

TENSORS, ABOUT = "network.safetensors", "network.json"
CHECKPOINT = "checkpoint.safetensors"
"""Where a training that was stopped goes on from; deleted when what it trained is saved."""
FORMAT = 1
REMEDY = "Choose a folder that neuraldiffuser pretrain wrote, or pretrain again."


def check_network(folder: str | Path) -> dict[str, object]:
    """What the folder's JSON says.

    Raises
    ------
    DecodingError
        If it is no folder of a network, of another format, or without its weights.
    """
    about = json_object(Path(folder) / ABOUT)
    if about is None or about.get("format") != FORMAT:
        got = f"format {about.get('format')}" if about else f"none or no readable {ABOUT} in it"
        raise DecodingError(f"network_pretrained must be the folder of a network, got {got}: {folder}. {REMEDY}")
    if not (Path(folder) / TENSORS).is_file():
        raise DecodingError(f"{folder} must have the weights of a network, got no {TENSORS}. {REMEDY}")
    return about


def network_digest(folder: str | Path) -> str:
    """Differs when the network does; nothing where none is named."""
    return file_digest(Path(folder) / TENSORS) if folder else ""
