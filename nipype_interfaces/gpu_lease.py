"""Stand-in until the real one is here."""

from contextlib import contextmanager


@contextmanager
def leased(device, wait_s=0, folder=None):
    yield device
