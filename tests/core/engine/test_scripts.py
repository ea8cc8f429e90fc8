"""Scripts that compute a run again: run as they are, in an empty folder, they give its images bit for bit."""

import ast
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from skimage import io

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.engine import scripts, wire
from napari_neuraldiffuser.core.params import BetasParams, FeatureParams, GuidanceParams, Settings
from tests.support.nsd.own_files import export
from tests.support.study_cases import DIFFUSION

PATIENCE = 600  # s
KINDS = {"python": scripts.python_script, "nipype": scripts.nipype_script}
NASTY = '/data/it\'s "quoted" {braces} \\back\n""" + ümlaut'


def provenance(recipe, **changes):
    """The parts of a run's provenance that scripts are made from."""
    versions = {"napari-neuraldiffuser": "1", "python": "3", "torch": "2", "numpy": "2"}
    rows = [{"arm": arm, "file": f"sub-01/recon/{arm}.png", "sha256": f"digest of {arm}"} for arm in recipe.arms]
    made = {
        "recipe": recipe.to_dict(),
        "started": "2026-01-02T03:04:05+00:00",
        "versions": versions,
        "kernel_backend": "cpu",
        "device": "cpu (x86_64)",
        "torch_threads": 2,
        "blas_threads": 1,
        "decoder": {"digest": "d", "loaded": False, "path": None},
        "complete": True,
        "arms": {arm: {"complete": True} for arm in recipe.arms},
        "images": rows,
    }
    return made | changes


def assigned(text):
    """Name -> value of the script's assignments of literals and params at top level."""
    from napari_neuraldiffuser.core import params

    found = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign):
            continue
        if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "").endswith("Params"):
            values = {k.arg: ast.literal_eval(k.value) for k in node.value.keywords}
            found[node.targets[0].id] = getattr(params, node.value.func.id)(**values)
        elif isinstance(node.value, ast.Dict) or isinstance(node.value, ast.List):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                pass
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_written_out(kind):
    settings = Settings(
        betas=BetasParams(roi=f'V1 - "{NASTY}.nii.gz"', sessions="1-3", average_repeats=False),
        features=FeatureParams(layers=("g04", "g02"), batch_size=7),
        diffusion=DIFFUSION.but(strength=1 / 3),
        guidance=GuidanceParams(guidance_scale=0.1 + 0.2, layers=("g04",), layer_weights=(1e-7,)),
    )
    text = KINDS[kind](provenance(Recipe(Source(NASTY), settings, models=NASTY, stimulus_ids=(5, 3))))
    found = assigned(text)
    for stage in ("betas", "features", "decoding", "diffusion", "guidance"):
        assert found[stage] == getattr(settings, stage)
    assert found["stimuli"] == [5, 3]
    assert found["expected"] == {f"{arm}.png": f"digest of {arm}" for arm in ("guided", "unguided")}
    assert repr(NASTY) in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_further_test_set_is_not_lost(kind):
    text = KINDS[kind](provenance(Recipe(Source("nsd", test_set="synthetic"), stimulus_ids=(73000,))))
    assigned(text)
    assert "'synthetic'" in text and "nsd.Subject(" not in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("loaded", [None, NASTY])
