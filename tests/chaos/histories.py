"""What a mesh did, checked against what it promises. Pure: a history goes in, sentences about what is wrong come out.

A history is what the mesh told through its public interface while it was tormented, and the logs that its nodes left
on their disks. The log is read twice: by `mesh.state.apply`, with the state's invariants after each entry, and by a
reckoning of this module (`_Ledger`, for runs without retries), which knows of leases and verdicts only what the design
says of them, so that a fault in `apply` does not check itself.

What is not concluded here: who voted for whom (the logs do not say), and that the mesh was fast enough.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.ports import Saved
from mesh.state import invariants, ranges
from mesh.state.apply import apply
from mesh.state.model import NO_VERDICT, NO_WORKER, CoordinatorState, Run, RunPhase
from mesh.state.results import Applied, Result
from mesh.state.snapshot import decode_state, state_hash
from protocols.codec import decode
from protocols.commands import (
    COMMANDS,
    Abandon,
    Cancel,
    Command,
    Complete,
    Expire,
    Grant,
    Register,
    Return,
    Submit,
)
from protocols.errors import MeshError
from protocols.manifests import Outcome
from protocols.raft import Entry, EntryKind

WORDS_MAX = 20
"""Sentences about one kind of fault."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Events of one run, as one client received them; `whole` if it saw the run's end."""

    run: str
    where: str
    events: tuple[Mapping[str, Any], ...]
    whole: bool

    def verdicts(self) -> list[tuple[Any, ...]]:
        """(test, outcome, worker, attempt, seconds) of each, in order."""
        keys = ("test", "outcome", "worker", "attempt", "duration")
        return [tuple(event[key] for key in keys) for event in self.events if event["event"] == "verdict"]


@dataclass(frozen=True, slots=True)
class Coordinated:
    """A node's own word that it coordinates in a term, or another's that it does."""

    term: int
    node: str
    source: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was kept of one trial."""

    logs: Mapping[str, Saved]
    """By voter, as its disk has it."""
    committed: int
    """The highest index that a coordinator, sure of its majority, said was committed; a disk's own word lags."""
    streams: Sequence[Stream]
    coordinated: Sequence[Coordinated]
    reports: Mapping[str, Mapping[str, Any]]
    """`report.json` by run."""
    expected: Mapping[str, str]
    """Test -> the outcome that it has wherever it runs; empty where only the runs know."""
    killed_tests: bool
    """Whether processes that run tests were killed, so that a test may be an `error` without its doing."""


@dataclass(slots=True)
class Findings:
    """What `check` found: what is wrong, and figures."""

    wrong: list[str] = field(default_factory=list)
    runs: int = 0
    verdicts: int = 0
    refused: int = 0
    """Verdicts that came for a test that their lease did not hold any more."""
    lost_attempts: int = 0
    terms: int = 0
    entries: int = 0


def check(history: History) -> Findings:
    """Every promise, against this history."""
    found = Findings()
    found.wrong += _one_coordinator(history.coordinated)
    found.wrong += _one_log(history)
    holders = [name for name, saved in sorted(history.logs.items()) if _last(saved) >= history.committed]
    if 2 * len(holders) <= len(history.logs):
        found.wrong.append(f"entry {history.committed} was committed, and is in the logs of {holders} only")
        return found
    name = max(holders, key=lambda name: history.logs[name].hard_state.commit)
    replay = _Replay(name, history.logs[name], history.committed)
    found.wrong += replay.wrong
    found.wrong += _equal_states(history, replay)
    found.wrong += _all_finished(replay.state)
    found.wrong += replay.ledger.disagreements(replay.state)
    for run_id, streams in itertools.groupby(sorted(history.streams, key=lambda s: s.run), key=lambda s: s.run):
        run = replay.state.runs.get(int(run_id))  # type: ignore[call-overload]
        found.wrong += _one_story(list(streams), run, history)
    found.wrong += _same_everywhere(history)
    found.runs = len(replay.state.runs)
    found.verdicts = sum(run.done for run in replay.state.runs.values())
    found.refused = replay.ledger.refused
    found.lost_attempts = replay.ledger.expired
    found.terms = len({entry.term for entry in history.logs[name].entries})
    found.entries = history.committed
    return found


def _one_coordinator(coordinated: Sequence[Coordinated]) -> Iterator[str]:
    """Election safety, by what every node ever said."""
    terms: dict[int, dict[str, str]] = {}
    for said in coordinated:
        terms.setdefault(said.term, {}).setdefault(said.node, said.source)
    for term, nodes in sorted(terms.items()):
        if len(nodes) > 1:
            yield f"term {term} had {len(nodes)} coordinators: {nodes}"


def _last(saved: Saved) -> int:
    return saved.entries[-1].index if saved.entries else saved.snapshot.index if saved.snapshot else 0


