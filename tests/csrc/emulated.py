"""The CUDA kernels on this processor: builds ``cuda_on_cpu.cpp``, mirrors ``csrc/kernels.h``, guards outputs.

Every operation runs twice, with its threads in order and in an order drawn at random, and both must write the same
bits: a race between two barriers would not.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
DTYPES = list(TYPES)
STREAM = 0x1234  # any launch elsewhere ends the process
GUARD = 64  # bytes around every output
Pointer, Long = ctypes.c_void_p, ctypes.c_int64


def struct(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


Strided = struct("Strided", ("size", Long * 4), ("stride", Long * 4))
Layer = struct(
    "Layer", ("feature", Pointer), ("target", Pointer), ("grad", Pointer), ("feature_map", Strided),
    ("target_map", Strided), ("feature_image", Long), ("target_image", Long), ("numel", Long),
    ("linear", ctypes.c_bool),
)  # fmt: skip
FeatureLoss = struct(
    "FeatureLoss", ("layer", Layer * 24), ("n_layers", ctypes.c_int), ("batch", Long), ("feature_type", ctypes.c_int),
    ("target_type", ctypes.c_int), ("weights", Pointer), ("weights_image", Long), ("grad_scale", ctypes.c_double),
    ("loss", Pointer),
)  # fmt: skip
GuidedStep = struct(
    "GuidedStep", ("n_terms", ctypes.c_int), ("term", Pointer * 6), ("term_type", ctypes.c_int * 6), ("out", Pointer),
    ("out_type", ctypes.c_int), ("batch", Long), ("per_image", Long), ("coefficient", ctypes.c_double * 6),
    ("table", Pointer), ("table_images", Long),
)  # fmt: skip
PrepareImage = struct(
    "PrepareImage", ("image", Pointer), ("image_stride", Long * 4), ("grad", Pointer), ("grad_stride", Long * 4),
    ("out", Pointer), ("out_stride", Long * 4), ("batch", Long), ("height", Long), ("width", Long), ("size", Long),
    ("mean", ctypes.c_double * 3), ("std", ctypes.c_double * 3), ("type", ctypes.c_int),
)  # fmt: skip
GroupNorm = struct(
    "GroupNorm", ("x", Pointer), ("grad", Pointer), ("out", Pointer), ("weight", Pointer), ("bias", Pointer),
    ("mean", Pointer), ("rstd", Pointer), ("workspace", Pointer), ("batch", Long), ("pixels", Long),
    ("channels", Long), ("groups", Long), ("eps", ctypes.c_double), ("silu", ctypes.c_bool), ("type", ctypes.c_int),
)  # fmt: skip


def build(folder: Path, *flags: str) -> Path:
    """Compile the kernels for this processor into a library in ``folder``."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or pytest.skip("no C++ compiler")
    library = folder / "cuda_on_cpu.so"
    # -fno-strict-aliasing: the kernels move 16 bytes of any type at once, which nvcc allows
    options = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-fPIC", "-fno-strict-aliasing", *flags]
    command = [compiler, *options, "-shared", f"-I{HERE}", HERE / "cuda_on_cpu.cpp", "-o", library]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return library


class Guarded:
    """An output: filled with NaN, with guard bytes on both sides, ``offset`` elements off its alignment."""

    def __init__(self, shape, dtype, offset=0):
        count, width = int(torch.Size(shape).numel()), dtype.itemsize
        self.begin = GUARD + offset * width
        self.bytes = torch.full((count * width + 2 * GUARD + offset * width,), 0xA5, dtype=torch.uint8)
        self.end = self.begin + count * width
        self.bytes[self.begin : self.end] = 0xFF
        self.tensor = self.bytes[self.begin : self.end].view(dtype).view(shape)

    def check(self):
        """Nothing outside was written."""
        assert (self.bytes[: self.begin] == 0xA5).all() and (self.bytes[self.end :] == 0xA5).all()


class Device:
    """The emulated machine; ``clusters=False`` is one before sm_90."""

    def __init__(self, library: Path):
        self.library = ctypes.CDLL(str(library))
        self.library.group_norm_workspace.restype = Long
        self.clusters = True

    def set(self, seed=0, refusal=0):
        # a device number of its own per architecture: the kernels ask once per device
        device, architecture = (0, 90) if self.clusters else (1, 80)
        self.library.set_machine(device, architecture, ctypes.c_uint64(seed), Pointer(STREAM), refusal)

    def call(self, name, params):
        """Run one operation; returns its sentence, or None."""
        function = getattr(self.library, name)
        function.restype = ctypes.c_char_p
        return function(ctypes.byref(params), Pointer(STREAM))

    def run(self, name, params, outputs, launches=1):
        """Run in order and shuffled, with poisoned outputs: same bits, all written, nothing else touched."""
        results = []
        for seed in (0, 20240607):
            for out in outputs:
                out.bytes[out.begin : out.end] = 0xFF
            self.set(seed)
            assert self.call(name, params) is None
            assert self.library.launches() == launches
            for out in outputs:
                out.check()
            results.append([out.bytes.clone() for out in outputs])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def misaligned(tensor, offset=1):
    """The same values in memory that begins ``offset`` elements after an aligned address."""
    storage = torch.empty(tensor.numel() + offset, dtype=tensor.dtype)
    return storage[offset:].view(tensor.shape).copy_(tensor)


def accumulator(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_near(actual, expected, dtype, slack=1.0, scale=1.0):
    """Within one rounding of ``dtype`` (half an ulp) plus ``slack`` times what sums of values near ``scale`` lose."""
    lost, one = slack * (2e-14 if dtype == torch.float64 else 2e-6), torch.finfo(dtype)
    bound = (one.eps / 2 + lost) * expected.abs() + 0.1 * lost * scale + one.smallest_normal * one.eps
    difference = (actual.double() - expected).abs()
    assert torch.isfinite(actual).all() and bool((difference <= bound).all()), (difference - bound).max().item()
