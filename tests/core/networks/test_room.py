"""Images that memory has room for, by what one of them takes."""

import pytest
import torch

from napari_neuraldiffuser.core.base import memory
from napari_neuraldiffuser.core.networks.room import MOST, bytes_of, images_with_room

CPU = torch.device("cpu")


def kept_and_dropped():
    kept = [torch.ones(1000), torch.ones(500).double()]  # 4000 and 8 * 500 + 4 * 500 bytes
    for _ in range(3):
        torch.ones(1000)
    kept[0].view(10, 100).add_(1)
    return kept


def test_the_peak_counts_what_lives_at_once():
    before = torch.ones(10_000)
    assert bytes_of(lambda: before.view(100, 100), CPU) == 0
    assert bytes_of(kept_and_dropped, CPU) == 4000 + 4000 + 4000
    weight = torch.ones(100, 100)
    leaf = torch.ones(100, 100, requires_grad=True)

    def differentiated():
        torch.autograd.grad((leaf * weight).exp().sin().sum(), leaf)

    # exp keeps its output and sin its input, which is the same, and then there are the gradients
    assert 3 * 40_000 <= bytes_of(differentiated, CPU) <= 5 * 40_000


@pytest.mark.parametrize(("free", "images"), [(100_000, 6), (1000, 1), (10**12, MOST["cpu"]), (None, MOST["cpu"])])
def test_images_are_as_many_as_there_is_room_for(free, images, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: free)
    assert images_with_room(kept_and_dropped, CPU) == images
