"""What must hold of a simulated mesh at every step, judged by a book of its own.

The book sees every entry that any node applies, everything that a member sends, and every result that an outbox
forgets. What the first node that applies an entry did is checked against a model that knows nothing of the state's
insides (who was granted a test last, which leases are closed, which verdicts stand); what all the others do must be the
same, by a hash over the log, the results and, now and then, the whole state.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from mesh.consensus import Consensus
from mesh.raft.raft import RoleName
from mesh.raft.ready import Entry, Outgoing, Snapshot
from mesh.state import invariants
from mesh.state.apply import EXIT_MESH_FAILED, apply
from mesh.state.model import COLLECT_LOSSES_MAX, CoordinatorState
from mesh.state.results import Applied, Result
from mesh.state.snapshot import encode_state
from protocols.codec import decode
from protocols.commands import Abandon, Cancel, Collected, CollectFailed, Command, Complete, Finish, Grant, Submit
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.manifests import Outcome
from protocols.raft import AppendReply, HeartbeatReply, Vote, VoteReply
from protocols.work import Result as WorkResult
from tests.fakes.content import Shelves
from tests.fakes.disk import FakeDisk
from tests.simulation.life import Violation

STATE_EVERY = 32
"""Entries between two hashes of the whole state."""


def demand(holds: object, text: str) -> None:
    if not holds:
        raise Violation(text)


@dataclass
class Book:
    """Of one mesh."""

    chain: dict[int, bytes] = field(default_factory=dict)
    """By index: a hash over all entries and their results up to there."""
    states: dict[int, bytes] = field(default_factory=dict)
    leaders: dict[int, PeerId] = field(default_factory=dict)
    terms: dict[PeerId, int] = field(default_factory=dict)
    runs: dict[bytes, RunId] = field(default_factory=dict)
    tests: dict[RunId, int] = field(default_factory=dict)
    collections: Counter[RunId] = field(default_factory=Counter)
    """Leases to collect."""
    granted: dict[tuple[RunId, int], LeaseId] = field(default_factory=dict)
    closed: set[LeaseId] = field(default_factory=set)
    settled: set[tuple[LeaseId, Cid]] = field(default_factory=set)
    """Results that the log has decided about."""
    verdicts: dict[tuple[RunId, int], Outcome] = field(default_factory=dict)
    abandoned: set[tuple[RunId, int]] = field(default_factory=set)
    cut_short: dict[RunId, int] = field(default_factory=dict)
    """Runs that were cancelled, given up or not collected, and the exit code of that."""
    uncollected: set[RunId] = field(default_factory=set)
    """Runs whose collections were all lost with their workers."""
    finished: dict[RunId, Finish] = field(default_factory=dict)


class Ledger:
    """The books of all meshes of one simulation."""

    def __init__(self, shelves: Shelves, tell: Callable[[str], None]) -> None:
        self.books: dict[str, Book] = {}
        self.command: Command | None = None
        self.result: Result | None = None
        """The last command that a state machine took, and what it answered."""
        self._shelves = shelves
        self._tell = tell

    def book(self, mesh: str) -> Book:
        return self.books.setdefault(mesh, Book())

    def apply(self, state: CoordinatorState, index: int, command: Command) -> Result:
        """Stands in for the real one."""
        self.command, self.result = command, apply(state, index, command)
        return self.result

    def removing(self, payload: bytes) -> None:
        """An outbox is about to forget this result."""
        result = decode(payload, WorkResult)
        known = [book for book in self.books.values() if (result.lease, result.chunk) in book.settled]
        closed = [book for book in self.books.values() if result.lease in book.closed]
        demand(
            known or closed, f"an outbox forgets a result of lease {result.lease} that the log has not decided about"
        )

    def entry(self, group: "WatchedConsensus", entry: Entry) -> None:
        """`group` has applied `entry`."""
        book, index = self.book(group.mesh), entry.index
        before = book.chain.get(index - 1)
        demand(before, f"{group.peer} applied entry {index}, and nobody the one before it")
        result = self.result
        text = f"{index} {entry.term} {entry.kind} {result}".encode()
        digest = blake2b((before or b"") + text + entry.data, digest_size=16).digest()
        if index in book.chain:
            demand(book.chain[index] == digest, f"{group.peer} applied another entry {index}, or with another result")
        else:
            book.chain[index] = digest
            self._first(group, book, entry, result)
        if index % STATE_EVERY == 0:
            self._compare(group.peer, book, group.state)

    def restored(self, group: "WatchedConsensus", snapshot: Snapshot) -> None:
        book = self.book(group.mesh)
        if not book.chain:
            book.chain[snapshot.index] = b"founded"
        demand(snapshot.index in book.chain, f"{group.peer} got a snapshot at {snapshot.index}, which nobody applied")
        self._compare(group.peer, book, group.state)

    def _compare(self, peer: PeerId, book: Book, state: CoordinatorState) -> None:
        digest = blake2b(encode_state(state), digest_size=16).digest()
        demand(book.states.setdefault(state.applied, digest) == digest, f"{peer}'s state at {state.applied} is its own")

    def _first(self, group: "WatchedConsensus", book: Book, entry: Entry, result: Result | None) -> None:
        self._tell(f"{entry.index} of term {entry.term}, first at {group.peer}: {_short(self.command, result)}")
        if isinstance(result, Applied):
            self._took_effect(group, book, entry.index, self.command, result)
            book.closed.update(result.closed)
            invariants.check(group.state)
        if isinstance(self.command, Complete):
            if not isinstance(result, Applied):
                demand(
                    self.command.lease in book.closed, f"a result of the open lease {self.command.lease} was refused"
                )
            book.settled.add((self.command.lease, self.command.chunk))

    def _took_effect(
        self, group: "WatchedConsensus", book: Book, index: int, command: Command | None, result: Applied
    ) -> None:
        run = result.run
        match command:
            case Submit(nonce):
                demand(run is not None and book.runs.setdefault(nonce, run) == run, "one submission became two runs")
            case Collected(_, manifest, tests) if run is not None:
                book.tests[run] = tests
                self._copies(group, manifest, f"the manifest of run {run}")
            case CollectFailed() if run is not None:
                book.cut_short[run] = command.exit_code
            case Grant() if run is not None:
                book.collections[run] += not command.tasks
                for task in command.tasks:
                    for test in range(task.first, task.first + task.count):
                        demand(
                            (run, test) not in book.verdicts, f"test {test} of run {run} is granted after its verdict"
                        )
                        book.granted[run, test] = LeaseId(index)
            case Complete() if run is not None:
                self._completed(group, book, run, command, result)
            case Abandon(_, test) if run is not None:
                self._record(book, run, test, Outcome.ERROR)
                book.abandoned.add((run, test))
            case Cancel() if run is not None:
                book.cut_short[run] = command.exit_code
            case Finish() if run is not None:
                self._finished(group, book, run, command)

    def _completed(self, group: "WatchedConsensus", book: Book, run: RunId, command: Complete, result: Applied) -> None:
        demand(command.lease not in book.closed, f"a result of the closed lease {command.lease} counted")
        for test in result.tests:
            latest = book.granted.get((run, test))
            demand(latest == command.lease, f"test {test} of run {run} is leased as {latest}, not {command.lease}")
            if test not in result.retried:
                self._record(book, run, test, Outcome.of_code(command.outcomes[command.tests.index(test)]))
        self._copies(group, command.chunk, f"a chunk of run {run}")

    def _record(self, book: Book, run: RunId, test: int, outcome: Outcome) -> None:
        demand((run, test) not in book.verdicts, f"test {test} of run {run} gets a second verdict")
        book.verdicts[run, test] = outcome

    def _copies(self, group: "WatchedConsensus", cid: Cid, what: str) -> None:
        """Where more than one node votes, there was a second one to hold a copy."""
        wanted = 2 if len(group.configuration.voters) > 1 else 1
        demand(len(self._shelves.holders.get(cid, ())) >= wanted, f"{what} was committed, and lies on one node")

    def _finished(self, group: "WatchedConsensus", book: Book, run: RunId, finish: Finish) -> None:
        demand(run not in book.finished, f"run {run} finished twice")
        book.finished[run] = finish
        outcomes = [book.verdicts.get((run, test)) for test in range(book.tests.get(run, 0))]
        if run in book.cut_short:
            demand(finish.exit_code == book.cut_short[run], f"run {run} was cut short, with another exit code")
        else:
            demand(None not in outcomes, f"run {run} finished, and a test has no verdict")
            bad = any(outcome.bad for outcome in outcomes if outcome)
            wanted = int(bad)
            if run in book.tests and not outcomes:
                wanted = 5
            elif run not in book.tests:
                demand(book.collections[run] >= COLLECT_LOSSES_MAX, f"run {run} finished without being collected")
                book.uncollected.add(run)
                wanted = EXIT_MESH_FAILED
            demand(finish.exit_code == wanted, f"run {run} finished with {finish.exit_code}, not {wanted}")
        demand(finish.report, f"run {run} finished without a report")
        if finish.report is not None:
            self._copies(group, finish.report, f"the report of run {run}")


class WatchedConsensus(Consensus):
    """Tells the ledger what it does."""

    def __init__(self, ledger: Ledger, peer: PeerId, disk: FakeDisk, **options: Any) -> None:
        self.ledger = ledger
        self.peer = peer
        self._stable = disk
        self._commit = 0
        self._mesh = options["mesh"]
        self._book = ledger.book(self._mesh)
        super().__init__(disk=disk, **options)

    def _apply(self, entry: Entry) -> None:
        demand(self._stable.last_index >= entry.index, f"{self.peer} applies entry {entry.index} before it is synced")
        demand(entry.index == self._applied + 1, f"{self.peer} applies {entry.index} after {self._applied}")
        self.ledger.command = self.ledger.result = None
        super()._apply(entry)
        self.ledger.entry(self, entry)

    def _restore(self, snapshot: Snapshot) -> None:
        demand(snapshot.index >= self._applied, f"{self.peer} goes back to {snapshot.index}")
        super()._restore(snapshot)
        self.ledger.restored(self, snapshot)

    def _send(self, messages: "tuple[Outgoing, ...]") -> None:  # type: ignore[override]
        disk = self._stable
        for to, message in messages:
            match message:
                case AppendReply(term, match_index):
                    synced = disk.hard_state.term >= term and disk.last_index >= match_index
                    demand(synced, f"{self.peer} acknowledges {match_index} before it is synced")
                case VoteReply(term, True):
                    voted = (disk.hard_state.term, disk.hard_state.vote) == (term, to)
                    demand(voted or disk.hard_state.term > term, f"{self.peer} votes before that is synced")
                case Vote(term):
                    demand(disk.hard_state.term >= term, f"{self.peer} stands for {term} before that is synced")
                case HeartbeatReply(term):
                    demand(disk.hard_state.term >= term, f"{self.peer} answers in term {term} before that is synced")
        super()._send(messages)

    def _look(self) -> None:
        super()._look()
        member, role = self._raft._member, self._raft._role
        book, term, commit = self._book, member.term, member.log.committed
        demand(term >= book.terms.get(self.peer, 0), f"{self.peer} fell back to term {term}")
        demand(commit >= self._commit, f"{self.peer} fell back to commit {commit}")
        book.terms[self.peer], self._commit = self._stable.hard_state.term, commit
        if role.name is RoleName.LEADER:
            leader = book.leaders.setdefault(term, self.peer)
            demand(leader == self.peer, f"{leader} and {self.peer} both lead in term {term}")


def _short(command: Command | None, result: Result | None) -> str:
    return f"{command!r:.160} -> {result!r:.120}"
