"""Simulated NSD subjects in NSD's own file formats.

Low-level voxels (V1-V3, partly hV4) respond to oriented contrast, luminance and colour at retinotopic places of the
image; high-level ones to what the scene contains; each with noise, session drift and a known noise ceiling.  What every
region really encodes is written to `nsddata/ppdata/subjAA/simulation_truth.json`, last: a subject without it is
incomplete and is written again.

Receptive fields are finer than a real 4 mm voxel's, the signed luminance part is stronger than in V1, and positions are
approximate: the subject exercises the software, it is no model of anybody's brain.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.files import file_digest, fingerprint, make_folder, read_json, write_json
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.design import N_STIMULI, TRIALS_PER_SESSION
from napari_neuraldiffuser.core.nsd.simulation import (
    atlas,
    brain,
    experiment,
    features,
    files,
    noise,
    responses,
    synthetic,
)
from napari_neuraldiffuser.core.nsd.simulation.claim import claim
from napari_neuraldiffuser.core.nsd.simulation.scenes import backgrounds as scene_backgrounds
from napari_neuraldiffuser.core.nsd.simulation.scenes import captions as scene_captions
from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes
from napari_neuraldiffuser.core.nsd.simulation.scenes import shapes as scene_shapes
from napari_neuraldiffuser.core.nsd.simulation.space import check_space, needed_bytes, session_bytes
from napari_neuraldiffuser.core.nsd.stimuli import Stimuli
from napari_neuraldiffuser.core.params import SimulationParams

VERSION = "betas_fithrf_GLMdenoise_RR"
BLOCK_VOXELS = 8192
IMAGES_AT_ONCE = 64
MARKER = "nsddata_stimuli/simulation.json"


def write_subjects(
    nsd_dir: str | Path, params: SimulationParams | None = None, progress: Progress | None = None
) -> list[Path]:
    """Write `params.n_subjects` subjects, subj01 onwards, and return their truth files.

    What is there already, complete and of the same parameters, is kept.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    NSDError
        If the design does not fit NSD's (too many images, too few trials), the disk has too little space, or the
        folder holds data that is not simulated.
    """
    params = params or SimulationParams()
    return [write_subject(nsd_dir, params, progress, number) for number in range(1, params.n_subjects + 1)]


def write_subject(
    nsd_dir: str | Path, params: SimulationParams | None = None, progress: Progress | None = None, number: int = 1
) -> Path:
    """Write one simulated subject and, where they are not there yet, the files that all subjects share.

    Parameters
    ----------
    nsd_dir : path
        NSD folder to create or add to.
    params : SimulationParams
    progress : callable, optional
        Called as progress(done, total, what).
    number : int
        1 for subj01; up to `params.n_subjects`.

    Returns
    -------
    Path
        `simulation_truth.json`.
    """
    params = params or SimulationParams()
    report = progress or silent
    layout = Layout(make_folder(nsd_dir), f"subj{number:02d}", version=VERSION)
    recipe = fingerprint({"params": params.but(n_subjects=1).to_dict(), "subject": number, "code": code_digest()})
    design = experiment.make_experiment(params)
    complete = is_complete(layout, recipe, params)
    if not complete:
        check_space(layout.root, needed_bytes(params.but(n_subjects=1)), there=session_bytes(layout))
    write_common(layout, params, design, report)
    if complete:
        return layout.truth
    layout.truth.unlink(missing_ok=True)
    subject = make_subject(layout, params, design, report)
    files.write_brain(layout, subject.brain, subject.ncsnr, params.n_sessions)
    for session in range(1, params.n_sessions + 1):
        _write_session(layout, subject, params, session)
        report(session, params.n_sessions, "sessions written")
    if params.synthetic:
        _write_synthetic(layout, subject, params)
    files.write_responses(layout.responses, design, number, np.random.default_rng([params.seed, 5, number]))
    write_json(layout.truth, truth(subject, params, recipe))
    return layout.truth


def is_complete(layout: Layout, recipe: str, params: SimulationParams) -> bool:
    """Whether this very subject was written to the end before."""
    if not layout.truth.is_file() or read_json(layout.truth).get("recipe") != recipe:
        return False
    further = [synthetic.betas_file(layout)] if params.synthetic else []
    return all(path.is_file() for path in [*map(layout.session_file, range(1, params.n_sessions + 1)), *further])


def code_digest() -> str:
    """Digest of the code that decides the bytes: a subject of an older simulator is not reused."""
    drawing = (scenes, scene_backgrounds, scene_captions, scene_shapes)
    modules = (*drawing, atlas, brain, experiment, features, files, noise, responses, synthetic)
    return fingerprint([file_digest(str(module.__file__)) for module in modules] + [file_digest(__file__)])


def scene_of(seed: int, stimulus_id: int) -> scenes.Scene:
    """The scene behind a 0-based 73k id; depends on the seed and the id only."""
    return scenes.draw_scene(np.random.default_rng([seed, 0, stimulus_id]))


def write_common(layout: Layout, params: SimulationParams, design: experiment.Experiment, report: Progress) -> None:
    """Design, stimulus table, images and captions: what all subjects share."""
    marker = layout.root / MARKER
    claim(layout.root, MARKER, ("nsddata*",))
    recipe = fingerprint({"params": params.to_dict(), "code": code_digest()})
    if marker.is_file() and read_json(marker).get("recipe") == recipe:
        return
    files.write_design(layout.design, design)
    files.write_stim_info(layout.stim_info, design)
    ids = np.unique(np.concatenate([design.shown(k) for k in range(1, params.n_subjects + 1)])).tolist()
    files.write_stimuli(layout.stimuli, _render(ids, params, report), params.image_size)
    if params.synthetic:
        synthetic.write_common(layout, params)
    write_json(layout.captions, {str(k + 1): scenes.captions(scene_of(params.seed, k), 5) for k in ids})
    write_json(marker, {"recipe": recipe, "n_images": len(ids)})


def _render(ids: list[int], params: SimulationParams, report: Progress) -> Iterator[tuple[int, np.ndarray]]:
    for done, one in enumerate(ids, 1):
        yield one, scenes.render(scene_of(params.seed, one), params.image_size)
        if done % 100 == 0 or done == len(ids):
            report(done, len(ids), "images drawn")


@dataclass
class SimulatedSubject:
    """Everything that the betas are computed from.

    Attributes
    ----------
    brain : Brain
    people : Population
        Properties of the responding voxels.
    signal : (n_images, n_responding) float32
        Noise-free responses, percent signal change.
    image_of : (n_trials,) int
        Row of `signal` that belongs to each trial.
    noise : NoiseModel
    ncsnr : (n_grey,) float32
        Signal over trial-noise standard deviation of every grey voxel.
    number : int
    n_scenes : int
        The first so many rows of `signal` are of scenes, the others of NSD-synthetic.
    """

    brain: brain.Brain
    people: responses.Population
    signal: np.ndarray
    image_of: np.ndarray
    noise: noise.NoiseModel
    ncsnr: np.ndarray
    number: int
    n_scenes: int


def make_subject(
    layout: Layout, params: SimulationParams, design: experiment.Experiment, report: Progress
) -> SimulatedSubject:
    """Draw a subject's brain and compute its noise-free responses to the images of the stimulus file that it sees."""
    stimuli, shown = Stimuli(layout), design.shown(layout.number)
    if not params.synthetic:
        return respond(layout.number, shown, lambda ids: stimuli[ids], params, report)
    both = synthetic.stimuli(layout, stimuli)
    shown = np.concatenate([shown, synthetic.ids_shown(params.seed)])
    return respond(layout.number, shown, lambda ids: both[ids], params, report)


