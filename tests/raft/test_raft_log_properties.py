"""The log under a succession of leaders, beside a disk whose saves take their time.

Each leader has the log of an earlier one up to somewhere, at least as far as this member has committed (leader
completeness), and then entries of its own term: so an entry may be replaced and come back while it is being saved. What
is checked after each step: the log is the leader's up to where they agreed; nothing committed ever changes; and what
counts as saved is on the disk, entry by entry, since that is what acknowledgements and votes stand on.
"""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.raft import invariants
from mesh.raft.configuration import Configurations
from mesh.raft.log import RaftLog
from protocols.codec import encode
from protocols.ids import PeerId
from protocols.raft import Configuration, Entry, EntryKind, Snapshot
from tests.properties import examples

VOTERS = Configuration(voters=(PeerId("a"), PeerId("b"), PeerId("c")))
OTHERS = Configuration(voters=(PeerId("a"), PeerId("b")), learners=(PeerId("d"),))
ENTRIES_MAX = 4
"""In one message."""


class Disk:
    """As `mesh/disk/log.py`: a save replaces what stands at its entries and after; a snapshot takes away what it
    covers, and everything if the log conflicts with it."""

    def __init__(self) -> None:
        self.base = 0
        self.rows: dict[int, Entry] = {}

    def save(self, snapshot: Snapshot | None, entries: tuple[Entry, ...]) -> None:
        if snapshot is not None:
            row = self.rows.get(snapshot.index)
            fits = row is not None and row.term == snapshot.term
            self.base = snapshot.index
            self.rows = {index: row for index, row in self.rows.items() if fits and index > snapshot.index}
        if entries:
            self.rows = {index: row for index, row in self.rows.items() if index < entries[0].index}
            self.rows |= {entry.index: entry for entry in entries}


class Member:
    """The log, its disk, and the leaders that it hears, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.log = RaftLog(None, (), VOTERS)
        self.disk = Disk()
        self.leader: list[Entry] = []
        self.past: list[list[Entry]] = [[]]
        self.term = self.matched = 0
        """Of the leader; and how much of its log it knows to be here."""
        self.saving: tuple[Snapshot | None, tuple[Entry, ...]] | None = None
        self.committed: list[Entry] = []
        self.elect()

    def step(self) -> None:
        rules = (self.elect, self.write, self.append, self.append, self.append, self.commit, self.save, self.save)
        rarely = (self.install, self.compact)
        self.random.choice(rules if self.random.random() < 0.9 else rarely)()
        self.check()

    def elect(self) -> None:
        """A leader of a later term, whose log begins like that of an earlier leader."""
        done = self.log.committed
        fit = [old for old in [*self.past[-4:], self.leader] if old[:done] == self.leader[:done] and len(old) >= done]
        base = self.random.choice(fit)
        self.past.append(self.leader)
        self.term += 1
        self.matched = 0
        self.leader = base[: self.random.randint(done, len(base))]
        self.write()

    def write(self) -> None:
        for _ in range(self.random.randint(0, ENTRIES_MAX)):
            index, changes = len(self.leader) + 1, self.random.random() < 0.3
            kind = EntryKind.CONFIGURATION if changes else EntryKind.NORMAL
            data = encode((VOTERS, OTHERS)[index % 2]) if changes else b"%d/%d" % (index, self.term)
            self.leader.append(Entry(index, self.term, kind, data))

    def append(self) -> None:
        """A part of the leader's log, as it may arrive: the next, an old one again, or one that does not fit."""
        previous = self.random.choice((self.common(), self.random.randint(0, len(self.leader))))
        entries = self.leader[previous : previous + self.random.randint(0, ENTRIES_MAX)]
        if previous < self.log.committed:
            return  # answered with the commit index
        term = self.leader[previous - 1].term if previous else 0
        if self.log.term(previous) != term:
            hint = self.log.conflict(previous, term)
            assert hint < previous or self.log.term(hint) != term
            return
        self.log.merge(entries)
        self.matched = max(self.matched, previous + len(entries))
        for index in range(self.log.first_index, self.matched + 1):
            assert self.log.entry(index) == self.leader[index - 1], "log matching"

    def common(self) -> int:
        index = self.log.committed
        while index < len(self.leader) and self.log.term(index + 1) == self.leader[index].term:
            index += 1
        return index

    def commit(self) -> None:
        """Of what this leader knows that the member has."""
        index = self.random.randint(0, self.matched)
        self.log.commit(index)
        self.committed = self.leader[: self.log.committed] if index == self.log.committed else self.committed

    def install(self) -> None:
        if self.log.committed < len(self.leader):
            index = self.random.randint(self.log.committed + 1, len(self.leader))
            if self.log.term(index) != self.leader[index - 1].term:
                made = configuration(self.leader, index)
                self.log.restore(Snapshot(index, self.leader[index - 1].term, made, b""))
                self.committed = self.leader[:index]
                self.matched = max(index, self.matched)

    def save(self) -> None:
        """Begin one, or end it."""
        if self.saving is None:
            self.saving = (self.log.restored, self.log.begin_save())
            self.log.restored = None
            return
        self.disk.save(*self.saving)
        self.saving = None
        self.log.mark_saved()

    def compact(self) -> None:
        log = self.log
        log.applied = index = log.committed
        if self.saving is None and log.restored is None and index and log.term(index) is not None:
            made = Snapshot(index, log.term(index) or 0, log.configurations.at(index), b"")
            log.compact(made, self.random.randint(0, 3))

    def check(self) -> None:
        log = self.log
        invariants.check_log(log)
        assert log.committed == len(self.committed)
        for index in range(log.first_index, log.committed + 1):
            assert log.entry(index) == self.committed[index - 1], "what is committed stays"
        assert log.configurations.at(log.committed) == configuration(self.committed, log.committed)
        for index in range(max(log.first_index, self.disk.base + 1), log.saved + 1):
            assert self.disk.rows.get(index) == log.entry(index), f"entry {index} counts as saved, and is not"


def configuration(entries: list[Entry], index: int) -> Configuration:
    """By the definition: that of the last entry that sets one."""
    made = Configurations(0, VOTERS)
    for entry in entries[:index]:
        made.append(entry)
    return made.latest


@settings(max_examples=examples(60))
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_the_log_under_many_leaders_beside_a_slow_disk(seed: int, steps: int) -> None:
    member = Member(seed)
    for _ in range(steps):
        member.step()
