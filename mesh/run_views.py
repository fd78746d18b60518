"""Views of what goes on in runs, made from a copy of the state and the content that it names: the table of a run's
tests, one test, the timeline, the queue.

The coordinator makes them for all who ask; without one, a member makes them from its own log and says so. What is dear
to make is kept from one question to the next (a page asks every second): where each verdict stands, and when each test
ran, of a few runs. Invariant: what is made of a large run yields to others, or is made in a thread from copies.
"""

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from mesh.paced import Paced
from mesh.ports import Content
from mesh.scheduler.durations import Estimates
from mesh.scheduler.eta import seconds_left
from mesh.scheduler.queue import Standing
from mesh.scheduler.waiting import Waiting
from mesh.state.model import NO_WORKER, Completion, CoordinatorState, Run, RunSummary
from mesh.views import queue, tests_table, timeline
from mesh.views.tests_table import Places, Wanted
from mesh.views.timeline import Span, Spans
from protocols.codec import decode
from protocols.errors import MeshError, UsageError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, Manifest, Record

RUNS_KEPT_MAX = 4
"""Of which what is dear to make is kept."""
THREAD_TESTS_MIN = 5_000
"""Of a run whose pages are chosen in a thread."""
THREAD_SPANS_MIN = 1_000
"""Of a timeline whose document is made in one."""
RECORDS_AT_ONCE = 50
"""Decoded before others have their turn: 5 ms."""
CHUNK_SECONDS = 2.0
"""How long a chunk is looked for; a timeline then goes without it."""
HURRIED_SECONDS = 0.1
"""The same once one of this run was found nowhere."""
READ_SECONDS = 5.0
"""How long one question reads on; the next one goes on from there."""

Running = Sequence[tuple[PeerId, LeaseId, TestIndex, float]]
"""Tests under way: where, by which lease, and for how many seconds."""


@dataclass(slots=True)
class _Timeline:
    """What is known of when a run's tests ran."""

    run: Run
    spans: Spans = field(default_factory=Spans)
    seen: int = 0
    """Of the run's chunks."""
    tried: int = 0
    """Of its tries."""
    lost: int = 0
    """Of both, those that no node in reach has."""
    told: tuple[tuple[Any, ...], bytes] = ((), b"")
    """The newest document, and what it was made of."""
    turn: trio.Lock = field(default_factory=trio.Lock)


ONLY_A_REPORT = b'{"archived":true}'
"""In place of a view of a run whose details are no longer in the log: the node that asks reads its report."""


