"""What a coordinator raises, clears, tells and puts into quarantine: against a log that takes every command at once."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import trio

from mesh.alerting import keeper as module
from mesh.alerting.config import AlertConfig, Command, Sink
from mesh.alerting.keeper import AlertKeeper
from mesh.alerting.lonely import LonelyAlerts
from mesh.alerting.telling import Telling
from mesh.anomalies.rules import Rules
from mesh.ports import Applied, NodeView
from mesh.scheduler.fleet import WorkerView, unusable
from mesh.state import alerts
from mesh.state.apply import apply
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState
from mesh.state.past import Whole, past_run, results_of
from protocols.alerts import AcknowledgeAlert, AlertKind
from protocols.commands import Collected, Complete, Finish, Found, Grant, RaiseFormat, Register, Submit, TaskRange
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import Outcome, RunSpec
from protocols.presence import NodeState
from tests.fakes.threads import no_threads
from tests.membership.mesh_rig import EPOCH, TrioClock, presence_of

PEERS = tuple(PeerId(f"lab{n}") for n in range(4))
PASSED, FAILED = Outcome.PASSED.code, Outcome.FAILED.code


@pytest.fixture(autouse=True)
def threadless() -> Iterator[None]:
    with no_threads():
        yield


class Log:
    """`ReplicatedLog`, of one."""

    mesh = "lab"

    def __init__(self, version: int = alerts.LOG_FORMAT_MIN) -> None:
        self.state = CoordinatorState()
        self.version = 0
        self._changed = trio.Event()
        for command in (Found("lab"), RaiseFormat(version), *(Register(peer, peer, 1, 2) for peer in PEERS)):
            self.do(command)

    def do(self, command: Any) -> Any:
        result = apply(self.state, self.state.applied + 1, command)
        check(self.state)
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()
        return result

    async def propose(self, command: Any, timeout: float = 10.0) -> Applied:
        await trio.lowlevel.checkpoint()
        return Applied(self.state.applied, self.do(command))

    async def propose_many(self, commands: Sequence[Any], timeout: float = 10.0) -> list[Applied]:
        return [await self.propose(command) for command in commands]

    async def wait_changed(self, since: int) -> int:
        while self.version <= since:
            await self._changed.wait()
        return self.version


class Nodes:
    def __init__(self) -> None:
        self.views: dict[PeerId, NodeView] = {}
        for peer in PEERS:
            self.see(peer)

    def see(self, peer: PeerId, state: NodeState = NodeState.ALIVE, **presence: object) -> None:
        told = dataclasses.replace(presence_of(peer), **presence)  # type: ignore[arg-type]
        self.views[peer] = NodeView(told, state, 0.0, 0.0, state is not NodeState.DEAD)

    def nodes(self) -> Mapping[PeerId, NodeView]:
        return self.views


class History:
    """Runs as they finish: each file's one test on one host."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.wholes_: list[Whole] = []
        self.names = [f"tests/test_{n}.py::test_it" for n in range(24)]

    def has(self, key: str, whole: bool = False) -> bool:
        return any(one.run.key == key for one in self.wholes_)

    async def wholes(self, project: str, limit: int, tests_max: int) -> tuple[list[Whole], dict[bytes, list[str]]]:
        return self.wholes_[:limit], {b"": self.names}

    def run(self, fails: Callable[[int, PeerId], bool]) -> None:
        log, count = self._log, len(self.names)
        number = log.state.applied
        spec = RunSpec(Cid("bafybundle"), "suite", "suite", PeerId("client"))
        run = log.do(Submit(b"%d" % number, spec, float(number))).run
        usable = [peer for peer in PEERS if peer not in log.state.quarantine]
        lease = log.do(Grant(run, usable[0], 1, ())).lease
        log.do(Collected(lease, Cid("bafkm"), count, tuple(TaskRange(n, 1) for n in range(count))))
        for place in range(count):
            peer = usable[(place * 7 + len(self.wholes_)) % len(usable)]
            lease = log.do(Grant(run, peer, 1, (TaskRange(place, 1),))).lease
            outcome = FAILED if fails(place, peer) else PASSED
            log.do(Complete(lease, Cid("bafkc"), (TestIndex(place),), bytes([outcome]), (200_000,)))
        log.do(Finish(run, Cid(f"bafyreport{number}"), 1, number + 9.0))
        ended = log.state.runs[run]
        past = past_run("lab", ended, {}, None, 8)
        self.wholes_.insert(0, Whole(past, b"", results_of(ended)))


