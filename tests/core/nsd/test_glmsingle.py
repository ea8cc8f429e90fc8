"""GLMsingle's outputs as a source: the same betas as a NIfTI of them, trials from its design, and what is refused."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser import cli, cli_run
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BetasParams
from tests.support.nsd.glmsingle_files import AFFINE, CONDITIONS, SHAPE, make, matlab_design, write

KINDS = ("npy", "hdf5", "packed", "mat")


@pytest.fixture
def outputs(tmp_path):
    return make(tmp_path / "GLMestimatesingletrialoutputs")


def table(outputs, path=None):
    """Trials by hand: label, session and test of each."""
    path = path or outputs.folder.parent / "trials.tsv"
    rows = [
        f"{t}\tpicture_{k}\t{session}\t{int(k in (3, 5))}"
        for t, (k, session) in enumerate(zip(outputs.order, outputs.sessions, strict=True))
    ]
    path.write_text("trial\tstimulus\tsession\ttest\n" + "\n".join(rows) + "\n")
    return path


def source(outputs, betas, trials=""):
    return Source(subject="subj03", betas=str(betas), mask=str(outputs.mask_file), trials=str(trials))


def same(found, wanted):
    np.testing.assert_array_equal(found.data, wanted.data)
    np.testing.assert_array_equal(found.voxels, wanted.voxels)
    np.testing.assert_array_equal(found.shared, wanted.shared)
    np.testing.assert_array_equal(found.repeats, wanted.repeats)
    np.testing.assert_allclose(found.affine, wanted.affine)
    assert found.shape == wanted.shape and found.dropped == wanted.dropped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "params",
    [BetasParams(), BetasParams(sessions="2"), BetasParams(zscore=False, average_repeats=False)],
    ids=["default", "second session", "single raw trials"],
)
def test_each_format_gives_the_betas_of_a_nifti(outputs, kind, params):
    trials = table(outputs)
    wanted = nsd.OwnScans(source(outputs, outputs.folder / "betas.nii.gz", trials), params).betas()
    scans = nsd.OwnScans(source(outputs, write(outputs, kind), trials), params)
    found = scans.betas()
    same(found, wanted)
    assert found.dropped == {"nan": 1} and found.notes == wanted.notes
    assert scans.shape == SHAPE
    np.testing.assert_allclose(scans.affine, AFFINE)  # the mask's
    if params == BetasParams():
        centred = outputs.betas[tuple(found.voxels.T)].astype(np.float64)
        for session in (1, 2):
            own = centred[:, outputs.sessions == session]
            centred[:, outputs.sessions == session] = (own - own.mean(1, keepdims=True)) / own.std(1, keepdims=True)
        want = np.array([centred[:, outputs.order == k].mean(1) for k in range(CONDITIONS)])
        np.testing.assert_allclose(found.data, want, atol=2e-6)


@pytest.mark.parametrize("matlab", [False, True])
def test_the_design_alone_says_trials_sessions_and_test(outputs, matlab):
    betas = write(outputs, "mat" if matlab else "npy")
    if matlab:
        matlab_design(outputs)
    scans = nsd.OwnScans(source(outputs, betas))
    trials = scans.trials.sort_values("trial")
    np.testing.assert_array_equal(trials["stimulus"].astype(int), outputs.order)
    np.testing.assert_array_equal(trials["session"].astype(int), outputs.sessions)
    np.testing.assert_array_equal(trials["shared"], np.isin(outputs.order, (3, 5)))
    same(scans.betas(), nsd.OwnScans(source(outputs, outputs.folder / "betas.nii.gz", table(outputs))).betas())
    notes = " | ".join(scans.betas().notes)
    assert "stimuli are named by the conditions of DESIGNINFO" in notes
    assert "test stimuli are the 2 that were shown most often (8 times)" in notes
    assert outputs.folder / f"DESIGNINFO.{'mat' if matlab else 'npy'}" in scans.response_files()


def test_images_named_by_numbers_of_conditions(outputs, tmp_path):
    (tmp_path / "images").mkdir()
    for k in range(CONDITIONS):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / f"images/{k:03d}.png")
    scans = nsd.OwnScans(replace(source(outputs, write(outputs, "npy")), images=str(tmp_path / "images")))
    assert scans.stimuli.names == [f"{k:03d}" for k in range(CONDITIONS)]
    assert [scans.stimuli[k][0, 0, 0] for k in range(CONDITIONS)] == list(range(CONDITIONS))
    (tmp_path / "images/000.png").rename(tmp_path / "images/009.png")  # counted from 1: condition 0 has no image
    scans = nsd.OwnScans(replace(source(outputs, write(outputs, "npy")), images=str(tmp_path / "images")))
    with pytest.raises(nsd.NSDError, match="must hold an image <label>.png .*got none for 1: 0"):
        scans.stimuli.files(range(CONDITIONS))


def test_a_table_of_conditions_names_the_stimuli(outputs, tmp_path):
    rows = [f"{k}\tpicture_{k}\t{int(k in (3, 5))}" for k in reversed(range(CONDITIONS))]
    conditions = tmp_path / "conditions.tsv"
    conditions.write_text("condition\tstimulus\ttest\n" + "\n".join(rows) + "\n")
    betas = write(outputs, "npy")
    found = nsd.OwnScans(source(outputs, betas, conditions)).betas()
    same(found, nsd.OwnScans(source(outputs, betas, table(outputs))).betas())
    assert found.stimulus_names == [f"picture_{k}" for k in range(CONDITIONS)]
    conditions.write_text("condition\tstimulus\n" + "\n".join(f"{k}\tp{k}" for k in range(CONDITIONS - 1)) + "\n")
    with pytest.raises(nsd.NSDError, match=r"one row for each condition .*got no row for \[8\]"):
        nsd.OwnScans(source(outputs, betas, conditions)).betas()
    (outputs.folder / "DESIGNINFO.npy").unlink()
    with pytest.raises(nsd.NSDError, match="got a table of conditions without a design"):
        nsd.OwnScans(source(outputs, betas, conditions)).betas()


def test_a_table_of_trials_that_contradicts_the_design_is_told(outputs):
    trials = table(outputs)
    text = trials.read_text().splitlines()
    text[1], text[2] = text[1].replace("picture_", "other_"), text[2]
    trials.write_text("\n".join(text) + "\n")
    notes = nsd.OwnScans(source(outputs, write(outputs, "npy"), trials)).betas().notes
    assert any("do not match one stimulus to one condition" in note for note in notes)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "mat"])
def test_a_list_of_voxels_lies_where_the_mask_says(outputs, kind):
    """NumPy's `data[mask]` runs with z fastest, MATLAB's `data(mask)` with x fastest."""
    inside = np.argwhere(outputs.mask)
    if kind == "mat":
        inside = inside[np.lexsort(inside.T)]
    listed = outputs.betas[tuple(inside.T)][:, None, None, :]
    trials = table(outputs)
    wanted = nsd.OwnScans(source(outputs, outputs.folder / "betas.nii.gz", trials)).betas()
    found = nsd.OwnScans(source(outputs, write(outputs, kind, listed), trials)).betas()
    same(found, wanted)
    assert any("lists voxels: they are taken in the mask's order" in note for note in found.notes)
    with pytest.raises(nsd.NSDError, match=r"mask must have as many voxels above 0 as .* lists"):
        nsd.OwnScans(source(outputs, write(outputs, kind, listed[1:]), trials)).betas()


def test_maps_lie_on_the_masks_grid(outputs):
    betas = nsd.OwnScans(source(outputs, write(outputs, "hdf5"))).betas()
    image = betas.to_volume(np.arange(betas.n_voxels) + 1.0)
    np.testing.assert_allclose(image.affine, AFFINE)
    kept = outputs.mask.copy()
    kept[0, 0, 0] = False
    np.testing.assert_array_equal(np.asarray(image.dataobj)[kept], np.arange(betas.n_voxels) + 1)


def test_voxels_by_noise_ceiling_of_training_repeats(outputs):
    params = BetasParams(max_voxels=5)
    betas = nsd.OwnScans(source(outputs, write(outputs, "npy"), table(outputs)), params).betas()
    assert betas.n_voxels == 5
    assert any("from the repeats of the training images" in note for note in betas.notes)
    with pytest.raises(nsd.NSDError, match="ceiling_from must be training or auto for own scans"):
        nsd.OwnScans(source(outputs, write(outputs, "npy")), params.but(ceiling_from="ncsnr"))


def test_what_does_not_fit_is_refused_in_a_sentence(outputs, tmp_path):
    betas = write(outputs, "npy")
    with pytest.raises(nsd.NSDError, match="must be the design of the .* trials of the betas, got 44 trials"):
        nsd.OwnScans(source(outputs, write(outputs, "hdf5", outputs.betas[..., :-1]))).betas()
    nib.save(nib.Nifti1Image(np.ones((6, 5, 8), np.uint8), AFFINE), tmp_path / "other.nii")
    with pytest.raises(nsd.NSDError, match=r"mask must have the betas' shape \(6, 5, 7\), got \(6, 5, 8\)"):
        nsd.OwnScans(replace(source(outputs, betas), mask=str(tmp_path / "other.nii"))).betas()
    np.save(betas, {"betasmd": np.zeros(SHAPE), "onoffR2": np.zeros(SHAPE)})
    with pytest.raises(nsd.NSDError, match="Type A has no single trials"):
        nsd.OwnScans(source(outputs, betas)).betas()
    np.save(betas, {"R2": np.zeros(SHAPE)})
    with pytest.raises(nsd.NSDError, match="got no numbers betasmd"):
        nsd.OwnScans(source(outputs, betas))
    np.save(betas, np.zeros((2, 2, 2, 4)))
    with pytest.raises(nsd.NSDError, match="got ndarray"):
        nsd.OwnScans(source(outputs, betas))
    np.save(betas, {"betasmd": outputs.betas, "more": print})
    with pytest.raises(nsd.NSDError, match="got builtins.print. It was not opened"):
        nsd.OwnScans(source(outputs, betas))
    write(outputs, "npy")
    np.save(outputs.folder / "DESIGNINFO.npy", {"stimorder": ["a"], "numtrialrun": [44]})
    with pytest.raises(nsd.NSDError, match="must be GLMsingle's DESIGNINFO with stimorder and numtrialrun"):
        nsd.OwnScans(source(outputs, betas)).betas()
    (outputs.folder / "DESIGNINFO.npy").unlink()
    with pytest.raises(nsd.NSDError, match="own scans must have trials"):
        nsd.OwnScans(source(outputs, betas))


def test_equal_counts_hold_nothing_out_and_say_so(outputs):
    order = sorted([*range(CONDITIONS)] * 4)
    outputs.betas = outputs.betas[..., : len(order)]
    np.save(outputs.folder / "DESIGNINFO.npy", {"stimorder": order, "numtrialrun": [18, 18]})
    scans = nsd.OwnScans(source(outputs, write(outputs, "npy")))
    assert not scans.trials["shared"].any() and set(scans.trials["session"]) == {"1"}
    assert any("no test stimuli: all were shown 4 times" in note for note in scans.betas().notes)


def test_the_command_line_takes_it(outputs):
    args = cli.build_parser().parse_args(
        ["run", str(write(outputs, "npy")), "OUT", "participant", "--mask", str(outputs.mask_file)]
    )
    made = cli_run.own_scans(args, ["subj03"])
    assert made == source(outputs, args.nsd_dir)
    assert nsd.open_source(made).betas().n_voxels == outputs.mask.sum() - 1


def test_only_the_masks_voxels_are_read_of_a_large_file(tmp_path):
    """Forty times the memory that reading takes would be needed for the whole array."""
    import tracemalloc

    big = make(tmp_path / "big")
    betas = np.random.default_rng(1).normal(size=(60, 50, 40, len(big.order))).astype(np.float32)
    mask = np.zeros(betas.shape[:3], np.uint8)
    mask[20:30, 20:30, 20:30] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), big.mask_file)
    for kind in ("npy", "hdf5"):
        scans = nsd.OwnScans(source(big, write(big, kind, betas)))
        _ = scans.trials, scans.shape
        tracemalloc.start()
        found = scans.betas()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.n_voxels == 1000
        assert peak < betas.nbytes / 15
