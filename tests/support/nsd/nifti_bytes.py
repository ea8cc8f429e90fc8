"""NIfTI-1 files put together byte by byte, as NSD's own are: no library decides what their headers say."""

import gzip
import struct
from pathlib import Path

import numpy as np

CODES = {"|u1": 2, "<i2": 4, "<i4": 8, "<f4": 16, "<f8": 64}


def nifti_bytes(values: np.ndarray, affine: np.ndarray, *, slope: float = 0.0, units: int = 0, qfac: float = 0.0):
    """sform alone (code 1), unknown units, slope 0 and qfac 0, as in the func volumes of NSD; data with x fastest."""
    code, dims = CODES[values.dtype.str], [values.ndim, *values.shape] + [1] * (7 - values.ndim)
    zooms = [*np.linalg.norm(affine[:3, :3], axis=0), 1.0, 1.0, 1.0, 1.0]
    header = struct.pack("<i", 348) + bytes(36)
    header += struct.pack("<8h", *dims) + struct.pack("<3f", 0, 0, 0)
    header += struct.pack("<4h", 0, code, 8 * values.dtype.itemsize, 0)  # intent, type, bits, slice start
    header += struct.pack("<8f", qfac, *zooms)
    header += struct.pack("<3f", 352.0, slope, 0.0)
    header += struct.pack("<hBB", 0, 0, units) + struct.pack("<4f", 0, 0, 0, 0) + struct.pack("<2i", 0, 0)
    header += bytes(80 + 24) + struct.pack("<2h", 0, 1)  # no qform, an sform
    header += struct.pack("<6f", *[0.0] * 6) + struct.pack("<12f", *affine[:3].ravel())
    header += bytes(16) + b"n+1\0"
    assert len(header) == 348
    return header + bytes(4) + values.tobytes(order="F")


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, **header: float) -> None:
    """Compressed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = nifti_bytes(values, affine, **header)
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
