"""The package as it is installed and built: one version, one manifest, extras, data files, make targets."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata

import pytest

import napari_neuraldiffuser
from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = (
    *("install", "demo", "test", "test-slow", "lint", "bench", "bench-gpu", "test-gpu"),
    *("pictures", "docs", "fuzz", "audit", "kernels", "gpu-day"),
)


def requirement_names(requirements):
    return {re.match(r"[A-Za-z0-9._-]+", text)[0].lower().replace("_", "-") for text in requirements}


def constraint_lines():
    lines = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_version_has_one_source():
    assert metadata.version("napari-neuraldiffuser") == napari_neuraldiffuser.__version__
    assert f"## {napari_neuraldiffuser.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_manifest_copy_equals_the_root_manifest():
    copy = ROOT / "napari_neuraldiffuser" / "napari.yaml"
    assert copy.read_bytes() == (ROOT / "napari.yaml").read_bytes()


def test_manifest_is_valid_and_its_commands_import():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(ROOT / "napari.yaml")
    manifest.validate_imports()
    assert manifest.name == PROJECT["project"]["name"]
    commands = {command.id for command in manifest.contributions.commands}
    used = [*manifest.contributions.readers, *manifest.contributions.writers, *manifest.contributions.widgets]
    used += [*manifest.contributions.sample_data, *sum(manifest.contributions.menus.values(), [])]
    assert {entry.command for entry in used} == commands


def test_menus_of_the_manifest_are_ones_that_napari_takes():
    menus = pytest.importorskip("napari._app_model.constants._menus")
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(ROOT / "napari.yaml")
    assert manifest.contributions.menus
    assert all(menus.is_menu_contributable(menu) for menu in manifest.contributions.menus)


def test_preferences_of_the_manifest_are_those_of_the_code():
    pytest.importorskip("napari")
    npe2 = pytest.importorskip("npe2")
    from napari_neuraldiffuser.core.params import PRESETS
    from napari_neuraldiffuser.widgets.files.view import CONVENTIONS
    from napari_neuraldiffuser.widgets.session.state import DEFAULTS, FOR_MODELS

    (general,) = npe2.PluginManifest.from_file(ROOT / "napari.yaml").contributions.configurations.values()
    assert {name: prop.default for name, prop in general.properties.items()} == DEFAULTS
    assert general.properties["preset"].enum == [FOR_MODELS, *PRESETS]
    assert general.properties["convention"].enum == list(CONVENTIONS)
    assert all(prop.description for prop in general.properties.values())


def test_torch_is_not_a_build_requirement():
    assert requirement_names(PROJECT["build-system"]["requires"]) == {"setuptools", "pybind11", "ninja"}


def test_core_does_not_depend_on_front_ends_or_torchvision():
    core = requirement_names(PROJECT["project"]["dependencies"])
    assert "torch" in core
    assert not core & {"napari", "qtpy", "magicgui", "pyqt6", "nipype", "pytest", "torchvision"}
    assert "torchvision" not in requirement_names(constraint_lines())


def test_constraints_pin_every_direct_dependency_and_name_no_place():
    lines = constraint_lines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.!]+", line) for line in lines), "no +local, URL or path"
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = requirement_names([*PROJECT["project"]["dependencies"], *(r for rs in extras.values() for r in rs)])
    assert wanted - {"napari-neuraldiffuser"} <= requirement_names(lines)


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists(target):
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run([make, "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_docs_checker_finds_what_leads_nowhere(tmp_path):
    checker = ROOT / "scripts" / "check_docs.py"
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(checker, tmp_path / "scripts")
    (tmp_path / "Makefile").write_text("demo: ## x\n")
    readme = tmp_path / "README.md"
    readme.write_text("[ok](docs/a.md#part) [web](https://example.org) `make demo`\n")
    (tmp_path / "docs" / "a.md").write_text("# Part\n\n![no](no.png)\n\n    make nothing\n")
    done = subprocess.run(
        [sys.executable, tmp_path / "scripts" / "check_docs.py"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["docs/a.md: no file no.png", "docs/a.md: no make target nothing"]


def test_install_script_refuses_an_unknown_stage():
    command = ["sh", ROOT / "scripts" / "install.sh", "everything"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_need(dist):
    wheel = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
    data = [f for name in ("demo_models", "sample_result") for f in (ROOT / "napari_neuraldiffuser" / name).rglob("*")]
    shipped = {str(f.relative_to(ROOT)) for f in data if f.is_file()}
    assert {"napari_neuraldiffuser/napari.yaml", "napari_neuraldiffuser/core/nsd/__init__.py"} | shipped <= wheel
    assert {"nipype_interfaces/__init__.py", "nipype_interfaces/py.typed", "napari_neuraldiffuser/py.typed"} <= wheel
    assert not any(name.startswith(("tests/", "scripts/", "benchmarks/")) for name in wheel)
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        sdist = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"napari.yaml", "csrc/README.md", "requirements/constraints.txt", "LICENSE"} | shipped <= sdist
