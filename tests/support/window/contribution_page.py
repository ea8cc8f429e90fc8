"""What tests do with the Contribution panel."""

from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel

PATIENCE = 20_000  # ms


def read(panel, folder, qtbot):
    panel.session.show_output(folder)
    finish(panel, qtbot)


def finish(panel, qtbot):
    qtbot.waitUntil(lambda: not panel.arriving, timeout=PATIENCE)


def choose(panel, target):
    panel.target.setCurrentIndex(panel.target.findData(target))


def rows(panel):
    return [panel.table.item(i, 0).text() for i in range(panel.table.rowCount())]


def row_of(panel, roi):
    return rows(panel).index(roi)


def bold(panel):
    return {roi for i, roi in enumerate(rows(panel)) if panel.table.item(i, 0).font().bold()}


def reopen(panel, viewer, session, qtbot):
    """The panel that takes the place of one that is closed."""
    gone = []
    panel.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=PATIENCE)
    again = ContributionPanel(viewer, session)
    viewer.window.add_dock_widget(again)
    finish(again, qtbot)
    return again
