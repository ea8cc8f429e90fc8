"""The op tests with kernels compiled for AddressSanitizer and UndefinedBehaviorSanitizer: no report may appear."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.build_help import PACKAGE, ROOT, build_ext, copy_sources, environment, run

FLAGS = ["-fsanitize=address,undefined", "-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
FAULTS = """
#include <climits>
#include <cstdlib>
extern "C" int beyond(int n) { int* p = (int*)calloc(n, sizeof(int)); int value = p[n]; free(p); return value; }
extern "C" int overflow(int n) { return INT_MAX + n; }
extern "C" int fine(int n) { int* p = (int*)calloc(n, sizeof(int)); int value = p[n - 1] + n; free(p); return value; }
"""
# what torch.compile makes is not ours, and takes minutes here
LEFT_OUT = "not compile and not opcheck"

KERNEL_TESTS = ROOT / "tests/core/networks/kernels"

pytestmark = pytest.mark.slow


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The variables under which a process loads sanitized code and writes each report to a file."""
    names = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so"):
        try:
            found = subprocess.run([*compiler(), f"-print-file-name={name}"], capture_output=True, text=True)
        except OSError:
            pytest.skip("no C++ compiler")
        if not Path(found.stdout.strip()).is_file():
            pytest.skip(f"the C++ compiler has no {name}")
        names.append(str(Path(found.stdout.strip()).resolve()))
    folder = tmp_path_factory.mktemp("sanitized")
    # libstdc++ too, or AddressSanitizer does not see the exceptions it has to follow
    return environment(
        folder,
        PATH=os.environ.get("PATH", os.defpath),
        LD_PRELOAD=" ".join(names),
        ASAN_OPTIONS=f"detect_leaks=0:log_path={folder}/report",
        UBSAN_OPTIONS=f"print_stacktrace=1:log_path={folder}/report",
        OMP_NUM_THREADS="2",
    ) | {"REPORTS": str(folder)}


def reports(variables: dict[str, str]) -> str:
    """What the sanitizers wrote since the last call."""
    files = sorted(Path(variables["REPORTS"]).glob("report*"))
    text = "".join(file.read_text(errors="replace") for file in files)
    for file in files:
        file.unlink()
    return text


@pytest.mark.parametrize(
    "function, expected",
    [("beyond", "heap-buffer-overflow"), ("overflow", "signed integer overflow"), ("fine", None)],
)
def test_a_fault_is_reported(sanitized, tmp_path, function, expected):
    """The harness can fail: the same variables and flags, and a library with known faults."""
    (tmp_path / "faults.cpp").write_text(FAULTS)
    library = str(tmp_path / "faults.so")
    command = [*compiler(), *FLAGS, "-fPIC", "-shared", str(tmp_path / "faults.cpp"), "-o", library]
    subprocess.run(command, check=True, timeout=120)
    code = "import ctypes, sys, torch; print(getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])(3))"
    done = run([sys.executable, "-c", code, library, function], tmp_path, sanitized)
    said = reports(sanitized)
    if expected is None:
        assert (done.returncode, done.stdout.strip(), said) == (0, "3", "")
    else:
        assert done.returncode != 0
        assert expected in said + done.stdout


@pytest.mark.timeout(3000)  # compiles, and every test runs several times slower
def test_the_op_tests_run_without_a_report(sanitized, tmp_path):
    source = copy_sources(tmp_path / "source")
    options = (f"--build-lib={tmp_path}", f"--build-temp={tmp_path}/temp")
    settings = {"NEURALDIFFUSER_BUILD": "cpu", "NEURALDIFFUSER_STRICT": "1"}
    clean = environment(tmp_path, NEURALDIFFUSER_SANITIZE="address,undefined", **settings)
    built = build_ext(source, clean, *options)
    assert built.returncode == 0, built.stdout[-3000:]
    library = next((tmp_path / PACKAGE).glob("_kernels*.so"))

    env = sanitized | {"NEURALDIFFUSER_EXTENSION": str(library)}
    code = (
        "from napari_neuraldiffuser.core.networks.kernels import backend as b; b.extension(); print(b.backend_info())"
    )
    loaded = run([sys.executable, "-W", "error", "-c", code], ROOT, env)
    assert "'sanitize': 'address,undefined'" in loaded.stdout, loaded.stdout[-3000:]

    tests = sorted(str(path) for path in KERNEL_TESTS.glob("test_kernels*.py"))
    tests.append(str(KERNEL_TESTS / "test_ops.py"))
    assert len(tests) > 1
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/run", "-m", "not gpu and not slow"]
    done = run([sys.executable, "-m", "pytest", *options, "-k", LEFT_OUT, *tests], ROOT, env)
    assert reports(sanitized) == "", done.stdout[-3000:]
    assert done.returncode == 0, done.stdout[-5000:]
    assert "ERROR: AddressSanitizer" not in done.stdout and "runtime error:" not in done.stdout
    assert " passed" in done.stdout and "no compiled kernels" not in done.stdout
