"""What the panels of one viewer share: the engine, the recipe, and what was opened, decoded and reconstructed."""

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_neuraldiffuser.core.base.recipe import Recipe, Source, decoding_part
from napari_neuraldiffuser.core.params import ParamError, Params, Settings
from napari_neuraldiffuser.widgets.session import state
from napari_neuraldiffuser.widgets.session.engine import Engine, EngineClient, Task

if TYPE_CHECKING:
    import napari

_SESSIONS: dict[int, "Session"] = {}
SAVE_AFTER = 1000
"""Milliseconds of quiet after which a changed recipe is stored."""


class WindowWatch(QObject):
    """Says when a window has really closed: a close can be refused, by a question for instance."""

    closed = Signal()

    def __init__(self, window: QWidget) -> None:
        super().__init__()
        self.window = window
        window.installEventFilter(self)
        window.destroyed.connect(self.closed)

    def eventFilter(self, window: QObject, event: QEvent) -> bool:
        """Look after a close whether it was refused."""
        if event.type() == QEvent.Type.Close:
            QTimer.singleShot(0, self.look)
        return False

    def look(self) -> None:
        """Say it where the window is closed."""
        try:
            hidden = not self.window.isVisible()
        except RuntimeError:  # Qt's half of the window is gone already
            hidden = True
        if hidden:
            self.closed.emit()


class Session(QObject):
    """State that the panels of one viewer share; `Session.of(viewer)` makes or finds it.

    Attributes
    ----------
    recipe : Recipe
        What the next run computes; change it with `change`, `change_stage` or `choose`.
    engine : EngineClient
    described : dict or None
        What `describe` said of the source; None until it is known.
    decoded : dict or None
        What `decode` said; None again as soon as the recipe's data, ROI or decoder change.
    output : str
        Output folder whose contribution maps are shown; empty where there is none.
    """

    recipe_changed = Signal(object)
    """Recipe: anything in it is new."""
    described_changed = Signal(object)
    """dict or None."""
    decoded_changed = Signal(object)
    """dict or None."""
    stimulus_changed = Signal(int)
    """0-based 73k id, or index of own stimuli."""
    run_finished = Signal(object)
    """dict: the result of `reconstruct`."""
    output_changed = Signal(str)
    """Folder with contribution maps to show."""
    preferences_changed = Signal(object)
    """dict: preferences that the user changed, by name."""
    wrong_changed = Signal()
    """A page shows something else, or nothing any more, that cannot be used."""
    busy_changed = Signal(bool)
    """Whether a call is under way that a user waits for."""

    def __init__(self, viewer: "napari.Viewer", engine: EngineClient | None = None) -> None:
        super().__init__()
        self.viewer = viewer
        self.engine: EngineClient = engine or Engine(state.cache_folder())
        self.recipe = first_recipe()
        self.described: dict[str, Any] | None = None
        self.decoded: dict[str, Any] | None = None
        self.output = ""
        self.task: Task | None = None
        self._wrong: dict[int, tuple[str, str]] = {}
        self._window: WindowWatch | None = None
        self._timer = QTimer(self, singleShot=True, interval=SAVE_AFTER, timeout=self.save)
        self.preferred: dict[str, Any] = {}
        self._typing = QTimer(self, singleShot=True, interval=SAVE_AFTER, timeout=self.take_preferences)
        page = state.preferences_page()
        if page is not None:
            page.events.connect(self._preference_typed)
        self.take_preferences()
        viewer.layers.events.inserted.connect(self._layer_inserted)

    @classmethod
    def of(cls, viewer: "napari.Viewer") -> "Session":
        """The session of a viewer."""
        key = hash(viewer)
        if key not in _SESSIONS:
            _SESSIONS[key] = cls(viewer)
            for layer in viewer.layers:
                _SESSIONS[key].adopt(layer)
        return _SESSIONS[key]

    def follow(self, window: QWidget) -> None:
        """End the engine when this window closes."""
        if self._window is None:
            self._window = WindowWatch(window)
            self._window.closed.connect(self.close)

    def close(self) -> None:
        """Store the recipe and end the engine at once; whatever is complete on disk stays."""
        if _SESSIONS.pop(hash(self.viewer), None) is not None:
            self.save()
        self._timer.stop()
        self.engine.close()
        self.task = None

    def save(self) -> None:
        """Remember the recipe for the next session."""
        state.remember("recipe", self.recipe.to_dict())

    # preferences

    def _preference_typed(self, event: Any) -> None:
        if isalive(self):  # napari's page outlives windows
            self._typing.start()

    def take_preferences(self) -> None:
        """Have preferences that changed since they were last taken up replace what is remembered.

        `preferred` keeps those that no panel has taken from there.
        """
        changed = state.changed_preferences()
        if not changed:
            return
        self.preferred |= changed
        self._take(preferred_recipe(self.recipe, changed))
        self.save()
        state.take_preferences()
        self.preferences_changed.emit(changed)

    # what the next run computes

    def choose(self, source: Source) -> None:
        """Take other data; the ROI and sessions chosen for the former stay where they can be."""
        if source != self.recipe.source:
            if self.described is not None:
                self.set_described(None)
            self.change(source=source, stimulus_ids=())

    def change(self, **changes: Any) -> None:
        """Change fields of the recipe."""
        self._take(self.recipe.but(**changes))

    def change_stage(self, stage: str, params: Params) -> None:
        """Change the params of one stage, such as "guidance"."""
        self._take(self.recipe.with_stage(stage, params))

    def _take(self, recipe: Recipe) -> None:
        former, self.recipe = self.recipe, recipe
        if recipe == former:
            return
        if decoding_part(recipe) != decoding_part(former):
            self.set_decoded(None)
        self._timer.start()
        self.recipe_changed.emit(recipe)
        if recipe.stimulus_ids != former.stimulus_ids and recipe.stimulus_ids:
            self.stimulus_changed.emit(recipe.stimulus_ids[0])

    def set_described(self, described: dict[str, Any] | None) -> None:
        """What the source holds, or None while that is not known."""
        self.described = described
        self.described_changed.emit(described)

    def set_decoded(self, decoded: dict[str, Any] | None) -> None:
        """What was decoded, or None where it no longer fits the recipe."""
        if decoded is None and self.decoded is None:
            return
        self.decoded = decoded
        self.decoded_changed.emit(decoded)

    def show_output(self, folder: str | Path) -> None:
        """Have the contribution maps of a folder shown."""
        self.output = str(folder)
        self.output_changed.emit(self.output)

    def forget_output(self) -> None:
        """The maps are shown no longer: the same folder, opened again, shows them anew."""
        self.output = ""

    # what is shown but cannot be used

    def tell_wrong(self, page: int, title: str, text: str) -> None:
        """Take what a page shows that the recipe cannot hold: no page runs with what was there before it.

        Parameters
        ----------
        page : int
            The `id` of the panel.
        title : str
            Of the page.
        text : str
            A sentence, or nothing where all is well or the page is closed.
        """
        former = self._wrong.pop(page, None)
        if text:
            self._wrong[page] = title, text
        if former != self._wrong.get(page) and isalive(self):  # which a closing window's panels may outlive
            self.wrong_changed.emit()

    def wrong_elsewhere(self, page: int) -> list[str]:
        """What the other pages show that cannot be used, each with the page where it is mended."""
        others = dict.fromkeys(wrong for key, wrong in self._wrong.items() if key != page)
        return [f"{text} (on the {title} page)" for title, text in others]

    # calls

    def call(self, name: str, args: dict[str, Any] | None = None, quiet: bool = False) -> Task:
        """Start a call of the engine; a quiet one leaves the Run buttons of other panels alone."""
        task = self.engine.call(name, args or {"recipe": self.recipe.to_dict()})
        if not quiet:
            self.task = task
            task.ended.connect(self._ended)
            self.busy_changed.emit(True)
        return task

    @property
    def busy(self) -> bool:
        """Whether a call is under way that a user waits for."""
        return self.task is not None

    def _ended(self, result: Any) -> None:
        self.task = None
        self.busy_changed.emit(False)

    # layers that name their source

    def _layer_inserted(self, event: Any) -> None:
        self.adopt(event.value)

    def adopt(self, layer: "napari.layers.Layer") -> None:
        """Take the subject or the output folder that a layer of our readers names."""
        about = layer.metadata.get(state.KEY) if isinstance(layer.metadata, dict) else None
        if not about:
            return
        if about.get("source") and about.get("kind") == "anatomy":
            self.choose(Source.from_dict(about["source"]))
        if about.get("output") and about["output"] != self.output:
            self.show_output(about["output"])


