"""Where `NEURALDIFFUSER_STRICT=1` (CI), a test that would be skipped for something CI must have fails instead."""

import os
import re

import pytest

# a GPU or none, its compiler, another processor, peace, what a sanitizer forbids; 100 MB for one program
MAY_LACK = re.compile(
    r"CUDA|GPU|nvcc|processor|machine is busy|AddressSanitizer|BIDS validator|plain PyTorch has them all"
)


def is_forbidden(reason: str) -> bool:
    """Whether a skip for this reason is a failure here."""
    return os.environ.get("NEURALDIFFUSER_STRICT") == "1" and not MAY_LACK.search(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip into a failure that names what is missing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if is_forbidden(reason):
            report.outcome = "failed"
            report.longrepr = f"{reason} (with NEURALDIFFUSER_STRICT=1 this must be there)"
    return report
