"""Pretraining from a folder of several subjects, and a whole job whose decoder is the network."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core import decoding
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.job.check import check_settings
from napari_neuraldiffuser.core.job.made_from import Origin
from napari_neuraldiffuser.core.job.pretraining import Pretraining, check_pretraining, pretrain_network
from napari_neuraldiffuser.core.job.run import run_subject
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.nsd.simulate import write_subjects
from napari_neuraldiffuser.core.params import (
    ContributionParams,
    DecodingParams,
    DiffusionParams,
    Settings,
    SimulationParams,
)

NETWORK = DecodingParams(
    decoder="network", network_width=32, network_bottleneck=32, network_epochs=2, network_held_out=0.2
)


def source(nsd_dir, subject):
    return Source(nsd_dir=str(nsd_dir), subject=subject)


def test_what_cannot_be_pretrained_is_said_before_anything_is_read(nsd_dir, tmp_path):
    first = source(nsd_dir, "subj01")
    with pytest.raises(UserError, match="subjects must be one or more, each once, got none"):
        check_pretraining(Pretraining((), tmp_path / "net"))
    with pytest.raises(UserError, match="each once, got subj01, subj01. Leave out the second subj01"):
        check_pretraining(Pretraining((first, first), tmp_path / "net"))
    with pytest.raises(UserError, match="subject must be one of"):
        check_pretraining(Pretraining((first, source(nsd_dir, "subj08")), tmp_path / "net"))


def test_a_network_that_is_none_and_a_method_that_does_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="network_pretrained must be the folder of a network, got none"):
        check_settings(Settings(decoding=NETWORK.but(network_pretrained=str(tmp_path))))
    with pytest.raises(UserError, match="got additive, which is for linear decoders"):
        check_settings(Settings(decoding=NETWORK, contribution=ContributionParams(method="additive")))
    for other in (DecodingParams(ridge_rank=8), DecodingParams(decoder="contrastive")):
        with pytest.raises(UserError, match="method unique of contribution maps must have decoder ridge"):
            check_settings(Settings(decoding=other, contribution=ContributionParams(method="unique")))
    check_settings(Settings(decoding=DecodingParams(network_pretrained=str(tmp_path))))  # ridge does not look there


def test_another_network_in_the_same_folder_is_another_decoder(tmp_path):
    (tmp_path / "network.safetensors").write_bytes(b"one")
    settings, origin = Settings(decoding=NETWORK.but(network_pretrained=str(tmp_path))), Origin("b", "s", "m")
    before = origin.decoder(settings)
    assert origin.decoder(settings) == before
    (tmp_path / "network.safetensors").write_bytes(b"two")
    assert origin.decoder(settings) != before


@pytest.mark.slow
def test_pretrained_on_one_subject_and_run_on_another(tmp_path):
    nsd_dir, folder = tmp_path / "nsd", tmp_path / "net"
    write_subjects(nsd_dir, SimulationParams(n_subjects=2, n_sessions=1, n_test=8, seed=3))
    job = Pretraining((source(nsd_dir, "subj01"),), folder, Settings(decoding=NETWORK))
    assert pretrain_network(job) == folder
    about = json.loads((folder / "network.json").read_text())
    assert len(about["about"]["subjects"]) == 1 and not (folder / ".pretrain.lock").exists()

    settings = Settings(
        decoding=NETWORK.but(network_pretrained=str(folder)), diffusion=DiffusionParams(n_steps=4, repeats=1)
    )
    run = Job(nsd_dir, tmp_path / "out", "subj02", settings, n_stimuli=4)
    result = run_subject(run)
    assert "network decoder: pretrained on 1 other subjects" in result.notes
    table = pd.read_csv(run.places.contribution_table, sep="\t", na_values="n/a")
    rows = table[table.family == "prf-visualrois"]
    for target, share in rows.groupby("target").share.sum().items():
        # integrated gradients settle within 1 %
        np.testing.assert_allclose(share, rows[rows.target == target].total.iloc[0], atol=0.02, err_msg=target)
    with_ridge = replace(run, settings=replace(settings, decoding=DecodingParams()), out_dir=tmp_path / "ridge")
    assert decoding.read_accuracy(run.work / "sub-02_desc-network_decoder.h5").keys() == set(
        run_subject(with_ridge) and decoding.read_accuracy(with_ridge.work / "sub-02_desc-ridge_decoder.h5")
    )
