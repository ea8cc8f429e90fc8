"""How well betas decode: correlation of decoded with true targets over held-out stimuli, for any table of trials."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.bold import find_runs, make_betas
from napari_neuraldiffuser.core.networks import embeddings, models
from napari_neuraldiffuser.core.nsd.simulation.bold.files import BidsPlaces, write_bold_subjects
from napari_neuraldiffuser.core.params import BoldParams, BoldSimulationParams, DecodingParams, FeatureParams


@dataclass
class Scans:
    """A simulated subject's scans, with the targets of its pictures by label.

    Attributes
    ----------
    places : BidsPlaces
    targets : embeddings.TargetFile
        Its stimulus_ids index `labels`.
    labels : list of str
    """

    places: BidsPlaces
    targets: embeddings.TargetFile
    labels: list[str]

    @property
    def true(self) -> Source:
        """The betas that the BOLD was made from."""
        return self._source(self.places.truth, self.places.truth_mask, self.places.truth_trials)

    def estimated(self, params: BoldParams) -> Source:
        """Betas from the BOLD."""
        out = self.places.root / "betas"
        written = make_betas(find_runs(self.places.root, "01"), out, "01", params)
        return self._source(written.betas, written.mask, written.trials)

    def _source(self, betas: Path, mask: Path, trials: Path) -> Source:
        region = self.places.regions / f"{self.places.label}_space-T1w_seg-nsdgeneral_dseg.nii.gz"
        return Source(
            subject="01",
            betas=str(betas),
            mask=str(mask),
            trials=str(trials),
            images=str(self.places.stimuli),
            captions=str(self.places.captions),
            rois=(str(region),),
        )


def scan(folder: Path, params: BoldSimulationParams, loaded: models.Models | None = None) -> Scans:
    """Simulate a subject's scans and compute the targets of its pictures with the bundled models."""
    write_bold_subjects(folder, params)
    scans = Scans(BidsPlaces(folder, 1), None, [])  # type: ignore[arg-type]
    stimuli = nsd.open_source(scans.true).stimuli
    path = Path(tempfile.mkdtemp(dir=folder)) / "targets.h5"
    ids = list(range(len(stimuli)))
    embeddings.extract(loaded or models.load("demo"), stimuli, ids, path, FeatureParams()).close()
    scans.targets, scans.labels = embeddings.TargetFile(path), stimuli.names
    return scans


def correlations(scans: Scans, source: Source, shuffle: int | None = None) -> dict[str, float]:
    """Mean over the numbers of each target of the correlation between decoded and true over held-out stimuli.

    Parameters
    ----------
    scans : Scans
    source : Source
        Betas of those scans.
    shuffle : int, optional
        Seed with which training stimuli are dealt out anew: the control.
    """
    betas = nsd.open_source(source).betas()
    where = {label: k for k, label in enumerate(scans.labels)}
    ids = np.array([where[betas.stimulus_names[k]] for k in betas.stimulus_ids])
    train, test = replace(betas, stimulus_ids=ids).split()
    if shuffle is not None:
        train = replace(train, stimulus_ids=np.random.default_rng(shuffle).permutation(train.stimulus_ids))
    decoded = decoding.new(DecodingParams()).fit(train, scans.targets).predict(test)
    return {name: _mean_correlation(decoded[name], scans.targets[name][...][test.stimulus_ids]) for name in decoded}


def _mean_correlation(decoded: np.ndarray, true: np.ndarray) -> float:
    a, b = (np.asarray(one, dtype=np.float64).reshape(len(one), -1) for one in (decoded, true))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    varies = size > 1e-12
    return float(((a * b).sum(axis=0)[varies] / size[varies]).mean())


def ratios(estimated: dict[str, float], true: dict[str, float], names: Sequence[str] = ()) -> dict[str, float]:
    """Estimated over true of every target."""
    return {name: estimated[name] / true[name] for name in names or true}
