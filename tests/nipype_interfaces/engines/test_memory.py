"""Estimates of memory against what the real functions take, on shapes where arrays outweigh everything else."""

import ctypes
import gc
import re
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from nipype.pipeline import engine as pe

import nipype_interfaces  # noqa: F401  before nipype: turns its telemetry off
from napari_neuraldiffuser.core import attribution as contribution
from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.decoding import targets
from napari_neuraldiffuser.core.evaluation import evaluate
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.params import LAYERS, DecodingParams, EvaluationParams
from nipype_interfaces.engines import memory
from nipype_interfaces.engines.memory import GB, SAFETY, Sizes

MB = 2**20
CUBE = 16
"""Voxels lie in a cube of CUBE^3."""
PARAMS = DecodingParams(alphas=(100.0, 1000.0), cv_targets=512)
SIZES = {
    # many targets; more voxels than stimuli, whose Gram matrix decides; fewer; many test stimuli; z above all
    "targets": Sizes(600, 50, 500, (16_384, 3_000, 8_000, 8_000), z=16_384),
    "gram": Sizes(1800, 50, 2_500, (64, 32, 32), z=64),
    "voxels": Sizes(3500, 100, 1_000, (64, 32, 32), z=64),
    "test": Sizes(300, 900, 500, (16_384, 2_000, 20_000), z=16_384),
    "align": Sizes(100, 600, 300, (16_384, 64, 64), z=16_384),
}


def resident(field: str) -> int:
    """Bytes of this process in memory now (VmRSS), or most since they were last counted (VmHWM)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def taken(function, *args) -> int:
    """Most bytes that `function` took in this process, by NumPy, torch and LAPACK alike."""
    # pages of a mapped file count as the process's own, but are given up where memory is short
    targets.mapped = lambda source: source
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, result = resident("VmRSS"), function(*args)
    del result
    return resident("VmHWM") - before


@pytest.fixture(scope="module")
def peak(tmp_path_factory):
    """`taken` in a process of its own, whose libraries are loaded and have been used."""
    folder = tmp_path_factory.mktemp("first")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        run = lambda *call: pool.submit(taken, *call).result()  # noqa: E731
        betas, embedded = write(Sizes(40, 5, 50, (64, 32, 32)), folder)
        run(fit, betas, embedded, folder / "decoder.h5")
        run(decode, betas, folder / "decoder.h5")
        run(maps, betas, embedded, folder / "decoder.h5")
        yield run


def traced(function) -> int:
    """Most bytes of NumPy arrays that `function` held at once, for sizes that are small beside a process."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write(sizes: Sizes, folder):
    """Files of betas and of targets with the given sizes, of noise."""
    rng, n = np.random.default_rng(0), sizes.train + sizes.test
    ids = np.arange(n)
    voxels = np.stack(np.unravel_index(np.arange(sizes.voxels), (CUBE,) * 3), 1)
    data = rng.normal(size=(n, sizes.voxels)).astype(np.float32)
    shape = {"voxels": voxels, "affine": np.eye(4), "shape": (CUBE,) * 3}
    nsd.save_betas(nsd.Betas(data, ids, ids >= sizes.train, np.ones(n, int), **shape), folder / "betas.h5")
    z, c, *g = (rng.normal(size=(n, columns)).astype(np.float32) for columns in sizes.columns)
    Embeddings(z, c, dict(zip(LAYERS, g, strict=False)), ids).save(folder / "targets.h5")
    return folder / "betas.h5", folder / "targets.h5"


def fit(betas, embedded, path, names=None):
    train, _ = nsd.load_betas(betas).split()
    with embeddings.TargetFile(embedded) as file:
        decoding.RidgeDecoder(PARAMS).fit(train, file, names=names).save(path)


def sizes_of(betas, targets, names=()):
    """The sizes that files describe."""
    return memory._sizes(SimpleNamespace(betas=betas), targets, names)


def decode(betas, decoder):
    _, test = nsd.load_betas(betas).split()
    # with the spread matched, which that of what was fitted to noise would not be with align="train"
    return decoding.RidgeDecoder.load(decoder).predict(test, align="test")


def maps(betas, embedded, decoder):
    _, test = nsd.load_betas(betas).split()
    labels = np.ones((CUBE,) * 3, int)
    with embeddings.TargetFile(embedded) as file:
        contribution.map(decoding.RidgeDecoder.load(decoder), test, [Rois("one", labels, {1: "A"}, np.eye(4))], file)


