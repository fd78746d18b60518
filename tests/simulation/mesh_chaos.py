"""Faults at random for a simulated mesh of the real services. `run(seed)` is one life of a mesh: its birth, faults for
a while, then a heal of a random quorum, after which every run must end. The suite runs a few; many, by

    python tests/simulation/mesh_chaos.py FIRST COUNT

One node of a mesh is the unlucky one, the only one that loses what its disk promised: content lies on two nodes, so
that whatever happens to one of them, nothing may be lost.
"""

import faulthandler
import gc
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import trio  # noqa: E402
from trio._core import _run as scheduler  # noqa: E402
from trio.testing import MockClock  # noqa: E402

from protocols import work  # noqa: E402
from protocols.errors import MeshError  # noqa: E402
from protocols.ids import PeerId  # noqa: E402
from protocols.presence import Role  # noqa: E402
from protocols.raft import Configuration  # noqa: E402
from protocols.work import CommandVerb  # noqa: E402
from tests.fakes.disk import SYNC_SECONDS  # noqa: E402
from tests.fakes.network import Weather  # noqa: E402
from tests.fakes.threads import no_threads  # noqa: E402
from tests.simulation.life import Outcome  # noqa: E402
from tests.simulation.mesh_clients import Clients  # noqa: E402
from tests.simulation.mesh_ledger import demand  # noqa: E402
from tests.simulation.mesh_world import NEVER_ALONE, SimNode, World  # noqa: E402

BIRTH_SECONDS = 60.0
FINISH_SECONDS = 150.0
"""From the heal until every run is over."""
AGREE_SECONDS = 30.0
"""From then until all nodes that are up hold the same state."""
STORY_LINES = 60
HANG_SECONDS = 120.0
"""Of real time, for one seed: then the stacks are printed."""

HEALED = Weather()
WEATHERS = (
    HEALED,
    Weather(delay=(0.001, 0.08)),
    Weather(delay=(0.02, 0.4)),
    Weather(loss=0.02, duplication=0.05, reorder=0.05),
    Weather(delay=(0.001, 0.05), loss=0.1, duplication=0.1, reorder=0.2),
)


