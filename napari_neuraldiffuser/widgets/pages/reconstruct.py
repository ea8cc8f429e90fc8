"""The Reconstruct panel: choose a stimulus and parameters, see the image come about, compare it with the run before."""

import time
import weakref
from functools import partial
from typing import Any

from qtpy.compat import isalive
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QMessageBox, QSpinBox

from napari_neuraldiffuser.core.base.progress import duration
from napari_neuraldiffuser.core.base.recipe import Recipe, decoding_part, differences
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, TuneParams
from napari_neuraldiffuser.widgets.run.beside import BesideBrain
from napari_neuraldiffuser.widgets.run.compare import BEFORE, NONE
from napari_neuraldiffuser.widgets.run.form import LiveRerun, ReconForm
from napari_neuraldiffuser.widgets.run.gallery import SIDE
from napari_neuraldiffuser.widgets.run.record import Run
from napari_neuraldiffuser.widgets.run.strip import StripFold
from napari_neuraldiffuser.widgets.run.view import RunView
from napari_neuraldiffuser.widgets.session import keys
from napari_neuraldiffuser.widgets.session.controls import button, side_by_side
from napari_neuraldiffuser.widgets.session.panel import Panel
from napari_neuraldiffuser.widgets.session.session import default_recipe
from napari_neuraldiffuser.widgets.session.state import FOR_MODELS, preferences

TUNE_TIP = "Chooses κ, η, classifier-free scale and steps for these models, on training stimuli of these data"


