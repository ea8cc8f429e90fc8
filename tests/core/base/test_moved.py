"""Scripts that import from a former address get the very objects."""

import importlib

import pytest

from napari_neuraldiffuser.core.base.moved import MOVED, PACKAGE


@pytest.mark.parametrize("former, place", MOVED.items())
def test_former_address_gives_the_same_objects(former, place):
    pytest.importorskip("napari" if place.startswith("widgets") else "numpy")
    here = importlib.import_module(f"{PACKAGE}.{place}")
    there = importlib.import_module(f"{PACKAGE}.{former}")
    named = next(name for name, value in vars(here).items() if getattr(value, "__module__", "") == here.__name__)
    assert getattr(there, named) is getattr(here, named)
    with pytest.raises(AttributeError):
        _ = there.no_such_name


def test_an_address_that_never_was_stays_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{PACKAGE}.core.never_was")
