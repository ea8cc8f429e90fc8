"""Where the plugin keeps what it can make again."""

from pathlib import Path

from qtpy.QtCore import QStandardPaths

from napari_neuraldiffuser.widgets.session.state import PLUGIN, preferences


def cache_folder() -> Path:
    """Folder of the simulated subject, targets, decoders and runs.

    The one of the Preferences page; where that is empty, `napari-neuraldiffuser` below the user's cache folder.
    """
    chosen = preferences()["cache_folder"].strip()
    if chosen:
        return Path(chosen).expanduser()
    place = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericCacheLocation)
    return Path(place) / PLUGIN