def _one_log(history: History) -> Iterator[str]:
    """Log matching, and that what two nodes hold as committed is the same. (Beyond what it knows to be committed, a log
    may hold entries that came to nothing.)"""
    for (one, a), (other, b) in itertools.combinations(sorted(history.logs.items()), 2):
        theirs = {entry.index: entry for entry in b.entries}
        both = min(a.hard_state.commit, b.hard_state.commit)
        matched = False
        for entry in reversed(a.entries):
            twin = theirs.get(entry.index)
            if twin is None or entry == twin:
                matched = matched or (twin is not None)
                continue
            if entry.index <= both:
                yield f"{one} and {other} both committed entry {entry.index}, and hold different ones"
                break
            if matched or entry.term == twin.term:
                yield f"{one} and {other} agree on an entry after {entry.index}, or on its term, and not on it"
                break


class _Replay:
    """A log applied from its beginning: state hashes by index, and the ledger's reckoning beside it."""

    def __init__(self, name: str, saved: Saved, committed: int) -> None:
        self.wrong: list[str] = []
        self.hashes: dict[int, str] = {}
        self.state = start(saved)
        self.ledger = _Ledger()
        self.begins = self.state.applied
        if self.state.runs:
            self.wrong.append(f"{name} compacted its log: the trial was too long to be checked")
        books: dict[int, bytes] = {}
        for entry, command in commands(saved, committed):
            where = f"after entry {entry.index} of {name}"
            try:
                result = apply(self.state, entry.index, command)
                invariants.check(self.state)
            except AssertionError as error:
                self.wrong.append(f"{where}: {error}")
                break
            self.wrong += [f"{where}: {what}" for what in self.ledger.apply(entry.index, command, result)]
            for run in self.state.runs.values():
                before = books.get(run.id, b"")
                if before != run.outcomes:
                    books[run.id] = bytes(run.outcomes)
                    if any(was not in (NO_VERDICT, now) for was, now in zip(before, run.outcomes, strict=False)):
                        self.wrong.append(f"{where}: a verdict of run {run.id} changed, or is lost")
            self.hashes[entry.index] = state_hash(self.state)


def start(saved: Saved) -> CoordinatorState:
    return decode_state(saved.snapshot.data) if saved.snapshot is not None else CoordinatorState()


def commands(saved: Saved, committed: int) -> Iterator[tuple[Entry, Command]]:
    """The commands after the snapshot, up to an index."""
    for entry in saved.entries:
        if entry.index <= committed and entry.kind is EntryKind.NORMAL:
            yield entry, decode(entry.data, *COMMANDS)


def _equal_states(history: History, replay: _Replay) -> Iterator[str]:
    """State-machine safety: what a node knew to be committed comes to the same state."""
    for name, saved in sorted(history.logs.items()):
        state = start(saved)
        try:
            for entry, command in commands(saved, saved.hard_state.commit):
                apply(state, entry.index, command)
        except (MeshError, AssertionError) as error:
            yield f"the log of {name} can't be applied: {error}"
            continue
        expected = replay.hashes.get(state.applied)
        if expected is None and state.applied > replay.begins:
            yield f"{name} applied a command at {state.applied}, where the longest log has none"
        elif expected is not None and expected != state_hash(state):
            yield f"{name} came to another state at entry {state.applied}"


def _all_finished(state: CoordinatorState) -> Iterator[str]:
    for run in state.runs.values():
        if run.phase is not RunPhase.FINISHED:
            yield f"run {run.id} was accepted and is {run.state}: {run.done} of {run.tests} tests have a verdict"
        elif run.cancelled is None and (not run.tests or run.done != run.tests or run.exit_code not in (0, 1)):
            yield f"run {run.id} ended with code {run.exit_code}, {run.done} of {run.tests} tests: {run.reason}"


