"""Faults at random for a simulated group of Raft cores. `run(seed)` is one life of a group: from its founding, through
spells of faults and calmer stretches in turn, to the demand for progress of a random quorum and then of everybody.

A calm stretch is a check too: with nothing broken but one member cut off, or deaf to the leader,
and brought back, the leader must stay."""

import random
from collections.abc import Callable

from mesh import consensus
from mesh.raft import quorum
from mesh.raft.configuration import AddLearner, Change, Demote, Promote, Remove, Replace, changed
from mesh.raft.errors import ChangeRefused
from protocols.raft import Configuration
from tests.simulation.life import Outcome, Violation
from tests.simulation.raft_group import Group
from tests.simulation.raft_rig import OPTIONS, TICK_MS
from tests.simulation.raft_safety import Node, is_majority

SPELLS = 3
"""Of faults, and as many calm stretches."""
DEEDS = 60
"""Of a spell."""
CALM_SECONDS = (60, 400)
CALM_PROPOSALS, CALM_READS = 0.1, 0.1
"""How likely in a second."""
SETTLE_MS = 5_000
"""After a heal: whatever was under way ends."""
NODES_MAX = 12


class Chaos:
    """What happens to the group, one random deed after another."""

    def __init__(self, rig: Group) -> None:
        self.rig = rig
        self.rng = rig.rng
        self.counter = 0
        self.pause_ms = self.rng.choice((60.0, 200.0, 500.0))
        storms = self.rng.choice((2, 6, 60))
        """How likely they are, next to the sum of all else: about 100."""
        deeds: list[tuple[int, Callable[[], None]]] = [
            (40, self.propose),
            (10, self.read),
            (4, self.crash),
            (6, self.restart),
            (3, self.partition),
            (2, self.cut_one_way),
            (4, self.mend_links),
            (3, self.change_weather),
            (3, self.disk),
            (2, self.clock),
            (2, self.transfer),
            (3, self.suspect),
            (5, self.change),
            (1, self.lose),
            (1, self.retire),
            (storms, self.storm),
            (storms, self.coup),
        ]
        self.deeds = [deed for _, deed in deeds]
        self.weights = [weight for weight, _ in deeds]

    def step(self) -> None:
        self.rng.choices(self.deeds, self.weights)[0]()
        self._pause(self.pause_ms)

    def _pause(self, mean_ms: float) -> None:
        self.rig.advance(round(self.rng.expovariate(1 / mean_ms)))

    def _count(self, kind: str) -> None:
        self.rig.faults[kind] += 1

    def _anyone(self) -> Node | None:
        alive = self.rig.alive()
        return self.rng.choice(alive) if alive else None

    def _someone(self) -> Node | None:
        """The leader, mostly."""
        return (self.rig.leader() if self.rng.random() < 0.7 else None) or self._anyone()

    # Clients

    def propose(self) -> None:
        node = self._someone()
        for _ in range(self.rng.choice((1, 1, 2, 20)) if node else 0):
            self.counter += 1
            if node is not None and node.raft is not None:
                self.rig.propose(node, b"%d" % self.counter + bytes(self.rng.randrange(60)))

    def read(self) -> None:
        for node in self.rig.alive():
            self.rig.read(node)

    # Processes, clocks and disks

    def crash(self) -> None:
        for _ in range(self.rng.choice((1, 1, 1, 2, 9))):
            node = self._someone()
            if node is not None:
                self.rig.crash(node)

    def restart(self) -> None:
        for node in list(self.rig.nodes.values()):
            if node.raft is None and self.rng.random() < 0.7:
                if node.medium.full and self.rng.random() < 0.5:
                    self.rig.mend_disk(node)
                self.rig.start(node.peer)

    def blink(self) -> None:
        node = self._anyone()
        if node is not None:
            self.rig.crash(node)
            self.rig.start(node.peer)

    def disk(self) -> None:
        node = self._anyone()
        if node is None:
            return
        kind = self.rng.choice(("sound", "sound", "sound", "slow disk", "hung disk", "disk fills"))
        self.rig.mend_disk(node)  # what hung so far comes to its end
        if kind == "sound":
            return
        self._count(kind)
        self.rig.tell(f"{node.peer}: {kind}")
        if kind == "disk fills":
            node.medium.full = True
        else:
            node.sync_ms = self.rng.choice((60, 1000, 3000)) if kind == "slow disk" else None

    def clock(self) -> None:
        node = self._anyone()
        if node is not None:
            period = self.rng.choice((TICK_MS, TICK_MS, 35, 75, 200))
            self.rig.faults["clock rate"] += period != TICK_MS
            self.rig.set_clock(node, period)

    def jump(self) -> None:
        node = self._anyone()
        if node is not None:
            self._count("clock jump")
            self.rig.jump(node, self.rng.randint(1, 45))

    def lose(self) -> None:
        """A disk is lost, or a block of it rots, which its node finds when it starts again: never so many that no
        quorum could be healed. They come back, if at all, as new nodes."""
        node = self.rng.choice(list(self.rig.nodes.values()))
        if node.gone or node.medium.rotten or not self.rig.bears_loss_of([node.peer]):
            return
        if self.rng.random() < 0.5:
            self._count("bit rot")
            self.rig.tell(f"a block of {node.peer} rots")
            node.medium.rotten = True
        else:
            self._count("disk lost")
            self.rig.give_up(node, "loses its disk")

    def retire(self) -> None:
        """Some who were removed are shut down."""
        now = {peer for each in self.rig.safety.in_effect(self.rig.founding) for peer in quorum.members(each)}
        for node in self.rig.nodes.values():
            if node.peer not in now and not node.gone and self.rng.random() < 0.7:
                self._count("node leaves")
                self.rig.give_up(node, "was removed and is shut down")

    # Network

    def partition(self) -> None:
        peers = list(self.rig.nodes)
        side = set(self.rng.sample(peers, self.rng.randint(1, len(peers))))
        self.rig.weather.cut = {(a, b) for a in peers for b in peers if (a in side) != (b in side)}
        self._count("partition")
        self.rig.tell(f"partition {sorted(side)}")

    def cut_one_way(self) -> None:
        peers = list(self.rig.nodes)
        links = [(self.rng.choice(peers), self.rng.choice(peers)) for _ in range(self.rng.randint(1, 4))]
        self.rig.weather.cut.update(links)
        self._count("one-way cut")
        self.rig.tell(f"nothing goes {', '.join(f'{a}->{b}' for a, b in links)}")

    def isolate(self, node: Node | None = None) -> None:
        """One node is cut off, nobody else."""
        node = node or self._someone()
        if node is not None:
            others = [peer for peer in self.rig.nodes if peer != node.peer]
            self.rig.weather.cut = {pair for peer in others for pair in ((peer, node.peer), (node.peer, peer))}
            self._count("partition")
            self.rig.tell(f"{node.peer} is cut off")

    def deafen(self, node: Node, leader: Node) -> None:
        """It hears everybody but the leader: soon it asks the others for an election, with a log as good as any."""
        self.rig.weather.cut = {(leader.peer, node.peer)}
        self._count("one-way cut")
        self.rig.tell(f"{node.peer} does not hear {leader.peer}")

    def mend_links(self) -> None:
        self.rig.weather.cut.clear()

    def change_weather(self) -> None:
        weather = self.rig.weather
        weather.loss = self.rng.choice((0.0, 0.0, 0.02, 0.2))
        weather.duplication = self.rng.choice((0.0, 0.0, 0.1))
        weather.delay_ms = self.rng.choice(((1, 1), (1, 3), (1, 3), (1, 80), (50, 400)))
        weather.idle = self.rng.choice((0.0, 0.2))
        self._count("weather")

    # Bursts

    def storm(self) -> None:
        """Clocks jump, processes restart at once and links flap within milliseconds: elections in each other's way."""
        jumps, blinks = [self.jump] * 3, [self.blink] * 2
        deeds = [*jumps, *blinks, self.isolate, self.propose, self.read, self.mend_links]
        for _ in range(self.rng.randint(5, 40)):
            self.rng.choice(deeds)()
            self._pause(4.0)

    def coup(self) -> None:
        """Somebody is cut off, the others lose patience (and some of them their memory) and elect; and once more, with
        somebody else cut off. At times one disk is slow, or all are, so that the next leader's entries overtake a
        save."""
        if self.rng.random() < 0.4:
            self._count("slow disks")
            slow = self.rng.choice(([self._someone()], self.rig.alive()))
            for node in slow:
                if node is not None:
                    self.rig.mend_disk(node)
                    node.sync_ms = self.rng.choice((10, 50, 200))
        for _ in range(self.rng.randint(1, 4)):
            self.isolate()
            for node in self.rig.alive():
                if self.rng.random() < 0.3:
                    self.rig.crash(node)
                    self.rig.start(node.peer)
                if node.raft is not None and self.rng.random() < 0.7:
                    self.rig.jump(node, self.rig.options.election_ticks)
            self.jump()
            if self.rng.random() < 0.3:
                self.change()  # by a leader that is cut off, as likely as not
            pause_ms = self.rng.choice((4.0, 8.0, 30.0))
            for deed in (self.propose, self.read):
                self._pause(pause_ms)
                deed()

    # The group

    def transfer(self) -> None:
        leader = self.rig.leader()
        if leader is not None and leader.raft is not None:
            self.rig.touch(leader)
            voters = quorum.voters(leader.raft.status().configuration)
            try:
                leader.raft.transfer_leadership(self.rng.choice(voters))
            except ChangeRefused:
                return
            self._count("transfer of leadership")
            self.rig.settle(leader)

    def suspect(self) -> None:
        node = self._anyone()
        if node is not None and node.raft is not None:
            self._count("connection broken")
            self.rig.touch(node)
            node.raft.suspect(self.rng.choice(list(self.rig.nodes)))
            self.rig.settle(node)

    def change(self) -> None:
        leader = self.rig.leader()
        if leader is None or leader.raft is None:
            return
        now = leader.raft.status().configuration
        choices = [change for change in self._changes(now) if self._affordable(now, change)]
        change = self.rng.choice(choices) if choices else None
        if change is None:
            return
        if isinstance(change, AddLearner) and change.peer not in self.rig.nodes:
            self._count("node joins")
            self.rig.start(change.peer)
        self.rig.faults["change of the group"] += self.rig.change(leader, change)

    def _changes(self, now: Configuration) -> list[Change]:
        nodes = self.rig.nodes
        choices: list[Change] = []
        if len(quorum.members(now)) < 7:
            spare = [peer for peer in nodes if not nodes[peer].gone and peer not in quorum.members(now)]
            living = sum(not node.gone for node in nodes.values())
            if living < NODES_MAX and (not spare or self.rng.random() < 0.5):
                spare = [self.rig.new_name()]
            choices += [AddLearner(peer) for peer in spare[:1]]
        sound = [peer for peer in now.learners if not nodes[peer].gone]
        lost = [peer for peer in now.voters if nodes[peer].gone]
        choices += [Promote(peer) for peer in sound if len(now.voters) < 5]
        choices += [Replace(self.rng.choice(lost or now.voters), peer) for peer in sound]
        if len(now.voters) > 2:
            choices += [Remove(self.rng.choice(lost or now.voters)), Demote(self.rng.choice(now.voters))]
        choices += [Remove(peer) for peer in now.learners]
        return choices

    def _affordable(self, now: Configuration, change: Change) -> bool:
        """Whether a quorum of what comes of it can be healed."""
        sound = [peer for peer, node in self.rig.nodes.items() if not node.gone and not node.medium.rotten]
        try:
            return is_majority(changed(now, change), sound)
        except ChangeRefused:
            return True  # it is for the core to say so

    # Calm

    def heal(self) -> Node:
        self.rig.tell("heal")
        self.rig.mend()
        for node in list(self.rig.nodes.values()):
            if node.raft is None:
                self.rig.start(node.peer)
        return self.rig.demand_progress("everybody")

    def calm(self) -> None:
        """Clients go on; somebody may be cut off for a while, and nobody is deposed for that."""
        self.heal()
        self.rig.advance(SETTLE_MS)
        leader = self.rig.leader()
        if leader is None or leader.raft is None:
            raise Violation("a healthy group has no leader")
        term = leader.term
        seconds = self.rng.randint(*CALM_SECONDS)
        absent = self._dispensable(leader)
        if absent is not None and self.rng.random() < 0.5:
            self.isolate(absent)
        elif absent is not None:
            self.deafen(absent, leader)
        for second in range(seconds):
            if second == seconds // 2:
                self.mend_links()
            if self.rng.random() < CALM_PROPOSALS:
                self.propose()
            if self.rng.random() < CALM_READS:
                self.rig.read(self.rng.choice(self.rig.alive()))
            self.rig.advance(1000)
        if (leader.raft is None) or leader.raft._member.leader != leader.peer or leader.term != term:
            raise Violation(f"{leader.peer}, healthy and heard by a quorum, led term {term} and was deposed")

    def _dispensable(self, leader: Node) -> Node | None:
        assert leader.raft is not None
        now = leader.raft._member.configuration
        up = [node.peer for node in self.rig.alive()]
        others = [node for node in self.rig.alive() if node is not leader]
        node = self.rng.choice(others) if others and self.rng.random() < 0.7 else None
        if node is None or not is_majority(now, [peer for peer in up if peer != node.peer]):
            return None
        return node

    def heal_a_quorum(self) -> None:
        """As few as can do it, drawn at random; everybody else is down."""
        nodes = list(self.rig.nodes.values())
        self.rng.shuffle(nodes)
        down: list[Node] = []
        for node in nodes:
            if self.rig.bears_loss_of([each.peer for each in (*down, node)]):
                down.append(node)
        self.rig.mend()
        for node in down:
            self.rig.crash(node)
        for node in nodes:
            if node.raft is None and node not in down:
                self.rig.start(node.peer)
        quorum_of = sorted(node.peer for node in self.rig.alive())
        self.rig.tell(f"heal {quorum_of} alone")
        self.rig.demand_progress(str(quorum_of))


