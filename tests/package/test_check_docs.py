"""scripts/check_docs.py on small made-up trees: each finds one thing that leads nowhere."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREE = {
    "Makefile": "demo: ## x\n",
    "scripts/a.py": "",
    "README.md": "[the method](docs/method.md#one-step) and `core/a.py`, `a.py`, `core/*.py`, `core/`, `make demo`\n",
    "docs/method.md": "# One step\n\n```\na = b      says why   (1)\nc = f(2)     (2)\n```\n\nNo more (3)\n",
    "napari_neuraldiffuser/core/a.py": '"""The step (method.md eq. 1, 2): `core.a.step`."""\n\ndef step(): ...\n',
}


@pytest.fixture(scope="module")
def checker():
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "scripts" / "check_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problems(checker, folder, **changes):
    for name, text in (TREE | changes).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return checker.problems(folder)


def test_a_tree_where_everything_exists(checker, tmp_path):
    assert problems(checker, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method.md eq. 3", ["no equation 3 in docs/method.md"]),
        ("method.md eq. 1-4", ["no equation 3 in docs/method.md", "no equation 4 in docs/method.md"]),
        ("method.md eq. 2,\n# 5", ["no equation 5 in docs/method.md"]),
        ("method.md, equation 1", ['a citation must read "method.md eq. 7"']),
        ("docs/method.md says", ['a citation must read "method.md eq. 7"']),
        ("(METHOD" + ": one step)", ["no page of METHOD:"]),
        ("DATA" + ": betas", ["no page of DATA:"]),
        ("`core/gone.py` has it", ["no file core/gone.py"]),
        ("`core.gone.step`", ["no module core.gone.step"]),
        ("`napari_neuraldiffuser.core.a.leap`", ["no module napari_neuraldiffuser.core.a.leap"]),
    ],
)
def test_what_code_names_and_is_not_there(checker, tmp_path, text, told):
    found = problems(checker, tmp_path, **{"napari_neuraldiffuser/core/b.py": f"# {text}\n"})
    assert found == [f"napari_neuraldiffuser/core/b.py: {what}" for what in told]


def test_an_equation_that_no_code_cites(checker, tmp_path):
    found = problems(checker, tmp_path, **{"napari_neuraldiffuser/core/a.py": "# method.md eq. 2\n\nstep = 1\n"})
    assert found == ["docs/method.md: no code cites equation 1"]


def test_equations_out_of_order(checker, tmp_path):
    text = TREE["docs/method.md"].replace("(1)", "(2)", 1).replace("     (2)", "     (1)")
    assert problems(checker, tmp_path, **{"docs/method.md": text}) == [
        "docs/method.md: equations must be numbered 1, 2, ..."
    ]


def test_a_method_page_that_is_gone(checker, tmp_path):
    problems(checker, tmp_path)
    (tmp_path / "docs" / "method.md").unlink()
    found = checker.problems(tmp_path)
    assert found == ["README.md: no file docs/method.md", "napari_neuraldiffuser/core/a.py: no page docs/method.md"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[no](no.md)", "no file no.md"),
        ("[no](method.md#two-steps)", "no heading method.md#two-steps"),
        ("`make nothing`", "no make target nothing"),
        ("`core/gone.py`", "no file core/gone.py"),
        ("`gone.py`", "no file gone.py"),
        ("    python scripts/gone.py --out x", "no file scripts/gone.py"),
        ("    from napari_neuraldiffuser.core.gone import step", "no module napari_neuraldiffuser.core.gone"),
        ("method.md eq. 7", "no equation 7"),
    ],
)
def test_what_a_page_names_and_is_not_there(checker, tmp_path, text, told):
    assert problems(checker, tmp_path, **{"docs/page.md": f"See {text}\n"}) == [f"docs/page.md: {told}"]


def test_files_of_somebody_else_are_not_looked_for(checker, tmp_path):
    assert problems(checker, tmp_path, **{"docs/page.md": "`nsddata/experiments/nsd/x.py`, https://a.org/b.py\n"}) == []
