"""The tour: shown once, skipped, opened again, and complete."""

import re

import pytest
from qtpy.QtWidgets import QPushButton

from napari_neuraldiffuser.widgets.pages.dock import PANELS, NeuralDiffuser
from napari_neuraldiffuser.widgets.pages.tour import STEPS, TourWindow, seen
from tests.support.window.viewers import dock


@pytest.fixture
def made(viewer, session, qtbot):
    widget = NeuralDiffuser(viewer)
    dock(viewer, widget, qtbot)
    return widget


def again(viewer, qtbot):
    widget = NeuralDiffuser(viewer)
    qtbot.addWidget(widget)
    return widget


def page(made):
    return made.tabs.tabText(made.tabs.currentIndex())


def test_the_first_start_shows_it_and_its_pages(made):
    assert made.tour.isVisibleTo(made)
    shown = [page(made)]
    for _ in STEPS[1:]:
        made.tour.on.click()
        shown.append(page(made))
    assert shown == [step.page for step in STEPS]
    assert made.tour.count.text() == "5 of 5"
    made.tour.back.click()
    assert made.tour.count.text() == "4 of 5"


@pytest.mark.parametrize("way", ["skip", "to the end"])
def test_it_is_shown_once_for_each_user(made, viewer, qtbot, way):
    assert not seen()
    if way == "skip":
        made.tour.skip.click()
    else:
        for _ in STEPS:
            made.tour.on.click()
    assert not made.tour.isVisibleTo(made)
    assert seen()
    assert not again(viewer, qtbot).tour.isVisibleTo(made)


def test_closing_without_an_answer_shows_it_again(made, viewer, qtbot):
    other = again(viewer, qtbot)
    assert other.tour.isVisibleTo(other)


def test_the_question_mark_opens_it_again_at_its_first_step(made):
    made.tour.on.click()
    made.tour.skip.click()
    made.tabs.cornerWidget().findChild(QPushButton).click()
    assert made.tour.isVisibleTo(made)
    assert made.tour.count.text() == "1 of 5"
    assert page(made) == "Data"


def test_the_menu_opens_it_alone(viewer, qtbot):
    widget = TourWindow(viewer)
    qtbot.addWidget(widget)
    for _ in STEPS:
        widget.tour.on.click()
    assert seen()


def test_every_symbol_is_explained_once():
    told = [re.findall(r"<b>([zcgκη])</b>", step.text) for step in STEPS]
    assert sorted(symbol for step in told for symbol in step) == sorted("zcgκη")
    assert {step.page for step in STEPS} <= set(PANELS)
    assert len(STEPS) == 5
