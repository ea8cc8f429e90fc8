"""Fixtures of the NSD tests."""

import pytest

from tests.support.nsd.tree import Tree, make_tree


@pytest.fixture
def tree(tmp_path) -> Tree:
    """A fresh hand-written tree that a test may break."""
    return make_tree(tmp_path / "nsd")
