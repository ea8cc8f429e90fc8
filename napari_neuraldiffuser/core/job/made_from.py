"""What each stage's files are made from, as one fingerprint: equal fingerprints mean equal files.

A plain run keeps the fingerprint in a record beside its files, the plugin's cache keeps it in their name.  Nipype
hashes the inputs of a node itself, and `ALGORITHM_VERSION` with them.
"""

from dataclasses import dataclass
from typing import Any

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.contracts import StimulusIds
from napari_neuraldiffuser.core.base.files import array_digest, fingerprint
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION
from napari_neuraldiffuser.core.decoding.network.files import network_digest
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import DiffusionParams, FeatureParams, GuidanceParams, Settings


@dataclass(frozen=True)
class Origin:
    """Digests of what a run starts from, and the fingerprints of what its stages make.

    Attributes
    ----------
    betas : str
        Over the values, stimuli and voxels of the betas as they were read.
    stimuli : str
        Of the images and captions.
    models : str
        SHA-256 of the weights, `Models.digest`.
    machine : tuple
        `networks.machine.machine`, where files must be those that this machine would make, to the last bit.
    """

    betas: str
    stimuli: str
    models: str
    machine: tuple[Any, ...] = ()

    def targets(self, features: FeatureParams, stimulus_ids: StimulusIds) -> str:
        """Target embeddings of some stimuli: no voxel and no session decides them."""
        return self._fingerprint("targets", self.stimuli, self.models, features, list(map(int, stimulus_ids)))

    def decoder(self, settings: Settings) -> str:
        """The fitted decoder."""
        made_from = [self.betas, self.stimuli, self.models, settings.features, settings.decoding]
        if network := network_digest(settings.decoding.network_pretrained):
            made_from.append(network)
        return self._fingerprint("decoder", *made_from)

    def decoded(self, decoder: str, stimulus_ids: StimulusIds) -> str:
        """Embeddings decoded by a decoder, given by its fingerprint or, where it was loaded, by its digest."""
        return self._fingerprint("decoded", self.betas, decoder, list(map(int, stimulus_ids)))

    def maps(self, decoded: str, settings: Settings, regions: Any) -> str:
        """Contribution maps of all that a decoder decoded; `regions` says which regions, and which files they are."""
        made_from = (decoded, self.stimuli, self.models, settings.features, settings.contribution, regions)
        return self._fingerprint("maps", *made_from)

    def _fingerprint(self, stage: str, *made_from: Any) -> str:
        return _fingerprint(stage, self.machine, *made_from)


def images(
    rows: Embeddings,
    models: str,
    diffusion: DiffusionParams,
    guidance: GuidanceParams,
    machine: tuple[Any, ...] = (),
) -> str:
    """One arm's images of some stimuli: their embeddings decide them, whatever those were decoded from.

    Where no step is guided, neither g nor any parameter of the guidance counts.
    """
    guided = n_guided_steps(diffusion.executed_steps, guidance) > 0
    # an inverted start judges features with and without guidance
    guided = guided or diffusion.start == "inverted"
    used = ("z", "c", *(guidance.layers if guided else ()))
    how = [guidance, rows.attrs.get("feature_normalisation"), rows.attrs.get("antialias")] if guided else "unguided"
    embedded = array_digest(rows.stimulus_ids, *(rows[target] for target in used))
    return _fingerprint("images", machine, embedded, models, diffusion, how)


def _fingerprint(stage: str, machine: tuple[Any, ...], *made_from: Any) -> str:
    code = [ALGORITHM_VERSION, napari_neuraldiffuser.__version__, *machine]
    return fingerprint([stage, code, *made_from])