def check(estimated: float, measured: int, most: float = 2.5):
    """What is asked for, without Python and its libraries, is enough and not far more."""
    assert measured <= SAFETY * estimated, f"took {measured / MB:.0f} MB, expected {estimated / MB:.0f}"
    assert SAFETY * estimated <= most * measured, f"took {measured / MB:.0f} MB, expected {estimated / MB:.0f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_fitting_decoding_and_mapping_take_what_is_expected(name, peak, tmp_path):
    sizes = SIZES[name]
    betas, embedded = write(sizes, tmp_path)
    decoder = tmp_path / "decoder.h5"
    # what the estimates know is what the files say
    assert sizes_of(betas, embedded) == sizes
    check(memory.fit_bytes(sizes, PARAMS.cv_targets), peak(fit, betas, embedded, decoder))
    assert sizes_of(betas, decoder) == sizes
    check(memory.decode_bytes(sizes), peak(decode, betas, decoder))
    check(memory.contribution_bytes(sizes), peak(maps, betas, embedded, decoder))


@pytest.mark.slow
@pytest.mark.parametrize("names", [["z"], ["c"], list(LAYERS[:2])])
def test_a_part_of_the_decoder_takes_what_its_targets_do(names, peak, tmp_path):
    betas, embedded = write(Sizes(500, 50, 400, (12_000, 30_000, 40_000, 8_000)), tmp_path)
    part = sizes_of(betas, embedded, names)
    check(memory.fit_bytes(part, PARAMS.cv_targets), peak(fit, betas, embedded, tmp_path / "part.h5", names))


@pytest.mark.slow
@pytest.mark.parametrize("average", [True, False])
def test_reading_betas_takes_what_is_expected(recipe, average):
    params = recipe.settings.betas.but(average_repeats=average)
    subject = nsd.open_source(recipe.source, params)
    found = subject.betas()
    sizes = Sizes(len(found), 0, len(subject.voxels(params.roi)))
    assert sizes.voxels * sizes.trials * 4 > MB, "too small to tell"
    check(memory.load_bytes(sizes), traced(subject.betas))


