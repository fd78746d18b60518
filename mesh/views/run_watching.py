"""One run as somebody watches it, beside its events: what runs now, what waits and why. Pure; `mesh run` and
`mesh watch RUN` draw it.

Invariant: each field is replaced as a whole, so that one thread may draw what another one fills.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.views import human

RUNNING_MAX = 200
"""Tests that are asked for, and sorted."""
REASONS_MAX = 20
HELPS_MAX = 5


@dataclass(frozen=True, slots=True)
class Underway:
    """A test that runs; `since` is on the caller's clock, in seconds."""

    test: str
    host: str
    since: float


@dataclass(slots=True)
class RunWatching:
    running: tuple[Underway, ...] = ()
    """The one that has run longest first."""
    running_total: int = 0
    reasons: tuple[tuple[int, str], ...] = ()
    """(how many tests, what they wait for)."""
    helps: tuple[str, ...] = ()
    """What would help those that no worker can take."""
    place: str = ""
    """Among the runs that wait for workers, in words."""
    ends_at: float | None = None
    """When the mesh expects the run to have ended, on the caller's clock."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Of nodes, by peer."""

    @property
    def remarks(self) -> list[str]:
        """What there is to say of what waits."""
        if not self.reasons:
            return []
        return [*filter(None, [self.place]), *(f"would help: {text}" for text in self.helps)]

    def take_tests(self, document: Mapping[str, Any], now: float) -> None:
        """`/api/runs/RUN/tests?outcome=running`."""
        found = [
            Underway(
                human.clean(str(row["test"])),
                human.clean(str(row.get("name") or human.peer(row.get("worker") or ""))),
                now - float(row.get("running_seconds") or 0.0),
            )
            for row in document.get("tests") or ()
        ]
        self.running = tuple(sorted(found, key=lambda one: (one.since, one.test)))
        self.running_total = max(len(found), int((document.get("counts") or {}).get("running") or 0))

    def take_queue(self, document: Mapping[str, Any], run: str, now: float) -> None:
        """`/api/queue`; a run that is not in it waits for nothing."""
        runs: Sequence[Mapping[str, Any]] = document.get("runs") or ()
        told = next((one for one in runs if str(one.get("run")) == run), {})
        self.reasons = tuple(
            (int(one["tests"]), human.clean(str(one["text"]))) for one in list(told.get("reasons") or ())[:REASONS_MAX]
        )
        place, of = told.get("place"), told.get("of")
        self.place = f"number {place} of {of} in the queue" if place and of and of > 1 else ""
        left = told.get("eta_seconds")
        self.ends_at = None if left is None else now + float(left)

    def take_why(self, document: Mapping[str, Any]) -> None:
        """`/api/why/RUN`."""
        helps = [
            human.clean(str(one["text"]))
            for waits in document.get("waiting") or ()
            for one in waits.get("helps") or ()
            if one.get("kind") != "wait"
        ]
        self.helps = tuple(dict.fromkeys(helps))[:HELPS_MAX]

    def take_nodes(self, document: Mapping[str, Any]) -> None:
        """`/api/status`."""
        self.names = {str(node["peer"]): human.clean(str(node.get("name") or "")) for node in document["nodes"]}
