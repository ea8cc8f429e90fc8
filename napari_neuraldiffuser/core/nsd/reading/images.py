"""What may be wrong with an image file, what its header says of values and places, and one shape for all axes."""

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError, SpatialImage

DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, zlib.error),
    *(ImageFileError, HeaderDataError, ImageDataError),
)
"""What nibabel and the layers below it raise on damaged files, found by damaging them."""

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh")
"""Endings of the names of volumes, in lower case."""
ENDING = re.compile(r"\.(nii|nii\.gz|mgz|mgh)$", re.IGNORECASE)
GZIP = b"\x1f\x8b"
PLAIN = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
"""How NIfTI files begin: with the size of their header."""
LARGEST_AXIS = 2**15 - 1
"""Of NIfTI-1 volumes: what is longer is a list of vertices."""
MM = 2
MILLIMETRES = {1: 1000.0, 3: 0.001}
"""In NIfTI's units of length that are others, metre and micron; unknown (0) is mm, as in NSD's own files."""
PLACE_TOLERANCE_MM = 0.1
ROUNDING = 1e-3
HALF = 0.51
"""Of a step: a 0 that a scaling does not hit is half a step off at most, and by the rounding of the step itself."""
COARSEST_STEP = 0.1
"""Steps of the header's scaling above this do not tell whole numbers apart."""


def not_a_volume(image: Any) -> str:
    """What an image is instead of a volume of one real number for each voxel; nothing where it is one."""
    if isinstance(image, nib.GiftiImage):
        return "values on a surface (GIfTI). Choose a volume."
    if isinstance(image, nib.Cifti2Image):
        return "values on surfaces and in parts of the volume (CIFTI). Choose a volume (wb_command -cifti-separate)."
    if not isinstance(image, SpatialImage):
        return "a file of another kind. Choose a volume."
    kind = image.get_data_dtype().kind
    if kind not in "biuf":
        what, instead = ("complex numbers", "the magnitude") if kind == "c" else ("colours (RGB)", "one channel")
        return f"{what}. Save {instead} as real numbers."
    if image.ndim < 3 or 0 in image.shape:
        return f"shape {image.shape}. Choose a volume of three axes or a series of volumes."
    if image.shape[1:3] == (1, 1) and (isinstance(image, nib.MGHImage) or image.shape[0] > LARGEST_AXIS):
        return f"a surface of {image.shape[0]} vertices. Choose a volume."
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        return f"an affine that cannot be inverted, {image.affine.tolist()}. Repair its sform or qform."
    return missing_bytes(image)


def missing_bytes(image: SpatialImage) -> str:
    """What an uncompressed file lacks of its data; nothing where it is whole.  Compressed ones show it when read."""
    proxy, path = image.dataobj, Path(image.file_map["image"].filename or "")
    if not isinstance(proxy, nib.arrayproxy.ArrayProxy) or path.suffix.lower() not in (".nii", ".mgh", ".img"):
        return ""
    have, wanted = path.stat().st_size, proxy.offset + int(np.prod(proxy.shape, dtype=object)) * proxy.dtype.itemsize
    if have <= proxy.offset:
        return "a header without data. Copy or write it again."
    return "" if have >= wanted else f"a truncated file: {have} of {wanted} bytes. Download or write it again."


def cause(path: str | Path, error: Exception) -> str:
    """Why an image file could not be opened or read, and what to do."""
    with open(path, "rb") as stream:
        start = stream.read(4)
    named = str(path).lower().endswith("gz")
    if named and start in PLAIN or not named and start.startswith(GZIP):
        return f"a file that is {'not ' * named}compressed with gzip, against its name. Rename it."
    short = re.search(r"Expected (\d+) bytes, got (\d+)", str(error))
    if short and short[2] == "0":
        return "a header without data. Copy or write it again."
    if short or isinstance(error, (EOFError, zlib.error)) or (start.startswith(GZIP) and _ends_early(path)):
        return "a truncated or damaged file. Compare its size with the source, and download or write it again."
    if isinstance(error, HeaderDataError):
        return f"a damaged header ({error}). Repair it, or write the file again."
    if isinstance(error, MemoryError):
        return "more data than fit in memory. Close other programs, or repair its header."
    if isinstance(error, ImageFileError):
        return f"a file of no known image format ({error}). Choose a NIfTI or MGH volume."
    return f"a damaged file ({error}). Download or write it again."


def _ends_early(path: str | Path) -> bool:
    """Whether a compressed file breaks off within what nibabel looks at to know its format."""
    try:
        with gzip.open(path) as stream:
            stream.read(1024)
    except (EOFError, OSError, zlib.error):
        return True
    return False


