"""The mesh as somebody watches it: what the status said, moved on by the feed's events. Pure; `mesh watch` draws it.

It holds what one screen can show: finished runs and failures that scrolled by are forgotten.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mesh.views import human

RUNS_MAX = 500
FAILURES_MAX = 50
PACES_MAX = 64
PACE_SECONDS = 60.0
"""The stretch by which the time left is judged, where the mesh does not tell it."""

OPEN = ("queued", "collecting", "running", "reporting")


@dataclass(slots=True)
class Failure:
    """A test that went wrong."""

    run: str
    index: int
    outcome: str
    worker: str
    test: str = ""
    """Its ID, once somebody looked it up."""


@dataclass(slots=True)
class Watching:
    """Documents as the API has them; runs by ID, oldest first."""

    mesh: dict[str, Any] = field(default_factory=dict)
    """The feed's `mesh`: coordinator, term, voters, agreed, as_of, nodes."""
    name: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=FAILURES_MAX))
    """Newest last."""
    reasons: list[dict[str, Any]] = field(default_factory=list)
    """Why tests wait: "text" and "tests"."""
    lost_at: float | None = None
    """Since when the node does not answer, on the caller's clock."""
    _paces: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    # What is so

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The coordinator first, then by name; the dead last."""
        leader = self.mesh.get("coordinator")
        return sorted(
            self.mesh.get("nodes") or (),
            key=lambda node: (
                node.get("state") == "dead",
                node.get("peer") != leader,
                str(node.get("name") or ""),
                str(node.get("peer")),
            ),
        )

    def name_of(self, peer: str | None) -> str:
        for node in self.mesh.get("nodes") or ():
            if node.get("peer") == peer:
                return human.clean(str(node.get("name") or human.peer(str(peer))))
        return human.peer(peer) if peer else ""

    def open_runs(self) -> list[dict[str, Any]]:
        return [run for run in self.runs.values() if run.get("state") in OPEN]

    def finished_runs(self, most: int) -> list[dict[str, Any]]:
        """The newest first."""
        return list(islice((run for run in reversed(self.runs.values()) if run.get("state") not in OPEN), most))

    def seconds_left(self, run: Mapping[str, Any], now: float) -> float | None:
        """As the mesh expects it; else by the verdicts of the last minute. `now`: seconds since the epoch."""
        if run.get("eta_seconds") is not None:
            return float(run["eta_seconds"])
        paces = self._paces.get(str(run["run"]))
        left = int(run.get("tests") or 0) - int(run.get("done") or 0)
        if not paces or left <= 0 or run.get("state") != "running":
            return None
        recent = [pace for pace in paces if now - pace[0] <= PACE_SECONDS] or [paces[-1]]
        (start, before), done = recent[0], paces[-1][1]
        return left * (now - start) / (done - before) if done > before and now > start else None

    def failing_unseen(self) -> list[str]:
        """Open runs of which tests went wrong before anybody watched."""
        seen = {one.run for one in self.failures}
        return [
            str(run["run"])
            for run in self.open_runs()
            if run["run"] not in seen and any((run.get("counts") or {}).get(bad) for bad in ("failed", "error"))
        ]

    # What changes it

    def take_status(self, document: Mapping[str, Any]) -> None:
        """All anew: the document of `mesh status`."""
        self.name = str(document.get("mesh") or "")
        self.take("mesh", document)
        self.runs = {str(run["run"]): dict(run) for run in list(document.get("runs") or ())[-RUNS_MAX:]}

    def take_queue(self, document: Mapping[str, Any]) -> None:
        """Why tests wait, and how long runs will take: the document of `/api/queue`."""
        self.reasons = list(document.get("by_reason") or ())
        for told in document.get("runs") or ():
            run = self.runs.get(str(told.get("run")))
            if run is not None:
                run["eta_seconds"] = told.get("eta_seconds")

    def take(self, event: str, data: Mapping[str, Any]) -> None:
        """One event of the feed, as docs/api.md has them; others change nothing."""
        if event == "hello":
            self.name = str(data.get("mesh") or "")
        elif event == "mesh":
            self.mesh = _some(data, "coordinator", "term", "voters", "agreed", "as_of", "nodes", "conflicts")
        elif event.startswith("run-"):
            self._run(event, data)

    def _run(self, event: str, data: Mapping[str, Any]) -> None:
        identity = str(data["run"])
        run = self.runs.setdefault(identity, {"run": identity, "state": "queued"})
        if event == "run-submitted":
            run.update(_some(data, "name", "project", "priority", "submitter"), submitted_at=data.get("at"))
        elif event == "run-leased" and data.get("collects"):
            run["state"] = "collecting"
        elif event == "run-collected":
            run.update(tests=data["tests"], done=0, state="running")
        elif event == "run-progress":
            run.update(_some(data, "state", "done", "tests", "pending", "leased", "counts"))
            self._paces.setdefault(identity, deque(maxlen=PACES_MAX)).append((float(data["at"]), int(data["done"])))
            for bad in data.get("bad") or ():
                self._failed(identity, bad)
        elif event == "run-finished":
            run.update(_some(data, "state", "exit_code", "counts", "tests", "wall_seconds", "report", "reason"))
            self._paces.pop(identity, None)
        while len(self.runs) > RUNS_MAX:
            del self.runs[next(iter(self.runs))]

    def take_bad(self, run: str, tests: Iterable[Mapping[str, Any]]) -> None:
        """Entries of the list of a run's tests: they failed before what is here."""
        found = [
            Failure(run, int(one["index"]), str(one["outcome"]), str(one.get("worker") or ""), str(one["test"]))
            for one in tests
        ]
        self.failures.extendleft(reversed(found[: FAILURES_MAX - len(self.failures)]))

    def _failed(self, run: str, bad: Mapping[str, Any]) -> None:
        self.failures.append(Failure(run, int(bad["index"]), str(bad["outcome"]), str(bad.get("worker") or "")))

    def unnamed(self, most: int) -> list[Failure]:
        """The newest failures whose tests are still numbers."""
        return list(islice((one for one in reversed(self.failures) if not one.test), most))

    # In words, for those who have no screen

    def lines(self, event: str, data: Mapping[str, Any], before: "Watching | None" = None) -> Iterator[str]:
        """What there is to say of an event that was taken. `before`: the mesh as it was, of a `mesh` event."""
        if event == "mesh" and before is not None:
            yield from self._changes(before)
        run = str(data.get("run", ""))
        if event == "run-submitted":
            yield f"run {run} {human.clean(str(data.get('name') or ''))} is submitted"
        elif event == "run-collected":
            yield f"run {run} has {human.plural(int(data['tests']), 'test')}"
        elif event == "run-progress":
            if data.get("tests"):
                yield f"run {run}: {position(data)}"
        elif event == "run-finished":
            reason = human.clean(str(data.get("reason") or ""))
            yield f"run {run} {data['state']}: {position(data)}{f' ({reason})' if reason else ''}"
        elif event == "lease-ended" and data.get("why") == "lost":
            tests = human.plural(int(data["tests"]), "test")
            yield f"{self.name_of(data.get('worker'))} is lost with {tests} of run {run}"
        elif event == "worker-joined":
            slots = human.plural(int(data["slots"]), "slot")
            yield f"{human.clean(str(data.get('name') or ''))} works here, with {slots}"

    def _changes(self, before: "Watching") -> Iterator[str]:
        if self.mesh.get("coordinator") != before.mesh.get("coordinator") and self.mesh.get("coordinator"):
            yield f"{self.name_of(self.mesh['coordinator'])} coordinates, in term {self.mesh.get('term')}"
        if self.mesh.get("agreed") is False and before.mesh.get("agreed") is not False:
            yield "no quorum: nothing is decided, and what is told here may be old"
        if self.mesh.get("agreed") and before.mesh.get("agreed") is False:
            yield "there is a quorum again"
        were = {node["peer"]: node.get("state") for node in before.nodes}
        for node in self.nodes:
            state = node.get("state")
            if were.get(node["peer"]) != state and (state != "alive" or were):
                yield f"{self.name_of(node['peer'])} is {state}"


def _some(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: data[key] for key in keys if key in data}


def position(run: Mapping[str, Any]) -> str:
    """ "690 of 6,908 tests, 2 failed"."""
    counts = run.get("counts") or {}
    done = run.get("done", sum(counts.values()))
    parts = [f"{human.number(int(done))} of {human.plural(int(run.get('tests') or 0), 'test')}"]
    parts += [f"{human.number(counts[bad])} {bad}" for bad in ("failed", "error") if counts.get(bad)]
    return ", ".join(parts)
