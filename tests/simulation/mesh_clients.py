"""Users of a simulated mesh: each submits a run through some node, again through another one until it is accepted, and
follows it to its end through whichever nodes are up, as `mesh run` does. What they are told must be what the log holds.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import trio

from mesh.backend import MeshBackend
from mesh.ports import CollectionFailed
from protocols.errors import MeshError, UsageError
from protocols.ids import Cid, RunId
from protocols.manifests import CollectedTest, Outcome, RunSpec
from tests.fakes.runner import Suite
from tests.simulation.mesh_ledger import Book, demand
from tests.simulation.mesh_world import SimNode, World

RETRY_SECONDS = 0.5
LIMIT_SECONDS = 2.0
"""What a test may take that hangs."""
ALWAYS = 1e6
SUBMISSIONS_MAX = 6


@dataclass
class Ticket:
    """One submission."""

    nonce: bytes
    suite: Suite
    spec: RunSpec
    mesh: str = ""
    run: RunId | None = None
    seen: dict[str, str] = field(default_factory=dict)
    """Verdicts that the follower was told of."""
    finished: dict[str, Any] | None = None


class Clients:
    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.tickets: list[Ticket] = []
        self.open = 0

    def submit(self) -> None:
        """One more, now and then by two requests at once."""
        if len(self.tickets) == SUBMISSIONS_MAX:
            return
        number = len(self.tickets)
        name = f"suite{number}"
        suite = self.world.suites[name] = self._suite(number)
        bundle = Cid("")
        spec = RunSpec(
            bundle, "suite", "suite", sorted(self.world.nodes)[0], (name,), priority=self.rng.choice((10, 50, 50)),
            retries=self.rng.choice((0, 0, 1)), worker_count=self.rng.choice((0, 0, 0, 1)), timeout=LIMIT_SECONDS,
        )  # fmt: skip
        ticket = Ticket(b"nonce-%d" % number, suite, spec)
        self.tickets.append(ticket)
        twice = self.rng.random() < 0.3
        self.world.faults["submission"] += 1
        self.world.faults["doubled submission"] += twice
        for follows in (True, False) if twice else (True,):
            self.open += 1
            self.world.nursery.start_soon(self._use, ticket, follows)

    def _suite(self, number: int) -> Suite:
        rng = self.rng
        if rng.random() < 0.06:
            return Suite([], failure=CollectionFailed(rng.choice((2, 4)), "E   ValueError: boom\n"))
        count = rng.choice((0, 1, 5, 10, 20, 40)) if number else 40
        per = rng.choice((1, 4, 10))
        tests = [CollectedTest(f"t{number}_{i // per}.py::test_{i}", f"t{number}_{i // per}.py") for i in range(count)]
        seconds = {test.id: rng.choice((0.05, 0.2, 0.6, 1.5)) for test in tests}
        outcomes = dict.fromkeys(seconds, Outcome.PASSED)
        for test in rng.sample(tests, min(count, rng.choice((0, 0, 2)))):
            outcomes[test.id] = rng.choice((Outcome.FAILED, Outcome.SKIPPED, Outcome.XFAILED))
        for test in rng.sample(tests, min(count, rng.choice((0, 0, 1)))):
            outcomes[test.id] = Outcome.ERROR
            self.world.faults["test whose process dies"] += 1
        for test in rng.sample(tests, min(count, rng.choice((0, 0, 1)))):
            seconds[test.id], outcomes[test.id] = ALWAYS, Outcome.FAILED
            self.world.faults["test that hangs"] += 1
        return Suite(tests, seconds.__getitem__, outcomes.__getitem__)

    def cancel(self) -> None:
        """Somebody's run."""
        ready = [ticket for ticket in self.tickets if ticket.run is not None and ticket.finished is None]
        if ready:
            self.world.faults["cancellation"] += 1
            self.world.nursery.start_soon(self._cancel, self.rng.choice(ready))

    async def _cancel(self, ticket: Ticket) -> None:
        run = ticket.run
        assert run is not None
        try:
            await self._through(lambda backend: backend.cancel(run), 10.0)
        except MeshError as error:
            self.world.tell(f"run {run} was not cancelled: {error}")

    async def _use(self, ticket: Ticket, follows: bool) -> None:
        while not await self._submitted(ticket):  # noqa: ASYNC110
            await trio.sleep(RETRY_SECONDS)
        while follows and ticket.finished is None:
            try:
                await self._through(lambda backend: self._follow(backend, ticket), self.rng.uniform(5, 60))
            except UsageError as error:
                demand(False, f"an accepted run is not known: {error}")
            except MeshError as error:
                self.world.tell(f"the follower of run {ticket.run} goes on elsewhere: {error}")
            await trio.sleep(RETRY_SECONDS)
        self.open -= 1

    async def _submitted(self, ticket: Ticket) -> bool:
        node = self._anyone()
        if node is None:
            return False

        async def submit(backend: MeshBackend) -> RunId:
            bundle = await node.content.put(b"bundle of " + ticket.nonce)
            fields = {name: getattr(ticket.spec, name) for name in ticket.spec.__slots__}
            return await backend.submit(ticket.nonce, RunSpec(**{**fields, "bundle": bundle, "submitter": node.peer}))

        with trio.move_on_after(self.rng.uniform(2, 40)):
            try:
                run = await node.ask(submit)
            except MeshError as error:
                self.world.tell(f"{node.peer} did not take {ticket.nonce!r}: {error}")
                return False
            demand(ticket.run in (None, run), f"{ticket.nonce!r} is run {ticket.run}, and run {run}")
            ticket.run = run
            meshes = [mesh for mesh, book in self.world.ledger.books.items() if book.runs.get(ticket.nonce) == run]
            demand(meshes, f"run {run} was acknowledged and is in no log")
            ticket.mesh = meshes[0]
            self.world.tell(f"{node.peer} took {ticket.nonce!r}: run {run}")
            return True
        return False

    async def _follow(self, backend: MeshBackend, ticket: Ticket) -> None:
        assert ticket.run is not None
        book = self.world.ledger.book(ticket.mesh)
        events = backend.follow(ticket.run, len(ticket.seen))
        try:
            async for event in events:
                self._take(book, ticket, event)
        finally:
            with trio.CancelScope(shield=True):
                await events.aclose()  # type: ignore[attr-defined]

    def _take(self, book: Book, ticket: Ticket, event: dict[str, Any]) -> None:
        assert ticket.run is not None
        if event["event"] == "verdict":
            name, outcome = event["test"], event["outcome"]
            demand(name not in ticket.seen, f"the follower of run {ticket.run} is told of {name} twice")
            place = next(i for i, test in enumerate(ticket.suite.tests) if test.id == name)
            recorded = book.verdicts.get((ticket.run, place))
            demand(recorded == outcome, f"{name} is {recorded} in the log, and its follower is told {outcome}")
            ticket.seen[name] = outcome
            demand(event["cursor"] == len(ticket.seen), "the cursor counts verdicts")
        elif event["event"] == "finished":
            self._judge(book, ticket, event)
            ticket.finished = event

    def _judge(self, book: Book, ticket: Ticket, event: dict[str, Any]) -> None:
        """A run is over: what its follower has must be what the suite is."""
        assert ticket.run is not None
        finish = book.finished.get(ticket.run)
        demand(finish and finish.report == event["report"], f"run {ticket.run} is told to be finished otherwise")
        if ticket.run in book.cut_short or ticket.run in book.uncollected:
            return
        demand(set(ticket.seen) == {test.id for test in ticket.suite.tests}, "finished, without all verdicts")
        for place, test in enumerate(ticket.suite.tests):
            lost = (ticket.run, place) in book.abandoned
            wanted = Outcome.ERROR if lost else ticket.suite.outcome(test.id)
            demand(ticket.seen[test.id] == wanted, f"{test.id} is {wanted}, and was told {ticket.seen[test.id]}")

    def _anyone(self) -> SimNode | None:
        up = self.world.up()
        return self.rng.choice(up) if up else None

    async def _through(self, request: Any, patience: float) -> None:
        node = self._anyone()
        if node is not None:
            with trio.move_on_after(patience):
                await node.ask(request)
