"""Make the pictures of the documentation from the demo's output.

The report page in headless Chromium, and the napari dock widget in a window of a virtual display where xvfb-run is
installed.
"""

import os
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


def napari_picture(target: Path) -> None:
    """Write a picture of the dock widget's window; a display without xvfb-run would show another window system."""
    if shutil.which("xvfb-run") is None:
        print("napari.png is left out: xvfb-run is missing. Run: sudo apt-get install -y xvfb xauth libxcb-cursor0")
        return
    command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", sys.executable, __file__]
    command += ["--napari", str(demo_page().parent / "nsd"), str(target)]
    subprocess.run(command, check=True, timeout=1800, env={**os.environ, "QT_QPA_PLATFORM": "xcb"})
    print(target)


def napari_window(nsd_dir: Path, target: Path, n_stimuli: int = 8) -> None:
    """Run the dock widget on `nsd_dir` to the end and write a picture of its window; needs a display."""
    import napari
    from qtpy.QtCore import QEventLoop, QTimer
    from qtpy.QtWidgets import QApplication

    from napari_neuraldiffuser.widgets.reconstruct import Reconstruct

    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    panel = Reconstruct(viewer)
    viewer.window.add_dock_widget(panel, name="NeuralDiffuser")
    # short, and nobody's own paths in the picture
    os.chdir(ROOT)
    panel.folder.setText(os.path.relpath(nsd_dir, ROOT))
    panel.output.setText(os.path.join("build", "pictures"))
    panel.n_stimuli.setValue(n_stimuli)
    panel.start()
    while panel.worker is not None:
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
    settled = QEventLoop()
    QTimer.singleShot(2000, settled.quit)
    settled.exec()
    print(panel.message.text())
    target.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(str(target), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--napari"]:
        napari_window(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        screenshot(demo_page(), ROOT / "docs" / "pictures" / "report.png")
        napari_picture(ROOT / "docs" / "pictures" / "napari.png")
