"""The file of the compiled kernels: what is refused, with which sentence, and which GPUs it serves."""

import shutil
import warnings
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels.backend import KernelWarning, extension, why_not
from napari_neuraldiffuser.core.networks.kernels.extension_file import covers

FILE = f"_kernels{EXTENSION_SUFFIXES[0]}"


pytestmark = pytest.mark.usefixtures("process")


def test_what_is_not_an_extension_is_refused_with_a_sentence(process):
    (process / FILE).write_text("this is no shared library")
    with pytest.warns(KernelWarning, match="cannot be used: .*file too short|cannot be used: .*invalid ELF") as caught:
        assert extension() is None
    assert len(caught) == 1
    assert FILE in why_not()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert extension() is None, "the second call must not warn again"


def test_a_module_with_another_name_is_refused(process, monkeypatch):
    # any compiled module: a true shared library without PyInit__kernels (Python's own may be built in and have no file)
    from numpy.random import bit_generator

    shutil.copy(bit_generator.__file__, process / FILE)
    with pytest.warns(KernelWarning, match="PyInit__kernels"):
        assert extension() is None


def test_a_file_for_another_python_is_named(process):
    (process / "_kernels.cpython-399-x86_64-linux-gnu.so").touch()
    with pytest.warns(KernelWarning, match="cpython-399.* is for another Python than 3"):
        assert extension() is None


@pytest.mark.parametrize("version", ["2.10.1", "2.9.0+cu128", "1.13.1"])
def test_an_older_torch_is_refused_before_the_file_is_opened(process, monkeypatch, version):
    (process / FILE).write_text("must not be opened")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.warns(KernelWarning, match="torch must be 2.11 or newer"):
        assert extension() is None
    assert version in why_not()


@pytest.mark.parametrize(
    "architectures, capability, expected",
    [
        (["sm_80"], (8, 0), True),
        (["sm_80"], (8, 9), True),
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "sm_90", "compute_90"], (7, 5), False),
        (["sm_80", "sm_90", "compute_90"], (12, 0), True),
        (["sm_80", "sm_90"], (12, 0), False),
        (["sm_120"], (12, 1), True),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_100f"], (10, 3), True),
        (["compute_100f"], (11, 0), False),
        (["compute_90a"], (10, 0), False),
        ([], (9, 0), False),
    ],
)
def test_which_gpu_runs_which_code(architectures, capability, expected):
    assert covers(architectures, capability) is expected
