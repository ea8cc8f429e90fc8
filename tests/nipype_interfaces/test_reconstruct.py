"""GuidedReconstruct alone and in its workflow gives the images of the plain call, whatever the chunks."""

import numpy as np
import pytest
from skimage import io

from napari_neuraldiffuser.core import models as core_models
from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.embeddings import Embeddings
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import (
    LAYERS,
    TARGETS,
    DiffusionParams,
    GuidanceParams,
    Settings,
    SimulationParams,
)
from nipype_interfaces.interfaces import GuidedReconstruct
from nipype_interfaces.workflows import (
    MULTIPROC,
    flatten,
    init_reconstruct_wf,
    init_reconstruction_wf,
    set_inputs,
    split_chunks,
)
from tests.small_models import small_models

DIFFUSION = DiffusionParams(n_steps=4, repeats=2, batch_size=2)
GUIDANCE = GuidanceParams(guidance_scale=1.0, guidance_strength=0.5, normalise="rms")
IDS = [13, 7, 70000]


@pytest.fixture(autouse=True)
def quiet(caplog):
    # nipype gives a job's number as text to a %d of its own log call; pytest makes such a slip an error
    caplog.set_level("ERROR", "nipype.workflow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random small models saved as a model folder, and decoded embeddings of three stimuli."""
    path = tmp_path_factory.mktemp("files")
    models = small_models()
    for part in core_models.PARTS:
        getattr(models, part).save_pretrained(path / "models" / part)
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=(len(IDS), *shape)).astype(np.float32)

    shape = models.features(_pixels(models))[0].shape[1:]
    c = models.encode_text(["a red ball"])[0].shape
    g = {layer: draw(*shape) for layer in LAYERS}
    attrs = {"feature_normalisation": "imagenet", "model_digest": core_models.load(path / "models").digest}
    Embeddings(draw(*models.latent_shape), draw(*c), g, np.array(IDS), attrs).save(path / "decoded.h5")
    return path


def _pixels(models):
    import torch

    return torch.zeros(1, 3, models.guide_size(), models.guide_size())


@pytest.fixture(scope="module")
def expected(folder):
    networks = core_models.load(folder / "models")
    return reconstruct(Embeddings.load(folder / "decoded.h5"), networks, DIFFUSION, GUIDANCE)