def tune_question(params: TuneParams) -> str:
    """What a search takes, before it begins."""
    half, whole = params.most_evaluations()
    images = params.repeats * (half * -(-params.n_stimuli // 2) + whole * params.n_stimuli)
    return (
        f"Tries at most {half} settings on half of {params.n_stimuli} training stimuli, and the best on all: up to "
        f"{images} images, each about as long as one of a run. The test stimuli are not read. The choice is recorded "
        "for these models. Cancel keeps what is done, and Tune goes on from there. Begin?"
    )


class ReconstructPanel(Panel):
    """Reconstructs chosen stimuli and shows the images while they come about."""

    name = "reconstruct"
    title = "Reconstruct"
    preferred = ("preview_every", "preset")
    run_text = "Run"
    form: ReconForm

    def build(self) -> None:
        self.current: Run | None = None
        self.dropping = False
        self.began = 0.0
        self.form, self.live, self.view = ReconForm(self.session), LiveRerun(self), RunView()
        self.strip = StripFold()
        self.beside_brain = BesideBrain(self.viewer, self)
        self.form.arms_row.addWidget(self.live.tick)
        self.body.addWidget(self.form)
        self.body.addLayout(self._build_showing())
        # below the Run button and the messages of the frame
        self.layout().addWidget(self.view)
        self.layout().addWidget(self.strip)
        self.layout().addStretch()
        self._connect()
        self._bind_keys()
        self.view.refresh()
        for stimulus in self.session.recipe.stimulus_ids[:1]:
            self.view.show_stimulus(self.session.recipe.source, stimulus)

    def _build_showing(self) -> QHBoxLayout:
        self.every = QSpinBox(minimum=0, maximum=1000, specialValueText="never", suffix=" steps")
        self.every.setToolTip("Shows the image as it is after every so many steps; each preview takes a moment")
        self.every.setValue(preferences()["preview_every"])
        self.beside = QCheckBox("below the brain", checked=True)
        self.beside.setToolTip("Shows the pictures large, in a dock of their own below the canvas")
        self.tune = button("Tune…", TUNE_TIP, self._ask_tune)
        every = side_by_side(QLabel("Preview every"), self.every, wide=2)
        return side_by_side(every, self.beside, self.tune, wide=0)

    def _connect(self) -> None:
        self.run_tip = "Reconstructs the chosen stimuli; decodes them first where needed"
        self.form.changed.connect(self.changed)
        self.view.said.connect(self._say_in_between)
        self.view.failed.connect(super().fail)  # it is no run that failed
        self.view.shown.connect(self._show_beside)
        self.view.taken.connect(self.take_parameters)
        self.strip.asked.connect(self.start_strip)
        self.strip.taken.connect(self._take_kappa)
        self.session.decoded_changed.connect(self._follow)
        remembered = (self.every.valueChanged, self.beside.toggled, self.live.tick.toggled, self.view.changed)
        for signal in (*remembered, self.form.controls.more.toggled, self.form.preset.box.currentTextChanged):
            signal.connect(self.changed)
        self.beside.toggled.connect(self._toggle_beside)
        self.beside_brain.closed.connect(lambda: self.beside.setChecked(False))
        self.beside_brain.turned.connect(lambda stimulus: self.view.show_run(self.view.run, stimulus))
        self.session.stimulus_changed.connect(self._show_stimulus)
        self.session.recipe_changed.connect(self._recipe_changed)

    def _bind_keys(self) -> None:
        """A key must not keep a panel alive that was closed."""
        alive = weakref.ref(self)

        def move(by: int, viewer: Any) -> None:
            panel = alive()
            if panel is not None and isalive(panel):
                panel.form.picker.move(by)

        keys.bind(self.viewer, {"previous": partial(move, -1), "next": partial(move, 1)})

    def problems(self) -> list[str]:
        """Why Run cannot be pressed yet."""
        return [*self.form.problems(), *self.elsewhere()]

    def wrong(self) -> str:
        """What is wrong with the parameters."""
        return self.form.error

    def showEvent(self, event: QShowEvent) -> None:
        """Ask for the devices when the panel is first seen."""
        super().showEvent(event)
        self.form.device.ask()

    # running

    def start(self) -> None:
        """Decode where that is still to be done, then reconstruct."""
        recipe = self.session.recipe
        if self.session.decoded is None:
            self.run_task("decode", done=lambda decoded: self._decoded(recipe, decoded))
            return
        self.dropping, self.current, self.began = False, Run(recipe, self._decoder()), time.monotonic()
        every = self.every.value()
        args = {"recipe": recipe.to_dict(), "preview_every": every, "preview": every > 0}
        self.run_task("reconstruct", args, done=self._finished, event=self._event)

    def start_strip(self, strengths: list[float]) -> None:
        """Reconstruct the first chosen stimulus at several strengths."""
        args = {"recipe": self.session.recipe.to_dict(), "strengths": strengths}
        self.run_task("strip", args, done=lambda _: self.strip.end(), event=self.strip.take)

    def _ask_tune(self) -> None:
        if QMessageBox.question(self, "Tune", tune_question(TuneParams())) == QMessageBox.StandardButton.Yes:
            self.start_tune(TuneParams())

    def start_tune(self, params: TuneParams) -> None:
        """Choose strength and schedule for the recipe's models on its training stimuli."""
        self.began = time.monotonic()
        args = {"recipe": self.session.recipe.to_dict(), "params": params.to_dict()}
        self.run_task("tune", args, done=self._tuned)

    def _tuned(self, result: dict[str, Any]) -> None:
        """Put what was chosen into the form; repeats, seed and batches stay as they are."""
        own = self.session.recipe.settings.diffusion
        kept = {name: getattr(own, name) for name in ("repeats", "seed", "batch_size")}
        self.form.preset.show_name(FOR_MODELS)
        self.form.take_params(
            DiffusionParams.from_dict({**result["diffusion"], **kept}), GuidanceParams.from_dict(result["guidance"])
        )
        self.say(f"{result['note']} ({result['page']})")

    def _decoder(self) -> str:
        """File of the present decoder; empty where there is none yet."""
        return str((self.session.decoded or {}).get("decoder", ""))

    def _decoded(self, recipe: Recipe, decoded: dict[str, Any]) -> None:
        """Go on with the reconstruction; decode again if the data or decoder changed meanwhile."""
        if decoding_part(recipe) == decoding_part(self.session.recipe):
            self.session.set_decoded(decoded)
        if self.session.recipe.stimulus_ids != recipe.stimulus_ids:
            self.say("The chosen sessions do not show that stimulus: another one is chosen now. Look at it, then Run.")
        elif not self.problems():
            self.start()

    def _told(self, done: int, total: int, what: str) -> None:
        super()._told(done, total, what)
        if ", step " in what and self.task is not None and not self.task.cancelling:
            self.say(f"{what}{self.stage.countdown.left(done, total, what)}")

    def _event(self, name: str, payload: dict[str, Any]) -> None:
        run = self.current
        if run is None or self.dropping:
            return
        run.take(name, payload)
        if name == "begin":
            self.view.add(run)
        else:
            self.view.update_run(run)

    def _finished(self, result: dict[str, Any]) -> None:
        if self._end_run(result):
            self.say(f"finished in {duration(time.monotonic() - self.began)}")
            self.session.run_finished.emit(result)

    def _end_run(self, result: dict[str, Any]) -> bool:
        """Keep the run as it is now, unless it was only in the way of the next; returns whether it is kept."""
        run, self.current = self.current, None
        dropped, self.dropping = self.dropping, False
        if run is not None:
            run.end(result)
            if dropped:
                self.view.drop(run)
            self.view.ended(run)
            self._catch_up(run)
        return not dropped

    def cancelled(self, result: dict[str, Any]) -> None:
        """Keep the images that there are so far."""
        self.strip.end()
        if not self._end_run(result):
            self.say("")

    def fail(self, error: Exception) -> None:
        """Say what went wrong, and keep the images that there are so far."""
        self._end_run({})
        self.strip.end()
        self.live.forget()
        super().fail(error)

    def stop(self) -> None:
        """Cancel: live waits for the next change."""
        self.live.forget()
        if self.dropping:  # it is asked already; twice would end the engine
            self.dropping = False
            return
        super().stop()

    def drop_run(self) -> None:
        """End the reconstruction in progress for a newer one; decoding goes on, as every run needs it."""
        if self.task is not None and self.current is not None and not self.task.cancelling:
            self.dropping = True
            self.task.cancel()

    def is_current(self) -> bool:
        """Whether the present recipe is what is computed, or what was computed last."""
        run = self.current or self.view.run
        if run is None or self.dropping or run.recipe != self.session.recipe:
            return False
        return run is self.current or run.complete

    def _say_in_between(self, text: str) -> None:
        if self.task is None:
            self.say(text)

    # showing

    def _show_stimulus(self, stimulus: int) -> None:
        if self.current is None:
            self.view.show_stimulus(self.session.recipe.source, stimulus)

    def _recipe_changed(self, recipe: Recipe) -> None:
        """Images of other data must not be taken for those of the chosen ones."""
        run = self.view.run
        if self.current is None and run is not None and run.recipe.source != recipe.source:
            self.view.show_run(None, None)
        self._follow()

    def _follow(self, *_: Any) -> None:
        """Mark what is out of date now."""
        self.view.follow(self.session.recipe, self._decoder())
        self.beside_brain.mark(self.view.outdated)
        self.strip.follow(self.session.recipe, self.run_button.isEnabled())

    def revalidate(self, *_: Any) -> None:
        """Say why Run cannot be pressed; the strip can where it can."""
        super().revalidate()
        self.strip.follow(self.session.recipe, self.run_button.isEnabled())
        self.tune.setEnabled(self.session.recipe.source.given and self.task is None and not self.session.busy)

    def take_parameters(self, run: Run) -> None:
        """Put the parameters of a run back into the form; its data and decoder stay a matter of their own pages."""
        present, settings = self.session.recipe, run.recipe.settings
        self.form.take_params(settings.diffusion, settings.guidance)
        self.session.change(arms=run.recipe.arms)
        other = differences(present, run.recipe)
        note = f" It also had other choices of {other}: see the Data and Decode pages." if other else ""
        self.say(f"The form has the parameters of the run of {run.began:%H:%M:%S}.{note}")

    def _take_kappa(self, kappa: float) -> None:
        guidance = self.session.recipe.settings.guidance.but(guidance_scale=kappa)
        self.form.take_params(self.session.recipe.settings.diffusion, guidance)

    def _catch_up(self, run: Run) -> None:
        """Show what was chosen while a run of something else was under way."""
        recipe = self.session.recipe
        if recipe.stimulus_ids and not run.is_of(recipe.source, recipe.stimulus_ids[0]):
            self._show_stimulus(recipe.stimulus_ids[0])
        self._recipe_changed(recipe)

    def _toggle_beside(self, on: bool) -> None:
        if on:
            self._show_beside()
        else:
            self.beside_brain.hide()

    def _show_beside(self) -> None:
        if self.view.run is None:
            self.beside_brain.clear()
        elif self.beside.isChecked():
            self.beside_brain.show(self.view.run, self.view.stimulus)
            self.beside_brain.mark(self.view.outdated)

    # memory

    def state(self) -> dict[str, Any]:
        """What is not in the recipe."""
        own = {"preview_every": self.every.value(), "side": self.view.gallery.size.value()}
        ticks = {name: tick.isChecked() for name, tick in self._ticks().items()}
        return {**own, **ticks, "before": self.view.compare.with_before, **self.form.state()}

    def _ticks(self) -> dict[str, QCheckBox]:
        return {"live": self.live.tick, "beside": self.beside}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave; takes anything."""
        for name, tick in self._ticks().items():
            tick.setChecked(bool(values.get(name, tick.isChecked())))
        for name, spin in (("preview_every", self.every), ("side", self.view.gallery.size)):
            if isinstance(values.get(name), int):
                spin.setValue(max(spin.minimum(), min(values[name], spin.maximum())))
        if isinstance(values.get("before"), bool):
            self.view.compare.choose(BEFORE if values["before"] else NONE)
        self.form.restore(values)

    def reset(self) -> None:
        """Preset, arms and device of the Preferences page, and everything else as at first."""
        wishes, every = default_recipe(), preferences()["preview_every"]
        self.restore({"live": False, "beside": True, "before": False, "preview_every": every, "side": SIDE})
        self.form.restore({"more": False, "preset": preferences()["preset"]})
        self.form.take_params(wishes.settings.diffusion, wishes.settings.guidance)
        self.session.change(arms=wishes.arms, device=wishes.device)
