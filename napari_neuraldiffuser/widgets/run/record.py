"""Runs of this session: what the engine showed of each, and what changed from one to the next."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.recipe import Recipe, Source, decoding_part

SYMBOLS = {
    "guidance_scale": "κ",
    "guidance_strength": "η",
    "cfg_scale": "s",
    "n_steps": "steps",
    "layer_weights": "weights",
    "x0_estimate": "x0",
    "roi": "ROI",
}
KEPT = 20
KEPT_BYTES = 512 * 2**20
"""Of all images of the kept runs; the newest run stays whatever it takes."""


@dataclass(eq=False)
class Run:
    """One run, as far as it was shown; equal to itself alone."""

    recipe: Recipe
    decoder: str = ""
    """File of the decoder; empty where it is not known."""
    began: datetime = field(default_factory=datetime.now)
    stimulus_ids: tuple[int, ...] = ()
    seen: np.ndarray | None = None
    start: np.ndarray | None = None
    """Both (n, H, W, 3) uint8; None until the engine has begun."""
    images: dict[str, np.ndarray] = field(default_factory=dict)
    """Arm to (n, repeats, H, W, 3) uint8: finished, or the newest preview."""
    steps: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Arm to how many steps are done, and of how many."""
    losses: dict[int, list[list[float]]] = field(default_factory=dict)
    """Stimulus to feature loss of the guided arm: per guided step, one value per repeat."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """Each with "stim", "rep", "arm" and metrics."""
    chance: dict[str, dict[str, float]] = field(default_factory=dict)
    """Arm to metric to its level, over all stimuli of the run; there is none with one stimulus."""
    ceiling: list[dict[str, Any]] = field(default_factory=list)
    """As `scores`, of the seen images after their way through the autoencoder alone."""
    controls: list[dict[str, Any]] = field(default_factory=list)
    """As `scores`, of the decoded start and the mean training image: what takes no diffusion."""
    finished: set[str] = field(default_factory=set)
    """Arms that are complete."""
    result: dict[str, Any] = field(default_factory=dict)
    """What `reconstruct` returned; empty until then, and after an error."""
    ended: bool = False

    def __post_init__(self) -> None:
        self.stimulus_ids = self.stimulus_ids or self.recipe.stimulus_ids

    def take(self, name: str, payload: dict[str, Any]) -> None:
        """Take up an event of `reconstruct`."""
        taker = getattr(self, f"_take_{name}", None)
        if taker is not None:
            taker(payload)

    def _take_begin(self, payload: dict[str, Any]) -> None:
        self.stimulus_ids = tuple(payload["stimulus_ids"])
        self.seen, self.start = payload["seen"], payload["start"]
        self.steps = {arm: (0, payload["n_steps"]) for arm in payload["arms"]}

    def _take_step(self, payload: dict[str, Any]) -> None:
        self.steps[payload["arm"]] = (payload["done"], payload["total"])
        if payload.get("loss") is None or payload["arm"] != "guided":
            return
        stimuli = payload.get("stimulus_ids") or self.stimulus_ids
        repeats = len(payload["loss"]) // len(stimuli)
        for k, stimulus in enumerate(stimuli):
            values = [float(v) for v in payload["loss"][k * repeats : (k + 1) * repeats]]
            self.losses.setdefault(int(stimulus), []).append(values)

    def _take_ceiling(self, payload: dict[str, Any]) -> None:
        self.ceiling = payload["rows"]

    def _take_controls(self, payload: dict[str, Any]) -> None:
        self.controls = payload["rows"]

    def _take_preview(self, payload: dict[str, Any]) -> None:
        self.images[payload["arm"]] = payload["images"]

    def _take_arm(self, payload: dict[str, Any]) -> None:
        arm = payload["arm"]
        self.images[arm] = payload["images"]
        self.scores += payload["scores"]
        self.chance[arm] = payload.get("chance", {})
        if payload.get("complete", True):
            self.finished.add(arm)
        if arm == "guided":
            per_stimulus = zip(self.stimulus_ids, payload["losses"], strict=False)
            self.losses = {s: np.asarray(rows, dtype=float).T.tolist() for s, rows in per_stimulus}

    def end(self, result: dict[str, Any] | None = None) -> None:
        """The engine is done with it, for whatever reason."""
        self.ended, self.result = True, result or {}

    @property
    def complete(self) -> bool:
        """Whether every arm is complete."""
        return self.finished >= set(self.recipe.arms)

    @property
    def nbytes(self) -> int:
        """How many bytes its images take."""
        given = [image for image in (self.seen, self.start) if image is not None]
        return sum(image.nbytes for image in [*given, *self.images.values()])

    def is_of(self, source: Source, stimulus: int) -> bool:
        """Whether it reconstructs this stimulus of these data."""
        return self.recipe.source == source and stimulus in self.stimulus_ids

    def tag(self, arm: str) -> str:
        """How far an arm is, where it is not finished."""
        if arm in self.finished or arm not in self.steps:
            return ""
        done, total = self.steps[arm]
        step = f"step {done} of {total}"
        return f"partial: {step}" if self.ended else step

    def rows_of(self, arm: str, stimulus: int) -> list[dict[str, Any]]:
        """Scores of the repeats of a stimulus, in their order."""
        rows = [row for row in self.scores if row["arm"] == arm and row["stim"] == stimulus]
        return sorted(rows, key=lambda row: row["rep"])

    def ruined(self, stimulus: int) -> str:
        """Why guidance ruined the images of a stimulus, or nothing."""
        return str(self.result.get("ruined", {}).get(str(stimulus), ""))

    @property
    def warnings(self) -> str:
        """Why guidance harms the run as a whole, or nothing."""
        return " ".join(self.result.get("warnings", ()))

    def curve(self, stimulus: int) -> list[float]:
        """Feature loss per guided step, mean over repeats; steps without a finite value are left out."""
        steps = [[v for v in values if v is not None and np.isfinite(v)] for values in self.losses.get(stimulus, [])]
        return [float(np.mean(values)) for values in steps if values]


def changes(before: Recipe, after: Recipe) -> str:
    """What differs between two recipes, such as "κ 5 → 10, steps 24 → 50"."""
    changed = []
    stages = after.settings.to_dict()
    for stage, values in before.settings.to_dict().items():
        for name, value in values.items():
            if stages[stage][name] != value:
                symbol = SYMBOLS.get(name, name.replace("_", " "))
                changed.append(f"{symbol} {brief(value)} → {brief(stages[stage][name])}")
    for name in ("models", "guide", "device", "arms"):
        former, present = getattr(before, name), getattr(after, name)
        if former != present:
            changed.append(f"{name} {brief(former)} → {brief(present)}")
    if before.source != after.source:
        changed.append("other data")
    return ", ".join(changed)


def outdated(run: Run, recipe: Recipe, decoder: str) -> dict[str, str]:
    """What the controls say now that decides the pictures of a run otherwise.

    Parameters
    ----------
    run : Run
    recipe : Recipe
        What the controls say.
    decoder : str
        File of the present decoder; empty where there is none yet.

    Returns
    -------
    dict
        "given" (seen and start) and each arm to what changed since, in words; empty where nothing did.
    """
    was, now = run.recipe.settings, recipe.settings
    size = now.diffusion.but(batch_size=was.diffusion.batch_size)  # decides no picture
    settings = replace(now, diffusion=size, evaluation=was.evaluation, contribution=was.contribution)
    arms = recipe.but(settings=settings, arms=run.recipe.arms)
    same_pull = arms.with_stage("guidance", was.guidance)
    rows = {"guided": arms, "unguided": same_pull, "given": same_pull.with_stage("diffusion", was.diffusion)}
    another = bool(run.decoder and decoder and decoder != run.decoder)
    another = another and decoding_part(run.recipe) == decoding_part(recipe)
    found = {name: changes(run.recipe, row) for name, row in rows.items()}
    return {name: ", ".join(filter(None, [what, "the decoder" if another else ""])) for name, what in found.items()}


def brief(value: object) -> str:
    """Write a value in few letters."""
    if isinstance(value, (list, tuple)):
        return " ".join(brief(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


class History:
    """The last runs, newest last."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def add(self, run: Run) -> None:
        """Keep a run that has begun; the oldest make room."""
        self.runs.append(run)
        while len(self.runs) > KEPT or (len(self.runs) > 1 and sum(r.nbytes for r in self.runs) > KEPT_BYTES):
            del self.runs[0]

    def drop(self, run: Run) -> None:
        """Forget a run."""
        self.runs = [kept for kept in self.runs if kept is not run]

    def before(self, run: Run, stimulus: int) -> Run | None:
        """The newest earlier run of a stimulus of the same data."""
        k = next((k for k, kept in enumerate(self.runs) if kept is run), len(self.runs))
        return self._newest(self.runs[:k], run.recipe.source, stimulus)

    def latest(self, source: Source, stimulus: int) -> Run | None:
        """The newest run of a stimulus of these data."""
        return self._newest(self.runs, source, stimulus)

    @staticmethod
    def _newest(runs: list[Run], source: Source, stimulus: int) -> Run | None:
        """All of NSD's subjects have the same test stimuli, and own stimuli are only counted."""
        return next((run for run in reversed(runs) if run.is_of(source, stimulus)), None)

    def title(self, run: Run) -> str:
        """Time, stimuli, and what changed since the run before of the same stimulus."""
        first = run.stimulus_ids[0]
        more = f" +{len(run.stimulus_ids) - 1}" if len(run.stimulus_ids) > 1 else ""
        former = self.before(run, first)
        what = "first run" if former is None else changes(former.recipe, run.recipe) or "same parameters"
        state = "" if run.complete else " (partial)" if run.ended else " (running)"
        who = "" if len({kept.recipe.source for kept in self.runs}) < 2 else f"{run.recipe.source.subject} "
        return f"{run.began:%H:%M:%S}  {who}stimulus {first}{more}: {what}{state}"
