"""Identification, rank and distance against loops over pairs and over sets of candidates."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import correlation
from scipy.stats import pearsonr

from napari_neuraldiffuser.core.evaluation import identification
from napari_neuraldiffuser.core.evaluation.chance import mismatch
from napari_neuraldiffuser.core.evaluation.stack import Stack


def one_repeat(seen, recon):
    return identification.matrices(recon[:, None], seen[:, None])


def two_way(seen, recon):
    return identification.two_way(one_repeat(seen, recon))[:, 0]


def two_way_loops(seen, recon):
    n = len(seen)
    r = np.array([[pearsonr(seen[i], recon[j]).statistic for j in range(n)] for i in range(n)])
    return [sum(r[i, j] < r[j, j] for i in range(n) if i != j) / (n - 1) for j in range(n)]


def related(n, d=50, seed=0):
    rng = np.random.default_rng(seed)
    seen = rng.standard_normal((n, d))
    return seen, 0.3 * seen + rng.standard_normal((n, d))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_two_way_equals_the_double_loop(n):
    seen, recon = related(n, seed=n)
    assert np.allclose(two_way(seen, recon), two_way_loops(seen, recon))


def test_two_way_of_known_cases():
    seen = np.random.default_rng(0).standard_normal((5, 40))
    assert np.allclose(two_way(seen, seen), 1)
    assert np.allclose(two_way(seen, -seen), 0)
    assert np.isnan(two_way(seen[:1], seen[:1])).all()


def test_a_constant_reconstruction_has_no_value():
    seen = np.random.default_rng(0).standard_normal((4, 40))
    recon = seen.copy()
    recon[2] = 3.0
    r = one_repeat(seen, recon)
    for score in (identification.two_way, identification.n_way, identification.rank, identification.distance):
        assert np.isnan(score(r)[:, 0]).tolist() == [False, False, True, False]


def test_a_constant_seen_image_is_left_out_of_the_comparison():
    rng = np.random.default_rng(0)
    seen, recon = rng.standard_normal((2, 5, 40))
    blank = seen.copy()
    blank[1] = 1.0
    keep = [0, 2, 3, 4]
    result = two_way(blank, recon)
    assert np.isnan(result[1])
    assert np.allclose(result[keep], two_way(seen[keep], recon[keep]))


@pytest.mark.parametrize("ways", [2, 3, 5, 7, 50])
def test_n_way_is_the_share_of_all_sets_of_candidates(ways):
    seen, recon = related(7, d=12, seed=3)
    r = np.array([[pearsonr(a, b).statistic for b in recon] for a in seen])
    expected = []
    for j in range(7):
        others = [i for i in range(7) if i != j]
        sets = list(itertools.combinations(others, min(ways - 1, 6)))
        expected.append(np.mean([all(r[i, j] < r[j, j] for i in drawn) for drawn in sets]))
    assert 0 < np.mean(expected) < 1
    assert np.allclose(identification.n_way(one_repeat(seen, recon), ways)[:, 0], expected)


def test_rank_is_the_place_in_the_sorted_list_and_says_what_two_way_says():
    seen, recon = related(9, d=12, seed=4)
    r = np.array([[pearsonr(a, b).statistic for b in recon] for a in seen])
    expected = [sorted(r[:, j], reverse=True).index(r[j, j]) + 1 for j in range(9)]
    found = identification.rank(one_repeat(seen, recon))[:, 0]
    assert found.tolist() == expected and max(expected) > 1
    assert np.allclose((9 - found) / 8, two_way(seen, recon))


def test_equal_others_stand_before_the_own_image():
    seen = np.stack([np.arange(9.0), np.arange(9.0), np.arange(9.0)[::-1]])
    r = one_repeat(seen, seen)
    assert identification.rank(r)[:, 0].tolist() == [2, 2, 1]
    assert identification.n_way(r)[:, 0].tolist() == [0, 0, 1]
    assert two_way(seen, seen).tolist() == [0.5, 0.5, 1]


def test_distance_is_scipys():
    seen, recon = related(5)
    expected = [correlation(a, b) for a, b in zip(seen, recon, strict=True)]
    assert np.allclose(identification.distance(one_repeat(seen, recon))[:, 0], expected, atol=1e-6)


def test_repeats_keep_their_places():
    rng = np.random.default_rng(0)
    seen, recon = rng.standard_normal((6, 1, 20)), rng.standard_normal((6, 3, 20))
    recon += 0.5 * seen
    r = identification.matrices(recon, seen)
    assert r[2, 4, 1] == pytest.approx(pearsonr(seen[4, 0], recon[1, 2]).statistic, abs=1e-6)
    for k in range(3):
        assert np.allclose(identification.two_way(r)[:, k], two_way_loops(seen[:, 0], recon[:, k]))
    others = mismatch(6, 3)
    mixed = identification.paired_with(r, others)
    assert mixed[1, 4, 2] == r[1, 4, others[2, 1]] and mixed.shape == (2, 6, 6)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_streamed_features_give_the_same_correlations(batch):
    rng = np.random.default_rng(0)
    seen, recon = rng.integers(0, 256, (5, 8, 8, 3), np.uint8), rng.integers(0, 256, (5, 3, 8, 8, 3), np.uint8)
    sizes, done = [], []

    def network(images):
        sizes.append(len(images))
        flat = images.reshape(len(images), -1).astype(np.float32)
        return {"all": flat, "half": flat[:, ::2]}

    found = identification.network_matrices(
        Stack.of("images", recon, 5), Stack.of("seen", seen, 4), network, batch, done.append
    )
    flat, flats = seen.reshape(5, 1, -1), recon.reshape(5, 3, -1)
    assert np.allclose(found["all"], identification.matrices(flats, flat), atol=1e-6)
    assert np.allclose(found["half"], identification.matrices(flats[:, :, ::2], flat[:, :, ::2]), atol=1e-6)
    assert max(sizes) <= batch and done[-1] == 20 and sorted(done) == done
