"""NSD's betas on fsaverage: what is read, in which order, with which regions, and what is refused."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.geometry import Geometry
from napari_neuraldiffuser.core.nsd.describe import describe
from napari_neuraldiffuser.core.nsd.reading import surfaces
from napari_neuraldiffuser.core.params import BetasParams
from tests.support.nsd.surface_tree import AREAS, NATIVE, VERTICES, make_surface, write_mgh
from tests.support.nsd.tree import N

FSAVERAGE = BetasParams(space="fsaverage")


@pytest.fixture
def surface(tree):
    return make_surface(tree.root)


def subject(surface, **params):
    return nsd.open_source(Source(str(surface.root), surface.subject), FSAVERAGE.but(**params))


def expected(tree, surface, masks):
    """The whole preparation in float64, straight from the definition: (images, vertices), left before right."""
    parts, ids = [], []
    for session, both in sorted(surface.raw.items()):
        values = np.concatenate([raw[mask].astype(float) for raw, mask in zip(both, masks, strict=True)]).T
        parts.append((values - values.mean(0)) / values.std(0))
        ids.append(tree.ids[(session - 1) * N : session * N])
    trials, ids = np.concatenate(parts), np.concatenate(ids)
    return np.array([trials[ids == one].mean(0) for one in np.unique(ids)])


def test_betas_are_those_of_the_definition_left_before_right_and_not_scaled(tree, surface, monkeypatch):
    monkeypatch.setattr(surfaces, "BLOCK_BYTES", 4 * VERTICES * 100)  # several blocks, the last one short
    betas = subject(surface).betas()
    masks = [mask > 0 for mask in surface.general]
    np.testing.assert_allclose(betas.data, expected(tree, surface, masks), atol=1e-5)
    assert betas.data.dtype == np.float32 and betas.shape == (2, VERTICES) and betas.affine is None
    assert betas.space == "fsaverage" and betas.on_surface
    positions = [(h, v) for h, mask in enumerate(masks) for v in np.flatnonzero(mask)]
    assert betas.voxels.tolist() == [list(map(int, one)) for one in positions]
    raw = subject(surface, zscore=False, average_repeats=False).betas("nsdgeneral")
    np.testing.assert_allclose(raw.data[:N, 0], surface.raw[1][0][masks[0]][0], rtol=1e-6)


def test_the_whole_file_is_read_as_nibabel_has_it(surface):
    path = surface.session("rh", 2)
    np.testing.assert_array_equal(nsd.read_surface_session(path), nib.load(path).get_fdata()[:, 0, 0].T)


def test_regions_of_the_own_surface_come_by_the_nearest_vertex(surface):
    found = subject(surface)
    assert found.roi_names() == ["nsdgeneral", "prf-visualrois", "streams"]  # thickness has no table: no family
    rois = found.rois("prf-visualrois")
    for k in range(2):
        wanted = [surface.native[k][int(place) - 1] for place in surface.nearest[k]]
        assert rois.labels[k].tolist() == wanted
    assert rois.names == AREAS and rois.affine is None and found.mapped_families() == ["prf-visualrois"]
    betas = found.betas("V1 + V2v")
    inside = rois.of(betas)
    assert sum(mask.sum() for mask in inside.values()) == betas.n_voxels == (rois.labels > 0).sum()


def test_without_the_transform_regions_are_those_of_fsaverage(surface):
    (surface.transforms / "rh.white-to-fsaverage.mgz").unlink()
    found = subject(surface)
    assert found.roi_names() == ["nsdgeneral", "streams"] and found.mapped_families() == ["streams"]
    with pytest.raises(nsd.NSDError, match=r"roi must be one of .* need .*white-to-fsaverage"):
        found.rois("prf-visualrois")


def test_labels_below_one_are_outside_and_masks_are_of_one_hemisphere(surface, tmp_path):
    found = subject(surface)
    assert len(found.voxels("streams")) == 2 * sum(k % 9 - 1 > 0 for k in range(VERTICES))
    mask = tmp_path / "rh.drawn.mgh"
    write_mgh(mask, (np.arange(VERTICES) < 5).astype(np.int16) - (np.arange(VERTICES) == 9).astype(np.int16))
    assert found.voxels(str(mask)).tolist() == [[1, k] for k in range(5)]
    for name, n, text in (("drawn.mgh", VERTICES, "begins with lh. or rh."), ("lh.own.mgh", NATIVE, "642 vertices")):
        write_mgh(tmp_path / name, np.ones(n, np.float32))
        with pytest.raises(nsd.NSDError, match=text):
            found.voxels(str(tmp_path / name))


def test_vertices_without_numbers_are_dropped_and_counted(tree, surface):
    first = int(np.flatnonzero(surface.general[0])[0])
    values = surface.raw[2][0].copy()
    values[first, 3] = np.nan
    write_mgh(surface.session("lh", 2), values)
    betas = subject(surface).betas()
    assert betas.dropped == {"nan": 1} and [0, first] not in betas.voxels.tolist()


def test_a_session_with_one_hemisphere_is_skipped_with_a_note_and_not_when_asked_for(surface):
    surface.session("rh", 2).unlink()
    betas = subject(surface).betas()
    assert any("one hemisphere alone skipped: 2" in note for note in betas.notes)
    assert subject(surface).sessions() == [1]
    with pytest.raises(nsd.NSDError, match="sessions must be"):
        subject(surface, sessions="2").betas()


def test_hemispheres_of_different_sessions_are_refused(surface):
    surface.session("rh", 2).unlink()
    surface.session("lh", 1).unlink()
    with pytest.raises(nsd.NSDError, match=r"got one alone of sessions 1, 2\. Download both"):
        subject(surface).betas()


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGE = {
    "truncated": (lambda s: cut(s.session("rh", 1)), r"truncated file.*Download"),
    "other trials": (lambda s: write_mgh(s.session("rh", 2), np.ones((VERTICES, 9), "float32")), "750 trials, got 9"),
    "other vertices": (lambda s: write_mgh(s.session("rh", 1), np.ones((162, N), "float32")), r"642 vertices.*162"),
    "own surface": (lambda s: write_mgh(s.session("lh", 1), np.ones((NATIVE, N), "float32")), r"163,842.*got 701"),
    "a volume": (lambda s: nib.save(nib.MGHImage(np.ones((3, 4, 5, 6), "float32"), np.eye(4)), s.session("lh", 1)),
                 r"\(vertices, 1, 1, trials\), got \(3, 4, 5, 6\)"),
    "no hemisphere": (lambda s: (s.atlas / "rh.nsdgeneral.mgz").unlink(), r"rh\.nsdgeneral\.mgz"),
    "own labels": (lambda s: write_mgh(s.atlas / "rh.nsdgeneral.mgz", np.ones(NATIVE, "float32")),
                   r"642 vertices in each hemisphere, got 642 \(lh\) and 701 \(rh\)"),
    "interpolated": (lambda s: write_mgh(s.atlas / "lh.nsdgeneral.mgz", np.linspace(0, 1, VERTICES, dtype="float32")),
                     "whole-number labels"),
    "cut labels": (lambda s: cut(s.atlas / "lh.nsdgeneral.mgz"), "lh.nsdgeneral.mgz must be"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_and_mismatched_files_get_one_sentence(surface, what):
    damage, text = DAMAGE[what]
    damage(surface)
    with pytest.raises(nsd.NSDError, match=text) as told:
        subject(surface).betas()
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("wrong", (0.0, NATIVE + 9.0, 2.5, np.nan))
def test_a_transform_of_other_vertices_is_refused(surface, wrong):
    nearest = surface.nearest[0].copy()
    nearest[7] = wrong
    write_mgh(surface.transforms / "lh.white-to-fsaverage.mgz", nearest)
    with pytest.raises(nsd.NSDError, match=r"numbers of the vertices 1 \.\.\. 701"):
        subject(surface).rois("prf-visualrois")


def test_vertices_are_chosen_by_both_hemispheres_noise_ceilings(surface):
    ncsnr = [np.linspace(0, 1, VERTICES, dtype=np.float32), np.linspace(1, 0, VERTICES, dtype=np.float32)]
    for side, values in zip(("lh", "rh"), ncsnr, strict=True):
        with pytest.raises(nsd.NSDError, match=rf"no file .*{side}\.ncsnr\.mgh"):
            subject(surface, max_voxels=9)
        write_mgh(surface.betas / f"{side}.ncsnr.mgh", values)
    betas = subject(surface, max_voxels=9).betas()
    places = [(h, v) for h, mask in enumerate(surface.general) for v in np.flatnonzero(mask)]
    best = sorted(places, key=lambda one: -ncsnr[one[0]][one[1]])[:9]
    assert betas.voxels.tolist() == [list(map(int, one)) for one in sorted(best)]
    assert any("mildly circular" in note for note in betas.notes)
    with pytest.raises(nsd.NSDError, match="Choose vertices"):
        subject(surface).noise_ceiling()


def test_prepared_betas_and_geometry_come_back(surface, tmp_path):
    betas = subject(surface).betas()
    nsd.save_betas(betas, tmp_path / "betas.h5")
    again = nsd.load_betas(tmp_path / "betas.h5")
    assert again.shape == (2, VERTICES) and again.affine is None and again.on_surface
    np.testing.assert_array_equal(again.voxels, betas.voxels)
    geometry = Geometry.of(betas)
    geometry.check(again)
    again.voxels = again.voxels[::-1].copy()
    with pytest.raises(DecodingError, match=r"got voxel \(1, \d+\) where it has \(0, \d+\)"):
        geometry.check(again)


def test_a_decoder_of_a_volume_refuses_vertices(tree, surface):
    volume = nsd.Subject(tree.root, "subj02").betas()
    on_surface = subject(surface).betas()
    n = min(volume.n_voxels, on_surface.n_voxels)
    for betas in (volume, on_surface):
        betas.data, betas.voxels = betas.data[:, :n], betas.voxels[:n]
    with pytest.raises(DecodingError, match="must be of a volume as the decoder's, got those of a surface"):
        Geometry.of(volume).check(on_surface)
    with pytest.raises(nsd.NSDError, match="to_surface"):
        on_surface.to_volume(np.ones(n))
    with pytest.raises(nsd.NSDError, match="to_volume"):
        volume.to_surface(np.ones(n))


def test_values_become_gifti_of_both_hemispheres(surface, tmp_path):
    betas = subject(surface).betas()
    values = np.arange(betas.n_voxels) + 1.0
    images = betas.to_surface(values)
    assert list(images) == ["L", "R"]
    for k, (hemi, image) in enumerate(images.items()):
        nib.save(image, tmp_path / f"{hemi}.shape.gii")
        read = nib.load(tmp_path / f"{hemi}.shape.gii")
        data = read.darrays[0].data
        assert data.shape == (VERTICES,) and data.dtype == np.float32
        own = betas.voxels[:, 0] == k
        np.testing.assert_array_equal(data[betas.voxels[own, 1]], values[own])
        assert np.count_nonzero(data) == own.sum()
        assert read.meta["AnatomicalStructurePrimary"] == {"L": "CortexLeft", "R": "CortexRight"}[hemi]


def test_a_tree_with_nothing_but_fsaverage_is_described(surface):
    (path,) = (surface.root / "nsddata_betas/ppdata/subj02/func1pt8mm").glob("*")
    for file in (*path.iterdir(),):
        file.unlink()
    path.rmdir()
    told = describe(Source(str(surface.root), "subj02"), Events(lambda *_: None))
    assert told["space"] == "fsaverage" and told["shape"] == [2, VERTICES] and told["affine"] is None
    assert told["families"]["prf-visualrois"].keys() == set(AREAS.values()) and told["voxel_sizes_mm"] == []


@pytest.mark.slow
@pytest.mark.serial
def test_a_session_of_full_size_takes_little_more_than_its_mask(tmp_path):
    """One hemisphere and session as NSD has it, 492 MB, of which 19,004 vertices are read."""
    import tracemalloc

    path, n = tmp_path / "lh.betas_session01.mgh", 163842
    write_mgh(path, np.zeros((1, N), np.float32))
    block = np.random.default_rng(0).standard_normal(n).astype(">f4").tobytes()
    header = bytearray(path.read_bytes()[:284])
    header[4:8] = n.to_bytes(4, "big")
    with open(path, "wb") as stream:
        stream.write(header)
        for _ in range(N):
            stream.write(block)
    vertices = np.linspace(0, n - 1, 19004).astype(int)
    tracemalloc.start()
    data = surfaces.read_surface_session(path, vertices)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.shape == (N, 19004)
    np.testing.assert_array_equal(data[749], np.frombuffer(block, ">f4")[vertices])
    assert peak < data.nbytes + 3 * surfaces.BLOCK_BYTES