def first_recipe() -> Recipe:
    """The recipe of the last session; where there is none, the Preferences' models, device and preset."""
    stored = state.remembered("recipe")
    try:
        if stored:
            return Recipe.from_dict(stored)
    except (ParamError, TypeError, ValueError, AttributeError, KeyError):
        pass  # of another version: begin anew
    return default_recipe()


def preferred_recipe(recipe: Recipe, changed: Container[str]) -> Recipe:
    """A recipe with what the Preferences say, as far as it `changed`."""
    wishes = default_recipe()
    fields = {name: getattr(wishes, name) for name in ("models", "guide", "device") if name in changed}
    if "preset" in changed:
        recipe = recipe.with_stage("diffusion", wishes.settings.diffusion)
        recipe = recipe.with_stage("guidance", wishes.settings.guidance)
    elif "n_steps" in changed:
        n_steps = wishes.settings.diffusion.n_steps
        recipe = recipe.with_stage("diffusion", recipe.settings.diffusion.but(n_steps=n_steps))
    return recipe.but(**fields)


def default_recipe() -> Recipe:
    """The Preferences' models, device and preset on no data yet."""
    wishes = state.preferences()
    diffusion, guidance = state.params_of_preset(state.preferred_preset(), wishes["models"], wishes["guide"])
    if wishes["n_steps"] > 0:
        diffusion = diffusion.but(n_steps=wishes["n_steps"])
    settings = replace(Settings(), diffusion=diffusion, guidance=guidance)
    return Recipe(settings=settings, models=wishes["models"], guide=wishes["guide"], device=wishes["device"])