class RunViews:
    """What `Query` and, without a coordinator, a member's own API ask."""

    NAMES = ("tests", "test", "timeline", "queue")

    def __init__(
        self,
        *,
        content: Content,
        state: Callable[[], CoordinatorState],
        manifest: Callable[[Cid, tuple[PeerId, ...]], Awaitable[Manifest]],
        running: Callable[[], Running] = tuple,
        estimates: Callable[[], Mapping[RunId, Estimates]] = dict,
        done: Callable[[Run, Estimates], tuple[float, float]] = lambda run, estimates: (0.0, 0.0),
        waiting: Callable[[], Sequence[Waiting] | None] = lambda: None,
        standings: Callable[[], Mapping[RunId, Standing]] = dict,
    ) -> None:
        """Of what a coordinator alone knows there are defaults: `running`; `estimates`, and of tests with a verdict the
        expected seconds on a common worker and on those that ran them (`done`); `waiting`, `standings` of a plan."""
        self._content = content
        self._state = state
        self._manifest = manifest
        self._running = running
        self._estimates = estimates
        self._done = done
        self._waiting = waiting
        self._standings = standings
        self._paced = Paced()
        self._places: OrderedDict[RunId, Places] = OrderedDict()
        self._timelines: OrderedDict[RunId, _Timeline] = OrderedDict()

    async def look(self, view: str, argument: str) -> bytes:
        """A document, as JSON. `argument`: as `argument_of` makes it. `UsageError`: it names what there is not."""
        return await self._paced.get((view, argument), partial(self._look, view, argument))

    async def _look(self, view: str, argument: str) -> bytes:
        run, wanted, index = _asked(view, argument)
        if run in self._state().archive:
            return ONLY_A_REPORT
        match view:
            case "tests":
                return _json(await self._tests(self._run(run), wanted))
            case "test":
                return _json(await self._test(self._run(run), index))
            case "timeline":
                return await self._timeline(self._run(run))
            case _:
                return _json(self._queue())

    def etas(self, runs: Iterable[Run | RunSummary]) -> dict[RunId, float | None]:
        """Seconds until open runs have ended, about; of those that are over there is nothing to tell."""
        state, estimates = self._state(), self._estimates()
        running: dict[RunId, list[tuple[PeerId, LeaseId, TestIndex, float]]] = {}
        for one in self._running():
            if one[1] in state.leases:
                running.setdefault(state.leases[one[1]].run, []).append(one)
        held: dict[PeerId, int] = {}
        found: dict[RunId, float | None] = {}
        for run in runs:
            if isinstance(run, Run) and run.exit_code is None:
                known = estimates.get(run.id)
                done = self._done(run, known) if known is not None and len(known) == run.tests else (0.0, 0.0)
                found[run.id] = seconds_left(state, run, known, done, running.get(run.id, ()), held)
        return found

    def _run(self, run_id: RunId) -> Run:
        run = self._state().runs.get(run_id)
        if run is not None:
            return run
        raise UsageError(f"there is no run {run_id}")

    def _running_of(self, run: Run) -> Running:
        """Those that the log still has there."""
        leases = self._state().leases
        return [one for one in self._running() if one[1] in leases and leases[one[1]].run == run.id]

    def _places_of(self, run: Run) -> Places:
        known = self._places.get(run.id)
        if known is None or not known.is_of(run):
            known = self._places[run.id] = Places(run)
        self._places.move_to_end(run.id)
        while len(self._places) > RUNS_KEPT_MAX:
            self._places.popitem(last=False)
        return known

    def _known(self, run: Run, manifest: Manifest, running: Collection[int]) -> tests_table.Table:
        leases = [self._state().leases[lease] for lease in run.leases]
        leases = [lease for lease in leases if not lease.hedges]
        guess = self._estimates().get(run.id)
        expected = guess if guess is not None and guess.known else None  # else it would be the same for each
        return tests_table.table(run, manifest.tests, leases, running, expected)

    # The table of tests, and one of them

    async def _tests(self, run: Run, wanted: Wanted) -> dict[str, Any]:
        if run.manifest is None:
            return tests_table.document(run, tests_table.table(run, (), (), (), None), 0, [])
        manifest = await self._manifest(run.manifest, tuple(run.workers))
        run = self._run(run.id)
        where = {int(test): (peer, seconds) for peer, _, test, seconds in self._running_of(run)}
        known = self._known(run, manifest, where.keys())
        if run.tests < THREAD_TESTS_MIN:
            matching, page = tests_table.chosen(known, wanted)
        else:
            matching, page = await trio.to_thread.run_sync(tests_table.chosen, known, wanted)
            run = self._run(run.id)
        rows = tests_table.rows(run, known, page, self._places_of(run), self._state().worker_names(), where)
        return tests_table.document(run, known, matching, rows)

    async def _test(self, run: Run, index: int) -> dict[str, Any]:
        """As in the table, with where the records of all its tries are: the node that asks reads them."""
        if run.manifest is None or not 0 <= index < run.tests:
            raise UsageError(f"run {run.id} has no test {index}: it has {run.tests}")
        manifest = await self._manifest(run.manifest, tuple(run.workers))
        run = self._run(run.id)
        where = {int(test): (peer, seconds) for peer, _, test, seconds in self._running_of(run)}
        known, names = self._known(run, manifest, where.keys()), self._state().worker_names()
        done = self._places_of(run).of(index)
        tries = [_try(tried, index) for tried in run.tries if index in tried.tests]
        if done is not None:
            tries.append(_try(done, index))
        return {
            "run": str(run.id),
            **tests_table.row(run, known, index, done, names, where),
            "tries": [{**one, "name": names.get(one["worker"] or NO_WORKER)} for one in tries],
        }

    # The timeline

    async def _timeline(self, run: Run) -> bytes:
        known = self._timelines.get(run.id)
        if known is None or known.run.chunks is not run.chunks:
            known = self._timelines[run.id] = _Timeline(run)
        self._timelines.move_to_end(run.id)
        while len(self._timelines) > RUNS_KEPT_MAX:
            self._timelines.popitem(last=False)
        async with known.turn:
            until = trio.current_time() + READ_SECONDS
            known.seen = await self._read(known, run.chunks, known.seen, until)
            known.tried = await self._read(known, run.tries, known.tried, until)
            names = self._state().worker_names()
            cut = known.spans.full or trio.current_time() > until
            stands = (known.seen, known.tried, cut, run.finished_at, run.tests, names)
            if known.told[0] != stands:
                make = partial(_told, run, known, names, cut)
                large = len(known.spans) >= THREAD_SPANS_MIN
                known.told = (stands, await trio.to_thread.run_sync(make) if large else make())
            return known.told[1]

    async def _read(self, known: _Timeline, steps: Sequence[Completion], seen: int, until: float) -> int:
        """Take in the steps from `seen` on; how many are seen then."""
        for done in steps[seen:]:
            if known.spans.full or trio.current_time() > until:
                break
            if done.worker != NO_WORKER:
                seconds = HURRIED_SECONDS if known.lost else CHUNK_SECONDS
                try:
                    chunk = decode(await self._content.get(done.chunk, (done.worker,), seconds), Chunk)
                except MeshError:
                    known.lost += 1
                else:
                    await _take(known.spans, done, chunk)
            seen += 1
        return seen

    # The queue

    def _queue(self) -> dict[str, Any]:
        state = self._state()
        etas = self.etas(state.runs.values())
        return queue.queue_document(state, self._standings(), self._waiting(), etas)


