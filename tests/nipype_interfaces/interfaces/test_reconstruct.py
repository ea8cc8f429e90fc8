"""GuidedReconstruct alone and in its workflow gives the images of the plain call, whatever the chunks."""

import json

import numpy as np
import pytest
from skimage import io

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.networks import models as core_models
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from nipype_interfaces.interfaces import CollectImages, GuidedReconstruct
from nipype_interfaces.interfaces.base import limited_threads
from nipype_interfaces.workflows import MULTIPROC, flatten, init_reconstruct_wf, set_inputs, split_chunks
from nipype_interfaces.workflows.nodes import whole_batches
from tests.support.workflows.small import CUT, DIFFUSION, GUIDANCE, IDS, PLAN, prepared


@pytest.fixture(scope="module")
def expected(recipe, decoded):
    # one thread as in the nodes: another number of threads may round the last bit differently
    with limited_threads(CUT.num_threads):
        return reconstruct(Embeddings.load(decoded), core_models.load(recipe.models), DIFFUSION, GUIDANCE)


def interface(recipe, decoded, **inputs):
    node = GuidedReconstruct(embeddings=decoded, models=recipe.models, num_threads=CUT.num_threads)
    for params in (DIFFUSION, GUIDANCE):
        node.inputs.trait_set(**params.to_dict())
    node.inputs.trait_set(**inputs)
    return node


def names(arm, ids):
    return [f"sub-01_stim-{s:05d}_rep-{r}_desc-{arm}_recon.png" for s in ids for r in (1, 2)]