SCRIPT = r"""
import re, sys
import nipype_interfaces
from pathlib import Path
from nipype_interfaces.interfaces import FitDecoder
node = FitDecoder(betas=sys.argv[1], targets=sys.argv[2], cv_targets=512, num_threads=1)
node.run(cwd=sys.argv[3])
# getrusage would count the process that started this one, too
print(int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.slow
def test_a_node_in_a_process_of_its_own_stays_below_what_it_asks_for(tmp_path):
    sizes = SIZES["gram"]
    betas, targets = write(sizes, tmp_path)
    words = [sys.executable, "-c", SCRIPT, str(betas), str(targets), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    measured, asked = int(done.stdout.split()[-1]) / GB, memory.with_safety(memory.fit_bytes(sizes, 512))
    assert measured <= asked <= 3 * measured, f"took {measured:.2f} GB, asked for {asked:.2f}"


def test_a_whole_nsd_subject_asks_for_what_a_cluster_has():
    asked = {name: memory.with_safety(bytes_of(memory.FULL)) for name, bytes_of in FUNCTIONS.items()}
    # more than the betas themselves, which are 640 MB, and less than the memory of a common computer
    assert all(memory.FULL.betas / GB < gb < 64 for gb in asked.values()), asked


FUNCTIONS = {
    "load": memory.load_bytes,
    "fit": memory.fit_bytes,
    "decode": memory.decode_bytes,
    "contribution": memory.contribution_bytes,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("field", ["train", "test", "voxels"])
def test_a_larger_subject_never_asks_for_less(name, field):
    small = Sizes(500, 100, 700, (2000, 3000, 4000))
    for factor in (1, 2, 10, 30):
        large = replace(small, **{field: factor * getattr(small, field)})
        assert FUNCTIONS[name](large) >= FUNCTIONS[name](small)
        small = replace(large)


def test_only_the_targets_that_a_node_fits_count(tmp_path):
    path = tmp_path / "targets.h5"
    with h5py.File(path, "w") as file:
        file["z"], file["c"] = np.zeros((3, 4, 5)), np.zeros((3, 7))
        file["g/g00"], file["g/g02"] = np.zeros((3, 2, 2)), np.zeros((3, 9))
    assert memory.target_columns(path) == {"z": 20, "c": 7, "g00": 4, "g02": 9}
    assert memory.target_columns(path, ["z", "g02"]) == {"z": 20, "g02": 9}


def test_a_decoder_that_keeps_no_targets_tells_their_sizes(tmp_path):
    path = tmp_path / "decoder.h5"
    with h5py.File(path, "w") as file:
        file["decoder/fits/z/mean"], file["decoder/fits/g02/mean"] = np.zeros(20), np.zeros(9)
    assert memory.target_columns(path) == {"g02": 9, "z": 20}


def node_of(interface, name="one", **inputs):
    made = pe.Node(interface, name=name)
    made.inputs.trait_set(**inputs)
    return made


def test_an_estimate_follows_the_files_and_falls_back_on_a_whole_subject(tmp_path):
    from nipype_interfaces.interfaces import FitDecoder

    sizes = Sizes(30, 5, 40, (16, 8, 4), z=16)
    betas, targets = write(sizes, tmp_path)
    estimator = memory.FromShapes("FitDecoder")
    one = node_of(FitDecoder(), betas=str(betas), targets=str(targets))
    gb, why = estimator(one.inputs)
    assert gb == memory.with_safety(memory.fit_bytes(sizes)) and "from the shapes" in why
    full = memory.with_safety(memory.fit_bytes(memory.FULL))
    betas.write_bytes(b"damaged")
    gb, why = estimator(one.inputs)
    assert gb == full and "could not be read" in why
    assert memory.default_gb(one) == full


def test_memory_that_somebody_gave_is_not_estimated(tmp_path):
    from nipype_interfaces.interfaces import FitDecoder, JoinDecoders

    free, given, other = node_of(FitDecoder(), "free"), node_of(FitDecoder(), "given"), node_of(JoinDecoders(), "join")
    given._mem_gb = 3.0
    memory.estimate_nodes([free, given, other])
    assert isinstance(free.ram_estimator, memory.FromShapes)
    assert given.ram_estimator is None and other.ram_estimator is None
    assert memory.default_gb(given) == 3.0 and memory.default_gb(other) == memory.OTHERS_GB


def test_networks_are_estimated_from_their_weights_and_pages_from_their_images(tmp_path):
    from PIL import Image

    from nipype_interfaces.interfaces import EvaluateReconstruction, GuidedReconstruct

    (tmp_path / "unet").mkdir()
    for name, size in (("unet/a.safetensors", 3 * MB), ("b.bin", MB), ("README.md", 9 * MB)):
        (tmp_path / name).write_bytes(bytes(size))
    models = node_of(GuidedReconstruct(), models=str(tmp_path), stimulus_ids=[3, 5], repeats=2, batch_size=1).inputs
    networks = memory.NETWORKS * 4 * MB
    assert memory.FromShapes("GuidedReconstruct")(models)[0] == memory.with_safety(networks)
    models.batch_size = 3
    three = memory.FromShapes("GuidedReconstruct")(models)[0]
    assert three == memory.with_safety(networks + 2 * memory.AN_IMAGE * 4 * MB)
    models.batch_size, models.precision = 100, "bf16"  # of four images, each half as large
    assert memory.FromShapes("GuidedReconstruct")(models)[0] == memory.with_safety(networks + memory.AN_IMAGE * 4 * MB)
    models.models = "somebody/stable-diffusion"
    assert memory.FromShapes("GuidedReconstruct")(models)[0] > 12
    Image.new("RGB", (30, 20)).save(tmp_path / "one.png")
    page = node_of(EvaluateReconstruction(), models=str(tmp_path), images=[str(tmp_path / "one.png")] * 7).inputs
    found = memory.FromShapes("EvaluateReconstruction")(page)[0]
    assert found == memory.with_safety(networks + memory.scores_bytes(7))
    page.metric_weights, page.stimulus_ids = str(tmp_path), [1, 2, 3]
    more = memory.METRIC_WEIGHTS + 3 * 4 * memory.ALEXNET_VALUES
    assert memory.FromShapes("EvaluateReconstruction")(page)[0] == memory.with_safety(
        networks + memory.scores_bytes(7) + more
    )


class Drawn:
    """Pictures that are made when they are asked for."""

    def __init__(self, n, repeats=0):
        self.n, self.repeats = n, repeats

    def __len__(self):
        return self.n

    def __getitem__(self, key):
        stimulus, k = key if isinstance(key, tuple) else (key, None)
        found = np.random.default_rng(stimulus).integers(0, 255, (self.repeats or 1, 32, 32, 3), dtype=np.uint8)
        return found[k or 0] if k is not None or not self.repeats else found


def test_scores_take_the_memory_that_is_estimated_for_their_number_whatever_the_size_of_pictures():
    n, repeats, params = 60, 3, EvaluationParams(size=16)
    evaluate(Drawn(2, repeats), Drawn(2), None, params)
    held = traced(lambda: evaluate(Drawn(n, repeats), Drawn(n), None, params))
    assert 0.5 * memory.scores_bytes(2 * n * repeats) < held < memory.scores_bytes(2 * n * repeats)
    # a whole subject: 1,000 stimuli, 5 repeats, pictures of any size
    assert memory.scores_bytes(memory.FULL_IMAGES) < 1.5 * GB and memory.page_bytes(memory.FULL_IMAGES) < 0.5 * GB


def test_reading_betas_is_estimated_from_the_trials(recipe):
    from nipype_interfaces.interfaces import LoadNSDBetas

    one = node_of(LoadNSDBetas(), nsd_dir=recipe.source.nsd_dir)
    gb, why = memory.FromShapes("LoadNSDBetas")(one.inputs)
    params = recipe.settings.betas
    found = nsd.open_source(recipe.source, params).betas()
    exact = memory.with_safety(memory.load_bytes(Sizes(len(found), 0, found.n_voxels)))
    # voxels that are dropped for having no signal are counted, too
    assert "from the shapes" in why and exact <= gb <= 1.2 * exact