def _told(run: Run, known: _Timeline, names: Mapping[PeerId, str], cut: bool) -> bytes:
    """The document; nothing of it changes meanwhile but for what belongs to the run, which is read once."""
    barriers = run.barriers
    told = timeline.document(
        str(run.id),
        run.submitted_at,
        run.finished_at,
        run.tests,
        known.spans,
        names,
        barriers.waits_for if barriers is not None else lambda test: (),
    )
    return _json({**told, "cut": cut, "lost_chunks": known.lost})


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


async def _take(spans: Spans, done: Completion, chunk: Chunk) -> None:
    places = {test: place for place, test in enumerate(done.tests)}
    for number, (test, data) in enumerate(zip(chunk.tests, chunk.records, strict=True)):
        if number % RECORDS_AT_ONCE == RECORDS_AT_ONCE - 1:
            await trio.lowlevel.checkpoint()
        place = places.get(test)
        if place is None or spans.full:
            continue
        record = decode(data, Record)
        span = Span(test, record.started, record.duration, done.outcomes[place], done.attempts[place])
        spans.add(done.worker, record.slot, span)


def _try(done: Completion, index: int) -> dict[str, Any]:
    place = done.tests.index(index)
    return {
        "attempt": done.attempts[place],
        "outcome": tests_table.outcome(done, place),
        "duration": round(done.durations[place] / 1e6, 6),
        "worker": done.worker or None,
        "chunk": done.chunk,
    }


def argument_of(run: RunId, **asked: Any) -> str:
    """What a `Query` names."""
    return json.dumps({"run": run, **asked})


def _asked(view: str, argument: str) -> tuple[RunId, Wanted, int]:
    """The run, the page of its tests, and the test, as far as the view has them. `UsageError`: it makes no sense."""
    try:
        if view not in RunViews.NAMES:
            raise ValueError(view)
        asked = json.loads(argument) if argument else {}
        run = RunId(int(asked.pop("run", 0)))
        return run, Wanted(**asked) if view == "tests" else Wanted(), int(asked["index"]) if view == "test" else 0
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise UsageError(f"there is no view {view!r} of {argument[:80]!r}") from None
