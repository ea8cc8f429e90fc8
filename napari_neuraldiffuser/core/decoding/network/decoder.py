"""NetworkDecoder: betas to embeddings by a ridge voxel encoder, a shared backbone and a head for each target."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding import alignment, store
from napari_neuraldiffuser.core.decoding.checks import check_room_to_fit, check_room_to_predict, finite
from napari_neuraldiffuser.core.decoding.decoder import DecodingError, TargetFit
from napari_neuraldiffuser.core.decoding.geometry import Geometry, checked_data
from napari_neuraldiffuser.core.decoding.network import fitting
from napari_neuraldiffuser.core.decoding.network.basis import Basis
from napari_neuraldiffuser.core.decoding.network.data import Data
from napari_neuraldiffuser.core.decoding.network.encoder import Encoder
from napari_neuraldiffuser.core.decoding.network.folder import (
    Pretrained,
    from_tensors,
    shape_json,
    sizes_of,
    tensors_of,
)
from napari_neuraldiffuser.core.decoding.network.model import Network
from napari_neuraldiffuser.core.decoding.network.prior import Prior
from napari_neuraldiffuser.core.decoding.network.train import Trained
from napari_neuraldiffuser.core.decoding.products import checked_device, device_here
from napari_neuraldiffuser.core.decoding.targets import gather, match_rows, target_names, target_shape
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, Targets
from napari_neuraldiffuser.core.params import DecodingParams

MOST_HELD_OUT = 512
"""Held-out stimuli that the spread is measured on."""
ALONE = "trained on this subject alone"


class NetworkDecoder:
    """Decoder in the form of the published one (method.md eq. 60-63).

    Parameters
    ----------
    params : DecodingParams, optional

    Attributes
    ----------
    accuracy : dict of str to TargetFit
        R² on held-out training stimuli after every pass; the best pass was kept.
    stimulus_ids : ndarray (n,) int
        Stimulus of every training row.
    geometry : Geometry
        Voxels, affine, shape and space of the training betas.
    attrs : dict
        What the training targets were made from, and `network`: what the network was trained on.
    """

    def __init__(self, params: DecodingParams | None = None) -> None:
        self.params = params or DecodingParams(decoder="network")
        self.accuracy: dict[str, TargetFit] = {}
        self.attrs: dict[str, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Targets that the decoder predicts, in the project's order."""
        return tuple(self.accuracy)

    def fit(
        self, train: Responses, targets: Targets, progress: Progress | None = None, names: Sequence[str] | None = None
    ) -> Self:
        """Train on one subject, from the network of the folder `params.network_pretrained` if it names one.

        Parameters
        ----------
        train : Betas
            Data (n, p). Rows of one stimulus are held out together.
        targets : TargetFile or Embeddings
            Targets of at least the training stimuli; not needed afterwards.
        progress : callable, optional
        names : sequence of str, optional
            Targets that are learned, all where None.

        Raises
        ------
        DecodingError
            If a stimulus has no targets, a value is not finite, there are too few stimuli, the pretrained network is
            of other targets, or there is no such device.
        """
        checked_device(self.params.decoder_device)
        check_room_to_fit(fitting.check_stimuli(train))
        chosen = fitting.chosen(target_names(targets), names)
        self.geometry = Geometry.of(train)
        self.stimulus_ids = np.array(train.stimulus_ids, dtype=np.int64)
        self.attrs = dict(getattr(targets, "attrs", {}))
        network, basis, trained_on = self._start(train, targets, chosen, progress)
        self.attrs["network"] = trained_on
        rows = fitting.encode_subjects([(train, targets)], basis, self.params, progress, first_stage=False)
        frozen = bool(self.params.network_pretrained) and self.params.network_backbone == "frozen"
        model, data, history = fitting.fit_network(network, basis, rows, self.params, progress, frozen)
        self.basis, self.network = basis, model.network.eval().requires_grad_(False)
        self.encoder = _with_trained(rows[0].encoder, model)
        self.accuracy = fitting.fits_of(basis, history, chosen)
        self._measure_alignment(data, targets, model)
        return self

    def _start(
        self, train: Responses, targets: Targets, names: Sequence[str], progress: Progress | None
    ) -> tuple[Network, Basis, str]:
        """The network before training, its components, and what it was trained on."""
        if not self.params.network_pretrained:
            return *fitting.new_network([(train, targets)], names, self.params, progress), ALONE
        found = Pretrained.load(self.params.network_pretrained)
        present = target_names(targets)
        found.check(dict(self.attrs), {name: target_shape(targets, name) for name in present})
        trained_on = f"pretrained on {len(found.about['subjects'])} other subjects"
        return found.network.only(names), found.basis, trained_on

    def _measure_alignment(self, data: Data, targets: Targets, model: Trained) -> None:
        """Spread of every target as predicted for held-out training stimuli, and what is done about it."""
        places = data.held[:MOST_HELD_OUT]
        batch = data.batch(places, [0] * len(places))
        rows = match_rows(targets.stimulus_ids, data.subjects[0].stimulus_ids[places[:, 1]])
        for name in self.network.heads:
            if len(places) < 2 or name not in self.accuracy:
                continue
            with torch.no_grad():
                predicted = model(batch.latents, batch.x, (name,))[0][name].numpy()
            stats = alignment.measure(
                predicted, gather(targets, name, rows, np.float32), self.params.align_form, None, self.params.seed
            )
            self.accuracy[name] = replace(self.accuracy[name], alignment=stats)

    def check(self, betas: Responses) -> None:
        """Raise DecodingError unless `betas` are of the training voxels in the same order, space and grid."""
        self.geometry.check(betas)

    def centre(self, betas: Responses) -> np.ndarray:
        """Betas (m, p) minus the training mean, float32, checked to be of the training voxels.

        Raises
        ------
        DecodingError
            If the decoder is not fitted, the voxels differ or a value is not finite.
        """
        if not self.accuracy:
            raise DecodingError("decoder must be fitted, got an unfitted one. Call fit() or NetworkDecoder.load().")
        self.check(betas)
        return (checked_data(betas) - self.encoder.mean).astype(np.float32)

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """Latents (m, width) of centred betas x (m, p) (method.md eq. 61)."""
        weights, offset = (torch.from_numpy(v).to(x) for v in (self.encoder.weights, self.encoder.offset))
        found = x @ weights + offset
        return torch.nn.functional.pad(found, (0, self.network.about.width - found.shape[1]))

    def _placed(self) -> torch.device:
        """Where predictions are made, after the network was brought there."""
        device = torch.device(device_here(self.params.decoder_device))
        self.network.to(device)
        return device

    def respond(self, name: str, x: np.ndarray) -> np.ndarray:
        """Prediction (m, T) for centred betas, before any alignment and without the prior: ŷ(x)."""
        device = self._placed()
        with torch.no_grad():
            parts = [self._columns(name, part).cpu().numpy() for part in self._batches(x, device)]
        return np.concatenate(parts).astype(x.dtype)

    def gradient(self, name: str, x: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Gradient (m, p) of q · ŷ(x) for every row, with q (m, T) held fixed."""
        out, device = [], self._placed()
        for part, weight in zip(self._batches(x, device), self._batches(q, device), strict=True):
            betas = part.requires_grad_(True)
            value = (self._columns(name, betas) * weight).sum()
            # a constant target has none
            found = torch.autograd.grad(value, betas)[0] if value.requires_grad else torch.zeros_like(part)
            out.append(found.cpu().numpy())
        return np.concatenate(out).astype(x.dtype)

    def _batches(self, values: np.ndarray, device: torch.device) -> Iterator[torch.Tensor]:
        """Rows of a batch at once, float32, on a device."""
        step = self.params.network_batch
        for start in range(0, len(values), step):
            yield torch.from_numpy(np.array(values[start : start + step], dtype=np.float32)).to(device)

    def _columns(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if name not in self.network.heads:
            return torch.from_numpy(self.accuracy[name].mean).to(x).expand(len(x), -1)
        found: torch.Tensor = self.network(self.latents(x), (name,))[0][name]
        return found

    def predict(self, betas: Responses, align: str | None = None, progress: Progress | None = None) -> Embeddings:
        """Decode embeddings.

        Parameters
        ----------
        betas : Betas
            Data (m, p) of the training voxels, prepared like the training betas.
        align : {"none", "train", "test"}, optional
            Instead of `params.align`.

        Raises
        ------
        DecodingError
            If the voxels differ, a value is not finite, or `align` is "test" with fewer than 2 stimuli.
        """
        align = self.params.but(align=align or self.params.align).align
        x, ids = self.centre(betas), np.array(betas.stimulus_ids)
        if absent := " and no ".join(name for name in ("z", "c") if name not in self.names):
            raise DecodingError(f"decoder must have z and c to decode, got no {absent}. Fit all targets.")
        check_room_to_predict(len(x), self.accuracy)
        out, drawn = {}, [name for name in self.names if self._by_prior(name)]
        for k, name in enumerate(self.names):
            values = self._sampled(name, x, ids) if name in drawn else self.respond(name, x)
            how = "none" if name in drawn else alignment.how(name, self.params, align)
            if name in self.network.heads:
                values = alignment.apply(values, how, self.accuracy[name].alignment)
            out[name] = finite(name, values).reshape(-1, *self.accuracy[name].shape)
            if progress:
                progress(k + 1, len(self.names), f"decode {name}")
        attrs = self.attrs | alignment.attrs(self.accuracy, self.params, align, drawn)
        return Embeddings(out.pop("z"), out.pop("c"), out, ids, attrs)

    def _by_prior(self, name: str) -> bool:
        return self.params.network_prior == "used" and name in self.network.denoisers

    def _sampled(self, name: str, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Predictions (m, T) that the diffusion prior draws for every stimulus (method.md eq. 68)."""
        prior, parts, step, device = Prior(), [], self.params.network_batch, self._placed()
        with torch.no_grad():
            for part, which in zip(self._batches(x, device), np.split(ids, range(step, len(ids), step)), strict=True):
                scores = self.network(self.latents(part))[0][name]
                drawn = prior.sample(self.network, name, scores, which, self.params.seed)
                parts.append(self.network.head(name).columns(drawn).cpu().numpy())
        return np.concatenate(parts)

    def arrays(self) -> list[np.ndarray]:
        """The encoder, all weights of the network, and the fits of the targets."""
        weights = [values.cpu().numpy() for values in self.network.state_dict().values()]
        fits = (array for fit in self.accuracy.values() for array in fit.arrays())
        return [self.encoder.weights, self.encoder.offset, self.encoder.mean, *weights, *fits]

    def save(self, path: str | Path) -> None:
        """Write everything to one HDF5 file, atomically.

        Raises
        ------
        DecodingError
            If the decoder is not fitted.
        """
        if not self.accuracy:
            raise DecodingError("decoder must be fitted to be saved, got an unfitted one. Call fit() first.")
        with creating_hdf5(path) as file:
            file.attrs.update(self.attrs)
            group = store.create_group(file, "network", self)
            group.attrs.update(shape=shape_json(self.network), sizes=json.dumps(sizes_of(self.basis)))
            group.update({f"{store.SHARED}/{k}": v.numpy() for k, v in tensors_of(self.network, self.basis).items()})
            group["stimulus_ids"] = self.stimulus_ids
            group.update({f"encoder/{field}": values for field, values in vars(self.encoder).items()})
            group.update({f"geometry/{field}": v for field, v in vars(self.geometry).items() if v is not None})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a file written by `save`; DecodingError if it is not one."""
        with store.opened(path) as file:
            group = file["decoder"]
            decoder = cls(store.read_params(group))
            decoder.attrs = dict(file.attrs)
            decoder.accuracy = store.read_fits(group)
            decoder._read_network(group)
            decoder.stimulus_ids = store.read_array(group, "stimulus_ids", None)
            weights = store.read_array(group["encoder"], "weights", None, None)
            p, k = weights.shape
            rest = {name: store.read_array(group["encoder"], name, n) for name, n in (("offset", k), ("mean", p))}
            decoder.encoder = Encoder(weights, alphas=store.read_array(group["encoder"], "alphas", None), **rest)
            decoder.geometry = Geometry.read(group["geometry"], p)
        return decoder

    def _read_network(self, group: h5py.Group) -> None:
        tensors: dict[str, torch.Tensor] = {}

        def read(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                values = store.read_array(group[store.SHARED], name, *(None,) * item.ndim)
                tensors[name] = torch.from_numpy(values)

        group[store.SHARED].visititems(read)
        shape, sizes = (json.loads(group.attrs[name]) for name in ("shape", "sizes"))
        try:
            network, self.basis = from_tensors(tensors, shape, sizes)
        except RuntimeError as error:
            raise DecodingError(
                f"{group.file.filename} must hold the weights of its network, got: {str(error).splitlines()[0]} "
                f"{store.REMEDY}"
            ) from error
        self.network = network.eval().requires_grad_(False)

    def close(self) -> None:
        """Nothing: a loaded decoder keeps no file open."""


def _with_trained(encoder: Encoder, model: Trained) -> Encoder:
    """The ridge encoder and what training added to it, as one."""
    if model.encoder is None:
        return encoder
    added = model.encoder.weight.detach().numpy().T
    k = added.shape[1]
    weights, offset = np.zeros((len(added), k), np.float32), np.zeros(k, np.float32)
    weights[:, : encoder.weights.shape[1]] = encoder.weights
    offset[: len(encoder.offset)] = encoder.offset
    return Encoder(weights + added, offset, encoder.mean, encoder.alphas)
