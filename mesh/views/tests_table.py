"""The table of a run's tests: some of them, filtered, sorted and cut to a page. Pure.

A page is chosen from flat copies of what is known of each test, so that the rest of a node can go on meanwhile (in
another thread, if the run is large), and only the page's rows are made into documents.
"""

import heapq
import itertools
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.state import ranges
from mesh.state.model import NO_VERDICT, Completion, Lease, Run
from mesh.state.report import counts
from protocols.commands import TaskRange
from protocols.errors import UsageError
from protocols.ids import PeerId
from protocols.manifests import CollectedTest, Outcome

LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
"""Rows of a page."""
SEARCH_CHARACTERS_MAX = 500
ROWS_BYTES_MAX = 600_000
"""Of a page, about: it has to fit a message."""
ROW_BYTES = 400
"""Of a row, beside its test's ID."""

STATES = ("running", "leased", "pending")
OUTCOMES = ("bad", *(outcome.value for outcome in Outcome), *STATES)
SORTS = ("index", "duration", "outcome", "expected")
ORDERS = ("asc", "desc")

_URGENCY = (Outcome.ERROR, Outcome.FAILED, Outcome.XPASSED, Outcome.XFAILED, Outcome.SKIPPED, Outcome.PASSED)
_RANK = bytes(
    _URGENCY.index(Outcome.of_code(code)) if code < len(Outcome) else len(Outcome) for code in range(NO_VERDICT + 1)
)
"""What a list by outcome begins with: the worse ones."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page of which tests. `UsageError` for what there is not."""

    outcome: str = ""
    search: str = ""
    sort: str = "index"
    order: str = "asc"
    offset: int = 0
    limit: int = LIMIT_DEFAULT

    def __post_init__(self) -> None:
        for name, value, known in (
            ("outcome", self.outcome, ("", *OUTCOMES)),
            ("sort", self.sort, SORTS),
            ("order", self.order, ORDERS),
        ):
            if value not in known:
                raise UsageError(f"{name!r} must be one of {', '.join(filter(None, known))}, not {str(value)[:40]!r}")
        if not isinstance(self.search, str) or len(self.search) > SEARCH_CHARACTERS_MAX:
            raise UsageError(f"'search' must be a text of at most {SEARCH_CHARACTERS_MAX} characters")
        if type(self.offset) is not int or not 0 <= self.offset < 2**31:
            raise UsageError(f"'offset' must be a whole number from 0, not {str(self.offset)[:40]!r}")
        if type(self.limit) is not int or not 1 <= self.limit <= LIMIT_MAX:
            raise UsageError(f"'limit' must be a whole number from 1 to {LIMIT_MAX}, not {str(self.limit)[:40]!r}")


class Places:
    """Which step of a run's history the verdict of each test is in; follows the run as verdicts come."""

    def __init__(self, run: Run) -> None:
        self._chunks = run.chunks
        self._seen = 0
        self._places = array("I", bytes(4 * run.tests))

    def is_of(self, run: Run) -> bool:
        return run.chunks is self._chunks and len(self._places) == run.tests

    def of(self, test: int) -> Completion | None:
        """None: it has no verdict."""
        while self._seen < len(self._chunks):
            self._seen += 1
            for done in self._chunks[self._seen - 1].tests:
                self._places[done] = self._seen
        place = self._places[test]
        return self._chunks[place - 1] if place else None


@dataclass(frozen=True, slots=True)
class Table:
    """What a page is chosen from."""

    outcomes: bytes
    durations: "array[int]"
    tests: Sequence[CollectedTest]
    expected: Sequence[float] | None
    leased: tuple[TaskRange, ...]
    running: frozenset[int]


def table(
    run: Run, tests: Sequence[CollectedTest], leases: Collection[Lease], running: Collection[int], expected: Any
) -> Table:
    """As the run is now. `leases`: its open ones; `expected`: seconds by test, or None."""
    held = tuple(sorted((task for lease in leases for task in lease.open), key=lambda task: task.first))
    return Table(bytes(run.outcomes), run.durations[:], tests, expected, held, frozenset(running))


def chosen(known: Table, wanted: Wanted) -> tuple[int, list[int]]:
    """How many tests there are of those wanted, and the page's."""
    found: Sequence[int] = _of_outcome(known, wanted.outcome)
    if wanted.search:
        text, tests = wanted.search.lower(), known.tests
        found = [index for index in found if text in tests[index].id.lower()]
    matching, last = len(found), wanted.offset + wanted.limit
    if wanted.sort != "index":
        found = _sorted(known, wanted, found, last)
    elif wanted.order == "desc":
        found = found[::-1]
    return matching, list(found[wanted.offset : last])


