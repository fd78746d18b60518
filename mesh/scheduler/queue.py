"""The order in which runs are served."""

from collections.abc import Iterable, Iterator

from mesh.state.model import Run


class TaskQueue:
    """Unfinished runs, the one to be served first in front: by priority, then by age (the log's order)."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = sorted(runs, key=lambda run: (-run.spec.priority, run.id))

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)
