"""Make the pictures of the documentation from the demo's output.

The report page in headless Chromium, the graph of the workflow where graphviz is installed, and the napari plugin at
work in a window of a virtual display where xvfb-run is installed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def workflow_picture(target: Path) -> None:
    """Write the graph of one subject's workflow; no file of the job has to be there."""
    if shutil.which("dot") is None:
        print("The picture of the workflow is left out: dot is missing. Run: sudo apt-get install -y graphviz")
        return
    import nipype_interfaces  # noqa: F401  before nipype, which would ask a server for its newest version
    from napari_neuraldiffuser.core.job.spec import Job
    from nipype_interfaces.running.dry_run import write_graph
    from nipype_interfaces.workflows import init_subject_wf

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(write_graph(init_subject_wf(Job(Path("nsd"), Path("out"))), Path(folder) / "graph"), target)
    print(target)


def napari_pictures(folder: Path) -> None:
    """Write pictures of the plugin's window; a display without xvfb-run would show another window system."""
    if shutil.which("xvfb-run") is None:
        print("The pictures of napari are left out: xvfb-run is missing. Run: sudo apt-get install -y xvfb xauth")
        return
    with tempfile.TemporaryDirectory(prefix="neuraldiffuser-") as home:
        # nobody's own paths and settings in the pictures
        nsd = Path(home) / "nsd"
        nsd.symlink_to((demo_page().parent / "nsd").resolve())
        env = {**os.environ, "QT_QPA_PLATFORM": "xcb", "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home}
        command = ["xvfb-run", "-a", "-s", "-screen 0 1700x1300x24", sys.executable, __file__, "--napari"]
        subprocess.run([*command, str(nsd), str(folder)], check=True, timeout=1800, env=env)


class Window:
    """A napari with the plugin's dock, driven from a script; needs a display."""

    def __init__(self, folder: Path) -> None:
        import napari

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1600, 1240)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-neuraldiffuser", "NeuralDiffuser")
        self.dock.tour.end()
        self.panels = self.dock.panels
        self.session = self.panels["Data"].session

    def wait(self, ready: Callable[[], Any], seconds: float = 600.0) -> None:
        """Let the window live until `ready`."""
        from qtpy.QtCore import QEventLoop
        from qtpy.QtWidgets import QApplication

        until = time.monotonic() + seconds
        while not ready():
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
            if time.monotonic() > until:
                sys.exit(f"The plugin must answer within {seconds:.0f} s, got nothing: {self.messages()}")

    def messages(self) -> list[str]:
        """What the panels say."""
        return [panel.message.text() for panel in self.panels.values() if panel.message.text()]

    def settle(self, seconds: float = 1.5) -> None:
        """Let drawing and quiet calls end."""
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > until)

    def run(self, page: str) -> None:
        """Press Run on a page and wait for the end."""
        self.dock.show_page(page)
        self.wait(self.panels[page].run_button.isEnabled)
        self.panels[page].run_button.click()
        self.wait(lambda: not self.session.busy)
        self.settle()
        print(page, self.messages())

    def picture(self, name: str) -> None:
        """Write the whole window."""
        from napari.utils.notifications import notification_manager

        for _ in range(2):
            self.settle(1.0)
        print(name, [str(record.message) for record in notification_manager.records])
        target = self.folder / f"{name}.png"
        self.viewer.screenshot(str(target), canvas_only=False, flash=False)
        print(target)


def napari_windows(nsd_dir: Path, folder: Path) -> None:
    """Work through the panels on the demo's subject and write a picture of each."""
    from napari_neuraldiffuser.core.base.recipe import Source

    window = Window(folder)
    window.session.choose(Source(str(nsd_dir), "subj01"))
    window.wait(lambda: window.session.described is not None)
    window.run("Data")
    window.wait(lambda: "added" in window.panels["Data"].message.text())
    window.picture("data")
    window.run("Decode")
    window.picture("decode")
    window.viewer.layers["ROI nsdgeneral"].visible = False
    window.run("Contribution")
    window.panels["Contribution"].target.setCurrentIndex(2)
    window.panels["Contribution"].table.selectRow(0)
    window.picture("contribution")
    window.run("Reconstruct")
    window.picture("napari")
    window.viewer.close()


def sample_windows(folder: Path) -> None:
    """What the shipped result looks like: linked views, 3-D, and the exported figure."""
    from napari_neuraldiffuser.widgets.files.view import toggle_linked
    from napari_neuraldiffuser.widgets.samples import result_folder
    from napari_neuraldiffuser.widgets.views import docked
    from napari_neuraldiffuser.widgets.views.figure import ExportFigure
    from napari_neuraldiffuser.widgets.views.pictures import PictureStrip

    window = Window(folder)
    window.viewer.window.resize(1240, 900)
    output = Path(tempfile.mkdtemp(prefix="neuraldiffuser-")) / "output"  # nobody's own path in the pictures
    shutil.copytree(result_folder(), output)
    window.viewer.open(output, plugin="napari-neuraldiffuser")
    contribution = window.panels["Contribution"]
    window.dock.show_page("Contribution")
    window.wait(lambda: contribution.maps is not None and contribution.table.rowCount() > 0)
    contribution.restore({"sign": "positive"})
    contribution.table.selectRow(0)
    toggle_linked(window.viewer)
    window.settle()
    window.picture("linked_views")
    toggle_linked(window.viewer)
    docked.set_shown(PictureStrip.of(window.viewer), False)
    contribution.look.sign.setCurrentIndex(contribution.look.sign.findData("both"))
    window.viewer.dims.ndisplay = 3
    window.settle()
    window.viewer.scene.camera.set_view_direction((-0.4, 0.8, 0.5), (1, 0, 0))
    window.viewer.reset_view(reset_camera_angle=False)
    window.viewer.scene.camera.zoom *= 1.4
    window.picture("three_d")
    window.viewer.dims.ndisplay = 2
    contribution.look.sign.setCurrentIndex(contribution.look.sign.findData("positive"))
    dialog, ended = ExportFigure(window.viewer), []
    dialog.dpi.setValue(80)
    dialog.written.connect(ended.append)
    dialog.failed.connect(ended.append)
    dialog.write(folder / "figure.png")
    window.wait(lambda: ended)
    print(*ended)
    shutil.rmtree(output.parent)
    window.viewer.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--napari"]:
        napari_windows(Path(sys.argv[2]), Path(sys.argv[3]))
        sample_windows(Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--sample"]:
        sample_windows(Path(sys.argv[2]))
    else:
        screenshot(demo_page(), ROOT / "docs" / "pictures" / "report.png")
        workflow_picture(ROOT / "docs" / "pictures" / "workflow.png")
        napari_pictures(ROOT / "docs" / "pictures")