def test_scripts_are_python(kind, own, loaded):
    source = Source(betas=NASTY, mask=NASTY, trials=NASTY, rois=(NASTY,)) if own else Source(nsd_dir=NASTY)
    decoder = {"digest": "d", "loaded": loaded is not None, "path": loaded}
    made = provenance(Recipe(source, guide=NASTY, stimulus_ids=(1,)), decoder=decoder)
    text = KINDS[kind](made)
    compile(text, "script", "exec")
    assert ("decoders.new(decoding)" in text or "FitDecoder(" in text) == (loaded is None)
    assert ("DecodingParams(" in text) == ("FeatureParams(" in text) == (loaded is None)
    assert (f"load({NASTY!r})" in text or f"decoder = {NASTY!r}" in text) == (loaded is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_arm_is_not_expected(kind):
    arms = {"guided": {"complete": True}, "unguided": {"complete": False}}
    text = KINDS[kind](provenance(Recipe(stimulus_ids=(1,)), arms=arms, complete=False))
    assert assigned(text)["expected"] == {"guided.png": "digest of guided"}
    assert "stopped early" in text


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_arms_of_the_recipe_are_computed(kind):
    text = KINDS[kind](provenance(Recipe(stimulus_ids=(1,), arms=("unguided",))))
    assert "for arm in ['unguided']}" in text


@pytest.fixture(scope="module")
def small(inputs):
    test = nsd.Subject(inputs.source.nsd_dir, "subj01").betas().split()[1].stimulus_ids
    return inputs.but(stimulus_ids=(int(test[3]), int(test[0])))


def drawn(recipe, folder):
    """A region that was drawn by hand, without another, and the repeats kept apart."""
    subject = nsd.Subject(recipe.source.nsd_dir, "subj01")
    mask = np.zeros(subject.shape, np.uint8)
    mask[tuple(subject.voxels("nsdgeneral")[:900].T)] = 1
    nibabel.save(nibabel.Nifti1Image(mask, subject.affine), folder / "my mask.nii.gz")
    betas = BetasParams(roi=f"{folder / 'my mask.nii.gz'} - V1", average_repeats=False)
    return recipe.with_stage("betas", betas).with_stage("features", FeatureParams(batch_size=17))


def engine_run(recipe, cache):
    """The result of `reconstruct` by an engine process with threads as they are by default."""
    engine = subprocess.Popen(
        [sys.executable, "-P", "-m", "napari_neuraldiffuser.core.engine.server", str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with engine:
        wire.send(engine.stdin, {"id": 1, "call": "reconstruct", "args": {"recipe": recipe.to_dict()}})
        while (message := wire.receive(engine.stdout))["event"] != "result":
            pass
        engine.stdin.close()
    assert message["ok"] == "done", message
    return message


def script_run(text, folder):
    """Standard output and the images of a script that is run as it is, in an empty folder."""
    folder.mkdir()
    (folder / "script.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, {path.name: io.imread(path) for path in (folder / "images").glob("*.png")}


@pytest.fixture(scope="module")
def default_threads():
    """Child processes choose the number of threads themselves."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def finished(small, default_threads, tmp_path_factory):
    """The run of the small recipe as it is."""
    return engine_run(small, tmp_path_factory.mktemp("finished"))


def own_scans(recipe, folder):
    """Scans that are no NSD subject's."""
    source = export(nsd.Subject(recipe.source.nsd_dir, "subj01"), folder / "scans")
    test = nsd.open_source(source).betas().split()[1].stimulus_ids
    return recipe.but(source=source, stimulus_ids=tuple(int(s) for s in test[:2]))


@pytest.mark.slow
@pytest.mark.parametrize("change", [None, drawn, own_scans])
def test_scripts_give_the_runs_images_bit_for_bit(small, finished, tmp_path, change):
    result = engine_run(change(small, tmp_path), tmp_path / "cache") if change else finished
    rows = result["provenance"]["images"]
    wanted = {row["file"].rsplit("/")[-1]: io.imread(f"{result['folder']}/{row['file']}") for row in rows}
    assert len(wanted) == 2 * 2 * DIFFUSION.repeats
    for kind in KINDS:
        said, found = script_run(result[kind], tmp_path / kind)
        assert set(found) == set(wanted)
        for name, image in found.items():
            np.testing.assert_array_equal(image, wanted[name])
        lines = [line for line in said.splitlines() if line.startswith("images/")]
        digests = {row["sha256"] for row in rows}
        assert {line.split()[1] for line in lines} == digests
        assert all(line.endswith(" as in the run") and "NOT" not in line for line in lines)


@pytest.mark.slow
def test_a_fresh_cache_gives_the_same_bits(small, finished, tmp_path):
    first, second = finished["provenance"], engine_run(small, tmp_path)["provenance"]
    assert not any(arm["cached"] for arm in second["arms"].values())
    assert first["images"] == second["images"]
    assert first["decoder"] == second["decoder"]


@pytest.mark.slow
def test_a_script_says_where_an_image_differs(finished, tmp_path):
    made = finished["provenance"]
    images = [{**row, "sha256": "0" * 64} if k == 0 else row for k, row in enumerate(made["images"])]
    made = {**made, "images": images}
    said, _ = script_run(scripts.python_script(made), tmp_path / "python")
    assert said.count(" NOT as in the run") == 1
