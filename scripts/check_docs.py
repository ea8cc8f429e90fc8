"""Check that what the pages and the code name exists: files, modules, make targets, and equations of docs/method.md.

The code cites an equation as "method.md eq. 7", several as "method.md eq. 2, 3" or "method.md eq. 9-13".
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("napari_neuraldiffuser", "nipype_interfaces")
CODE = (*PACKAGES, "csrc")
SUFFIXES = (".py", ".h", ".cuh", ".cpp", ".cu")
METHOD = "docs/method.md"
LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
TARGET = re.compile(r"`make ([a-z-]+)`|^\s*\$?\s*make ([a-z-]+)\s*(?:#.*)?$", re.MULTILINE)
NAMED = re.compile(r"`([\w.*/-]+/[\w.*/-]*|[\w.*-]+\.(?:py|h|cuh|cpp|cu|sh|toml))`")
COMMAND = re.compile(r"(?<![\w/.-])(?:benchmarks|plugins|scripts|tests)/[\w./*-]*[\w*]")
MODULE = re.compile(rf"\b(?:(?:{'|'.join(PACKAGES)})|(?<=[` ])(?:core|widgets))(?:\.[A-Za-z_]\w*)+")
EQUATION = re.compile(r"(?<=\s)\((\d+)\)$", re.MULTILINE)
CITATION = re.compile(r"method\.md(?: eq\. (\d+(?:(?:, |-)\d+)*))?")
ABSENT = re.compile(r"\b(?:METHOD|DATA):")


def problems(root: Path) -> list[str]:
    """One sentence for each name that leads nowhere."""
    found = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        wrong = [*_links(page, text), *_targets(root, text), *_paths(root, page, text), *_modules(root, text)]
        found += [f"{page.relative_to(root)}: {what}" for what in wrong]
    sources = {path.relative_to(root): path.read_text(encoding="utf-8") for path in code(root)}
    for path, text in sources.items():
        wrong = [
            *_paths(root, root / path, text),
            *_modules(root, text),
            *(f"no page of {name}" for name in sorted(set(ABSENT.findall(text)))),
        ]
        found += [f"{path}: {what}" for what in wrong]
    return found + equation_problems(root, sources)


def pages(root: Path) -> list[Path]:
    """README and its like, and the pages of docs."""
    tops = [root / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "csrc/README.md")]
    return [p for p in (*tops, *sorted((root / "docs").glob("**/*.md"))) if p.exists()]


def code(root: Path) -> list[Path]:
    """The package's sources."""
    return sorted(p for top in CODE for p in (root / top).glob("**/*") if p.suffix in SUFFIXES)


def _links(page: Path, text: str) -> Iterable[str]:
    for link in (a or b for a, b in LINK.findall(text)):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        target = page.parent / name if name else page
        if not target.exists():
            yield f"no file {name}"
        elif anchor and target.suffix == ".md" and anchor not in _anchors(target.read_text(encoding="utf-8")):
            yield f"no heading {link}"


def _anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _targets(root: Path, text: str) -> Iterable[str]:
    known = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {a or b for a, b in TARGET.findall(text)}
    return (f"no make target {name}" for name in sorted(named - known))


def _paths(root: Path, page: Path, text: str) -> Iterable[str]:
    """Paths in backticks that begin with a folder of ours, files of ours without a folder, and scripts in commands."""
    tops = {p.name for top in (root, *(root / name for name in PACKAGES)) if top.is_dir() for p in top.iterdir()}
    places = (root, page.parent, *(root / name for name in (*PACKAGES, "tests")))
    for name in dict.fromkeys([*NAMED.findall(text), *COMMAND.findall(text)]):
        if "/" not in name:
            there = any(next((root / top).rglob(name), None) for top in _folders(root)) or (root / name).exists()
        else:
            there = name.split("/")[0] not in tops or any(next(place.glob(name), None) for place in places)
        if not there:
            yield f"no file {name}"


def _folders(root: Path) -> list[str]:
    return [p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "build"]


def _modules(root: Path, text: str) -> Iterable[str]:
    return (f"no module {name}" for name in dict.fromkeys(MODULE.findall(text)) if not _resolves(root, name))


def _resolves(root: Path, name: str) -> bool:
    """Whether a dotted name is a folder, a module, or a word in the text of one."""
    parts = name.split(".")
    place = root if parts[0] in PACKAGES else root / PACKAGES[0]
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    source = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").is_file():
        source = place / f"{parts.pop(0)}.py"
    if not parts or parts[0] == "_kernels":  # the compiled extension
        return source.is_file()
    return source.is_file() and re.search(rf"\b{parts[0]}\b", source.read_text(encoding="utf-8")) is not None


def equation_problems(root: Path, sources: dict[Path, str]) -> list[str]:
    """Numbers that are cited and not there, or there and not cited by the code; citations of another form."""
    method = root / METHOD
    if not method.is_file():
        return [f"{path}: no page {METHOD}" for path, text in sources.items() if CITATION.search(text)]
    numbers = equations(method.read_text(encoding="utf-8"))
    found = [] if numbers == list(range(1, len(numbers) + 1)) else [f"{METHOD}: equations must be numbered 1, 2, ..."]
    used: set[int] = set()
    for path, text in sources.items():
        cited = [number for part in CITATION.findall(_unwrapped(text)) for number in _numbers(part)]
        if None in cited:
            found.append(f'{path}: a citation must read "method.md eq. 7"')
        used |= set(cited) - {None}
        found += [f"{path}: no equation {n} in {METHOD}" for n in sorted(set(cited) - {None} - set(numbers))]
    for page in pages(root):
        cited = {n for part in CITATION.findall(_unwrapped(page.read_text(encoding="utf-8"))) for n in _numbers(part)}
        found += [f"{page.relative_to(root)}: no equation {n}" for n in sorted(cited - {None, *numbers})]
    return found + [f"{METHOD}: no code cites equation {n}" for n in numbers if n not in used]


def equations(text: str) -> list[int]:
    """Numbers at the ends of lines in blocks of code, in order."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [int(number) for block in blocks for number in EQUATION.findall(block)]


def _unwrapped(text: str) -> str:
    """The text with its lines joined, so that a citation may go over the end of a line."""
    return re.sub(r"\s*\n\s*(?:#|//)?\s*", " ", text)


def _numbers(part: str) -> list[int | None]:
    """2, 9, 10, 11 of "2, 9-11"; None of a citation without a number."""
    if not part:
        return [None]
    spans = [[int(end) for end in span.split("-")] for span in part.split(", ")]
    return [number for span in spans for number in range(span[0], span[-1] + 1)]


if __name__ == "__main__":
    found = problems(ROOT)
    print("\n".join(found) or f"docs: {len(pages(ROOT))} pages; what they and the code name exists")
    sys.exit(1 if found else 0)
