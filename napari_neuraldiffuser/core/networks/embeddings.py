"""Embeddings z, c and g of images: the decoder's targets and its output, in memory and in HDF5."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import OutputError, fingerprint, make_folder
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5, is_whole, open_hdf5
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.networks.words import ATTRIBUTE, unknown_note
from napari_neuraldiffuser.core.params import LAYERS, FeatureParams

if TYPE_CHECKING:
    from napari_neuraldiffuser.core.networks.models import Models

WITHOUT = "without"
"""Attribute of a file of targets: why it has no c."""
NO_CAPTIONS = "the images have no captions"
FEATURE_DTYPE = np.float16
"""c and g are stored in half precision: they are regression targets, and 305,920 of them per image at full size."""


class EmbeddingError(UserError):
    """Embeddings are missing, inconsistent or unreadable; the message names them and the remedy."""


class Targets(Protocol):
    """Embeddings by target: `Embeddings` has them in memory, `TargetFile` reads the rows that are asked for.

    Attributes
    ----------
    stimulus_ids : (n,) int
        Stimulus of every row.
    attrs : dict
        What they were made from.
    """

    stimulus_ids: np.ndarray
    attrs: dict[str, Any]

    def __getitem__(self, target: str) -> Any:
        """The array, or the dataset, (n, ...) of one target."""

    def __iter__(self) -> Iterator[str]:
        """Names of the targets that are there."""

    def __len__(self) -> int: ...


@dataclass
class Embeddings:
    """Embeddings of some stimuli.

    Attributes
    ----------
    z : ndarray (n, 4, h, w) float32
        VAE latent times the VAE's scaling factor.
    c : ndarray (n, tokens, width)
        Text embedding.
    g : dict of str to ndarray (n, tokens, width)
        Guidance features per layer.
    stimulus_ids : ndarray (n,) int
        0-based 73k ids for NSD.
    attrs : dict
        What they were made from: `feature_normalisation`, `model_digest`, ...
    labels : list of str
        Own scans' label of every row; empty where ids are what all call the stimuli.
    """

    z: np.ndarray
    c: np.ndarray
    g: dict[str, np.ndarray]
    stimulus_ids: np.ndarray
    attrs: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.stimulus_ids)
        for name in self:
            if len(self[name]) != n:
                raise EmbeddingError(f"{name} must have one row per stimulus ({n}), got {len(self[name])}.")

    def __getitem__(self, target: str) -> np.ndarray:
        if target in ("z", "c"):
            return getattr(self, target)
        if target not in self.g:
            raise EmbeddingError(f"target must be one of {list(self)}, got {target!r}.")
        return self.g[target]

    def __iter__(self) -> Iterator[str]:
        return iter(("z", "c", *self.g))

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def subset(self, stimulus_ids: StimulusIds) -> "Embeddings":
        """Rows of `stimulus_ids`, in that order; EmbeddingError if one is missing."""
        rows = rows_of(self.stimulus_ids, stimulus_ids)
        g = {layer: values[rows] for layer, values in self.g.items()}
        labels = [self.labels[row] for row in rows] if self.labels else []
        return Embeddings(self.z[rows], self.c[rows], g, self.stimulus_ids[rows], self.attrs, labels)

    def save(self, path: str | Path) -> None:
        """Write z, c, g/<layer>, stimulus_id, stimulus_label if any, and the attributes to HDF5, atomically."""
        with creating_hdf5(path) as file:
            for target in self:
                file[dataset_name(target)] = self[target]
            file["stimulus_id"] = np.asarray(self.stimulus_ids, dtype=np.int64)
            if self.labels:
                file["stimulus_label"] = self.labels
            file.attrs.update(self.attrs)

    @classmethod
    def load(cls, path: str | Path) -> "Embeddings":
        """Read a file written by `save` or `extract` into memory."""
        with TargetFile(path) as file:
            try:
                g = {layer: file[layer][...].astype(np.float32) for layer in file if layer not in ("z", "c")}
                z, c = (file[t][...].astype(np.float32) for t in ("z", "c"))
            except (OSError, KeyError) as error:
                raise EmbeddingError(f"{path} must be a whole embeddings file, got: {error}. Make it again.") from error
            return cls(z, c, g, file.stimulus_ids, dict(file.attrs), file.labels())


def spread_of(path: str | Path) -> list[str]:
    """What a file of decoded embeddings says of the spread of each target, a line each; none where it says nothing."""
    try:
        with TargetFile(path) as file:
            return str(file.attrs.get("spread", "")).splitlines()
    except EmbeddingError:
        return []


def rows_of(have: StimulusIds, wanted: StimulusIds) -> np.ndarray:
    """Row of each wanted stimulus id; EmbeddingError if one is missing."""
    index = {int(s): row for row, s in enumerate(have)}
    missing = [int(s) for s in wanted if int(s) not in index]
    if missing:
        raise EmbeddingError(
            f"Embeddings must exist for every stimulus, missing {len(missing)} of {len(wanted)}, first: {missing[0]}."
        )
    return np.array([index[int(s)] for s in wanted], dtype=np.int64)


def dataset_name(target: str) -> str:
    """Name of a target's dataset in the HDF5 file."""
    return target if target in ("z", "c") else f"g/{target}"


