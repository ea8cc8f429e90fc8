"""Pretraining by several processes, as `accelerate launch` starts them."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding.network import folder, processes
from napari_neuraldiffuser.core.decoding.network.files import CHECKPOINT

SCRIPT = """
import sys
from napari_neuraldiffuser.core.decoding.network import folder, pretrain, processes
from tests.support.small_network import SMALL, bent_data

main, save = processes.is_main("cpu"), folder.Pretrained.save
folder.Pretrained.save = lambda self, where: (print("writes"), save(self, where))[1]
processes.wait("cpu")
pretrain.pretrain([bent_data(60, subject=k, stimuli=k) for k in (1, 2)], sys.argv[1], SMALL)
print("main" if main else "other")
"""


def test_alone_it_is_the_one_that_writes(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.is_main("cpu") and not processes.several()
    processes.wait("cpu")


@pytest.mark.slow
@pytest.mark.serial
def test_two_train_together_and_one_writes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            env=shared | {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said == [["writes", "main"], ["other"]]
    assert not (tmp_path / CHECKPOINT).exists()
    weights = folder.Pretrained.load(tmp_path).network.state_dict().values()
    assert all(np.isfinite(values.numpy()).all() for values in weights)
