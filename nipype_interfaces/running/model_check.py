"""Whether the weights of models are those that their configurations describe, told before any node runs."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.core.base.files import file_versions, fingerprint, write_json
from napari_neuraldiffuser.core.networks.folder import check_folder


def compare_weights(models: str, guide: str | None, work_dir: Path, apart: bool) -> None:
    """Compare names and shapes of all weights; once for files as they are, which a record in the work folder tells.

    Parameters
    ----------
    models, guide : as in `models.load`
    work_dir : Path
    apart : bool
        Whether torch is imported in a process that ends with it, for one whose nodes run elsewhere.

    Raises
    ------
    ModelError
        Where no node could open these models.
    """
    parts = check_folder(models, guide)
    files = [file for part in parts.values() for file in sorted(part.folder.iterdir())]
    record = work_dir / "models" / f"{fingerprint([__version__, file_versions(files)])}.json"
    if record.is_file():
        return
    if apart:
        # a login node may have too little memory for torch: then the first node that opens the models tells
        with suppress(BrokenProcessPool), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            other.submit(_compare, models, guide).result()
            _keep(record, models, guide)
    else:
        _compare(models, guide)
        _keep(record, models, guide)


def _keep(record: Path, models: str, guide: str | None) -> None:
    """Only what was compared is not compared again."""
    write_json(record, {"models": models, "guide": guide})


def _compare(models: str, guide: str | None) -> None:
    from napari_neuraldiffuser.core.networks.opening import check_weights

    check_weights(models, guide)
