"""Faults at random for a simulated mesh of the real services. `run(seed)` is one life of a mesh: its birth, faults for
a while, then a heal of a random quorum, after which every run must end. The suite runs a few; `make simulate` many.
"""

import gc
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from protocols.errors import MeshError
from protocols.ids import PeerId
from protocols.presence import Role
from tests.fakes.threads import no_threads
from tests.simulation.life import Outcome
from tests.simulation.mesh_deeds import HEALED, Deeds
from tests.simulation.mesh_ledger import demand
from tests.simulation.mesh_world import NEVER_ALONE, World

ROOT = Path(__file__).resolve().parents[2]
BIRTH_SECONDS = 60.0
FINISH_SECONDS = 150.0
"""From the heal until every run is over."""
AGREE_SECONDS = 30.0
"""From then until all nodes that are up hold the same state."""
STORY_LINES = 60


class Chaos(Deeds):
    """The life of a mesh: one random deed after another, and then none."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.pause = self.rng.choice((0.2, 0.4, 0.8))
        self.seconds = self.rng.choice((5.0, 9.0, 14.0))

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
        with trio.fail_after(AGREE_SECONDS):
            while not self.world.up():  # noqa: ASYNC110 - what was over before the heal may be asked for right after it
                await trio.sleep(0.1)
        node = self.rng.choice(self.world.up())
        try:
            await node.content.get(finished["report"], timeout=20.0)
        except MeshError as error:
            demand(False, f"the report of run {finished['run']}: {error}")


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