def test_interface_writes_the_images_of_the_core_call(folder, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = GuidedReconstruct(
        embeddings=folder / "decoded.h5", stimulus_ids=IDS[1:], models=str(folder / "models")
    )
    for params in (DIFFUSION, GUIDANCE):
        node.inputs.trait_set(**params.to_dict())
    files = node.run().outputs.images
    assert [f.rsplit("/")[-1] for f in files] == [
        f"sub-01_stim-{stimulus:05d}_rep-{repeat}_desc-guided_recon.png"
        for stimulus in IDS[1:]
        for repeat in (1, 2)
    ]
    images = np.stack([io.imread(f) for f in files])
    wanted = expected.images[1:].reshape(images.shape)
    # another batch may differ by one 8-bit level
    assert np.abs(images.astype(int) - wanted).max() <= 1


def test_unguided_arm_is_named_so(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = GuidedReconstruct(
        embeddings=folder / "decoded.h5", stimulus_ids=IDS[:1], models=str(folder / "models")
    )
    node.inputs.trait_set(**DIFFUSION.to_dict())
    node.inputs.guidance_scale = 0.0
    assert all("desc-unguided" in f for f in node.run().outputs.images)


def test_chunks_cover_every_stimulus_once():
    for size in (1, 2, 3, 5):
        chunks = split_chunks(IDS, size)
        assert max(map(len, chunks)) <= size
        assert flatten(chunks) == IDS


def prepared(wf, base):
    """`wf` with its working folder, quick polling and crash files below `base`."""
    wf.base_dir = str(base)
    wf.config["execution"] = {
        "poll_sleep_duration": "0.1",
        "crashdump_dir": str(base),
        "crashfile_format": "txt",
    }
    return wf


def run_workflow(folder, base, plugin, **plugin_args):
    wf = prepared(init_reconstruct_wf(Settings(diffusion=DIFFUSION, guidance=GUIDANCE)), base)
    wf.inputs.inputnode.trait_set(
        embeddings=str(folder / "decoded.h5"), stimulus_ids=IDS, chunk_size=2, models=str(folder / "models")
    )
    graph = wf.run(plugin=plugin, plugin_args=plugin_args)
    (recon,) = (node for node in graph.nodes() if node.name == "recon")
    return np.stack([io.imread(f) for chunk in recon.result.outputs.images for f in chunk])


def test_workflow_gives_the_same_images(folder, expected, tmp_path):
    images = run_workflow(folder, tmp_path, "Linear")
    assert np.abs(images.astype(int) - expected.images.reshape(images.shape)).max() <= 1


@pytest.mark.slow
def test_multiproc_equals_linear_bit_for_bit(folder, tmp_path):
    linear = run_workflow(folder, tmp_path / "linear", "Linear")
    parallel = run_workflow(folder, tmp_path / "multiproc", "MultiProc", n_procs=2, **MULTIPROC)
    np.testing.assert_array_equal(parallel, linear)


@pytest.fixture(scope="module")
def nsd_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("nsd")
    simulate.write_subjects(path, SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32))
    return path


def whole(nsd_dir, model_dir, base, plugin, **plugin_args):
    """Image file name to pixels, and decoded embeddings, of the workflow from NSD files."""
    wf = prepared(init_reconstruction_wf(Settings(diffusion=DIFFUSION, guidance=GUIDANCE)), base)
    wf.inputs.inputnode.trait_set(nsd_dir=str(nsd_dir), n_stimuli=3, chunk_size=2, models=str(model_dir))
    nodes = {node.name: node for node in wf.run(plugin=plugin, plugin_args=plugin_args).nodes()}
    files = flatten(nodes["recon"].result.outputs.images)
    decoded = Embeddings.load(nodes["decode"].result.outputs.embeddings)
    return {f.rsplit("/")[-1]: io.imread(f) for f in files}, decoded


@pytest.mark.slow
def test_nsd_files_to_images_under_multiproc_equal_linear_and_the_core(folder, nsd_dir, tmp_path):
    images, decoded = whole(nsd_dir, folder / "models", tmp_path / "multiproc", "MultiProc", n_procs=2, **MULTIPROC)
    linear, linear_decoded = whole(nsd_dir, folder / "models", tmp_path / "linear", "Linear")
    assert list(images) == list(linear)
    assert len(images) == 3 * DIFFUSION.repeats
    for name in images:
        np.testing.assert_array_equal(images[name], linear[name])
    for target in TARGETS:
        np.testing.assert_array_equal(decoded[target], linear_decoded[target])
    # the plain core call on the decoded embeddings; another batch may differ by one 8-bit level
    plain = reconstruct(decoded, core_models.load(folder / "models"), DIFFUSION, GUIDANCE).images
    found = np.stack(list(images.values())).astype(int)
    assert np.abs(found - plain.reshape(found.shape)).max() <= 1


def test_every_field_of_the_settings_reaches_the_node():
    guidance = GuidanceParams(layers=("g04", "g02"), layer_weights=(2.0, 1.0))
    inputs = set_inputs(GuidedReconstruct(), guidance).inputs
    assert inputs.layers == ["g04", "g02"]
    assert inputs.layer_weights == [2.0, 1.0]


def test_index_lists_the_stimuli_of_the_betas_that_are_read(nsd_dir, tmp_path, monkeypatch):
    from napari_neuraldiffuser.core.nsd import Subject
    from nipype_interfaces.interfaces import NSDIndex

    monkeypatch.chdir(tmp_path)
    train, test = Subject(nsd_dir, "subj01").betas().split()
    found = NSDIndex(nsd_dir=str(nsd_dir)).run().outputs
    assert found.train_ids == train.stimulus_ids.tolist()
    assert found.test_ids == test.stimulus_ids.tolist()


def test_a_source_is_an_nsd_folder_or_own_scans(nsd_dir, tmp_path, monkeypatch):
    from nipype_interfaces.interfaces import NSDIndex

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="source"):
        NSDIndex().run()
    with pytest.raises(ValueError, match="own scans must have"):
        NSDIndex(source={"betas": "/nowhere.nii", "mask": "", "trials": ""}).run()


def test_arm_names_the_files_where_it_is_given(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = GuidedReconstruct(
        embeddings=folder / "decoded.h5", stimulus_ids=IDS[:1], models=str(folder / "models"), arm="guided"
    )
    node.inputs.trait_set(**DIFFUSION.but(n_steps=2).to_dict(), guidance_scale=0.0)
    assert all("desc-guided" in f for f in node.run().outputs.images)
