"""Make the pictures of the documentation from the demo's output: the report page in headless Chromium."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str:
    """Path of the browser, or a one-line exit that says how to get one."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    sys.exit("A browser must be installed, found none. Run: sudo apt-get install -y chromium")


def demo_page() -> Path:
    """The demo's report; the demo is run when it is missing."""
    page = ROOT / "demo_output" / "sub-01.html"
    if not page.exists():
        subprocess.run([Path(sys.executable).parent / "neuraldiffuser", "demo", page.parent], check=True)
    return page


def screenshot(page: Path, target: Path, size: tuple[int, int] = (1280, 1600)) -> None:
    """Write what the browser shows of `page` as a PNG."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={size[0]},{size[1]}", f"--screenshot={target}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(target)


if __name__ == "__main__":
    screenshot(demo_page(), ROOT / "docs" / "pictures" / "report.png")