class TargetFile:
    """Embeddings on disk, read row by row; the same `[target]` access as `Embeddings`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_hdf5(path, "an embeddings file", EmbeddingError)
        try:
            self.stimulus_ids = np.asarray(self._numbers("stimulus_id", "iu")[...])
        except (OSError, EmbeddingError):
            self._file.close()
            raise
        self.attrs = dict(self._file.attrs)

    def __getitem__(self, target: str) -> h5py.Dataset:
        if dataset_name(target) not in self._file:
            raise EmbeddingError(f"target must be one of {list(self)}, got {target!r} in {self.path}.")
        data = self._numbers(dataset_name(target), "f")
        if data.ndim < 2 or len(data) != len(self):
            raise EmbeddingError(
                f"{self.path} must have a row of {target} for each of its {len(self)} stimuli, got shape {data.shape}. "
                "Make it again."
            )
        return data

    def _numbers(self, name: str, kinds: str) -> h5py.Dataset:
        """A dataset of numbers; EmbeddingError where there is something else by that name."""
        data = self._file.get(name)
        if not isinstance(data, h5py.Dataset) or data.dtype.kind not in kinds or not data.ndim:
            raise EmbeddingError(f"{self.path} must be an embeddings file, got no numbers in {name}. Make it again.")
        return data

    def __iter__(self) -> Iterator[str]:
        return iter([t for t in ("z", "c", *LAYERS) if dataset_name(t) in self._file])

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def rows(self, stimulus_ids: StimulusIds, layers: Sequence[str]) -> Embeddings:
        """Some stimuli in memory, with these layers of g; in the order that is asked for."""
        places = rows_of(self.stimulus_ids, stimulus_ids)
        ids = self.stimulus_ids[places]
        z, c, *g = (np.stack([self[t][row] for row in places]).astype(np.float32) for t in ("z", "c", *layers))
        return Embeddings(z, c, dict(zip(layers, g, strict=True)), ids, dict(self.attrs))

    def labels(self) -> list[str]:
        """Own scans' label of every row; none where the file has no labels."""
        return list(self._file["stimulus_label"].asstr()[...]) if "stimulus_label" in self._file else []

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "TargetFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def encode(
    models: "Models",
    images: np.ndarray,
    captions: Sequence[Sequence[str]],
    params: FeatureParams,
    stimulus_ids: StimulusIds = (),
) -> dict[str, np.ndarray]:
    """Target embeddings of some images.

    Parameters
    ----------
    images : ndarray (n, H, W, 3) uint8
    captions : sequence of sequences of str
        Captions of each image; the target c is the mean of their embeddings.  Where none has any, there is no c.
    stimulus_ids : (n,) int
        Decide the noise of samples of z; not needed for its mean.

    Returns
    -------
    dict of str to ndarray
        Targets z, c and one entry per layer.
    """
    import torch

    with torch.no_grad():
        pixels = models.guide_input(images, params.feature_normalisation, params.antialias)
        g = models.features(pixels, params.layers)
        noise = None
        if params.z_target == "sample":
            noise = posterior_noise(params.z_seed, stimulus_ids, models.latent_shape)
        z = models.encode_images(images, params.z_resize, noise)
    out = {"z": z.float().cpu().numpy()} | ({"c": mean_text(models, captions)} if any(captions) else {})
    return out | {layer: f.float().cpu().numpy() for layer, f in zip(params.layers, g, strict=True)}


def posterior_noise(seed: int, stimulus_ids: StimulusIds, shape: Sequence[int]) -> np.ndarray:
    """Standard normal noise (n, *shape) float32 that depends on the seed and each stimulus alone."""
    bits = [np.random.Philox(np.random.SeedSequence([seed, int(s)])) for s in stimulus_ids]
    return np.stack([np.random.Generator(b).standard_normal(tuple(shape), dtype=np.float32) for b in bits])


