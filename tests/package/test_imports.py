"""Imports go one way: core knows no front end, front ends know core only, torch waits for work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

FRONT_ENDS = {"napari", "qtpy", "magicgui", "superqt", "vispy", "nipype"}
BINDINGS = {"PyQt5", "PyQt6", "PySide2", "PySide6"}
OPENING = ROOT / "napari_neuraldiffuser" / "core" / "networks" / "opening.py"
DATA_ONLY = ROOT / "napari_neuraldiffuser/core/base/safe_npy.py"
"""Reads the opcodes of a pickle, none of which it lets name anything but data."""


def loaded(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter's sys.modules after `statement`."""
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules(folder: str) -> list[str]:
    """Dotted names of every module below `folder`."""
    files = sorted((ROOT / folder).rglob("*.py"))
    names = (".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files)
    return [name.removesuffix(".__init__") for name in names]


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports absolutely, at any depth."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 0}


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_import_of_the_package_is_light():
    """What takes time to import is not imported: nothing but the standard library, whoever asks for a version."""
    before = loaded("pass")
    for statement in ("import napari_neuraldiffuser", "import napari_neuraldiffuser.core.params"):
        assert loaded(statement) - before - sys.stdlib_module_names == {"napari_neuraldiffuser"}


def test_core_runs_without_any_front_end():
    names = modules("napari_neuraldiffuser/core")
    assert len(names) > 5
    statement = "; ".join(f"import {name}" for name in [*names, "napari_neuraldiffuser.cli"])
    assert not loaded(statement) & (FRONT_ENDS | BINDINGS)


def test_front_ends_do_not_meet():
    widgets = loaded("; ".join(f"import {name}" for name in modules("napari_neuraldiffuser/widgets")))
    assert not widgets & {"nipype", "nipype_interfaces", "torch"}
    interfaces = loaded("; ".join(f"import {name}" for name in modules("nipype_interfaces")))
    assert not interfaces & (FRONT_ENDS - {"nipype"} | BINDINGS)


@pytest.mark.parametrize("folder", ["napari_neuraldiffuser", "nipype_interfaces"])
def test_nothing_imports_a_qt_binding_or_opens_models_elsewhere(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert not roots(path) & (BINDINGS | {"torchvision"}), path
        assert "pickle" not in roots(path) or path == DATA_ONLY, path
        if path != OPENING:
            assert not roots(path) & {"diffusers", "transformers"}, path


def test_core_names_no_front_end_even_in_functions():
    for path in (ROOT / "napari_neuraldiffuser" / "core").rglob("*.py"):
        assert not roots(path) & (FRONT_ENDS | {"nipype_interfaces"}), path
        assert not any(name.startswith("napari_neuraldiffuser.widgets") for name in imports(path)), path


def test_ruff_holds_the_same_rules(tmp_path):
    """The bans of pyproject.toml and of the two ruff.toml files bite where they should, and only there."""
    ruff = Path(sys.executable).parent / "ruff"
    if not ruff.exists():
        pytest.skip("ruff is not installed beside this Python")
    cases = {
        "napari_neuraldiffuser/core/x.py": (
            "napari",
            "qtpy",
            "magicgui",
            "nipype",
            "PyQt6",
            "diffusers",
            "pickle",
        ),
        "napari_neuraldiffuser/widgets/x.py": (
            "PyQt6",
            "PySide6",
            "nipype",
            "nipype_interfaces",
            "diffusers",
        ),
        "nipype_interfaces/x.py": (
            "napari",
            "qtpy",
            "PyQt6",
            "napari_neuraldiffuser.widgets",
            "transformers",
        ),
    }
    for name, banned in cases.items():
        for module in banned:
            assert "TID251" in ruff_check(ruff, name, f"import {module}\n"), (name, module)
    assert "TID251" not in ruff_check(ruff, "napari_neuraldiffuser/widgets/x.py", "import napari, qtpy\n")
    assert "TID251" not in ruff_check(ruff, "nipype_interfaces/x.py", "import nipype\n")
    assert "TID251" not in ruff_check(ruff, "napari_neuraldiffuser/core/networks/opening.py", "import diffusers\n")


def ruff_check(ruff: Path, name: str, source: str) -> str:
    command = [
        ruff,
        "check",
        "--no-cache",
        "--output-format",
        "concise",
        "--stdin-filename",
        ROOT / name,
        "-",
    ]
    return subprocess.run(command, input=source, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout


def test_module_names_are_found():
    """The helper above finds nested modules, so that the tests cannot pass on an empty list."""
    assert "napari_neuraldiffuser.core.nsd" in modules("napari_neuraldiffuser/core")
