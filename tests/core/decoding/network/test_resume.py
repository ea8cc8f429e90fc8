"""A training that was killed goes on where it was, and a pretrained folder is whole or refused."""

import json

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import decoding
from napari_neuraldiffuser.core.decoding import DecodingError
from napari_neuraldiffuser.core.decoding.network import folder, processes
from napari_neuraldiffuser.core.decoding.network import train as training
from napari_neuraldiffuser.core.decoding.network.files import CHECKPOINT
from napari_neuraldiffuser.core.decoding.network.pretrain import pretrain
from napari_neuraldiffuser.core.decoding.network.train import accelerator_of
from napari_neuraldiffuser.core.job import stages
from tests.support.small_network import SMALL, bent_data

PARAMS = SMALL.but(network_epochs=4, network_patience=10, network_prior="trained", network_contrast=0.1)


class Killed(BaseException):
    """No exception that code would catch."""


def subjects():
    return [bent_data(60, subject=k, stimuli=k) for k in (1, 2)]


def weights(path):
    return {name: values.numpy() for name, values in folder.Pretrained.load(path).network.state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return weights(pretrain(subjects(), tmp_path_factory.mktemp("whole"), PARAMS))


@pytest.mark.parametrize("last", ["pass 1 of", "pass 3 of"])
def test_killed_and_begun_again_it_gives_the_same_weights(tmp_path, uninterrupted, last):
    """Killed in the middle of a pass, between checkpoints."""
    told = []

    def progress(done, total, what):
        told.append((done, what))
        if last in what:
            raise Killed

    with pytest.raises(Killed):
        pretrain(subjects(), tmp_path, PARAMS, progress)
    assert not (tmp_path / folder.ABOUT).exists()
    told.clear()
    pretrain(subjects(), tmp_path, PARAMS, lambda done, total, what: told.append((done, what)))
    trained = [what for _, what in told if what.startswith("network training")]
    # the checkpoint is that of the pass before
    assert ("pass 0 of" if last == "pass 1 of" else last) in trained[0]
    found = weights(tmp_path)
    for name, values in uninterrupted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert not (tmp_path / CHECKPOINT).exists()
    assert list((tmp_path / "log").rglob("events.out.tfevents*"))


def test_a_checkpoint_of_other_parameters_or_damaged_is_not_taken_up(tmp_path, uninterrupted):
    def stop(done, total, what):
        if "pass 3 of" in what:
            raise Killed

    with pytest.raises(Killed):
        pretrain(subjects(), tmp_path, PARAMS.but(seed=5), stop)
    assert (tmp_path / CHECKPOINT).exists()
    found = weights(pretrain(subjects(), tmp_path, PARAMS))
    np.testing.assert_array_equal(found["heads.c.scores.weight"], uninterrupted["heads.c.scores.weight"])
    (tmp_path / CHECKPOINT).write_bytes(b"\x08" * 100)
    found = weights(pretrain(subjects(), tmp_path, PARAMS))
    np.testing.assert_array_equal(found["heads.c.scores.weight"], uninterrupted["heads.c.scores.weight"])


def test_a_damaged_folder_is_told_in_a_sentence(tmp_path):
    pretrain(subjects(), tmp_path, PARAMS.but(network_epochs=1))
    about = json.loads((tmp_path / folder.ABOUT).read_text())
    for change in (
        {"format": 99},
        {"shape": about["shape"] | {"width": 8}},
        {"sizes": {}},
        {"about": None},
        {"about": {"targets": {}}},
        {"about": about["about"] | {"subjects": 2}},
    ):
        (tmp_path / folder.ABOUT).write_text(json.dumps(about | change))
        with pytest.raises(DecodingError, match="must (be the folder of a network|hold the weights)"):
            folder.Pretrained.load(tmp_path)
    (tmp_path / folder.ABOUT).write_text(json.dumps({key: about[key] for key in about if key != "about"}))
    with pytest.raises(DecodingError, match="describes in full, got: there is no 'about'"):
        folder.Pretrained.load(tmp_path)
    (tmp_path / folder.ABOUT).write_text(json.dumps(about))
    (tmp_path / folder.TENSORS).write_bytes(b"no tensors")
    with pytest.raises(DecodingError, match="must hold the weights"):
        folder.Pretrained.load(tmp_path)


def test_subjects_that_do_not_go_together_are_refused(tmp_path):
    (one, targets), (two, others) = subjects()
    with pytest.raises(DecodingError, match="at least one to pretrain on"):
        pretrain([], tmp_path, PARAMS)
    others.attrs["model_digest"] = "other"
    with pytest.raises(DecodingError, match="must have the same model_digest, got m and other"):
        pretrain([(one, targets), (two, others)], tmp_path, PARAMS)
    others.attrs["model_digest"] = "m"
    others.c = others.c[:, :1]
    with pytest.raises(DecodingError, match="must have c of one shape"):
        pretrain([(one, targets), (two, others)], tmp_path, PARAMS)


def test_accumulated_batches_make_fewer_steps(tmp_path):
    from safetensors import safe_open

    steps = []
    for accumulation in (1, 3):

        def stop(done, total, what):
            if "pass 2 of" in what:
                raise Killed

        where = tmp_path / str(accumulation)
        with pytest.raises(Killed):
            pretrain(subjects(), where, PARAMS.but(network_accumulation=accumulation), stop)
        with safe_open(where / CHECKPOINT, "pt") as file:
            steps.append(json.loads(file.metadata()["progressed"])["step"])
    assert steps[0] == 7 and steps[1] == 3


def test_a_training_of_other_starting_weights_is_not_taken_up(tmp_path):
    """The network in the folder was pretrained anew: what the former one became is not the result."""
    train, test, targets = bent_data(40, subject=3, stimuli=3, n_test=5)
    network, found = tmp_path / "network", []
    for kept, seed in ((True, 0), (True, 1), (False, 1)):
        pretrain(subjects(), network, PARAMS.but(seed=seed))
        where = str(tmp_path / "training") if kept else ""
        params = PARAMS.but(network_pretrained=str(network), network_folder=where, network_rate=3e-3)
        found.append(decoding.new(params).fit(train, targets).predict(test).c)
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[1], found[2])


@pytest.mark.parametrize("resume", [True, False])
def test_a_saved_decoder_leaves_no_checkpoint(tmp_path, resume):
    train, targets = bent_data(40)
    targets.save(tmp_path / "targets.h5")
    path, told = tmp_path / "decoder.h5", []

    def stop(done, total, what):
        if "pass 3 of" in what:
            raise Killed

    with pytest.raises(Killed):
        stages.fit(train, tmp_path / "targets.h5", path, PARAMS, stop)
    checkpoint = stages.training_folder(path) / CHECKPOINT
    assert checkpoint.is_file()
    stages.fit(train, tmp_path / "targets.h5", path, PARAMS, lambda done, total, what: told.append(what), resume=resume)
    trained = [what for what in told if what.startswith("network training")]
    assert ("pass 0 of" in trained[0]) != resume
    assert not checkpoint.exists() and list(checkpoint.parent.rglob("events.out.tfevents*"))


def test_a_training_may_have_another_precision_than_the_one_before(monkeypatch):
    from accelerate import Accelerator

    processes.forget_former()
    Accelerator(cpu=True, mixed_precision="bf16")
    assert accelerator_of(SMALL).mixed_precision == "no"
    if not torch.cuda.is_available():
        monkeypatch.setattr(training, "checked_device", lambda device: device)
        with pytest.raises(DecodingError, match="must be the device that Accelerate uses, cpu, got cuda"):
            accelerator_of(SMALL.but(decoder_device="cuda"))
