"""NSD's experiment with fewer sessions: which images exist, and the order in which a subject sees them."""

from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.nsd.reading.design import N_SHARED, N_STIMULI, TRIALS_PER_SESSION
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.params import SimulationParams

N_IMAGES = 10_000
N_SUBJECTS = 8
TEST_REPEATS = 3


@dataclass
class Experiment:
    """Contents of nsd_expdesign.mat, 1-based as in NSD.

    Attributes
    ----------
    masterordering : (30000,) int
        Trial -> the subject's image number; the first 1000 images are the shared ones.
    subjectim : (8, 10000) int
        Image number -> 73k id.
    n_trials : int
        Trials that are scanned.
    """

    masterordering: np.ndarray
    subjectim: np.ndarray
    n_trials: int

    @property
    def sharedix(self) -> np.ndarray:
        """73k ids of the shared 1000, (1000,)."""
        return self.subjectim[0, :N_SHARED]

    def shown(self, number: int) -> np.ndarray:
        """0-based 73k id of every scanned trial of subject `number` (1-based), (n_trials,)."""
        return self.subjectim[number - 1, self.masterordering[: self.n_trials] - 1] - 1


def make_experiment(params: SimulationParams) -> Experiment:
    """Draw images and trial order from the seed alone: the same for any number of subjects.

    Raises
    ------
    NSDError
        If the sessions have too few trials for the test images, or need more training images than NSD has.
    """
    rng = np.random.default_rng([params.seed, 1])
    n_trials = params.n_sessions * TRIALS_PER_SESSION
    repeats = _show_counts(params, n_trials)
    scanned = rng.permutation(np.repeat(np.arange(1, N_IMAGES + 1), repeats))
    # the sessions not simulated show what is left, so that every image comes up three times in 30,000 trials
    later = rng.permutation(np.repeat(np.arange(1, N_IMAGES + 1), TEST_REPEATS - repeats))
    return Experiment(np.concatenate([scanned, later]), _subject_images(rng), n_trials)


def _show_counts(params: SimulationParams, n_trials: int) -> np.ndarray:
    """(10000,) how often each image is shown in the scanned sessions."""
    left = n_trials - TEST_REPEATS * params.n_test
    if left <= 0:
        raise NSDError(
            f"n_test must leave trials for training, got {params.n_test} test images x {TEST_REPEATS} "
            f"in {n_trials} trials. Raise n_sessions or lower n_test."
        )
    n_train = -(-left // params.train_repeats)
    if n_train > N_IMAGES - N_SHARED:
        raise NSDError(
            f"n_sessions x {TRIALS_PER_SESSION} trials must need at most {N_IMAGES - N_SHARED} training images, got "
            f"{n_train}. {_enough(params, n_trials)}"
        )
    counts = np.zeros(N_IMAGES, dtype=int)
    counts[: params.n_test] = TEST_REPEATS
    counts[N_SHARED : N_SHARED + n_train] = params.train_repeats
    counts[N_SHARED + n_train - 1] -= n_train * params.train_repeats - left
    return counts


def _enough(params: SimulationParams, n_trials: int) -> str:
    """What makes the training images suffice for so many trials: more repeats, then more test images."""
    for repeats in range(params.train_repeats, TEST_REPEATS + 1):
        n_test = max(params.n_test, -(-(n_trials - repeats * (N_IMAGES - N_SHARED)) // TEST_REPEATS))
        if n_test <= N_SHARED and (n_test == params.n_test or repeats == TEST_REPEATS):
            return f"Give train_repeats {repeats} and n_test {n_test}, or lower n_sessions."
    return "Lower n_sessions."


def _subject_images(rng: np.random.Generator) -> np.ndarray:
    """1000 shared 73k ids and 9000 of each subject's own: together all 73,000."""
    ids = rng.permutation(N_STIMULI) + 1
    shared = np.sort(ids[:N_SHARED])
    own = np.sort(ids[N_SHARED:].reshape(N_SUBJECTS, N_IMAGES - N_SHARED), axis=1)
    return np.concatenate([np.tile(shared, (N_SUBJECTS, 1)), own], axis=1)
