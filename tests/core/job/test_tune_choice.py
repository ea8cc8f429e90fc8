"""Which setting is chosen, and how the search comes to it."""

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest

from napari_neuraldiffuser.core.job import tune_search
from napari_neuraldiffuser.core.job.tune_choice import SCORES, Setting, Tried, choose
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, TuneParams, preset

START = Setting(*preset("scale-free"))
NOISE = np.random.default_rng(0).normal(0, 0.01, (len(SCORES), 30))


def centred(values):
    return values - values.mean()


def tried(setting, pixcorr, ssim=0.0, edges=0.0, failed=0, noise=0.0):
    """Scores of 30 stimuli that differ from those of `baseline` by these means, and by noise of this size."""
    means = dict(zip(SCORES, (pixcorr, ssim, edges), strict=True))
    rng = np.random.default_rng(zlib.crc32(str(setting).encode()))
    own = {k: NOISE[i] + means[k] + noise * centred(rng.standard_normal(30)) for i, k in enumerate(SCORES)}
    return Tried(setting, own, failed=failed)


BASELINE = tried(START.unguided, 0.0)


def at(kappa, **changes):
    setting = START.but("guidance_scale", float(kappa))
    for name, value in changes.items():
        setting = setting.but(name, value)
    return setting


def test_the_largest_gain_is_chosen_among_those_that_let_nothing_fall():
    good, burnt = tried(at(5), 0.05, 0.01, 0.02), tried(at(20), 0.20, -0.05, 0.02)
    unsharp, broken = tried(at(10), 0.10, 0.01, -0.03), tried(at(15), 0.30, 0.1, 0.1, failed=1)
    chosen = choose([tried(at(1), 0.01), good, burnt, unsharp, broken], BASELINE)
    assert chosen.best is good
    assert [one.setting for one in chosen.eligible] == [at(5), at(1)]


def test_a_setting_whose_latents_leave_the_range_is_not_chosen():
    def spread(*values):
        return np.array([[0.0, value, 3.0] for value in values])

    usual = replace(BASELINE, latents=spread(0.8, 1.2))
    wild, tame = (
        replace(tried(at(20), 0.2), latents=spread(0.9, 2.4)),
        replace(tried(at(5), 0.1), latents=spread(0.9, 1.3)),
    )
    assert choose([wild, tame], usual).best is tame
    assert choose([wild, tame], BASELINE).best is wild, "nothing is known of the unguided ones"


def test_of_equals_within_an_error_the_cheaper_is_chosen():
    long, short = tried(at(5), 0.050, noise=0.05), tried(at(5, n_steps=20), 0.0495, noise=0.05)
    assert short.setting.cost < long.setting.cost
    assert choose([long, short], BASELINE).best is short
    clear = tried(at(5, n_steps=20), 0.02)
    assert choose([tried(at(5), 0.05), clear], BASELINE).best.setting == at(5), "a clear difference counts"


def test_where_nothing_helps_nothing_is_chosen():
    assert choose([tried(at(5), -0.1), tried(at(1), 0.0, 0.5, 0.5)], BASELINE).best is None


def test_work_is_counted_in_denoising_steps():
    paper = Setting(*preset("neuraldiffuser"))
    assert paper.cost == pytest.approx(37 + 7 * 3.5)
    assert paper.unguided.cost == 37
    assert Setting(*preset("published")).unguided.cost == pytest.approx(1.5 * 37)


def test_a_setting_says_what_it_changes():
    changes = at(2, n_steps=12, batch_size=3, seed=5).changes()
    assert changes == {"diffusion": {"n_steps": 12}, "guidance": {"guidance_scale": 2.0}}
    assert START.changes() == {"diffusion": {}, "guidance": {}}


class Landscape:
    """Scores that are best at kappa 2, eta 1, s 3 whatever the number of steps, and counts what is asked."""

    def __init__(self, best=0.2):
        self.asked, self.best = [], best

    def __call__(self, setting, whole):
        self.asked.append((setting, whole))
        g, d = setting.guidance, setting.diffusion
        if not g.guidance_scale:
            return tried(setting, 0.0)
        gain = self.best - 0.05 * math.log(g.guidance_scale / 2) ** 2 - 0.05 * (1 - g.guidance_strength)
        return tried(setting, gain - 0.02 * abs(d.cfg_scale - 3), 0.01, 0.01)


def test_the_search_narrows_down_to_the_best_and_asks_little():
    landscape, params = Landscape(), TuneParams()
    found = tune_search.Search(landscape, params).run([START])
    best = found.chosen.setting
    assert (best.guidance.guidance_scale, best.guidance.guidance_strength) == (2.0, 1.0)
    assert (best.diffusion.cfg_scale, best.diffusion.n_steps) == (3.0, 12), "as good in fewer steps"
    assert len(set(landscape.asked)) == len(landscape.asked), "nothing is computed twice"
    half, whole = (sum(flag is w for _, flag in landscape.asked) for w in (False, True))
    most = params.most_evaluations()
    assert half <= most[0] and whole <= most[1]
    assert found.unguided.setting == best.unguided


def test_a_search_in_vain_chooses_nothing():
    found = tune_search.Search(Landscape(best=-0.01), TuneParams(steps=(12,))).run([START])
    assert found.chosen is None
    assert found.unguided.setting == START.unguided


def test_the_best_of_several_starts_is_gone_on_from():
    other = Setting(DiffusionParams(), GuidanceParams(guidance_scale=2.0, layers=("g02",), layer_weights=(1.0,)))
    found = tune_search.Search(Landscape(), TuneParams()).run([START, other])
    assert found.chosen.setting.guidance.layers == ("g02",)
