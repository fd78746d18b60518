"""When a coordinator's process dies, all survivors know it in the same moment; one election must be enough."""

import random

import pytest

from mesh.raft.raft import Raft, RaftOptions, RoleName
from mesh.raft.ready import Configuration, HardState
from protocols.ids import PeerId
from protocols.raft import RaftMessage

SEEDS = 20
ELECTION_TICKS = 5
"""From the timer to the leader, where a message takes a tick."""


class Group:
    """Cores whose messages and syncs take `delay` ticks each."""

    def __init__(self, seed: int, voters: int, delay: int, dead: frozenset[str] = frozenset()) -> None:
        self.dead = dead
        self.delay = delay
        names = [PeerId(name) for name in "abcde"[:voters]]
        self.cores = {
            peer: Raft(
                peer=peer,
                options=RaftOptions(),
                rng=random.Random(f"{seed} {peer}"),
                hard_state=HardState(),
                snapshot=None,
                entries=(),
                configuration=Configuration(voters=tuple(names)),
            )
            for peer in names
        }
        self.flying: list[tuple[int, PeerId, PeerId, RaftMessage]] = []
        self.now = 0

    def settle(self) -> None:
        """What is due now, and what follows from it without delay."""
        while True:
            due = [item for item in self.flying if item[0] <= self.now]
            self.flying = [item for item in self.flying if item[0] > self.now]
            for _, sender, to, message in due:
                if to not in self.dead:
                    self.cores[to].step(sender, message)
            busy = [peer for peer, core in self.cores.items() if peer not in self.dead and core.has_ready()]
            for peer in busy:
                ready = self.cores[peer].ready()
                sent = (*ready.messages, *ready.messages_after_sync)
                self.flying += [(self.now + self.delay, peer, to, message) for to, message in sent]
                self.cores[peer].advance()
            if not busy and not any(item[0] <= self.now for item in self.flying):
                return

    def tick(self) -> None:
        self.now += 1
        for peer, core in self.cores.items():
            if peer not in self.dead:
                core.tick()
        self.settle()

    def leader(self) -> PeerId | None:
        leading = [p for p, core in self.cores.items() if p not in self.dead and core.status().role is RoleName.LEADER]
        return leading[0] if leading else None

    def elect(self) -> PeerId:
        while self.leader() is None:
            self.tick()
        leader = self.leader()
        assert leader is not None
        for _ in range(3 * self.delay + 6):
            self.tick()
        return leader

    def kill(self, victim: PeerId) -> None:
        """Its connections break, with what was under way on them."""
        self.dead |= {victim}
        self.flying = [item for item in self.flying if victim not in item[1:3]]
        for peer, core in self.cores.items():
            if peer not in self.dead:
                core.suspect(victim)


@pytest.mark.parametrize("voters", [3, 5])
@pytest.mark.parametrize("delay", [0, 1])
def test_one_election_replaces_a_dead_coordinator(voters: int, delay: int) -> None:
    for seed in range(SEEDS):
        group = Group(seed, voters, delay)
        victim = group.elect()
        survivor = next(peer for peer in group.cores if peer != victim)
        before = group.cores[survivor].status().term
        group.kill(victim)
        died = group.now
        while group.leader() is None:
            group.tick()
            assert group.now - died <= 2 + (ELECTION_TICKS - 1) * delay, f"seed {seed}: none yet"
        leader = group.leader()
        assert leader is not None
        assert group.cores[leader].status().term == before + 1, f"seed {seed}: a split vote"


def test_the_next_one_takes_its_turn_when_the_first_is_dead_too() -> None:
    for seed in range(SEEDS):
        group = Group(seed, voters=5, delay=1)
        victim = group.elect()
        first = min(peer for peer in group.cores if peer != victim)
        group.dead |= {first}
        group.kill(victim)
        died = group.now
        while group.leader() is None:
            group.tick()
            assert group.now - died <= 1 + RaftOptions().turn_ticks + ELECTION_TICKS, f"seed {seed}"


@pytest.mark.parametrize("voters", [3, 5])
def test_a_split_vote_costs_turns_and_not_a_timeout(voters: int) -> None:
    """All who are left campaign in the same tick, whatever brought them to it."""
    for seed in range(SEEDS):
        group = Group(seed, voters, delay=1)
        victim = group.elect()
        group.kill(victim)
        for peer, core in group.cores.items():
            if peer != victim:
                core._member.timeout = core._member.elapsed + 1
        died = group.now
        while group.leader() is None:
            group.tick()
            assert group.now - died <= 2 * ELECTION_TICKS + 2 * RaftOptions().turn_ticks + 2, f"seed {seed}"
