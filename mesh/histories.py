"""The port of a voter's history: finished runs, for longer than the log remembers them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from mesh.state.parts import Part
from mesh.state.past import Results, Seen, Whole
from protocols.history import PastRun
from protocols.ids import PeerId


class RunHistory(Protocol):
    """`mesh.disk.history.HistoryFile` is one. `StorageError` if it can't be read, or written any more."""

    @property
    def changes(self) -> int:
        """Grows with each run that is added."""

    def has(self, key: str, whole: bool = False) -> bool:
        """Whether the run is kept; `whole`: with its results."""

    async def add(
        self, run: PastRun, tests: Sequence[str] = (), results: Results | None = None, now: float = 0.0
    ) -> None:
        """Keep a run, in place of what was known of it, and let go of what is over the bounds at `now`."""

    async def projects(self) -> Sequence[tuple[str, int, PastRun]]:
        """(project, how many runs, the newest of them), the one with the newest run first."""

    async def runs(self, project: str, limit: int) -> Sequence[PastRun]:
        """Of a project, the newest first."""

    async def wholes(
        self, project: str, limit: int, tests_max: int
    ) -> tuple[Sequence[Whole], Mapping[bytes, Sequence[str]]]:
        """Runs of a project with their results, the newest first, as many as have at most `tests_max` tests together
        (the newest in any case); and the tests of each digest."""

    async def parts(self, host: PeerId, limit: int, tests_max: int) -> Sequence[Part]:
        """What a host did of the newest runs of all projects that it had a part in; at most `limit` of them, and with
        at most `tests_max` tests together (the newest in any case)."""

    async def test(self, project: str, test: str, limit: int) -> Sequence[Seen]:
        """A test in past runs of a project that have a verdict of it, the newest first."""
