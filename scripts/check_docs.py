"""Check that the files, pictures and make targets that README.md and docs/*.md name exist."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
TARGET = re.compile(r"`make ([a-z-]+)`|^\s*\$?\s*make ([a-z-]+)\s*(?:#.*)?$", re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """README and the pages of docs."""
    return [p for p in (root / "README.md", *sorted((root / "docs").glob("**/*.md"))) if p.exists()]


def problems(root: Path) -> list[str]:
    """One sentence for each name on a page that leads nowhere."""
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        where = page.relative_to(root)
        found += [f"{where}: no file {link}" for link in links(text) if not (page.parent / link).exists()]
        named = {a or b for a, b in TARGET.findall(text)}
        found += [f"{where}: no make target {name}" for name in sorted(named - targets)]
    return found


def links(text: str) -> list[str]:
    """Relative links and picture sources of a page, without their anchors."""
    names = [(a or b).split("#")[0] for a, b in LINK.findall(text)]
    return [name for name in names if name and not re.match(r"[a-z]+:", name)]


if __name__ == "__main__":
    found = problems(ROOT)
    print("\n".join(found) or f"docs: {len(pages(ROOT))} pages, every link and make target exists")
    sys.exit(1 if found else 0)
