"""An interpreter for scripts: whole conversations between Raft cores as text, with what happened as golden output.

A script is blocks of a `> command` line and the lines that it printed; `#` lines are comments. Disks and links are
explicit: messages wait in their link until they are delivered, writes are lost until `finish`.

    found A B …              voters with empty disks           join A          a node without a configuration
    tick A [N]               campaign A (tick until it does)   propose A TEXT… change A KIND PEER [BY]
    transfer A TO            read A CONTEXT                    suspect A PEER  snapshot A SIZE
    begin A                  take a Ready, send its `messages` finish A        sync, send the rest, apply, advance
    ready A                  both                              crash A [kept]  lose (or keep) writes under way
    restart A                wipe A (lose the disk)            cut A B …       no messages between this side and others
    urgent A                 send what may leave beside a save
    mend                     deliver [A->B …]                  drop A->B …     duplicate A->B … reverse A->B …
    settle                   everything, until nothing happens quietly COMMAND (print nothing)
    status A …               log A …                           rounds N        N times: everybody ticks, then settle
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from mesh.raft import configuration as change_of
from mesh.raft import invariants
from mesh.raft.raft import Raft, RaftOptions, RoleName
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState, Ready, Snapshot
from protocols.codec import decode, encode
from protocols.errors import MeshError
from protocols.ids import PeerId
from protocols.raft import RAFT_MESSAGES, RaftMessage

OPTIONS = RaftOptions(
    jitter_ticks=5,
    suspect_ticks=1,
    hang_ticks=20,
    trailing_entries=1,
    chunk_bytes=10,
    append_bytes_max=200,
    inflight_messages_max=3,
    uncommitted_bytes_max=1000,
)
STEPS_MAX = 3000
"""Of one `settle`."""

CHANGES: dict[str, Callable[..., change_of.Change]] = {
    "add-learner": change_of.AddLearner,
    "promote": change_of.Promote,
    "demote": change_of.Demote,
    "remove": change_of.Remove,
    "replace": change_of.Replace,
}


class Longest(random.Random):
    """Timers run as long as they may: loyalty to a silent leader ends after 20 ticks, elections begin after 25."""

    def randint(self, a: int, b: int) -> int:
        return b


class Host:
    """One node: what is on its disk, and its core while it runs."""

    def __init__(self, founding: Configuration) -> None:
        self.founding = founding
        self.raft: Raft | None = None
        self.hard_state = HardState()
        self.snapshot: Snapshot | None = None
        self.entries: tuple[Entry, ...] = ()
        self.doing: Ready | None = None
        self.applied = 0

    def start(self, peer: PeerId) -> None:
        self.raft = Raft(
            peer=peer,
            options=OPTIONS,
            rng=Longest(),
            hard_state=self.hard_state,
            snapshot=self.snapshot,
            entries=self.entries,
            configuration=self.founding,
        )
        self.applied = self.snapshot.index if self.snapshot else 0

    def save(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, ()
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            first = ready.entries[0].index
            self.entries = (*(entry for entry in self.entries if entry.index < first), *ready.entries)


class Script:
    def __init__(self) -> None:
        self.hosts: dict[PeerId, Host] = {}
        self.links: dict[tuple[PeerId, PeerId], list[RaftMessage]] = {}
        self.side: set[PeerId] = set()
        self.out: list[str] = []

    def run(self, command: str) -> list[str]:
        """What `command` prints."""
        self.out = []
        verb, *words = command.split()
        try:
            getattr(self, "do_" + verb)(*words)
        except MeshError as error:
            self.out.append(f"{type(error).__name__}: {error}")
        for host in self.hosts.values():
            if host.raft is not None:
                invariants.check(host.raft)
        return self.out or ["ok"]

    def core(self, name: str) -> Raft:
        raft = self.hosts[PeerId(name)].raft
        assert raft is not None, f"{name} is down"
        return raft

    # Nodes

    def do_found(self, *names: str) -> None:
        self.links.clear()
        self.side.clear()
        for name in names:
            self._new(name, Configuration(voters=tuple(map(PeerId, names))))

    def do_join(self, name: str) -> None:
        self._new(name, Configuration())

    def _new(self, name: str, founding: Configuration) -> None:
        host = self.hosts[PeerId(name)] = Host(founding)
        host.start(PeerId(name))

    def do_crash(self, name: str, writes: str = "lost") -> None:
        host = self.hosts[PeerId(name)]
        if writes == "kept" and host.doing is not None:
            host.save(host.doing)
        host.raft = host.doing = None

    def do_restart(self, name: str) -> None:
        self.hosts[PeerId(name)].start(PeerId(name))
        self.do_status(name)

    def do_wipe(self, name: str) -> None:
        self._new(name, Configuration())

    # Events

    def do_tick(self, name: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.core(name).tick()
        self.do_status(name)

    def do_campaign(self, name: str) -> None:
        for _ in range(OPTIONS.election_ticks + OPTIONS.jitter_ticks):
            if self.core(name).status().role is RoleName.FOLLOWER:
                self.core(name).tick()
        self.do_status(name)

    def do_rounds(self, count: str) -> None:
        for _ in range(int(count)):
            for host in self.hosts.values():
                if host.raft is not None:
                    host.raft.tick()
            self._settle(show=False)
        self.do_status()

    def do_propose(self, name: str, *words: str) -> None:
        for word in words:
            text, _, times = word.partition("*")
            self.out.append(f"entry {self.core(name).propose(text.encode() * int(times or 1))}")

    def do_change(self, name: str, kind: str, *peers: str) -> None:
        self.out.append(f"entry {self.core(name).propose_change(CHANGES[kind](*map(PeerId, peers)))}")

    def do_transfer(self, name: str, to: str) -> None:
        self.core(name).transfer_leadership(PeerId(to))

    def do_read(self, name: str, context: str) -> None:
        self.core(name).read_index(int(context))

    def do_suspect(self, name: str, peer: str) -> None:
        self.core(name).suspect(PeerId(peer))

    def do_snapshot(self, name: str, size: str) -> None:
        host = self.hosts[PeerId(name)]
        snapshot = self.core(name).make_snapshot(host.applied, bytes(int(size)))
        assert snapshot is not None
        host.snapshot = snapshot
        host.entries = tuple(entry for entry in host.entries if entry.index > snapshot.index)
        self.core(name).compact(snapshot)
        self.out.append(f"at {snapshot.index}/{snapshot.term} {show_configuration(snapshot.configuration)}")

    # Ready

    def do_begin(self, name: str) -> None:
        if not self.core(name).has_ready():
            self.out.append("nothing to do")
            return
        ready = self.hosts[PeerId(name)].doing = self.core(name).ready()
        self.out += show_ready(ready)
        self._send(name, ready.messages)

    def do_finish(self, name: str) -> None:
        host = self.hosts[PeerId(name)]
        ready, host.doing = host.doing, None
        assert ready is not None
        host.save(ready)
        self._send(name, ready.messages_after_sync)
        if ready.snapshot is not None:
            host.applied = ready.snapshot.index
        for entry in ready.committed:
            assert entry.index == host.applied + 1
            host.applied = entry.index
        self.core(name).advance()

    def do_ready(self, name: str) -> None:
        self.do_begin(name)
        if self.hosts[PeerId(name)].doing is not None:
            self.do_finish(name)

    def do_urgent(self, name: str) -> None:
        messages = self.core(name).take_messages()
        self.out += [f"  now: {show_message(PeerId(''), *sent)}" for sent in messages]
        self._send(name, messages)

    # Links

    def _send(self, name: str, messages: Iterable[tuple[PeerId, RaftMessage]]) -> None:
        for to, message in messages:
            if (name in self.side) == (to in self.side):
                decoded = decode(encode(message), *RAFT_MESSAGES)
                assert decoded == message
                self.links.setdefault((PeerId(name), to), []).append(decoded)

    def do_cut(self, *names: str) -> None:
        self.side = set(map(PeerId, names))
        for (sender, to), queue in self.links.items():
            if (sender in self.side) != (to in self.side):
                queue.clear()

    def do_mend(self) -> None:
        self.side = set()

    def do_deliver(self, *links: str) -> None:
        for link in self._named(links):
            for message in self._take(link):
                self._deliver(*link, message)

    def do_drop(self, *links: str) -> None:
        for link in self._named(links):
            self.out += [f"lost {show_message(*link, message)}" for message in self._take(link)]

    def do_duplicate(self, *links: str) -> None:
        for link in self._named(links):
            self.links[link] = [message for message in self.links.get(link, []) for _ in range(2)]

    def do_reverse(self, *links: str) -> None:
        for link in self._named(links):
            self.links.get(link, []).reverse()

    def _named(self, links: Sequence[str]) -> list[tuple[PeerId, PeerId]]:
        if not links:
            return sorted(self.links)
        pairs = [link.split("->") for link in links]
        return [(PeerId(sender), PeerId(to)) for sender, to in pairs]

    def _take(self, link: tuple[PeerId, PeerId]) -> list[RaftMessage]:
        return self.links.pop(link, [])

    def _deliver(self, sender: PeerId, to: PeerId, message: RaftMessage) -> None:
        host = self.hosts.get(to)
        if host is None or host.raft is None:
            return
        self.out.append(show_message(sender, to, message))
        try:
            host.raft.step(sender, message)
        except MeshError as error:
            self.out.append(f"  {type(error).__name__}: {error}")

    def do_settle(self) -> None:
        self._settle(show=True)

    def _settle(self, show: bool) -> None:
        printed = self.out
        self.out = []
        for _ in range(STEPS_MAX):
            busy = [
                peer for peer, host in sorted(self.hosts.items()) if host.raft is not None and host.raft.has_ready()
            ]
            for peer in busy:
                self.do_ready(peer)
            if not busy and not any(self.links.values()):
                break
            self.do_deliver()
        else:
            raise AssertionError("does not settle")
        self.out = printed + (self.out if show else [])

    def do_quietly(self, *words: str) -> None:
        Script.run(self, " ".join(words))
        self.out = [line for line in self.out if "Error" in line]

    # Views

    def do_status(self, *names: str) -> None:
        for name in names or sorted(self.hosts):
            host = self.hosts[PeerId(name)]
            if host.raft is None:
                self.out.append(f"{name} down")
                continue
            now = host.raft.status()
            line = (
                f"{name} {now.role} term {now.term} leader {now.leader or '-'} log {now.first_index}..{now.last_index}"
            )
            self.out.append(f"{line} commit {now.commit} {show_configuration(now.configuration)}")

    def do_log(self, *names: str) -> None:
        for name in names:
            log = self.core(name)._member.log
            entries = (log.entry(index) for index in range(log.first_index, log.last_index + 1))
            self.out.append(f"{name} {' '.join(map(show_entry, entries))}")


def show_entry(entry: Entry) -> str:
    if entry.kind is EntryKind.CONFIGURATION:
        text = show_configuration(decode(entry.data, Configuration))
    elif entry.kind is EntryKind.NOOP:
        text = "noop"
    else:
        text = entry.data.decode() if len(entry.data) < 12 else f"{len(entry.data)}B"
    return f"{entry.index}/{entry.term}:{text}"


def show_configuration(configuration: Configuration) -> str:
    parts = ["".join(configuration.voters) or "none"]
    if configuration.outgoing:
        parts.append("&" + "".join(configuration.outgoing))
    if configuration.learners:
        parts.append("+" + "".join(configuration.learners))
    return "{" + "".join(parts) + "}"


def show_value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(show_value, value)) + "]"
    if isinstance(value, Entry):
        return show_entry(value)
    if isinstance(value, Configuration):
        return show_configuration(value)
    return f"{len(value)}B" if isinstance(value, bytes) else str(value)


def show_message(sender: PeerId, to: PeerId, message: RaftMessage) -> str:
    assert is_dataclass(message)
    shown = " ".join(f"{f.name}={show_value(getattr(message, f.name))}" for f in fields(message))
    return f"{sender}->{to} {type(message).__name__} {shown}"


def show_ready(ready: Ready) -> list[str]:
    lines = []
    if ready.hard_state is not None:
        hard = ready.hard_state
        lines.append(f"  save term {hard.term} vote {hard.vote or '-'} commit {hard.commit}")
    if ready.snapshot is not None:
        lines.append(f"  save snapshot {ready.snapshot.index}/{ready.snapshot.term}")
    if ready.entries:
        lines.append("  save " + " ".join(map(show_entry, ready.entries)))
    if ready.committed:
        lines.append("  apply " + " ".join(map(show_entry, ready.committed)))
    lines += [f"  read {read.context} at {read.index}" for read in ready.reads]
    lines += [f"  read {context} failed" for context in ready.reads_failed]
    for when, messages in (("now", ready.messages), ("after sync", ready.messages_after_sync)):
        lines += [f"  {when}: {show_message(PeerId(''), to, message)}" for to, message in messages]
    return lines


def rewritten(text: str) -> str:
    """The script with what its commands print now."""
    script, lines = Script(), []
    for line in text.splitlines():
        if line.startswith(">"):
            lines += [line, *script.run(line[1:])]
        elif line.startswith("#") or not line.strip():
            lines.append(line)
    return "\n".join(lines) + "\n"


def scripts() -> list[Path]:
    return sorted((Path(__file__).parent / "scripts").glob("*.txt"))