class Lab:
    def __init__(self, nursery: trio.Nursery, rules: Rules | None = None, version: int = alerts.LOG_FORMAT_MIN) -> None:
        self.log, self.nodes = Log(version), Nodes()
        self.history = History(self.log)
        self.told: list[tuple[str, str]] = []
        self.keeper = AlertKeeper(
            config=AlertConfig(rules or Rules()),
            log=self.log,  # type: ignore[arg-type]
            nodes=self.nodes,  # type: ignore[arg-type]
            clock=TrioClock(),
            history=self.history,  # type: ignore[arg-type]
            telling=Telling([Command(command=("pager",))], self._take),
        )
        self.scope = trio.CancelScope()
        self._nursery = nursery
        nursery.start_soon(self._lead)

    async def _lead(self) -> None:
        with trio.CancelScope() as self.scope:
            await self.keeper.lead()

    async def fail_over(self) -> None:
        """The next coordinator: of the old one's memory it has nothing."""
        self.scope.cancel()
        await trio.sleep(1)
        self._nursery.start_soon(self._lead)

    def _take(self, sink: Sink, mesh: str, event: str, alert: Mapping[str, Any]) -> None:
        self.told.append((event, alert["kind"]))

    def active(self) -> list[tuple[str, str]]:
        return [(kind.value, subject) for kind, subject in alerts.active(self.log.state)]


@pytest.fixture
async def lab(nursery: trio.Nursery) -> Lab:
    return Lab(nursery)


def nothing(place: int, peer: PeerId) -> bool:
    return False


async def test_a_full_disk_is_told_once_whoever_leads_and_its_end_too(lab: Lab, autojump_clock: object) -> None:
    await trio.sleep(5)
    assert lab.active() == []
    lab.nodes.see(PEERS[1], load={"disk.free": 2**28})
    await trio.sleep(10)
    await lab.fail_over()
    await trio.sleep(10)
    assert lab.active() == [("full-disk", PEERS[1])]
    assert lab.told == [("raised", "full-disk")]
    lab.nodes.see(PEERS[1], load={"disk.free": 2**40})
    await trio.sleep(10)
    assert lab.active(), "it is not over at once"
    await trio.sleep(module.SETTLE_SECONDS + 5)
    assert lab.active() == []
    assert lab.told == [("raised", "full-disk"), ("cleared", "full-disk")]
    assert len(lab.log.state.alerts) == 1


async def test_a_node_that_comes_and_goes(lab: Lab, autojump_clock: object) -> None:
    for _ in range(3):
        lab.nodes.see(PEERS[2], NodeState.DEAD)
        await trio.sleep(5)
        lab.nodes.see(PEERS[2])
        await trio.sleep(5)
    assert lab.active() == [("flapping-node", PEERS[2])]


async def test_a_node_that_is_restarted_in_order_does_not_flap(lab: Lab, autojump_clock: object) -> None:
    for incarnation in range(2, 8):
        lab.nodes.see(PEERS[2], NodeState.DRAINING, draining=True, incarnation=incarnation - 1)
        await trio.sleep(5)
        lab.nodes.see(PEERS[2], incarnation=incarnation)
        await trio.sleep(5)
    assert lab.active() == []


