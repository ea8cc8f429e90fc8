"""The CUDA kernels' tests once more, on fibers of this processor, with AddressSanitizer and UBSan watching."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.csrc import emulated

pytestmark = pytest.mark.slow
# one shape of each kind: the sanitizers follow every access, and every fiber costs
CHOSEN = "misaligned or float32-targets or table or sanitize or (2-100-128-32 and float16) or (1-3-1542 and float32)"


def runtime(name: str) -> str:
    """The sanitizer's shared library, which has to be there before Python."""
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return found if Path(found).is_absolute() else pytest.skip(f"g++ has no {name}")


def test_kernels_under_sanitizers(tmp_path):
    # C++20, where shifting a signed number to the left is defined, as the CPU kernels are compiled
    flags = ["-std=c++20", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    library = emulated.build(tmp_path, *flags)
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "NEURALDIFFUSER_EMULATED": str(library),
    }
    tests = [str(Path(__file__).with_name(name)) for name in ("test_cuda_kernels.py", "test_cuda_norm.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *tests, "-k", CHOSEN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "passed" in done.stdout