class Chaos:
    """What happens to the mesh, one random deed after another."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.rng.getrandbits(32))
        self.clients = Clients(world, random.Random(world.rng.getrandbits(32)))
        self.pause = self.rng.choice((0.2, 0.4, 0.8))
        self.seconds = self.rng.choice((5.0, 9.0, 14.0))
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

    # The life of a mesh

    async def live(self) -> None:
        voters = self.rng.choice((1, 2, 3, 3, 3, 3, 4, 5))
        for _ in range(voters):
            self.world.add(Role.AUTO, expect=voters)
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            self.world.add(Role.WORKER)
        with trio.fail_after(BIRTH_SECONDS):
            while not self._born(min(voters, 3) if voters != 2 else 1):  # noqa: ASYNC110
                await trio.sleep(0.1)
        for node in self.world.nodes.values():
            node.expect = NEVER_ALONE
        self.unlucky = self.rng.choice(sorted(self.world.nodes))
        self.world.tell(f"born; {self.unlucky} is the unlucky one")
        end = trio.current_time() + self.seconds
        weights = [
            weight * self.rng.choice((0, 1, 1, 4)) for weight, _ in self.deeds
        ]  # each life is bad in its own way
        weights[0] = self.deeds[0][0]
        self.clients.submit()
        while trio.current_time() < end:
            self.rng.choices([deed for _, deed in self.deeds], weights)[0]()
            await trio.sleep(self.rng.expovariate(1 / self.pause))
        await self.heal()
        await self.finish()

    def _born(self, voters: int) -> bool:
        leader = self.world.leader()
        group = leader.membership.group if leader else None
        return group is not None and len(group.configuration.voters) >= voters and len(group.state.workers) > 0

    async def heal(self) -> None:
        """All but a random few nodes, which stay down for good: whoever is left is a quorum, and has all content."""
        world = self.world
        self.over = True
        self.kept_down = self._spared()
        world.tell(f"healing; down for good: {sorted(self.kept_down)}")
        world.lan.heal()
        world.lan.weather = HEALED
        world.lan.mute.clear()
        for node in world.nodes.values():
            self._repair(node)
        for peer in self.kept_down:
            world.nodes[peer].crash()
        for node in list(world.nodes.values()):
            if node.up and node.table.own.draining:
                node.crash()
            self._come_back(node, 0.0)

    def _spared(self) -> frozenset[PeerId]:
        """Who may stay down: a minority by every configuration that any disk has."""
        everyone = sorted(peer for peer, node in self.world.nodes.items() if not node.gone)
        down = frozenset(self.rng.sample(everyone, self.rng.randint(0, len(everyone) // 2)))
        return down if self._can_do_without(down) else frozenset()

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

    async def finish(self) -> None:
        world, clients = self.world, self.clients
        with trio.move_on_after(FINISH_SECONDS) as scope:
            while clients.open or not all(self._is_over(ticket) for ticket in clients.tickets):  # noqa: ASYNC110
                await trio.sleep(0.25)
        if scope.cancelled_caught:
            waiting = [ticket.nonce for ticket in clients.tickets if not self._is_over(ticket)]
            demand(
                False, f"{FINISH_SECONDS:g} s after the heal, runs are not over: {waiting}; {clients.open} clients wait"
            )
        for ticket in clients.tickets:
            await self._report_is_there(ticket.finished)
        with trio.move_on_after(AGREE_SECONDS) as scope:
            while not self._agreed():  # noqa: ASYNC110
                await trio.sleep(0.25)
        demand(not scope.cancelled_caught, "the nodes that are up do not come to the same state")
        runs = {(ticket.mesh, ticket.run) for ticket in clients.tickets}
        for mesh, book in world.ledger.books.items():
            demand({(mesh, run) for run in book.runs.values()} <= runs, "a run that nobody submitted")

    def _is_over(self, ticket: Any) -> bool:
        return ticket.run in self.world.ledger.book(ticket.mesh).finished

    def _agreed(self) -> bool:
        groups = [node.membership.group for node in self.world.up() if node.membership.group is not None]
        return bool(groups) and len({(group.mesh, group.applied) for group in groups}) == 1

    async def _report_is_there(self, finished: dict[str, Any] | None) -> None:
        assert finished is not None, "its follower has seen the end"
        node = self.rng.choice(self.world.up())
        try:
            await node.content.get(finished["report"], timeout=20.0)
        except MeshError as error:
            demand(False, f"the report of run {finished['run']}: {error}")

    # Deeds

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


def _majority(configuration: Configuration, left: frozenset[PeerId]) -> bool:
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return all(2 * sum(peer in left for peer in half) > len(half) for half in halves)


def run(seed: int) -> Outcome:
    """One simulated life of a mesh; a `Violation` (or another error) tells what went wrong, and how it came to it."""
    story: list[str] = []

    async def simulate() -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            async with trio.open_nursery() as nursery:
                world = World(seed, Path(folder), nursery)
                story_of[0] = world.story
                await nursery.start(world.lan.run)
                nursery.start_soon(world.count_time)
                with patch("mesh.consensus.apply", world.ledger.apply):
                    await Chaos(world).live()
                nursery.cancel_scope.cancel()
        return Outcome(world.node_seconds, world.faults, world.story)

    story_of = [story]
    with (
        patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch.object(scheduler, "_r", random.Random(seed)),
        no_threads(),
        patch("os.fsync"),  # the disks that crash are fakes
    ):
        gc.disable()  # what one life leaves behind is little, and looking for it all the time takes long
        try:
            return trio.run(simulate, clock=MockClock(autojump_threshold=0))
        except BaseException as error:
            lines = [f"seed {seed}, commit {_commit()}", *story_of[0][-STORY_LINES:], *_reasons(error)]
            error.add_note("\n".join(lines))
            raise
        finally:
            gc.enable()


def _commit() -> str:
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return git.stdout.strip() or "unknown"


def _reasons(error: BaseException) -> list[str]:
    """What is at the bottom of nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for each in error.exceptions for reason in _reasons(each)]
    return [f"{type(error).__name__}: {error}"]


def main() -> None:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    logging.disable(logging.ERROR)
    faults: Counter[str] = Counter()
    failed: list[int] = []
    seconds, start = 0.0, time.process_time()
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        try:
            outcome = run(seed)
        except BaseExceptionGroup as error:
            failed.append(seed)
            print("\n".join(error.__notes__), flush=True)
            continue
        faults += outcome.faults
        seconds += outcome.node_seconds
        print(seed, f"{outcome.node_seconds:.0f} node-seconds", outcome.digest, flush=True)
    faulthandler.cancel_dump_traceback_later()
    for name, number in sorted(faults.items()):
        print(f"{number:8} {name}")
    print(f"{count} seeds, {seconds / 3600:.2f} node-hours in {time.process_time() - start:.0f} s; failed: {failed}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