async def test_a_run_that_waits_too_long(lab: Lab, autojump_clock: object) -> None:
    spec = RunSpec(Cid("bafybundle"), "suite", "suite", PeerId("client"))
    run = lab.log.do(Submit(b"n", spec, EPOCH + trio.current_time())).run
    await trio.sleep(590)
    assert lab.active() == []
    await trio.sleep(20)
    assert lab.active() == [("long-queue", str(run))]
    lab.log.do(Grant(run, PEERS[0], 1, ()))
    await trio.sleep(module.SETTLE_SECONDS + 5)
    assert lab.active() == []


async def test_a_bad_host_goes_into_quarantine_where_the_rules_say_so(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    lab = Lab(nursery, Rules(quarantine=True, quarantine_seconds=300.0))
    for _ in range(4):
        lab.history.run(nothing)
        await trio.sleep(5)
    assert lab.active() == []
    sick = PEERS[3]
    lab.history.run(lambda place, peer: peer == sick)
    await trio.sleep(5)
    assert lab.active() == [("bad-host", sick)]
    assert list(lab.log.state.quarantine) == [sick]
    (alert,) = lab.log.state.alerts
    view = WorkerView(sick, 1, alive=True)
    assert unusable(lab.log.state, view) == f"is in quarantine for alert {alert}"
    await trio.sleep(310)
    assert not lab.log.state.quarantine, "it ends by itself"
    lab.history.run(lambda place, peer: peer == sick)
    await trio.sleep(5)
    assert list(lab.log.state.quarantine) == [sick], "and begins anew"
    lab.log.do(AcknowledgeAlert(alert, "ada", 1.0))
    lab.history.run(nothing)
    await trio.sleep(5)
    assert not lab.log.state.quarantine, "who knows decides"
    lab.history.run(nothing)
    await trio.sleep(5)
    assert lab.active() == [], "it is well again"


async def test_quarantine_leaves_enough_workers(
    nursery: trio.Nursery, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(nursery, Rules(quarantine=True))
    for peer in PEERS[2:]:
        lab.nodes.see(peer, NodeState.DEAD)
    await trio.sleep(1)
    for _ in range(4):
        lab.history.run(nothing)
    lab.history.run(lambda place, peer: peer == PEERS[1])
    await trio.sleep(5)
    assert ("bad-host", PEERS[1]) in lab.active()
    assert not lab.log.state.quarantine or len(lab.log.state.quarantine) == 1
    lab.nodes.see(PEERS[0], NodeState.DEAD)
    lab.log.state.quarantine.clear()
    lab.history.run(lambda place, peer: peer == PEERS[1])
    await trio.sleep(5)
    assert not lab.log.state.quarantine
    assert "too few workers would be left" in caplog.text


async def test_nothing_is_proposed_to_older_voters(nursery: trio.Nursery, autojump_clock: object) -> None:
    lab = Lab(nursery, version=4)
    lab.nodes.see(PEERS[1], load={"disk.free": 1})
    version = lab.log.version
    await trio.sleep(20)
    assert lab.log.version == version


async def test_a_node_without_a_coordinator_says_so_for_itself(nursery: trio.Nursery, autojump_clock: object) -> None:
    leader: list[PeerId | None] = [PEERS[0]]
    told: list[tuple[str, str]] = []

    def take(sink: Sink, mesh: str, event: str, alert: Mapping[str, Any]) -> None:
        told.append((event, alert["id"]))

    lonely = LonelyAlerts(
        config=AlertConfig(),
        nodes=Nodes(),  # type: ignore[arg-type]
        clock=TrioClock(),
        replica=lambda: None,
        coordinator=lambda: leader[0],
        mesh_name=lambda: "lab",
        telling=Telling([Command(command=("pager",))], take),
    )
    nursery.start_soon(lonely.run)
    await trio.sleep(60)
    assert lonely.documents() == []
    leader[0] = None
    await trio.sleep(40)
    (own,) = lonely.documents()
    assert (own["id"], own["kind"], own["cleared_at"]) == ("own-1", AlertKind.NO_QUORUM.value, None)
    leader[0] = PEERS[1]
    await trio.sleep(5)
    assert lonely.documents()[0]["cleared_at"] is not None
    assert told == [("raised", "own-1"), ("cleared", "own-1")]