def mean_text(models: "Models", captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Mean text embedding (n, tokens, width) float32 over the captions of each image (method.md eq. 6)."""
    flat = models.encode_text([text for texts in captions for text in texts]).float().cpu().numpy()
    ends = np.cumsum([len(texts) for texts in captions])
    return np.stack([part.mean(axis=0) for part in np.split(flat, ends[:-1])])


def extract(
    models: "Models",
    stimuli: SeenImages,
    stimulus_ids: StimulusIds,
    path: str | Path,
    params: FeatureParams | None = None,
    progress: Progress | None = None,
) -> TargetFile:
    """Target embeddings of `stimulus_ids`, streamed to HDF5; continues a file that a killed run left unfinished.

    Parameters
    ----------
    models : Models
    stimuli : SeenImages
    path : str or Path
        Finished file; while it grows it is called `<path>.partial`.

    Raises
    ------
    EmbeddingError
        If an image has no caption and others have; where none has any, the file has no c and says so (`WITHOUT`).
    """
    path, params = Path(path), params or FeatureParams()
    ids = np.asarray(stimulus_ids, dtype=np.int64)
    # indices of own scans' stimuli do not say, as 73k ids do, which images they are
    seen = stimuli.fingerprint(ids)
    made_from = fingerprint([models.digest, ids, params, *([seen] if seen else [])])
    if not _is_made_from(path, made_from):
        partial = path.with_name(path.name + ".partial")
        make_folder(path.parent)
        _grow(partial, made_from, (models, stimuli, ids, params), progress)
        partial.replace(path)
    return TargetFile(path)


def _is_made_from(path: Path, made_from: str) -> bool:
    """A damaged file is of nothing; one that another program writes to is an error, not a reason to begin anew."""
    if not is_whole(path):
        return False
    with open_hdf5(path, "an embeddings file", EmbeddingError) as file:
        return bool(file.attrs.get("made_from") == made_from)


def _grow(
    partial: Path,
    made_from: str,
    source: tuple["Models", SeenImages, np.ndarray, FeatureParams],
    progress: Progress | None,
) -> None:
    """Encode batch after batch into the partial file, from where it stopped."""
    models, stimuli, ids, params = source
    if not _is_made_from(partial, made_from):
        partial.unlink(missing_ok=True)
    with open_hdf5(partial, "an embeddings file", OutputError, "a") as file:
        done, said = int(file.attrs.get("done", 0)), _captions(stimuli, ids)
        for start in range(done, len(ids), params.batch_size):
            part = slice(start, start + params.batch_size)
            batch = ids[part]
            values = encode(models, stimuli[batch], said[part], params, batch)
            _write_rows(file, values, start, len(ids))
            if start == 0:
                file["stimulus_id"] = ids
                file.attrs.update(made_from=made_from, model_digest=models.digest, **_how(params))
                if not any(said):
                    file.attrs[WITHOUT] = NO_CAPTIONS
                elif note := unknown_note(models.tokenizer, (text for texts in said for text in texts)):
                    file.attrs[ATTRIBUTE] = note
            file.attrs["done"] = start + len(batch)
            file.flush()
            if progress:
                progress(start + len(batch), len(ids), "target embeddings")


def _how(params: FeatureParams) -> dict[str, str]:
    """What guidance must know of how features were computed, as attributes of a file."""
    plain = {} if params.antialias else {"antialias": "no"}
    return {"feature_normalisation": params.feature_normalisation, **plain}


def _captions(stimuli: SeenImages, ids: np.ndarray) -> list[list[str]]:
    """Captions of every image; none at all of a further test set, else some of each."""
    captions = [stimuli.captions(int(s)) for s in ids]
    if stimuli.test_set and not any(captions):
        return captions
    for s, texts in zip(ids, captions, strict=True):
        if not texts:
            raise EmbeddingError(f"stimulus {s} must have a caption, got none. Add it to the captions JSON.")
    return captions


def _write_rows(file: h5py.File, values: dict[str, np.ndarray], start: int, n: int) -> None:
    for target, rows in values.items():
        dtype = np.float32 if target == "z" else FEATURE_DTYPE
        data = file.require_dataset(dataset_name(target), (n, *rows.shape[1:]), dtype)
        data[start : start + len(rows)] = rows