def in_one_shape(image: SpatialImage, series: bool, **options: Any) -> SpatialImage:
    """An image (x, y, z), or (x, y, z, n) of several volumes, its affine in millimetres; no data are read.

    Writers differ: single volumes come as (x, y, z, 1), series as (x, y, z, 1, n) and (x, y, z, n, 1).

    Parameters
    ----------
    image : SpatialImage
    series : bool
        Whether one volume of a file of four and more axes is a series of one.
    **options
        `keep_file_open`, as it was opened with.
    """
    several = tuple(n for n in image.shape[3:] if n != 1)
    shape = (*image.shape[:3], *(several or (1,) * (series and image.ndim > 3)))
    factor = _millimetres(image)
    if shape == image.shape and factor == 1:
        return image
    data = image.dataobj
    if type(data) is nib.arrayproxy.ArrayProxy:
        about = (shape, data.dtype, data.offset, data.slope, data.inter)
        data = nib.arrayproxy.ArrayProxy(data.file_like, about, **options)
    else:
        data = np.asanyarray(data).reshape(shape)
    header = image.header if factor == 1 else _scaled(image.header, factor)
    same = type(image)(data, image.affine if factor == 1 else header.get_best_affine(), header)
    same.file_map = image.file_map
    return same


def _millimetres(image: SpatialImage) -> float:
    """How many mm the header's unit of length is."""
    header: Any = image.header
    return MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0) if hasattr(header, "get_xyzt_units") else 1.0


def _scaled(header: Any, factor: float) -> Any:
    """A header in mm: sform, qform and voxel sizes all scaled, as each may be the one that counts, their codes kept."""
    scaled = header.copy()
    scaled["pixdim"][1:4] *= factor
    for name in ("qoffset_x", "qoffset_y", "qoffset_z"):
        scaled[name] = scaled[name] * factor
    for name in ("srow_x", "srow_y", "srow_z"):
        scaled[name] *= factor
    scaled["xyzt_units"] = int(scaled["xyzt_units"]) // 8 * 8 + MM  # the unit of time stays
    return scaled


def stem_of(path: str | Path) -> str:
    """A volume's file name without its ending."""
    return ENDING.sub("", Path(path).name)


def is_oriented(image: SpatialImage) -> bool:
    """Whether the header says which way the axes run: left and right cannot be told without it."""
    header: Any = image.header
    if hasattr(header, "get_sform"):
        return bool(header["sform_code"] > 0 or header["qform_code"] > 0)
    return "goodRASFlag" not in header or bool(header["goodRASFlag"] > 0)


def place_note(image: SpatialImage) -> str:
    """What is doubtful about where the voxels lie; nothing where the header says it once.

    As nibabel and nilearn have it, the sform counts where its code is above 0, else the qform where its code is, else
    the voxel sizes alone.
    """
    header: Any = image.header
    if not is_oriented(image):
        return "neither sform nor qform: places come from the voxel sizes alone, left and right cannot be told"
    if not hasattr(header, "get_sform"):
        return ""
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except HeaderDataError:  # a qform that is none
        return ""
    if sform is None or qform is None:
        return ""
    sform, qform = (np.diag([*(_millimetres(image),) * 3, 1.0]) @ form for form in (sform, qform))
    corners = np.array(np.meshgrid(*((0, n - 1) for n in image.shape[:3]))).reshape(3, -1)
    apart = np.linalg.norm((sform - qform)[:3, :3] @ corners + (sform - qform)[:3, 3:], axis=0).max()
    return "" if apart <= PLACE_TOLERANCE_MM else f"sform and qform up to {apart:.3g} mm apart: the sform is used"


def step_of(image: SpatialImage) -> float:
    """Distance of neighbouring values where the header scales whole numbers; 0 where values are as they are stored."""
    data = image.dataobj
    if not isinstance(data, nib.arrayproxy.ArrayProxy) or data.dtype.kind not in "iu":
        return 0.0
    slope, inter = float(data.slope), float(data.inter)
    return 0.0 if (slope, inter) == (1.0, 0.0) else abs(slope)


def whole_numbers(values: np.ndarray, step: float = 0.0) -> np.ndarray | None:
    """Values as the whole numbers that were meant; None where they are others.  What is not a number becomes 0.

    Parameters
    ----------
    values : ndarray
    step : float
        Of the header's scaling (`step_of`): saving whole numbers with one leaves residues of that size, 2.00004 for 2.
    """
    if values.dtype.kind in "biu":
        return values
    # a program that cuts off instead of rounding is off by a whole step, and by the rounding of the step itself
    tolerance = max(1.01 * step, ROUNDING) if step <= COARSEST_STEP else ROUNDING
    some = values.ravel(order="K")[:: max(1, values.size // 4096)]
    if not _near_whole(some, tolerance):  # an anatomy is told at once
        return None
    known = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if not _near_whole(known, tolerance):
        return None
    nearest = np.rint(known)
    # small numbers are small, not none
    return nearest if nearest.any() or not (np.abs(known) > HALF * step).any() else None


def _near_whole(values: np.ndarray, tolerance: float) -> bool:
    with np.errstate(invalid="ignore"):  # infinity is no whole number
        return not (np.abs(values - np.rint(values)) > tolerance).any() and not np.isinf(values).any()