def respond(
    number: int,
    shown: np.ndarray,
    images_of: Callable[[np.ndarray], np.ndarray],
    params: SimulationParams,
    report: Progress,
) -> SimulatedSubject:
    """Draw the brain of subject `number` and compute its noise-free responses.

    Parameters
    ----------
    number : int
        1 for subj01.
    shown : (n_trials,) int
        0-based 73k id of every trial; behind them those of NSD-synthetic, whose patterns contain no things and do not
        count for the mean and the variance of responses.
    images_of : callable
        images_of(ids) -> uint8 (n, H, W, 3).
    params : SimulationParams
    report : callable
    """
    head = brain.make_brain(params.grid, np.random.default_rng([params.seed, 2, number]))
    rng = np.random.default_rng([params.seed, 3, number])
    people = responses.make_population(head, rng)
    ids, image_of = np.unique(shown, return_inverse=True)
    n = int(np.count_nonzero(ids < N_STIMULI))
    scenes_shown = [scene_of(params.seed, one) for one in ids[:n].tolist()]
    opponent, energy = _local_features(ids, images_of, report)
    low = responses.low_level_tuning(people, rng)
    table, names = features.content_table(scenes_shown)
    content = responses.content_tuning(people, names, rng)
    table = np.concatenate([table, np.zeros((len(ids) - n, table.shape[1]), dtype=table.dtype)])
    signal = np.empty((len(ids), len(people.rows)), dtype=np.float32)
    for part in responses.blocks(len(people.rows), len(ids)):
        seen = responses.low_level_signal(people, low, opponent, energy, part, n)
        signal[:, part] = responses.mix(people, seen, responses.unit(table @ content[:, part], n), part, n)
        report(part.stop, len(people.rows), "responses of voxels")
    level = np.full(len(head.voxels), noise.QUIET_LEVEL * params.noise, dtype=np.float32)
    level[people.rows] = noise.remaining_level(people.amplitude, people.ncsnr) * params.noise
    ncsnr = np.zeros(len(head.voxels), dtype=np.float32)
    ncsnr[people.rows] = people.ncsnr / max(params.noise, 1e-3)
    maps = noise.smooth_maps(head, params.grid, np.random.default_rng([params.seed, 4, number]))
    return SimulatedSubject(head, people, signal, image_of, noise.NoiseModel(maps, level), ncsnr, number, n)


