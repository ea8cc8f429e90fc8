"""Products with training targets that stay on disk, on the CPU or a CUDA device.

Half precision becomes single in pieces that stay in the processor's cache: for a few rows of weights, as for one new
scan, the product then takes the time in which memory is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.targets import Rows, converted, mapped, stored_blocks
from napari_neuraldiffuser.core.networks.embeddings import Targets

if TYPE_CHECKING:
    import torch

FEW_WEIGHTS = 64
ROWS_IN_CACHE = 16
"""Rows of targets that are converted at once for few weights; measured best for 16,384 to 59,136 columns."""

Columns = slice | np.ndarray
EVERY = slice(None)


def checked_device(device: str) -> str:
    """`device`, the "cpu" or "cuda" of `DecodingParams.decoder_device`.

    Raises
    ------
    DecodingError
        For "cuda" where there is none.
    """
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise DecodingError(f"decoder_device must be there, got {device} and no CUDA device. Use cpu.")
    return device


def device_here(device: str) -> str:
    """`device`, or "cpu" where a decoder that was fitted on CUDA predicts on a machine without it."""
    import torch

    return device if torch.cuda.is_available() else "cpu"


def product(a: np.ndarray, b: np.ndarray, device: str = "cpu") -> np.ndarray:
    """a @ b."""
    if device == "cpu":
        return a @ b
    import torch

    left, right = (torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in (a, b))
    return (left @ right).cpu().numpy()


@dataclass(frozen=True)
class TargetMatrix:
    """The centred training targets Y (n, T) of one name, which are met in products only.

    Parameters
    ----------
    targets : TargetFile or Embeddings
    name : str
    rows : Rows
        Of the training betas, `targets.match_rows`.
    mean : ndarray (T,)
        Training mean, which is taken off.
    dtype : dtype
        Of the products, float32 or float64.
    device : str
        "cpu" or "cuda".
    """

    targets: Targets | Mapping[str, Any]
    name: str
    rows: Rows
    mean: np.ndarray
    dtype: np.dtype
    device: str = "cpu"

    def weighted(self, parts: Sequence[tuple[np.ndarray, Columns]]) -> np.ndarray:
        """weights @ Y, (k, T): for each part weights (k, n) and the columns that have them; others stay 0."""
        k, rows = len(parts[0][0]), sum(len(weights) for weights, _ in parts)
        if len(parts) > 1 and rows <= FEW_WEIGHTS:
            # all columns with all weights are read once and in order
            whole = self.weighted([(np.concatenate([weights for weights, _ in parts]), EVERY)])
            out = np.zeros((k, self.mean.size), self.dtype)
            for i, (_, columns) in enumerate(parts):
                out[:, columns] = whole[i * k : (i + 1) * k, columns]
            return out
        return self._weighted(parts, ROWS_IN_CACHE if k <= FEW_WEIGHTS else 0)

    def _weighted(self, parts: Sequence[tuple[np.ndarray, Columns]], step: int) -> np.ndarray:
        on = [(self._on_device(weights), self._indices(columns)) for weights, columns in parts]
        size = [self.mean.size if index is None else len(index) for _, index in on]
        sums = [self._zeros(len(w), t) for (w, _), t in zip(on, size, strict=True)]
        for positions, y in self._pieces(step):
            for (weights, index), total in zip(on, sums, strict=True):
                total.addmm_(weights[:, positions], y if index is None else y[:, index])
        if size == [self.mean.size]:
            return sums[0].cpu().numpy()
        out = np.zeros((len(parts[0][0]), self.mean.size), self.dtype)
        for (_, columns), total in zip(parts, sums, strict=True):
            out[:, columns] = total.cpu().numpy()
        return out

    def times(self, parts: Sequence[tuple[np.ndarray, Columns]]) -> list[np.ndarray]:
        """For each part q (k, t) and its t columns: Y qᵀ over these, (n, k)."""
        on = [(self._on_device(q).T, self._indices(columns)) for q, columns in parts]
        out = [self._zeros(len(self.rows.order), q.shape[1]) for q, _ in on]
        for positions, y in self._pieces(ROWS_IN_CACHE if max(len(q) for q, _ in parts) <= FEW_WEIGHTS else 0):
            for (q, index), product in zip(on, out, strict=True):
                product[positions] = (y if index is None else y[:, index]) @ q
        return [product.cpu().numpy() for product in out]

    def panel(self, columns: slice) -> np.ndarray:
        """Some columns of all rows, (n, t) in betas order."""
        source = mapped(self.targets[self.name])
        flat = (source if isinstance(source, np.ndarray) else source[...]).reshape(len(source), -1)
        stored = np.empty_like(self.rows.stored)
        stored[self.rows.order] = self.rows.stored
        return converted(flat[stored, columns], self.dtype) - self.mean[columns].astype(self.dtype)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions (b,) and rows of Y (b, T), which are overwritten by the next."""
        for positions, y in TargetMatrix(self.targets, self.name, self.rows, self.mean, self.dtype)._pieces(0):
            yield positions.numpy(), y.numpy()

    def _pieces(self, step: int) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        """Positions and centred rows on the device, `step` at once, or whole blocks for 0; overwritten by the next."""
        import torch

        mean, buffer = self._on_device(self.mean), None
        for places, stored in stored_blocks(self.targets, self.name, self.rows, self.dtype.itemsize):
            values, order = torch.from_numpy(stored), torch.from_numpy(places).to(self.device)
            for start in range(0, len(values), step or len(values)):
                part = values[start : start + (step or len(values))]
                if buffer is None or len(buffer) < len(part):
                    buffer = self._zeros(*part.shape)
                y = buffer[: len(part)].copy_(part.to(self.device)).sub_(mean)
                yield order[start : start + len(part)], y

    def _on_device(self, values: np.ndarray) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, self.dtype)).to(self.device)

    def _zeros(self, *shape: int) -> "torch.Tensor":
        """Numpy's memory on a CPU, whose size Python's tools see."""
        import torch

        return torch.from_numpy(np.zeros(shape, self.dtype)).to(self.device)

    def _indices(self, columns: Columns) -> "torch.Tensor | None":
        import torch

        if isinstance(columns, slice):
            if columns == EVERY:
                return None
            columns = np.arange(self.mean.size)[columns]
        return torch.from_numpy(np.asarray(columns)).to(self.device)
