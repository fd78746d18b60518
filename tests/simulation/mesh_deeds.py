"""The deeds of `mesh_chaos`: what can go wrong in a simulated mesh of the real services, one method each, at random.

One node of a mesh is the unlucky one, the only one that loses what its disk promised: content lies on two nodes, so
that whatever happens to one of them, nothing may be lost.
"""

import random
from collections.abc import Callable
from typing import Any

import trio

from protocols import work
from protocols.ids import PeerId
from protocols.presence import Role
from protocols.raft import Configuration
from protocols.work import CommandVerb
from tests.fakes.disk import SYNC_SECONDS
from tests.fakes.network import Weather
from tests.simulation.mesh_clients import Clients
from tests.simulation.mesh_ledger import demand
from tests.simulation.mesh_world import SimNode, World

HEALED = Weather()
WEATHERS = (
    HEALED,
    Weather(delay=(0.001, 0.08)),
    Weather(delay=(0.02, 0.4)),
    Weather(loss=0.02, duplication=0.05, reorder=0.05),
    Weather(delay=(0.001, 0.05), loss=0.1, duplication=0.1, reorder=0.2),
)


class Deeds:
    """Done to `world`; `deeds` has a weight for each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.rng.getrandbits(32))
        self.clients = Clients(world, random.Random(world.rng.getrandbits(32)))
        self.unlucky = PeerId("")
        self.kept_down: frozenset[PeerId] = frozenset()
        self.over = False
        self.deeds: list[tuple[int, Callable[[], None]]] = [
            (10, self.clients.submit),
            (2, self.clients.cancel),
            (8, self.crash),
            (2, self.crash_all),
            (4, self.partition),
            (4, self.cut_one_way),
            (4, self.isolate_leader),
            (6, self.mend),
            (4, self.weather),
            (6, self.flap),
            (4, self.slow_disk),
            (4, self.hang_disk),
            (3, self.fill_disk),
            (3, self.jump_clock),
            (4, self.jump_ticks),
            (4, self.mute),
            (4, self.join),
            (3, self.leave),
            (2, self.drain),
            (3, self.damage_log),
            (3, self.damage_blocks),
            (3, self.lose_blocks),
            (2, self.lose_disk),
        ]

    def _did(self, what: str, whom: object = "") -> None:
        self.world.faults[what] += 1
        self.world.tell(f"-- {what} {whom}")

    def _anyone(self) -> SimNode | None:
        """Who is up; the leader rather often."""
        up = self.world.up()
        leader = self.world.leader() if self.rng.random() < 0.3 else None
        return leader or (self.rng.choice(up) if up else None)

    def _come_back(self, node: SimNode, after: float) -> None:
        async def later() -> None:
            await trio.sleep(after)
            await node.ended.wait()
            wanted = not node.gone and not (self.over and node.peer in self.kept_down)
            if wanted and node.ended.is_set():
                node.start()

        self.world.nursery.start_soon(later)

    def crash(self) -> None:
        node = self._anyone()
        if node is not None:
            self._did("crash", node.peer)
            node.crash()
            self._come_back(node, self.rng.choice((0.0, 0.3, 2.0, 6.0)))

    def crash_all(self) -> None:
        self._did("crash of all")
        for node in self.world.up():
            node.crash()
            self._come_back(node, self.rng.uniform(0, 3))

    def partition(self) -> None:
        peers = sorted(self.world.nodes)
        side = self.rng.sample(peers, self.rng.randint(1, len(peers)))
        self._did("partition", side)
        self.world.lan.cut(side, [peer for peer in peers if peer not in side])

    def isolate_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self._did("isolated coordinator", leader.peer)
            self.world.lan.cut([peer for peer in self.world.nodes if peer != leader.peer])

    def cut_one_way(self) -> None:
        peers = sorted(self.world.nodes)
        cut = {(self.rng.choice(peers), self.rng.choice(peers)) for _ in range(self.rng.randint(1, 4))}
        self._did("one-way cut", sorted(cut))
        self.world.lan.cut_if(lambda a, b: (a, b) in cut)

    def mend(self) -> None:
        self.world.tell("-- the network is whole")
        self.world.lan.heal()
        self.world.lan.mute.clear()

    def weather(self) -> None:
        self.world.lan.weather = self.rng.choice(WEATHERS)
        self._did("change of weather", self.world.lan.weather)

    def flap(self) -> None:
        links = sorted(self.world.lan.links, key=sorted)
        if links:
            link = self.rng.choice(links)
            self._did("broken connection", sorted(link))
            self.world.lan.unlink(link)

    def _for_a_while(self, node: SimNode, seconds: float) -> None:
        async def later() -> None:
            await trio.sleep(seconds)
            self._repair(node)

        self.world.nursery.start_soon(later)

    def _repair(self, node: SimNode) -> None:
        if node.disk.hung is not None:
            node.disk.hung.set()
        node.disk.hung, node.disk.broken, node.disk.sync = None, False, SYNC_SECONDS
        node.outbox.broken = False
        self.world.shelves.full.discard(node.peer)
        self.world.shelves.slow.pop(node.peer, None)

    def slow_disk(self) -> None:
        node = self._anyone()
        if node is not None:
            self._did("slow disk", node.peer)
            node.disk.sync = self.rng.choice(((0.02, 0.2), (0.2, 1.0)))
            self.world.shelves.slow[node.peer] = self.rng.uniform(0.02, 0.5)
            self._for_a_while(node, self.rng.uniform(2, 8))

    def hang_disk(self) -> None:
        node = self._anyone()
        if node is not None and node.disk.hung is None:
            self._did("hung disk", node.peer)
            node.disk.hung = trio.Event()
            self._for_a_while(node, self.rng.uniform(0.5, 8))

    def fill_disk(self) -> None:
        """The node stops as soon as it writes; room is made, and it is started again."""
        node = self._anyone()
        if node is not None:
            self._did("full disk", node.peer)
            node.disk.broken = node.outbox.broken = True
            self.world.shelves.full.add(node.peer)
            self._for_a_while(node, after := self.rng.uniform(2, 8))
            self._come_back(node, after + 0.1)

    def jump_clock(self) -> None:
        node = self.rng.choice(sorted(self.world.nodes.values(), key=lambda node: node.peer))
        self._did("clock that jumps", node.peer)
        node.clock.offset += self.rng.choice((-1e6, -60.0, 60.0, 1e6))
        node.clock.rate = self.rng.choice((0.5, 1.0, 2.0))

    def jump_ticks(self) -> None:
        """As after a stall of the process, or under a clock that runs fast."""
        node = self._anyone()
        group = node.membership.group if node is not None else None
        if node is not None and group is not None:
            self._did("ticks that jump", node.peer)
            for _ in range(self.rng.randint(1, 45)):
                group._raft.tick()  # type: ignore[attr-defined]
            group._wake.set()  # type: ignore[attr-defined]

    def mute(self) -> None:
        node = self._anyone()
        if node is not None:
            self._did("worker without heartbeats", node.peer)
            self.world.lan.mute.add((node.peer, work.PROTOCOL))

    def join(self) -> None:
        if len(self.world.nodes) < 6:
            node = self.world.add(self.rng.choice((Role.AUTO, Role.AUTO, Role.WORKER)))
            self._did("join", node.peer)

    def leave(self) -> None:
        node = self._anyone()
        if node is not None:
            self._did("order to leave", node.peer)
            node.obey(CommandVerb.STOP)
            self._come_back(node, self.rng.uniform(3, 12))

    def drain(self) -> None:
        node = self._anyone()
        if node is not None:
            self._did("drain", node.peer)
            node.obey(CommandVerb.DRAIN)

    # What only the unlucky node suffers

    def _victim(self) -> SimNode | None:
        node = self.world.nodes[self.unlucky]
        return node if not node.gone and self._can_do_without(frozenset({node.peer})) else None

    def damage_log(self) -> None:
        """A flipped bit: the node notices when it starts, and stops; then its disk is replaced."""
        node = self._victim()
        if node is not None and node.role.votes and node.disk.rot():
            self._did("damaged row of a log", node.peer)
            node.crash()
            self._replace(node, self.rng.uniform(1, 5), tried=True)

    def lose_disk(self) -> None:
        node = self._victim()
        if node is not None:
            self._did("lost disk", node.peer)
            node.crash()
            self._replace(node, self.rng.uniform(1, 5), tried=False)

    def _replace(self, node: SimNode, after: float, tried: bool) -> None:
        """By a node under a new peer ID; the old one is, at most, `tried` again, and stops by itself."""

        async def later() -> None:
            await trio.sleep(after)
            await node.ended.wait()
            if tried:
                node.start()
                await trio.sleep(0.1)
                demand(node.ended.is_set(), f"{node.peer} runs on a damaged log")
            self.world.shelves.blocks.pop(node.peer, None)
            self.unlucky = self.world.add(node.role).peer

        node.gone = True
        self.world.nursery.start_soon(later)

    def damage_blocks(self) -> None:
        held = sorted(self.world.shelves.blocks.get(self.unlucky, {}))
        if held and self._victim():
            self._did("damaged blocks", self.unlucky)
            chosen = self.rng.sample(held, self.rng.randint(1, len(held)))
            self.world.shelves.rotten.update((self.unlucky, cid) for cid in chosen)

    def lose_blocks(self) -> None:
        held = sorted(self.world.shelves.blocks.get(self.unlucky, {}))
        if held and self._victim():
            self._did("missing blocks", self.unlucky)
            for cid in self.rng.sample(held, self.rng.randint(1, len(held))):
                del self.world.shelves.blocks[self.unlucky][cid]

    def _can_do_without(self, lost: frozenset[PeerId]) -> bool:
        world = self.world
        lost |= {peer for peer, node in world.nodes.items() if node.gone}
        left = frozenset(world.nodes) - lost
        configurations = [each for node in world.nodes.values() if not node.gone for each in node.configurations()]
        works = any(world.nodes[peer].role.works for peer in left)
        return works and self._all_content_is_in(left) and all(_majority(each, left) for each in configurations)

    def _all_content_is_in(self, left: frozenset[PeerId]) -> bool:
        blocks = {cid for held in self.world.shelves.blocks.values() for cid in held}
        return all(any(self._has(peer, cid) for peer in left) for cid in sorted(blocks))

    def _has(self, peer: PeerId, cid: Any) -> bool:
        shelves = self.world.shelves
        return cid in shelves.blocks.get(peer, {}) and (peer, cid) not in shelves.rotten


def _majority(configuration: Configuration, left: frozenset[PeerId]) -> bool:
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return all(2 * sum(peer in left for peer in half) > len(half) for half in halves)
