"""Progress of a job of several parts, told as one: what is left is of the whole, and never starts again."""

from collections.abc import Mapping

from napari_neuraldiffuser.core.base.progress import Progress

STAGE = "scoring"


class Work:
    """Parts that follow each other.

    Parameters
    ----------
    report : callable
    costs : mapping of str to float
        Part -> what it costs, in pictures that are scored, in the order in which they are done.
    """

    def __init__(self, report: Progress, costs: Mapping[str, float]) -> None:
        self.report, self.costs = report, dict(costs)

    def told(self, part: str, done: int, of: int) -> None:
        """`done` of `of` steps of a part."""
        names = list(self.costs)
        before = sum(self.costs[name] for name in names[: names.index(part)])
        self.report(
            round(before + self.costs[part] * done / max(of, 1)), round(sum(self.costs.values())), f"{STAGE}, {part}"
        )


def nth(report: Progress, k: int, of: int) -> Progress:
    """Progress of job k, from 0, of several that are alike, as that of all."""
    return lambda done, total, what: report(k * total + done, of * total, what)


def as_stage(report: Progress, stage: str) -> Progress:
    """Progress that is told as a stage of its own: time left is then counted anew."""
    return lambda done, total, what: report(done, total, f"{stage}, {what}")
