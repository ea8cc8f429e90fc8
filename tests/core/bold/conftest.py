"""A small data set that tests only read, and one of their own to change."""

import pytest

from tests.support.nsd.bids_files import write_bids


@pytest.fixture(scope="session")
def scanned(tmp_path_factory):
    """Three runs of two sessions without noise: not to be changed."""
    return write_bids(tmp_path_factory.mktemp("bids"))


@pytest.fixture
def own(tmp_path):
    """One run, to be changed."""
    return write_bids(tmp_path / "bids", [("a", "1")])