class _Ledger:
    """Leases and verdicts by the design's words alone: a grant takes what is free, a completion of an open lease
    retires, an expiry, a return or a new incarnation gives back. That a grant is refused is always safe, so that here
    `apply` is believed."""

    def __init__(self) -> None:
        self.refused = 0
        self.expired = 0
        self._open: dict[int, set[int]] = {}
        self._run_of: dict[int, int] = {}
        self._holder: dict[int, tuple[str, int]] = {}
        self._runs: dict[int, dict[int, int]] = {}
        """Run -> test -> outcome's code."""
        self._nonces: set[bytes] = set()

    def apply(self, index: int, command: Command, result: Result) -> Iterator[str]:
        match command:
            case Submit() if isinstance(result, Applied) and command.nonce not in self._nonces:
                self._nonces.add(command.nonce)
                self._runs[index] = {}
            case Grant() if isinstance(result, Applied):
                yield from self._grant(index, command)
            case Complete():
                yield from self._complete(command)
            case Return() if command.lease in self._open:
                self._open[command.lease] -= set(command.tests)
            case Expire():
                self._close(command.lease)
            case Register() if isinstance(result, Applied):
                for lease, (worker, incarnation) in list(self._holder.items()):
                    if worker == command.worker and incarnation < command.incarnation:
                        self._close(lease)
            case Abandon() if isinstance(result, Applied):
                self._runs[command.run][command.test] = Outcome.ERROR.code
            case Cancel() if isinstance(result, Applied):
                for lease in [lease for lease, run in self._run_of.items() if run == command.run]:
                    self._close(lease)

    def _grant(self, index: int, command: Grant) -> Iterator[str]:
        tests = {test for task in command.tasks for test in range(task.first, ranges.end(task))}
        taken = {test for lease, held in self._open.items() if self._run_of[lease] == command.run for test in held}
        if tests & taken:
            yield f"lease {index} took tests {sorted(tests & taken)[:WORDS_MAX]}, which another lease holds"
        if tests & self._runs[command.run].keys():
            yield f"lease {index} took tests that have their verdict"
        self._open[index] = tests
        self._run_of[index] = command.run
        self._holder[index] = (command.worker, command.incarnation)

    def _complete(self, command: Complete) -> Iterator[str]:
        held = self._open.get(command.lease, set())
        for test, code in zip(command.tests, command.outcomes, strict=True):
            if test not in held:
                self.refused += 1
                continue
            held.remove(test)
            book = self._runs[self._run_of[command.lease]]
            if test in book:
                yield f"test {test} has a second verdict, by lease {command.lease}"
            book[test] = code

    def _close(self, lease: int) -> None:
        self.expired += len(self._open.pop(lease, ()))

    def disagreements(self, state: CoordinatorState) -> Iterator[str]:
        for run_id, tests in self._runs.items():
            run = state.runs.get(run_id)  # type: ignore[call-overload]
            if run is None:
                yield f"run {run_id} was submitted, and is not in the state"
            else:
                steps = (zip(done.tests, done.outcomes, strict=True) for done in run.chunks)
                recorded = dict(itertools.chain.from_iterable(steps))
                differ = [test for test in recorded.keys() | tests.keys() if recorded.get(test) != tests.get(test)]
                if differ:
                    yield f"run {run_id}: by the leases, tests {sorted(differ)[:WORDS_MAX]} have other verdicts"


def _one_story(streams: Sequence[Stream], run: Run | None, history: History) -> Iterator[str]:
    """All streams of a run tell one sequence of verdicts, which is the log's, the report's and the suite's."""
    number = streams[0].run
    if run is None:
        yield f"run {number} was streamed, and is not in the log"
        return
    logged = [
        (Outcome.of_code(code).value, done.worker, attempt, duration / 1e6)
        for done in run.chunks
        for code, duration, attempt in zip(done.outcomes, done.durations, done.attempts, strict=True)
    ]
    longest = max((stream.verdicts() for stream in streams), key=len)
    names = [verdict[0] for verdict in longest]
    if len(names) != len(set(names)):
        yield f"run {number}: a test was streamed with two verdicts"
    for stream in streams:
        told = stream.verdicts()
        if told != longest[: len(told)]:
            yield f"run {number}: {stream.where} was told another story than others"
        if [verdict[1:] for verdict in told] != logged[: len(told)]:
            yield f"run {number}: {stream.where} was told what the log does not hold"
        if stream.whole and len(told) != len(logged):
            yield f"run {number}: {stream.where} was told {len(told)} of {len(logged)} verdicts"
    yield from _as_expected(number, longest, history)
    report = history.reports.get(number)
    if report is not None:
        kept = {(t["test"], t["outcome"], t["worker"], t["attempt"]) for t in report["tests"]}
        if len(report["tests"]) != len(kept) or len(kept) != len(logged):
            yield f"run {number}: its report has {len(report['tests'])} tests, the log {len(logged)}"
        if not {verdict[:4] for verdict in longest} <= kept:
            yield f"run {number}: its report differs from what was streamed"


def _same_everywhere(history: History) -> Iterator[str]:
    """All runs are of one suite, whose tests have one outcome each."""
    outcomes: dict[str, set[str]] = {}
    for stream in history.streams:
        for test, outcome, worker, *_ in stream.verdicts():
            if not _excused(outcome, worker, history):
                outcomes.setdefault(test, set()).add(outcome)
    for test, seen in sorted(outcomes.items()):
        if len(seen) > 1:
            yield f"{test} is {' and '.join(sorted(seen))}"


def _excused(outcome: str, worker: str, history: History) -> bool:
    """An error that is not the test's: its process was killed, or each of its attempts was lost with a node."""
    return outcome == "error" and (history.killed_tests or worker == NO_WORKER)


def _as_expected(number: str, told: Sequence[tuple[Any, ...]], history: History) -> Iterator[str]:
    """A verdict is what the test does wherever it runs: the mesh's trouble is never a test's failure."""
    for test, outcome, worker, *_ in told:
        expected = history.expected.get(test, "" if history.expected else outcome)
        if not expected:
            yield f"run {number}: nobody wrote the test {test}"
        elif outcome != expected and not _excused(outcome, worker, history):
            yield f"run {number}: {test} is {outcome}, and should be {expected}"
