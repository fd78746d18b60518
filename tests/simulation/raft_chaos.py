"""Faults at random for a simulated group of Raft cores. `run(seed)` is one life of a group, from its founding to the
demand for progress after a heal; the suite runs a few, `python raft_chaos.py FIRST COUNT` many."""

import random
import sys
from collections.abc import Callable

from raft_rig import GONE, OPTIONS, Node, Rig

from mesh.raft import quorum
from mesh.raft.configuration import AddLearner, Change, Demote, Promote, Remove, Replace
from mesh.raft.errors import ChangeRefused
from mesh.raft.raft import RaftOptions, RoleName
from protocols.codec import decode
from protocols.ids import PeerId
from protocols.raft import Configuration


class Chaos:
    """What happens to the group, one random deed after another."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.rng = rig.rng
        self.counter = 0
        self.pause_ms = self.rng.choice((60.0, 200.0, 500.0))
        self.storms = self.rng.choice((2, 6, 60))
        """How likely they are, next to the sum of all else: about 100."""

    def step(self) -> None:
        deeds: list[tuple[int, Callable[[], None]]] = [
            (40, self.propose),
            (10, self.read),
            (4, self.crash),
            (6, self.restart),
            (3, self.partition),
            (2, self.cut_one_way),
            (4, self.mend),
            (3, self.weather),
            (2, self.disk),
            (2, self.clock),
            (2, self.transfer),
            (3, self.suspect),
            (4, self.change),
            (1, self.lose_disk),
            (self.storms, self.storm),
            (self.storms, self.coup),
        ]
        weights = [weight for weight, _ in deeds]
        self.rng.choices([deed for _, deed in deeds], weights)[0]()
        self.rig.advance(self.rng.expovariate(1 / self.pause_ms))

    def _anyone(self) -> Node | None:
        alive = self.rig.alive()
        return self.rng.choice(alive) if alive else None

    def _someone(self) -> Node | None:
        """The leader, mostly."""
        return (self.rig.leader() if self.rng.random() < 0.7 else None) or self._anyone()

    def propose(self) -> None:
        node = self._someone()
        for _ in range(self.rng.choice((1, 1, 2, 20)) if node else 0):
            self.counter += 1
            self.rig.propose(node, b"%d" % self.counter + bytes(self.rng.randrange(60)))

    def read(self) -> None:
        leading = [node for node in self.rig.alive() if node.raft and node.raft.status().role is RoleName.LEADER]
        for node in leading or self.rig.alive():
            self.rig.read(node)

    def crash(self) -> None:
        for _ in range(self.rng.choice((1, 1, 1, 2, 9))):
            node = self._someone()
            if node is not None:
                self.rig.crash(node)

    def restart(self) -> None:
        for node in list(self.rig.nodes.values()):
            if node.raft is None and node.life < GONE and self.rng.random() < 0.7:
                self.rig.start(node.peer)

    def partition(self) -> None:
        peers = list(self.rig.nodes)
        side = set(self.rng.sample(peers, self.rng.randint(1, len(peers))))
        self.rig.faults.cut = {(a, b) for a in peers for b in peers if (a in side) != (b in side)}
        self.rig.tell(f"partition {sorted(side)}")

    def cut_one_way(self) -> None:
        peers = list(self.rig.nodes)
        self.rig.faults.cut |= {(self.rng.choice(peers), self.rng.choice(peers)) for _ in range(self.rng.randint(1, 4))}

    def mend(self) -> None:
        self.rig.faults.cut.clear()

    def weather(self) -> None:
        faults = self.rig.faults
        faults.loss = self.rng.choice((0.0, 0.0, 0.02, 0.2))
        faults.duplication = self.rng.choice((0.0, 0.0, 0.1))
        faults.delay_ms = self.rng.choice(((0.2, 2.0), (0.2, 2.0), (1.0, 80.0), (50.0, 400.0)))

    def disk(self) -> None:
        node = self._anyone()
        if node is not None:
            node.sync_ms = self.rng.choice((1.0, 2.0, 2.0, 60.0, 3000.0))

    def clock(self) -> None:
        node = self._anyone()
        if node is not None:
            node.pace = self.rng.choice((1.0, 1.0, 0.7, 1.5, 4.0))

    def storm(self) -> None:
        """Clocks jump, processes restart at once and links flap within milliseconds: elections in each other's way."""
        deeds = (
            self.jump,
            self.jump,
            self.jump,
            self.blink,
            self.blink,
            self.isolate,
            self.propose,
            self.read,
            self.mend,
        )
        for _ in range(self.rng.randint(5, 40)):
            self.rng.choice(deeds)()
            self.rig.advance(self.rng.expovariate(1 / 4.0))

    def coup(self) -> None:
        """Somebody is cut off, the others lose patience (and some of them their memory) and elect; and once more, with
        somebody else cut off."""
        for _ in range(self.rng.randint(1, 4)):
            self.isolate()
            for node in self.rig.alive():
                if self.rng.random() < 0.3:
                    self.rig.crash(node)
                    self.rig.start(node.peer)
                if node.raft is not None and self.rng.random() < 0.7:
                    self.rig.tick(node, self.rig.options.election_ticks)
            self.jump()
            for deed in (self.propose, self.read):
                self.rig.advance(self.rng.expovariate(1 / 8.0))
                deed()

    def jump(self) -> None:
        node = self._anyone()
        if node is not None and node.raft is not None:
            self.rig.tick(node, self.rng.randint(1, 45))

    def blink(self) -> None:
        node = self._anyone()
        if node is not None:
            self.rig.crash(node)
            self.rig.start(node.peer)

    def isolate(self) -> None:
        """One node is cut off, nobody else."""
        node = self._someone()
        if node is not None:
            others = [peer for peer in self.rig.nodes if peer != node.peer]
            self.rig.faults.cut = {pair for peer in others for pair in ((peer, node.peer), (node.peer, peer))}

    def transfer(self) -> None:
        leader = self.rig.leader()
        if leader is not None and leader.raft is not None:
            voters = quorum.voters(leader.raft.status().configuration)
            try:
                leader.raft.transfer_leadership(self.rng.choice(voters))
            except ChangeRefused:
                return
            self.rig.settle_node(leader)

    def suspect(self) -> None:
        node = self._anyone()
        if node is not None and node.raft is not None:
            node.raft.suspect(self.rng.choice(list(self.rig.nodes)))
            self.rig.settle_node(node)

    def change(self) -> None:
        leader = self.rig.leader()
        if leader is None or leader.raft is None:
            return
        now = leader.raft.status().configuration
        choices: list[Change] = []
        if len(quorum.members(now)) < 7:
            fresh = self.rig._name() if self.rng.random() < 0.5 else self.rng.choice(list(self.rig.nodes))
            choices.append(AddLearner(fresh))
        sound = [peer for peer in now.learners if self.rig.nodes[peer].life < GONE]
        choices += [Promote(peer) for peer in sound if len(now.voters) < 5]
        choices += [Replace(self.rng.choice(now.voters), peer) for peer in sound]
        if len(now.voters) > 2:
            choices += [Remove(self.rng.choice(now.voters)), Demote(self.rng.choice(now.voters))]
        choices += [Remove(peer) for peer in now.learners]
        change = self.rng.choice(choices) if choices else None
        if isinstance(change, AddLearner) and self.rig.nodes.get(change.peer, _ANY).life >= GONE:
            return
        if change is not None:
            if isinstance(change, AddLearner) and change.peer not in self.rig.nodes:
                self.rig.start(change.peer)
            self.rig.change(leader, change)

    def lose_disk(self) -> None:
        """A learner's, so that the quorum that the heal counts on is never lost."""
        voting = {peer for node in self.rig.nodes.values() for peer in _ever_voters(node)}
        spare = [node for node in self.rig.nodes.values() if node.peer not in voting]
        if spare:
            node = self.rng.choice(spare)
            self.rig.crash(node)
            node.life += GONE
            self.rig.tell(f"{node.peer} loses its disk for ever")