def test_interface_writes_the_images_of_the_core_call(recipe, decoded, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = interface(recipe, decoded, stimulus_ids=IDS[1:]).run().outputs
    assert [f.rsplit("/")[-1] for f in found.images] == names("guided", IDS[1:])
    images = np.stack([io.imread(f) for f in found.images])
    # batches of one stimulus, as in the plain call
    np.testing.assert_array_equal(images, expected.images[1:].reshape(images.shape))
    sidecar = json.loads(open(found.sidecar).read())
    assert set(sidecar["Arms"]["guided"]["FeatureLossPerGuidedStep"]) == {"7", "70000"}
    assert found.failed == []
    figures = [sidecar["Arms"]["guided"]["FinalLatents"][str(s)] for s in IDS[1:]]
    np.testing.assert_allclose(figures, expected.latents[1:], rtol=1e-4)
    largest, spread = expected.latents[..., 2], expected.latents[..., 1]
    assert (spread > 0).all() and (largest >= spread).all()


def test_unguided_arm_is_named_so(recipe, decoded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = interface(recipe, decoded, stimulus_ids=IDS[:1], guidance_scale=0.0).run().outputs.images
    assert [f.rsplit("/")[-1] for f in found] == names("unguided", IDS[:1])
    # a guided arm may have guidance_scale 0, too: it is named as asked for
    found = interface(recipe, decoded, stimulus_ids=IDS[:1], guidance_scale=0.0, arms=["guided"]).run().outputs.images
    assert [f.rsplit("/")[-1] for f in found] == names("guided", IDS[:1])


def test_both_arms_come_from_one_call_and_the_same_noise(recipe, decoded, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = interface(recipe, decoded, stimulus_ids=IDS[:1], arms=["unguided", "guided"]).run().outputs.images
    assert [f.rsplit("/")[-1] for f in found] == names("unguided", IDS[:1]) + names("guided", IDS[:1])
    images = [io.imread(f) for f in found]
    np.testing.assert_array_equal(images[2:], expected.images[0])
    assert not np.array_equal(images[0], images[2])


def test_a_killed_chunk_continues_after_its_last_whole_batch(recipe, decoded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = interface(recipe, decoded, stimulus_ids=IDS, arms=["guided"])
    files = node.run().outputs.images
    before = {f: open(f, "rb").read() for f in files}
    # as if killed before the second batch was recorded; the first one must not be computed again
    (tmp_path / "stages" / "recon-guided-0001.json").unlink()
    kept, lost = files[:2], files[2:4]
    marks = [np.uint64(tmp_path.joinpath(f).stat().st_mtime_ns) for f in kept]
    for f in lost:
        open(f, "wb").write(b"half")
    node.run()
    assert [np.uint64(tmp_path.joinpath(f).stat().st_mtime_ns) for f in kept] == marks
    assert {f: open(f, "rb").read() for f in files} == before


def test_chunks_cover_every_stimulus_once():
    for size in (1, 2, 3, 5):
        chunks = split_chunks(IDS, size)
        assert max(map(len, chunks)) <= size
        assert flatten(chunks) == IDS


@pytest.mark.parametrize("size, repeats, batch, whole", [(1, 2, 10, 5), (5, 2, 10, 5), (6, 2, 10, 10), (3, 7, 4, 3)])
def test_chunks_are_whole_batches(size, repeats, batch, whole):
    assert whole_batches(size, DIFFUSION.but(repeats=repeats, batch_size=batch)) == whole


def run_workflow(recipe, decoded, base, plugin, **plugin_args):
    wf = prepared(init_reconstruct_wf(PLAN), base)
    wf.inputs.inputnode.trait_set(embeddings=str(decoded), stimulus_ids=IDS, models=recipe.models)
    graph = wf.run(plugin=plugin, plugin_args=plugin_args)
    nodes = {node.name: node for node in graph.nodes()}
    assert len(nodes["recon"].result.outputs.images) == 2, "one list for each chunk"
    files = flatten(nodes["recon"].result.outputs.images)
    guided = [f for f in files if "desc-guided" in f]
    assert len(files) == 2 * len(guided)
    return np.stack([io.imread(f) for f in guided]), nodes["collect"].result.outputs


def test_workflow_gives_the_bits_of_the_plain_call(recipe, decoded, expected, tmp_path):
    images, collected = run_workflow(recipe, decoded, tmp_path, "Linear")
    np.testing.assert_array_equal(images, expected.images.reshape(images.shape))
    losses = json.loads(open(collected.sidecar).read())["Arms"]["guided"]["FeatureLossPerGuidedStep"]
    assert set(losses) == {str(s) for s in IDS}
    assert (collected.stimulus_ids, collected.failed, collected.failed_table) == (IDS, [], None)


@pytest.mark.slow
def test_multiproc_equals_linear_bit_for_bit(recipe, decoded, tmp_path):
    linear, _ = run_workflow(recipe, decoded, tmp_path / "linear", "Linear")
    parallel, _ = run_workflow(recipe, decoded, tmp_path / "multiproc", "MultiProc", n_procs=2, **MULTIPROC)
    np.testing.assert_array_equal(parallel, linear)


def test_failed_stimuli_are_told_and_left_out(recipe, decoded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = []
    for k, ids in enumerate((IDS[:1], IDS[1:])):
        (tmp_path / f"chunk{k}").mkdir()
        monkeypatch.chdir(tmp_path / f"chunk{k}")
        # no finite latent comes out of this
        found = interface(recipe, decoded, stimulus_ids=ids, guidance_scale=1e30, normalise="none").run().outputs
        assert found.failed == sorted(ids)
        files.append(found.sidecar)
    monkeypatch.chdir(tmp_path)
    found = CollectImages(sidecars=files, stimulus_ids=[*IDS, 99], failed=[IDS[:1], IDS[1:]]).run().outputs
    assert (found.stimulus_ids, found.failed) == ([99], sorted(IDS))
    rows = open(found.failed_table).read().splitlines()
    assert rows[0] == "stim\treason"
    assert [row.split("\t")[0] for row in rows[1:]] == ["7", "13", "70000"]


def test_every_field_of_the_settings_reaches_the_node():
    from napari_neuraldiffuser.core.params import GuidanceParams

    guidance = GuidanceParams(layers=("g04", "g02"), layer_weights=(2.0, 1.0))
    inputs = set_inputs(GuidedReconstruct(), guidance).inputs
    assert inputs.layers == ["g04", "g02"]
    assert inputs.layer_weights == [2.0, 1.0]


def test_a_gpu_node_is_one_before_anything_runs():
    from nipype_interfaces.workflows.nodes import Plan

    on_gpu, on_cpu = (init_reconstruct_wf(Plan(cut=CUT, device=device)) for device in ("cuda:1", "cpu"))
    assert on_gpu.get_node("recon").inputs.use_gpu and not on_cpu.get_node("recon").inputs.use_gpu
    assert on_gpu.get_node("recon").mem_gb == CUT.gpu_mem_gb
