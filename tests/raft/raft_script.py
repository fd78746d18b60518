"""An interpreter for scripts: whole conversations between Raft cores as text, with what happened as golden output.

A script is blocks of a `> command` line and the lines that it printed; `#` lines are comments. Disks and links are
explicit: messages wait in their link until they are delivered, writes are lost until `finish`. LINK is A->B, or A->B*N:
its first N messages. After every command each member's invariants hold, no term has two leaders, and no two members
have applied different entries at one index. `scripts/README.md` lists what is covered where.

    options NAME=N …         before `found`                    found A B …     voters with empty disks
    lead A B …               found; A leads term 2             elect A         the others lose patience, all settle
    join A                   a node without a configuration    restart A       wipe A (lose the disk)
    written A TERM …         a founder's disk as another life left it: after entry 1, entries of these terms
    tick A [N]               campaign A (tick until it does)   propose A TEXT… change A KIND PEER [BY]
    transfer A TO            read A CONTEXT                    suspect A PEER  snapshot A SIZE
    begin A                  take a Ready, send its `messages` finish A        sync, send the rest, apply, advance
    ready A …                both, each in turn                urgent A        send what may leave beside a save
    crash A [HOW]            of writes under way, lose all (the default), keep the "snapshot" alone, have them all
                             "kept", or "sent": kept, and what waits for the sync has left, but nothing is applied
    cut A B …                no messages between this side and the others          mend
    deliver [LINK …]         drop LINK …                       duplicate LINK …                reverse LINK …
    hold LINK NAME           keep messages aside               replay NAME     put a copy of them into their link again
    settle [A B …]           all, or all among these, until nothing happens      quietly COMMAND (print errors alone)
    status A …               log A …                           progress A      what a leader knows of the members
    rounds N                 N times: everybody ticks, then settle
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from raft_script_hosts import Group, Host
from raft_script_views import show_configuration, show_entry, show_message, show_progress, show_ready

from mesh.raft import configuration as change_of
from mesh.raft.leader import Leader
from mesh.raft.raft import Raft, RaftOptions, RoleName
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState
from protocols.codec import decode, encode
from protocols.errors import MeshError
from protocols.ids import PeerId
from protocols.raft import RAFT_MESSAGES, RaftMessage

OPTIONS = RaftOptions(
    jitter_ticks=5,
    suspect_ticks=1,
    turn_ticks=0,
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
    "promote": lambda peer, *others: change_of.Promote(peer, others),
    "demote": change_of.Demote,
    "remove": change_of.Remove,
    "replace": change_of.Replace,
}


class Script:
    def __init__(self) -> None:
        self.hosts: dict[PeerId, Host] = {}
        self.links: dict[tuple[PeerId, PeerId], list[RaftMessage]] = {}
        self.held: dict[str, tuple[tuple[PeerId, PeerId], list[RaftMessage]]] = {}
        self.side: set[PeerId] = set()
        self.options = OPTIONS
        self.group = Group(OPTIONS)
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
            host.check()
        return self.out or ["ok"]

    def core(self, name: str) -> Raft:
        raft = self.hosts[PeerId(name)].raft
        assert raft is not None, f"{name} is down"
        return raft

    # Nodes

    def do_options(self, *words: str) -> None:
        pairs = (word.split("=") for word in words)
        self.options = replace(self.options, **{name: int(value) for name, value in pairs})

    def do_found(self, *names: str) -> None:
        self.group = Group(self.options)
        self.hosts.clear()
        self.links.clear()
        self.side.clear()
        for name in names:
            self._new(name, Configuration(voters=tuple(map(PeerId, names))))

    def do_lead(self, first: str, *others: str) -> None:
        self.do_found(first, *others)
        self.do_elect(first)
        for _ in range(self.options.heartbeat_ticks):
            self.core(first).tick()
        self._settle(show=False, among={PeerId(first), *map(PeerId, others)})
        self.out.clear()

    def do_written(self, name: str, *terms: str) -> None:
        host = self.hosts[PeerId(name)]
        founding = encode(change_of.ordered(host.founding))
        rest = (Entry(index, int(term), EntryKind.NORMAL, b"t" + term.encode()) for index, term in enumerate(terms, 2))
        host.entries = (Entry(1, 1, EntryKind.CONFIGURATION, founding), *rest)
        host.hard_state = HardState(host.entries[-1].term)
        host.start(PeerId(name))

    def do_join(self, name: str) -> None:
        self._new(name, Configuration())

    def _new(self, name: str, founding: Configuration) -> None:
        host = self.hosts[PeerId(name)] = Host(founding, self.group)
        host.start(PeerId(name))

    def do_crash(self, name: str, writes: str = "lost") -> None:
        host = self.hosts[PeerId(name)]
        if writes == "snapshot" and host.doing is not None:
            host.save_snapshot(host.doing)
        if writes in ("kept", "sent") and host.doing is not None:
            host.save(host.doing)
        if writes == "sent" and host.doing is not None:
            self._send(name, host.doing.messages_after_sync)
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
        raft = self.core(name)
        for _ in range(self.options.election_ticks + self.options.jitter_ticks):
            raft.tick()
            if raft.status().role is not RoleName.FOLLOWER and raft._member.elapsed == 0:
                break  # a new campaign; of an older one, or of a leader, no tick is the first
        self.do_status(name)

    def do_elect(self, name: str) -> None:
        for peer, host in self.hosts.items():
            for _ in range(self.options.election_ticks):
                if host.raft is not None and (peer in self.side) == (name in self.side) and self._waits(host.raft):
                    host.raft.tick()
        self.do_campaign(name)
        self._settle(show=False, among=set(self.hosts))
        self.out.clear()
        self.do_status(name)

    def _waits(self, raft: Raft) -> bool:
        return raft.status().role is RoleName.FOLLOWER and raft._member.loyal

    def do_rounds(self, count: str) -> None:
        for _ in range(int(count)):
            for host in self.hosts.values():
                if host.raft is not None:
                    host.raft.tick()
            self._settle(show=False, among=set(self.hosts))
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
            host.group.apply(entry)
            host.applied = entry.index
        self.core(name).advance()

    def do_ready(self, *names: str) -> None:
        for name in names:
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
        for link, count in self._named(links):
            for message in self._take(link, count):
                self._deliver(*link, message)

    def do_drop(self, *links: str) -> None:
        for link, count in self._named(links):
            self.out += [f"lost {show_message(*link, message)}" for message in self._take(link, count)]

    def do_duplicate(self, *links: str) -> None:
        for link, _ in self._named(links):
            self.links[link] = [message for message in self.links.get(link, []) for _ in range(2)]

    def do_reverse(self, *links: str) -> None:
        for link, _ in self._named(links):
            self.links.get(link, []).reverse()

    def do_hold(self, name: str, label: str) -> None:
        ((link, count),) = self._named([name])
        self.held[label] = (link, self._take(link, count))
        self.out += [f"held {show_message(*link, message)}" for message in self.held[label][1]]

    def do_replay(self, label: str) -> None:
        link, messages = self.held[label]
        self.links.setdefault(link, []).extend(messages)

    def _named(self, links: Sequence[str]) -> list[tuple[tuple[PeerId, PeerId], int | None]]:
        if not links:
            return [(link, None) for link in sorted(self.links)]
        named: list[tuple[tuple[PeerId, PeerId], int | None]] = []
        for text in links:
            link, _, count = text.partition("*")
            sender, to = link.split("->")
            named.append(((PeerId(sender), PeerId(to)), int(count) if count else None))
        return named

    def _take(self, link: tuple[PeerId, PeerId], count: int | None) -> list[RaftMessage]:
        waiting = self.links.pop(link, [])
        if count is not None and waiting[count:]:
            self.links[link] = waiting[count:]
        return waiting[:count]

    def _deliver(self, sender: PeerId, to: PeerId, message: RaftMessage) -> None:
        host = self.hosts.get(to)
        if host is None or host.raft is None:
            return
        self.out.append(show_message(sender, to, message))
        try:
            host.raft.step(sender, message)
        except MeshError as error:
            self.out.append(f"  {type(error).__name__}: {error}")

    def do_settle(self, *names: str) -> None:
        self._settle(show=True, among=set(map(PeerId, names)) or set(self.hosts))

    def _settle(self, show: bool, among: set[PeerId]) -> None:
        printed = self.out
        self.out = []
        for _ in range(STEPS_MAX):
            busy = [
                peer
                for peer, host in sorted(self.hosts.items())
                if peer in among and host.raft and host.raft.has_ready()
            ]
            for peer in busy:
                self.do_ready(peer)
            links = [link for link, waiting in sorted(self.links.items()) if waiting and set(link) <= among]
            if not busy and not links:
                break
            for link in links:
                for message in self._take(link, None):
                    self._deliver(*link, message)
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

    def do_progress(self, name: str) -> None:
        role = self.core(name)._role
        assert isinstance(role, Leader), f"{name} does not lead"
        self.out += [show_progress(peer, progress) for peer, progress in role.replication.progress.items()]


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
