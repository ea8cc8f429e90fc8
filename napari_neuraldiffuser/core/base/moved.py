"""Former addresses of modules that scripts import: they go on working, and say nothing."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = "napari_neuraldiffuser"
MOVED = {
    # former address -> where it is
    "core.errors": "core.base.errors",
    "core.files": "core.base.files",
    "core.model_digest": "core.networks.digest",
    "core.nsd.design": "core.nsd.reading.design",
    "core.nsd.sessions": "core.nsd.reading.sessions",
    "core.nsd.volumes": "core.nsd.reading.volumes",
    "core.recipe": "core.base.recipe",
    "widgets.reader": "widgets.files.reader",
}


class _Former(MetaPathFinder, Loader):
    """Finds a module under its former address; it is opened when something is taken from it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.removeprefix(f"{PACKAGE}.") in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system's own empty module."""

    def exec_module(self, module: ModuleType) -> None:
        place = MOVED[module.__name__.removeprefix(f"{PACKAGE}.")]
        vars(module)["__getattr__"] = lambda name: getattr(importlib.import_module(f"{PACKAGE}.{place}"), name)


def keep_former_addresses() -> None:
    """Let imports find moved modules; a module that exists is never hidden, since this looks last."""
    if not any(isinstance(finder, _Former) for finder in sys.meta_path):
        sys.meta_path.append(_Former())
