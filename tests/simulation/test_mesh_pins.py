"""What is pinned stays on as many nodes as it is to be, whoever dies; what nothing names is let go of. Real services on
fake ports, and no patience: all that takes minutes or hours takes seconds here."""

from typing import Any

import pytest
import trio

from mesh import pins as node_pins
from mesh.coordinator import pins
from mesh.ports import PinOwner
from mesh.scheduler import letting_go
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState, Pin
from protocols.commands import PinKind
from protocols.errors import MeshError, NoQuorum, RemoteCallError
from protocols.ids import NO_RUN, PeerId, RunId
from tests.fakes.content import cid_of
from tests.fakes.runner import suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import Node, Rig, mesh

GRACE = 5.0
SWEEP, LET_GO = 20.0, 8.0
FOUR = {"a": 2, "b": 2, "c": 2, "d": 2}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_pins, "SWEEP_SECONDS", SWEEP)
    monkeypatch.setattr(node_pins, "LET_GO_AFTER_SECONDS", LET_GO)
    monkeypatch.setattr(pins, "SEARCH_SECONDS", 5.0)


async def state_of(rig: Rig) -> CoordinatorState:
    state: CoordinatorState = (await rig.leader()).log.state
    check(state)
    return state


def whole(rig: Rig, pin: Pin) -> bool:
    """As many nodes as are wanted, and no others, are up, have it and keep it."""
    return len(pin.holders) == pin.wanted and all(
        rig.nodes[peer].up
        and pin.root in rig.shelves.blocks[peer]
        and (pin.root, PinOwner.MESH, NO_RUN) in rig.shelves.kept[peer]
        for peer in pin.holders
    )


async def replicated(rig: Rig, seconds: float) -> None:
    """Every pin is, within so many seconds."""
    with trio.fail_after(seconds):
        leader = await rig.leader()
        await until(lambda: all(whole(rig, pin) for pin in leader.log.state.pins.values()))
        check(leader.log.state)


async def crashed(rig: Rig, peer: PeerId) -> None:
    rig.nodes[peer].crash()
    await until(lambda: not rig.nodes[peer].up)


async def finished(rig: Rig, tests: int = 40, via: Node | None = None, **fields: Any) -> RunId:
    node = via or await rig.leader()
    run = await rig.submit(node, **fields)
    events = await rig.follow(node, run)
    assert events[-1]["state"] == "passed"
    return run


async def test_what_runs_name_is_on_two_nodes_and_again_after_a_death(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(20), FOUR, replica_grace=GRACE) as rig:
        await finished(rig)
        await replicated(rig, 10)
        state = await state_of(rig)
        assert sorted(reason.kind for pin in state.pins.values() for reason in pin.reasons) == [
            PinKind.BUNDLE, PinKind.MANIFEST, PinKind.REPORT
        ]  # fmt: skip
        report = next(pin for pin in state.pins.values() if pin.reasons[0].kind is PinKind.REPORT)
        assert report.size == len(rig.shelves.blocks[report.holders[0]][report.root])
        victim = report.holders[0]
        await crashed(rig, victim)
        await replicated(rig, GRACE + 10)
        assert victim not in (await state_of(rig)).pins[report.root].holders


async def test_a_short_absence_moves_nothing(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(20), FOUR, replica_grace=GRACE) as rig:
        await finished(rig)
        await replicated(rig, 10)
        before = {root: pin.holders for root, pin in (await state_of(rig)).pins.items()}
        victim = next(iter(before.values()))[0]
        await crashed(rig, victim)
        await trio.sleep(GRACE / 2)
        await rig.restart(victim)
        await trio.sleep(GRACE * 2)
        assert {root: pin.holders for root, pin in (await state_of(rig)).pins.items()} == before


async def test_who_comes_back_when_it_was_replaced_lets_go(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(20), FOUR, replica_grace=GRACE) as rig:
        await finished(rig)
        await replicated(rig, 10)
        victim = next(pin.holders[0] for pin in (await state_of(rig)).pins.values())
        await crashed(rig, victim)
        await replicated(rig, GRACE + 10)
        await rig.restart(victim)
        await trio.sleep(LET_GO / 2)
        held = {root for root, owner, _ in rig.shelves.kept[victim] if owner is PinOwner.MESH}
        assert held, "it may be named in a moment"
        await trio.sleep(2 * SWEEP)
        held = {root for root, owner, _ in rig.shelves.kept[victim] if owner is PinOwner.MESH}
        due = {root for root, pin in (await state_of(rig)).pins.items() if victim in pin.holders}
        assert held == due


async def test_with_any_one_disk_lost_everything_pinned_is_still_there(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(20), FOUR, replica_grace=GRACE) as rig:
        for _ in range(3):
            await finished(rig)
        await replicated(rig, 10)
        for peer in list(rig.nodes):
            await crashed(rig, peer)
            rig.shelves.blocks[peer].clear()
            rig.shelves.kept[peer].clear()
            await rig.restart(peer)
            await trio.sleep(5.0)
            await replicated(rig, GRACE + 10)
        assert len((await state_of(rig)).pins) == 5, "one bundle, one manifest, three reports"


