"""The stimulus picker: pages of thumbnails, filter, keys, several stimuli."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.run.picker import MOST, PAGE, StimulusPicker
from tests.support.window.viewers import settle

IDS = list(range(1000, 1200))
CAPTIONS = [f"a {'cat' if k % 2 else 'dog'} number {k}" for k in range(len(IDS))]


@pytest.fixture
def picker(session, qtbot):
    made = StimulusPicker(session)
    qtbot.addWidget(made)
    made.resize(400, 300)
    made.show()
    session.choose(Source(nsd_dir="/nsd"))
    return made


def answer(session):
    args, _ = session.engine.last("thumbnails")
    n = len(args["ids"])
    images = np.full((n, 8, 8, 3), 90, np.uint8)
    session.engine.answer("thumbnails", {"images": images, "captions": [CAPTIONS[i - 1000] for i in args["ids"]]})
    return args


def shown(picker):
    """The visible numbers."""
    return [int(picker.proxy.index(row, 0).data()) for row in range(picker.proxy.rowCount())]


def waiting(session):
    return session.engine.names().count("thumbnails")


def test_an_empty_grid_says_why(picker):
    assert "Data page" in picker.view.empty
    words = picker.view.viewport().grab().toImage()
    picker.view.empty = ""
    assert picker.view.viewport().grab().toImage() != words


def test_first_page_then_more_on_scroll(picker, session, qtbot):
    session.set_described({"test_ids": IDS})
    qtbot.waitUntil(lambda: waiting(session) == 1)
    args = answer(session)
    assert args["ids"] == IDS[:PAGE]
    assert args["source"]["nsd_dir"] == "/nsd"
    assert session.task is None  # a quiet call
    assert set(picker.model.icons) == set(IDS[:PAGE])
    settle(picker._rest)
    assert waiting(session) == 1

    bar = picker.view.verticalScrollBar()
    bar.setValue(bar.maximum())
    qtbot.waitUntil(lambda: waiting(session) == 2)
    assert IDS[-1] in answer(session)["ids"]
    assert not set(args["ids"]) & set(session.engine.last("thumbnails")[0]["ids"])


def test_first_stimulus_is_chosen_and_a_remembered_one_is_kept(picker, session):
    session.set_described({"test_ids": IDS})
    assert session.recipe.stimulus_ids == (1000,)
    assert picker.selected() == [1000]
    session.change(stimulus_ids=(1005,))
    session.set_decoded({"test_ids": IDS, "captions": CAPTIONS})
    assert session.recipe.stimulus_ids == (1005,)
    assert picker.caption.text() == "stimulus 1005: a cat number 5"
    session.set_decoded({"test_ids": IDS[:3], "captions": CAPTIONS[:3]})
    assert session.recipe.stimulus_ids == (1000,)


def test_selection_and_session_follow_each_other(picker, session, qtbot):
    session.set_described({"test_ids": IDS})
    picker.move(1)
    assert session.recipe.stimulus_ids == (1001,)
    picker.move(-1)
    picker.move(-1)
    assert session.recipe.stimulus_ids == (1199,)
    session.change(stimulus_ids=(1010,))
    assert picker.selected() == [1010]
    picker.view.setFocus()
    qtbot.keyClick(picker.view, Qt.Key.Key_Right)
    assert session.recipe.stimulus_ids == (1011,)


def test_several_stimuli_and_no_more_than_the_most(picker, session):
    session.set_described({"test_ids": IDS})
    model = picker.view.selectionModel()
    model.select(picker.proxy.index(2, 0), model.SelectionFlag.Select)
    assert session.recipe.stimulus_ids == (1000, 1002)
    assert "and 1 more" in picker.caption.text()
    assert not picker.trouble.isVisible()
    picker.view.selectAll()
    assert session.recipe.stimulus_ids == tuple(IDS[:MOST])
    assert picker.selected() == IDS[:MOST]
    assert f"must be at most {MOST}, got {len(IDS)}" in picker.trouble.text()


def test_filter_by_number_and_by_caption_without_a_change_of_choice(picker, session, qtbot):
    session.set_decoded({"test_ids": IDS, "captions": CAPTIONS})
    session.change(stimulus_ids=(1001,))
    picker.filter.setText("CAT")
    assert shown(picker) == IDS[1::2]
    picker.filter.setText("dog")
    assert shown(picker) == IDS[::2]
    assert session.recipe.stimulus_ids == (1001,)
    picker.move(1)
    assert session.recipe.stimulus_ids == (1000,)
    picker.filter.setText("1150")
    assert shown(picker) == [1150]
    picker.filter.setText("(")
    assert shown(picker) == []
    assert "No caption" in picker.view.empty
    picker.view.grab()
    picker.filter.clear()
    assert picker.selected() == [1000]


def test_a_filter_reads_on_until_every_caption_is_known(picker, session, qtbot):
    session.set_described({"test_ids": IDS})
    picker.filter.setText("number 199")
    for page in range(4):
        qtbot.waitUntil(lambda page=page: waiting(session) == page + 1)
        answer(session)
    assert shown(picker) == [1199]
    assert session.recipe.stimulus_ids == (1000,)


def test_thumbnails_that_cannot_be_read_are_said_once(picker, session, qtbot):
    session.set_described({"test_ids": IDS})
    qtbot.waitUntil(lambda: waiting(session) == 1)
    session.engine.answer("thumbnails", UserError("stimuli must be there, got none. Download them."))
    assert "stimuli must be there" in picker.trouble.text()
    settle(picker._rest)
    assert waiting(session) == 1


def test_other_data_has_other_thumbnails(picker, session, qtbot):
    session.set_described({"test_ids": IDS[:5]})
    qtbot.waitUntil(lambda: waiting(session) == 1)
    session.choose(Source(nsd_dir="/other"))
    assert picker.model.ids == []
    answer(session)  # of the former data: not shown
    assert not picker.model.icons
    session.set_described({"test_ids": IDS[:5]})
    qtbot.waitUntil(lambda: waiting(session) == 2)
    assert session.engine.last("thumbnails")[0]["source"]["nsd_dir"] == "/other"


def test_stimuli_stay_while_the_decoder_is_fitted_again(picker, session):
    session.set_decoded({"test_ids": IDS, "captions": CAPTIONS})
    session.change_stage("betas", session.recipe.settings.betas.but(roi="V1"))
    assert session.decoded is None
    assert picker.model.ids == IDS
