"""The feed and the details of `FakeBackend`: what is asked of them, and what they tell."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import trio

from mesh.views.tests_table import Wanted
from protocols.errors import UsageError
from protocols.ids import PeerId, RunId

PEER = PeerId("12D3KooWNodeOne")


class FakeFeed:
    """`Feed`: what was told so far, and what `tell` adds."""

    as_of = 1.8e9
    unready: tuple[str, ...] = ()

    async def ready(self) -> list[str]:
        return list(self.unready)

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.asked: list[int | None] = []
        self.listening = 0
        self._news = trio.Event()

    def tell(self, index: int, name: str, data: str = "{}") -> None:
        self.told.append(f"id: {index}\nevent: {name}\ndata: {data}\n\n".encode())
        self._news.set()
        self._news = trio.Event()

    async def listen(self, after: int | None) -> AsyncGenerator[bytes, None]:
        self.asked.append(after)
        self.listening += 1
        try:
            yield b'event: hello\ndata: {"peer":"%s","mesh":"1f2e","head":17,"reset":false}\n\n' % PEER.encode()
            place = 0
            while True:
                while place < len(self.told):
                    yield self.told[place]
                    place += 1
                await self._news.wait()
        finally:
            self.listening -= 1


ALERT: dict[str, Any] = {
    "id": "129",
    "kind": "slow-test",
    "subject": "suite a.py::x",
    "severity": "warning",
    "summary": "a.py::x took 5.00 s",
    "detail": "1.00 s were expected.",
    "help": "Look at it.",
    "since": 1_000.0,
    "last_seen": 1_000.0,
    "cleared_at": None,
    "acknowledged_by": "",
    "acknowledged_at": None,
    "project": "suite",
    "run": "17",
    "test": "a.py::x",
    "node": None,
}


NOON = 1.8e9
"""A whole number of steps of a load history."""


def load_history(hours: int) -> dict[str, Any]:
    """Of a node with GPUs that was away from 60 minutes ago to 30 minutes ago, and has drained for the last ten."""
    steps = 60 * hours
    away = range(steps - 60, steps - 30)

    def figure(most: float) -> list[float | None]:
        return [None if step in away else most * (step % 50) / 50 for step in range(steps)]

    start = NOON - 60.0 * steps
    states = [("alive", start), ("dead", NOON - 3_600), ("alive", NOON - 1_800), ("draining", NOON - 600)]
    ends = [since for _, since in states[1:]]
    return {
        "peer": PEER,
        "step_seconds": 60,
        "start": start,
        "cpu": figure(0.9),
        "memory": figure(0.5),
        "slots": figure(1.0),
        "gpu": figure(0.7),
        "gpu_memory": figure(0.25),
        "states": [
            {"state": state, "since": since, "until": until}
            for (state, since), until in zip(states, [*ends, None], strict=True)
        ],
        "seen_by": PEER,
    }


def host_runs() -> list[dict[str, Any]]:
    what = {"project": "suite", "name": "suite", "at": NOON - 7_200}
    return [
        {"run": "17", "state": "failed", "tests": 120, "bad": 3, "retried": 1, "seconds": 75.5, **what},
        {"run": "12", "state": "passed", "tests": None, "bad": None, "retried": 0, "seconds": None, **what},
    ]


class FakeDetails:
    """`Details`: what was asked for, and one test."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.rows: list[dict[str, Any]] = []
        self.queued: list[dict[str, Any]] = []

    def _told(self, asked: Any, **fields: Any) -> bytes:
        self.asked.append(asked)
        return json.dumps({**fields, "agreed": True, "as_of": 1.8e9}).encode()

    async def tests(self, run: RunId, wanted: Wanted) -> bytes:
        return self._told((run, wanted), run=str(run), total=3, matching=3, counts={}, tests=self.rows)

    async def test(self, run: RunId, index: int) -> dict[str, Any]:
        if index > 2:
            raise UsageError(f"run {run} has no test {index}: it has 3")
        told = self._told(
            (run, index), run=str(run), index=index, test=f"t.py::test_{index}", record=None, tries=[], artifacts=[]
        )
        return dict(json.loads(told))

    async def timeline(self, run: RunId) -> bytes:
        return self._told(run, run=str(run), slots=[], idle=[], critical=[], cut=False)

    async def queue(self) -> bytes:
        return self._told("queue", runs=self.queued, by_priority=[], by_reason=[])