_ANY = Node(PeerId("any"))


def _ever_voters(node: Node) -> set[PeerId]:
    """Who has a vote by any configuration in the node's log."""
    if node.raft is None:
        log_entries, snapshot = node.medium.entries, node.medium.snapshot
        made = [snapshot.configuration] if snapshot else []
        made += [decode(entry.data, Configuration) for entry in log_entries if entry.kind.name == "CONFIGURATION"]
    else:
        made = [configuration for _, configuration in node.raft._member.log.configurations._history]
    return {peer for configuration in made for peer in quorum.voters(configuration)}


def run(seed: int, deeds: int = 200) -> Rig:
    """One simulated life of a group; `raft_rig.Violation` (or another assertion) tells what went wrong."""
    rng = random.Random(seed)
    options = rng.choice((OPTIONS, OPTIONS, OPTIONS, RaftOptions()))
    rig = Rig(seed, rng.choice((1, 2, 3, 3, 3, 5)), options)
    chaos = Chaos(rig)
    try:
        rig.advance(3000.0)
        for _ in range(deeds):
            chaos.step()
        rig.heal()
    except BaseException as error:
        error.add_note(f"seed {seed}, at {rig.now / 1000:.3f} s\n" + "\n".join(rig.story[-40:]))
        raise
    return rig


def main() -> None:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        rig = run(seed)
        print(seed, f"{rig.now / 1000:.0f} s", f"{len(rig.leaders)} terms", f"{max(rig.committed)} entries", flush=True)


if __name__ == "__main__":
    main()
