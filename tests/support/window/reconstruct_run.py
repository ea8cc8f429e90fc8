"""What the engine shows during a reconstruction, as tests give it."""

import numpy as np
from qtpy.QtGui import QImage

RED, GREEN, BLUE = (np.array(c, np.uint8) for c in ([200, 0, 0], [0, 200, 0], [0, 0, 200]))


def image(colour, side=64):
    return np.broadcast_to(colour, (side, side, 3)).copy()


def pixels(picture):
    """RGB values of a QPixmap or QImage."""
    made = (picture if isinstance(picture, QImage) else picture.toImage()).convertToFormat(QImage.Format.Format_RGB888)
    flat = np.frombuffer(made.bits().asstring(made.sizeInBytes()), np.uint8).reshape(made.height(), -1)
    return flat[:, : 3 * made.width()].reshape(made.height(), made.width(), 3)


def colour(cell):
    return pixels(cell.pixmap())[5, 5].tolist()


RESULT = {"folder": "/runs/1", "python": "print(1)", "nipype": "import nipype", "complete": True, "scores": []}


DECODED = {"test_ids": [3, 7, 9], "captions": ["a red ball", "a house", "a field"]}


def begin(session, stimuli=(3,), arms=("guided", "unguided")):
    n = len(stimuli)
    given = {"seen": np.stack([image(GREEN)] * n), "start": np.stack([image(BLUE)] * n)}
    about_run = {"stimulus_ids": list(stimuli), "arms": list(arms), "repeats": 2, "n_steps": 18}
    session.engine.show("reconstruct", "begin", {**about_run, **given})


def preview(session, arm, shade, done=2, n=1):
    images = np.broadcast_to(shade, (n, 2, 64, 64, 3)).copy()
    step = {"arm": arm, "done": done, "total": 18, "timestep": 500, "loss": None, "seconds_per_step": 0.1}
    session.engine.show("reconstruct", "step", step)
    session.engine.tell("reconstruct", done, 36, f"{arm}, step {done} of 18")
    session.engine.show("reconstruct", "preview", {"arm": arm, "done": done, "total": 18, "images": images})


def finish_arm(session, arm, shade, n=1, **more):
    images = np.broadcast_to(shade, (n, 2, 64, 64, 3)).copy()
    scores = [{"stim": 3, "rep": r, "arm": arm, "pixcorr": 0.1 * r, "ssim": 0.5} for r in (1, 2)]
    losses = [[[2.0, 1.0]] * 2] * n if arm == "guided" else [[[]] * 2] * n
    about_arm = {"arm": arm, "losses": losses, "scores": scores, "cached": False, **more}
    session.engine.show("reconstruct", "arm", {**about_arm, "images": images})


def whole_run(session, shade=RED):
    begin(session)
    finish_arm(session, "guided", shade)
    finish_arm(session, "unguided", shade)
    session.engine.answer("reconstruct", RESULT)


def first(panel, row="guided"):
    return colour(panel.view.gallery.rows[row].cells[0])


def runs(session):
    return session.engine.names().count("reconstruct")


def layers(panel):
    return next(g.controls["layers"] for g in panel.form.controls.groups if "layers" in g.controls)