async def test_while_a_run_is_open_its_chunks_are_kept_and_then_no_longer(tmp_path, autojump_clock):
    suite = suite_of(60)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        suite.seconds = lambda test: 40.0 if test.endswith("_59") else 0.01
        run = await rig.submit(leader)
        await until(lambda: leader.log.state.runs[run].done == 59)
        await trio.sleep(1.5 * SWEEP)
        chunks = {done.chunk for done in leader.log.state.runs[run].chunks}
        for chunk in chunks:
            keepers = [peer for peer in rig.nodes if (chunk, PinOwner.MESH, run) in rig.shelves.kept[peer]]
            assert len(keepers) >= 2, "one of them may die"
        await rig.follow(leader, run)
        await trio.sleep(3 * SWEEP)
        kept = {root for shelf in rig.shelves.kept.values() for root, _, _ in shelf}
        assert not kept & chunks
        assert kept == leader.log.state.pins.keys()


async def test_users_pin_and_unpin(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(5), FOUR) as rig:
        leader = await rig.leader()
        other = next(node for node in rig.nodes.values() if node is not leader)
        root = await rig.shelves.of(other.peer).put(b"a user's")
        pinned = await other.backend.pin(root, 3)
        assert (pinned["wanted"], [holder["peer"] for holder in pinned["holders"]]) == (3, [other.peer])
        await replicated(rig, 10)
        (listed,) = (await leader.backend.pins())["pins"]
        assert (listed["cid"], listed["under_replicated"], listed["size"]) == (root, False, 8)
        assert {holder["name"] for holder in listed["holders"]} <= {f"host-{peer}" for peer in rig.nodes}
        await leader.backend.pin(root, 9)
        await trio.sleep(10.0)
        (listed,) = (await other.backend.pins())["pins"]
        assert (listed["wanted"], len(listed["holders"]), listed["under_replicated"]) == (9, 4, True)
        await leader.backend.pin(root, 2)
        await replicated(rig, 10)
        alone = await rig.shelves.of(other.peer).put(b"of one node")
        assert await other.backend.pin(alone, 1) == {"cid": alone}
        assert [pin["cid"] for pin in (await leader.backend.pins())["pins"]] == [root]
        assert {pin["cid"]: pin["here"] for pin in (await other.backend.pins())["pins"]} == {root: True, alone: True}
        assert await leader.backend.unpin(root) == {"cid": root, "ended": ["user"], "left": []}
        assert await other.backend.unpin(alone) == {"cid": alone, "ended": ["user"], "left": []}
        with pytest.raises(MeshError, match=f"{alone} is not pinned"):
            await leader.backend.unpin(alone)
        assert not (await state_of(rig)).pins


async def test_a_report_may_be_unpinned_and_what_an_open_run_needs_may_not(tmp_path, autojump_clock):
    suite = suite_of(10)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await finished(rig)
        report = leader.log.state.runs[run].report
        assert await leader.backend.unpin(report) == {"cid": report, "ended": [f"report of run {run}"], "left": []}
        suite.seconds = lambda test: 30.0
        open_run = await rig.submit(leader)
        with pytest.raises(RemoteCallError, match=f"is the bundle of run {open_run}, which is not over"):
            await leader.backend.unpin(leader.log.state.runs[open_run].spec.bundle)


async def test_a_full_disk_is_passed_over(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(5), FOUR) as rig:
        leader = await rig.leader()
        root = await rig.shelves.of(leader.peer).put(b"a user's")
        rig.shelves.full.update(PeerId(name) for name in "abcd" if name not in (leader.peer, "d", "c"))
        await leader.backend.pin(root, 3)
        await replicated(rig, 20)


async def test_what_only_a_node_that_was_never_told_has_is_found(tmp_path, autojump_clock):
    """As after an upgrade, when nobody knows who holds what."""
    async with mesh(tmp_path, suite_of(5), FOUR) as rig:
        leader = await rig.leader()
        other = next(node for node in rig.nodes.values() if node is not leader)
        root = await rig.shelves.of(other.peer).put(b"somewhere")
        await other.backend.pin(root, 2)
        await replicated(rig, 10)
        holders = (await state_of(rig)).pins[root].holders
        for peer in holders:
            rig.shelves.blocks[peer].pop(root)
        last = next(peer for peer in rig.nodes if peer not in holders)
        rig.shelves.blocks[last][root] = b"somewhere"
        async with trio.open_nursery() as nursery:
            for peer in holders:
                nursery.start_soon(rig.nodes[peer].keeping.sweep)
        await replicated(rig, pins.SEARCH_SECONDS + 10)


async def test_pins_of_old_runs_end(tmp_path, autojump_clock, monkeypatch):
    few = letting_go.Limits(letting_go.DAY_SECONDS, 1, 2**40)
    for kind in letting_go.LIMITS:
        monkeypatch.setitem(letting_go.LIMITS, kind, few)
    monkeypatch.setattr(pins, "LET_GO_SECONDS", 3.0)
    async with mesh(tmp_path, suite_of(5)) as rig:
        for _ in range(3):
            run = await finished(rig)
        await trio.sleep(10)
        state = await state_of(rig)
        assert len(state.pins) == 1, "the newest of the class that all are of now"
        assert state.runs[run].report in state.pins


async def test_without_a_coordinator_a_node_keeps_everything_and_says_what_it_knows(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(5)) as rig:
        run = await finished(rig)
        await replicated(rig, 10)
        left, *others = rig.nodes.values()
        for node in others:
            node.crash()
        await trio.sleep(3 * SWEEP)
        listing = await left.backend.pins()
        assert listing["agreed"] is False
        assert left.log.state.runs[run].report in {pin["cid"] for pin in listing["pins"]}
        held = rig.shelves.kept[left.peer]
        assert {root for root, pin in left.log.state.pins.items() if left.peer in pin.holders} <= {
            r for r, _, _ in held
        }
        with pytest.raises(NoQuorum):
            await left.backend.unpin(cid_of(b"whatever"))