def _of_outcome(known: Table, outcome: str) -> Sequence[int]:
    everything = range(len(known.outcomes))
    if not outcome:
        return everything
    if outcome == "running":
        return [index for index in sorted(known.running) if known.outcomes[index] == NO_VERDICT]
    if outcome in STATES:
        flags = bytearray(known.outcomes.translate(_flags([NO_VERDICT])))
        held = bytearray(len(flags))
        for task in known.leased:
            held[task.first : ranges.end(task)] = flags[task.first : ranges.end(task)]
            flags[task.first : ranges.end(task)] = bytes(task.count)
        return list(itertools.compress(everything, flags if outcome == "pending" else held))
    codes = [one.code for one in Outcome if (one.bad if outcome == "bad" else one.value == outcome)]
    return list(itertools.compress(everything, known.outcomes.translate(_flags(codes))))


def _flags(codes: Collection[int]) -> bytes:
    return bytes(code in codes for code in range(256))


def _sorted(known: Table, wanted: Wanted, found: Sequence[int], most: int) -> list[int]:
    """The first of them; equals by index."""
    sign = 1 if wanted.order == "asc" else -1
    keys: Iterable[tuple[float, int]]
    if wanted.sort == "duration":
        durations = known.durations
        keys = ((sign * durations[index], index) for index in found)
    elif wanted.sort == "outcome":
        ranks = known.outcomes.translate(_RANK)
        keys = ((sign * ranks[index], index) for index in found)
    else:
        expected = known.expected if known.expected is not None else [0.0] * len(known.outcomes)
        keys = ((sign * expected[index], index) for index in found)
    return [index for _, index in heapq.nsmallest(most, keys)]


def rows(
    run: Run,
    known: Table,
    page: Sequence[int],
    places: Places,
    names: Mapping[PeerId, str],
    where: Mapping[int, tuple[PeerId, float]],
) -> list[dict[str, Any]]:
    """The documents of a page; fewer, if they would take too much room. `where`: of running tests their worker,
    and for how many seconds."""
    made: list[dict[str, Any]] = []
    room = ROWS_BYTES_MAX
    for index in page:
        room -= ROW_BYTES + 6 * len(known.tests[index].id)
        if room < 0 and made:
            break
        made.append(row(run, known, index, places.of(index), names, where))
    return made


def row(
    run: Run,
    known: Table,
    index: int,
    done: Completion | None,
    names: Mapping[PeerId, str],
    where: Mapping[int, tuple[PeerId, float]],
) -> dict[str, Any]:
    """One test: where it stands, or what came of it. `done`: the step with its verdict."""
    running, seconds = where.get(index, (None, 0.0)) if done is None else (None, 0.0)
    worker = (done.worker or None) if done is not None else running
    if done is not None:
        state = "done"
    elif running:
        state = "running"
    else:
        state = "pending" if ranges.locate(known.leased, index) is None else "leased"
    return {
        "index": index,
        "test": known.tests[index].id,
        "state": state,
        "outcome": Outcome.of_code(run.outcomes[index]).value if done is not None else None,
        "duration": round(run.durations[index] / 1e6, 6) if done is not None else None,
        "running_seconds": round(seconds, 3) if running else None,
        "worker": worker,
        "name": names.get(worker) if worker else None,
        "attempt": run.attempts[index] + 1 if worker else run.attempts[index],
        "expected": round(known.expected[index], 6) if known.expected is not None else None,
        "chunk": done.chunk if done is not None else None,
    }


def outcome(done: Completion, place: int) -> str:
    """Of the test at a place of a step."""
    return Outcome.of_code(done.outcomes[place]).value


def document(run: Run, known: Table, matching: int, page: list[dict[str, Any]]) -> dict[str, Any]:
    held = sum(task.count for task in known.leased)
    running = sum(known.outcomes[index] == NO_VERDICT for index in known.running)
    numbers = {"running": running, "leased": held - running, "pending": run.tests - run.done - held}
    return {
        "run": str(run.id),
        "total": run.tests,
        "matching": matching,
        "counts": {**counts(run), **{name: max(0, number) for name, number in numbers.items()}},
        "tests": page,
    }
