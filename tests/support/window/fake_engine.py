"""An engine without a process: tests answer its calls themselves, in the window's thread."""

from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.session.engine import Task


class FakeEngine(QObject):
    """Records every call as (name, args, task); `answer` ends one, `tell` and `show` say something in between."""

    died = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, Any], Task]] = []
        self.sent: list[dict[str, Any]] = []
        self.tasks: dict[int, Task] = {}
        self.stopped = 0

    def call(self, name: str, args: dict[str, Any]) -> Task:
        task = Task(len(self.calls) + 1, self)
        self.tasks[task.number] = task
        self.calls.append((name, args, task))
        return task

    def start(self) -> None:
        pass

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def stop(self) -> None:
        self.stopped += 1
        self.died.emit()
        for task in [task for task in self.tasks.values() if task.cancelling]:
            del self.tasks[task.number]
            task.end(Cancelled())

    def close(self) -> None:
        self.tasks.clear()
        self.stop()

    # what a test does

    def names(self) -> list[str]:
        """Calls so far, in order."""
        return [name for name, _, _ in self.calls]

    def last(self, name: str) -> tuple[dict[str, Any], Task]:
        """Arguments and task of the newest call of that name."""
        return next((args, task) for known, args, task in reversed(self.calls) if known == name)

    def answer(self, name: str, result: Any) -> None:
        """End the newest call of that name with a dict or an exception."""
        _, task = self.last(name)
        self.tasks.pop(task.number, None)
        task.end(result)

    def tell(self, name: str, done: int, total: int, what: str) -> None:
        """Progress of the newest call of that name."""
        self.last(name)[1].told.emit(done, total, what)

    def show(self, name: str, event: str, payload: dict[str, Any]) -> None:
        """An event of the newest call of that name."""
        self.last(name)[1].event.emit(event, payload)
