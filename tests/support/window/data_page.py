"""Answers and gestures for tests of the Data panel."""

from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_neuraldiffuser.widgets.source.form import DESIGN
from napari_neuraldiffuser.widgets.source.roi_tree import USE

FAMILIES = {
    "floc-faces": {"OFA": 5, "FFA-1": 4, "FFA-2": 3},
    "nsdgeneral": {"nsdgeneral": 20},
    "prf-visualrois": {"V1v": 4, "V1d": 4, "hV4": 2},
}


AFFINE = [[-2.0, 0, 0, 7], [0, 2, 0, -9], [0, 0, 2, -4], [0, 0, 0, 1]]


DESCRIBED = {
    "subjects": ["subj01", "subj02"],
    "sessions": [1, 2, 4],
    "trials": 2250,
    "families": FAMILIES,
    "test_ids": [3, 7],
    "n_train": 1100,
    "space": "func1pt8mm",
    "shape": [7, 9, 5],
    "affine": AFFINE,
    "voxel_sizes_mm": [2.0, 2.0, 2.0],
    "notes": ["sessions without betas on disk: 3"],
}


CHECKED, UNCHECKED, PARTLY = Qt.CheckState.Checked, Qt.CheckState.Unchecked, Qt.CheckState.PartiallyChecked


def nsd_folder(place, *subjects):
    """What makes a folder an NSD folder for the form."""
    (place / DESIGN).parent.mkdir(parents=True)
    (place / DESIGN).touch()
    for subject in subjects:
        (place / "nsddata/ppdata" / subject / "func1pt8mm").mkdir(parents=True)
    return place


def betas(panel):
    return panel.session.recipe.settings.betas


def leaf(panel, family, region):
    return panel.roi.tree._leaves[family, region]


def tick(panel, qtbot, item, column=USE, state=CHECKED):
    with qtbot.waitSignal(panel.roi.tree.changed):
        item.setCheckState(column, state)


def drop(panel, path):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    panel.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, buttons, keys))