def _local_features(
    ids: np.ndarray, images_of: Callable[[np.ndarray], np.ndarray], report: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Opponent maps (3, n, 1024) and energy maps (8, n, 1024) of images; few images are in memory at once."""
    opponent, energy = [], []
    for first in range(0, len(ids), IMAGES_AT_ONCE):
        images = features.shrink(images_of(ids[first : first + IMAGES_AT_ONCE]))
        opponent.append(features.opponent_maps(images))
        energy.append(features.energy_maps(images))
        report(min(first + IMAGES_AT_ONCE, len(ids)), len(ids), "images seen")
    return np.concatenate(opponent, axis=1), np.concatenate(energy, axis=1)


def _write_session(layout: Layout, subject: SimulatedSubject, params: SimulationParams, session: int) -> None:
    rows = subject.image_of[(session - 1) * TRIALS_PER_SESSION : session * TRIALS_PER_SESSION]
    _write_betas(layout.session_file(session), subject, rows, params, session)


def _write_synthetic(layout: Layout, subject: SimulatedSubject, params: SimulationParams) -> None:
    """The session of NSD-synthetic, whose noise is that of a session behind the core experiment's."""
    rows = subject.image_of[params.n_sessions * TRIALS_PER_SESSION :]
    _write_betas(synthetic.betas_file(layout), subject, rows, params, params.n_sessions + 1)


def _write_betas(
    path: Path, subject: SimulatedSubject, rows: np.ndarray, params: SimulationParams, session: int
) -> None:
    """Betas of one session whose trials are of these rows of the signal."""
    where = np.full(len(subject.brain.voxels), -1)
    where[subject.people.rows] = np.arange(len(subject.people.rows))
    rng = np.random.default_rng([params.seed, 6, subject.number, session])
    course = noise.session_noise(len(rows), rng)
    scenes_alone = subject.signal[: subject.n_scenes]
    response = subject.signal[rows] + params.noise * noise.signal_like(scenes_alone, len(rows), rng)

    def betas(part: slice) -> np.ndarray:
        responding = where[part] >= 0
        signal = np.zeros((len(rows), len(responding)), dtype=np.float32)
        signal[:, responding] = response[:, where[part][responding]]
        rng = np.random.default_rng([params.seed, 7, subject.number, session, part.start])
        return noise.observe(signal, subject.noise, course, part, rng)

    files.write_session(path, subject.brain, betas, BLOCK_VOXELS, len(rows))


def truth(subject: SimulatedSubject, params: SimulationParams, recipe: str) -> dict[str, Any]:
    """What each region encodes, with its noise ceilings: contents of simulation_truth.json."""
    where = np.full(len(subject.brain.voxels), -1)
    where[subject.people.rows] = np.arange(len(subject.people.rows))
    regions = {r.name: _region_truth(r, where[rows], subject) for r, rows in subject.brain.members.items()}
    rest = np.setdiff1d(subject.people.rows, np.concatenate(list(subject.brain.members.values())))
    regions["rest of nsdgeneral"] = _region_truth(atlas.REST, where[rest], subject)
    return {
        "recipe": recipe,
        "params": params.but(n_subjects=1).to_dict(),
        "subject": f"subj{subject.number:02d}",
        "n_voxels": {"grey": len(subject.brain.voxels), "nsdgeneral": int(subject.brain.general.sum())},
        "regions": regions,
        "noise": {
            "signal_like": noise.SIGNAL_LIKE,
            "shared": noise.SHARED_NOISE,
            "drift": noise.DRIFT,
            "session_gain_sd": noise.GAIN_SD,
            "ceiling": "percent, average of three trials; drift and gain come on top",
        },
    }


def _region_truth(region: atlas.Region, rows: np.ndarray, subject: SimulatedSubject) -> dict[str, Any]:
    snr = subject.ncsnr[subject.people.rows[rows]].astype(np.float64) ** 2
    ceiling = 100 * snr / (snr + 1 / 3)
    low = float(subject.people.low_level[rows].mean())
    return {
        "family": region.family,
        "encodes": "low-level" if low > 0.75 else "semantic" if low < 0.25 else "both",
        "low_level_share": round(low, 3),
        "prefers": list(region.prefers),
        "mni_centre": list(region.centre),
        "n_voxels": len(rows),
        "noise_ceiling": {
            name: round(float(np.percentile(ceiling, q)), 1) for name, q in (("q25", 25), ("median", 50), ("q75", 75))
        },
    }