def live(seed: int, skipping: bool = True, calm: bool = True) -> Group:
    """One simulated life of a group; `Violation` (or another assertion) tells what went wrong. Without calm stretches
    it is mended between its spells of faults, and no more."""
    rng = random.Random(seed)
    options = rng.choice((OPTIONS, OPTIONS, OPTIONS, consensus.OPTIONS))
    rig = Group(seed, rng.choice((1, 2, 3, 3, 3, 5)), options, skipping)
    chaos = Chaos(rig)
    try:
        rig.advance(3000)
        for _ in range(SPELLS):
            for _ in range(DEEDS):
                chaos.step()
            if calm:
                chaos.calm()
            else:
                chaos.heal()
        for _ in range(DEEDS // 2):
            chaos.step()
        chaos.heal_a_quorum()
        chaos.heal()
    except BaseException as error:
        error.add_note(f"seed {seed}, at {rig.now / 1000:.3f} s\n" + "\n".join(rig.story))
        raise
    return rig


def run(seed: int) -> Outcome:
    return _outcome(live(seed))


def storms(seed: int) -> Outcome:
    """Faults only: more of them a second, for whoever looks for a fault of safety."""
    return _outcome(live(seed, calm=False))


def _outcome(rig: Group) -> Outcome:
    return Outcome(rig.node_seconds, rig.faults, list(rig.story))
