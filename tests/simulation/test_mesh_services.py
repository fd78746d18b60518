"""The way of a run, through real services on fake ports, and what crashes and cuts do to it."""

import math

import pytest
import trio

from mesh.ports import CollectionFailed
from mesh.scheduler.hopeless import HOPELESS_SECONDS
from mesh.state.invariants import check
from mesh.worker.results import BATCH_TESTS_MAX
from protocols.codec import decode
from protocols.errors import MeshFailed
from protocols.ids import Cid, LeaseId
from protocols.manifests import CollectedTest, Outcome
from protocols.work import Collection, GiveBack, Heartbeat, HeartbeatAck, Result
from tests.fakes.runner import Suite, suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import Rig, mesh, verdicts


async def test_a_run_ends_with_one_verdict_for_every_test(tmp_path, autojump_clock):
    suite = suite_of(200)
    suite.outcome = lambda test: Outcome.FAILED if test.endswith("_7") else Outcome.PASSED
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        start = trio.current_time()
        run = await rig.submit(node)
        events = await done(rig, node, run, suite)
        assert events[-1]["state"] == "failed"
        assert events[-1]["counts"]["failed"] == 1
        assert len(suite.ran) == 200, "nothing ran twice"
        assert {worker for worker, _ in suite.ran} == {"a", "b", "c"}
        assert trio.current_time() - start < 6, "200 tests of 50 ms on 6 slots"


async def test_nothing_begins_anywhere_once_the_limit_of_failures_is_reached(tmp_path, autojump_clock):
    """Not even until the next heartbeats, which are a second apart."""
    suite, began = suite_of(3000), []
    suite.seconds = lambda test: began.append(trio.current_time()) or 0.02
    suite.outcome = lambda test: Outcome.FAILED if test.endswith("_600") else Outcome.PASSED
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader, maxfail=1)
        await until(lambda: leader.log.state.runs[run].cancelled)
        over = trio.current_time()
        events = await rig.follow(leader, run)
        await trio.sleep(3.0)
        assert events[-1]["state"] == "failed"
        assert len({worker for worker, _ in suite.ran}) == 3
        assert max(began) < over + 0.1


async def test_the_coordinator_may_die(tmp_path, autojump_clock):
    suite = suite_of(300)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        other = next(node for node in rig.nodes.values() if node is not leader)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_after, leader, suite, 100)
            events = await done(rig, other, run, suite)
        assert events[-1]["state"] == "passed"
        assert other.log.state.workers[leader.peer].losses > 0, "its leases expired"


async def test_a_worker_may_die_and_come_back(tmp_path, autojump_clock):
    suite = suite_of(300)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        worker = next(node for node in rig.nodes.values() if node is not leader)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_after, worker, suite, 100)
            nursery.start_soon(rig.restart_after, worker, suite, 200)
            events = await done(rig, leader, run, suite)
        assert events[-1]["state"] == "passed"


async def test_the_submitter_may_leave(tmp_path, autojump_clock):
    suite = suite_of(100)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        submitter = next(node for node in rig.nodes.values() if node is not leader)
        run = await rig.submit(submitter)
        submitter.crash()
        events = await done(rig, leader, run, suite)
        assert events[-1]["state"] == "passed"


async def test_all_nodes_restart_at_once(tmp_path, autojump_clock):
    """No recorded verdict is lost, and none is recorded twice."""
    suite = suite_of(300)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        await until(lambda: leader.log.state.runs[run].done > 100)
        before = dict(enumerate(leader.log.state.runs[run].outcomes))
        for node in rig.nodes.values():
            node.crash()
        for peer in rig.nodes:
            await rig.restart(peer)
        leader = await rig.leader()
        recorded = {test for test, outcome in before.items() if outcome != 255}
        assert all(leader.log.state.runs[run].outcomes[test] != 255 for test in recorded)
        events = await done(rig, leader, run, suite)
        assert events[-1]["state"] == "passed"


async def test_a_worker_works_though_a_result_in_its_outbox_can_not_be_read(tmp_path, autojump_clock):
    suite = suite_of(100)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        worker = next(node for node in rig.nodes.values() if node is not leader)
        worker.crash()
        await worker.outbox.put("from-another-version", b"\xa0")
        await rig.restart(worker.peer)
        await done(rig, leader, await rig.submit(leader), suite)
        assert worker.peer in {peer for peer, _ in suite.ran}
        assert not worker.outbox.items()


async def test_the_coordinator_is_cut_off_and_returns(tmp_path, autojump_clock):
    suite = suite_of(400)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        others = [node for node in rig.nodes.values() if node is not leader]
        await until(lambda: len(suite.ran) > 100)
        rig.lan.cut([leader.peer], [node.peer for node in others])
        with trio.fail_after(60):
            events = await rig.follow(others[0], run)
        assert set(verdicts(events)) == {test.id for test in suite.tests}
        assert leader.log.state.runs[run].done < 400
        rig.lan.heal()
        await until(lambda: leader.log.state.runs[run].report == events[-1]["report"])
        for node in rig.nodes.values():
            check(node.log.state)
        assert leader.log.term == others[0].log.term


async def test_a_collection_that_breaks_unforeseen_costs_the_run_and_no_node(tmp_path, autojump_clock):
    suite = suite_of(3)
    suite.failure = ValueError("nobody thought of this")
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        events = await rig.follow(node, await rig.submit(node))
        assert (events[-1]["state"], events[-1]["exit_code"]) == ("error", MeshFailed.exit_code)
        assert "ValueError: nobody thought of this" in events[-1]["reason"]
        suite.failure = None
        await done(rig, node, await rig.submit(node), suite)
        assert all(one.up for one in rig.nodes.values())


async def test_a_manifest_that_the_coordinator_can_not_read_ends_the_run(tmp_path, autojump_clock):
    suite = suite_of(3)
    suite.tests = [CollectedTest("test_x.py::test_a", "test_x.py", timeout=math.inf)]
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        events = await rig.follow(node, await rig.submit(node))
        assert events[-1]["exit_code"] == MeshFailed.exit_code
        assert "what was collected can't be read" in events[-1]["reason"]


async def test_work_goes_where_its_requirement_is_met(tmp_path, autojump_clock):
    suite = suite_of(40)
    suite.requirements = (("", ""), ("gpu.memory >= 8GiB", ""))
    suite.tests = [CollectedTest(test.id, test.scope, 1 if place % 2 else 0) for place, test in enumerate(suite.tests)]
    gpu = {"b": {"gpu": ({"memory": 16 * 2**30},)}}
    async with mesh(tmp_path, suite, capabilities=gpu) as rig:
        node = await rig.leader()
        await done(rig, node, await rig.submit(node), suite)
        demanding = {test.id for test in suite.tests if test.requirement}
        assert {worker for worker, test in suite.ran if test in demanding} == {"b"}


async def test_why_names_the_workers_that_do_not_do(tmp_path, autojump_clock):
    suite = suite_of(4)
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        run = await rig.submit(node, requires="gpu")
        await until(lambda: len(node.log.state.workers) == 3)
        await trio.sleep(1)
        why = await node.backend.why(str(run))
        assert [worker["peer"] for worker in why["waiting"][0]["workers"]] == ["a", "b", "c"]
        assert all("gpu" in worker["reason"] for worker in why["waiting"][0]["workers"])


async def test_what_cannot_be_collected_ends_with_pytests_exit_code(tmp_path, autojump_clock):
    suite = Suite([], failure=CollectionFailed(2, "ERROR test_x.py\nE   ValueError: boom\n1 error in 0.10s\n"))
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        events = await done(rig, node, await rig.submit(node), suite)
        assert (events[-1]["exit_code"], events[-1]["reason"]) == (
            2,
            "errors while collecting, the first: ValueError: boom",
        )


async def test_a_cancelled_run_ends_and_its_workers_stop(tmp_path, autojump_clock):
    suite = suite_of(6, modules=6)
    suite.seconds = lambda test: 1000.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        run = await rig.submit(node)
        await until(lambda: len(suite.ran) == 6)
        await node.backend.cancel(run)
        with trio.fail_after(10):
            events = await rig.follow(node, run)
            assert (events[-1]["state"], events[-1]["exit_code"]) == ("cancelled", 2)
            await until(lambda: not any(other.agent.busy for other in rig.nodes.values()))


async def test_a_test_that_takes_its_node_with_it_is_found(tmp_path, autojump_clock):
    """After enough attempts it is alone, and then it gets its verdict; every other test passes."""
    suite = suite_of(60)
    async with mesh(tmp_path, suite) as rig:
        killed: list[str] = []

        def seconds(test: str) -> float:
            if test.endswith("_33"):
                worker = next(worker for worker, ran in reversed(suite.ran) if ran == test)
                killed.append(worker)
                rig.nodes[worker].crash()
                nursery.start_soon(rig.restart, worker)
            return 0.05

        suite.seconds = seconds
        node = await rig.leader()
        async with trio.open_nursery() as nursery:
            run = await rig.submit(node)
            await until(lambda: node.up and node.log.state.runs[run].exit_code is not None, 600)
            node = await rig.leader()
            found = verdicts(await rig.follow(node, run))
        assert [test for test, outcome in found.items() if outcome != "passed"] == ["test_2.py::test_33"]
        assert found["test_2.py::test_33"] == "error"
        assert len(found) == 60
        assert 3 <= len(killed) <= 12


async def done(rig: Rig, node, run, suite: Suite) -> list[dict]:
    """The run's events to its end; every collected test has its verdict, and every replica is whole."""
    with trio.fail_after(120):
        events = await rig.follow(node, run)
    assert set(verdicts(events)) == {test.id for test in suite.tests}
    for member in rig.nodes.values():
        if member.up:
            check(member.log.state)
    return events


async def crash_after(node, suite: Suite, starts: int) -> None:
    await until(lambda: len(suite.ran) >= starts)
    node.crash()


async def test_a_run_that_nobody_can_work_on_ends_with_its_reason(tmp_path, autojump_clock):
    suite = suite_of(40)
    suite.requirements = (("", ""), ("gpu.memory >= 8GiB", ""))
    suite.tests = [CollectedTest(test.id, test.scope, place % 2) for place, test in enumerate(suite.tests)]
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        with trio.fail_after(60):
            events = await rig.follow(node, await rig.submit(node))
        assert (events[-1]["state"], events[-1]["exit_code"]) == ("error", 10)
        assert "gpu.memory >= 8GiB" in events[-1]["reason"]
        assert len(verdicts(events)) == 20, "what could be run was run"
        check(node.log.state)


async def test_a_worker_that_is_only_silent_may_come_back(tmp_path, autojump_clock):
    suite = suite_of(10)
    gpu = {"b": {"gpu": ({"memory": 16 * 2**30},)}}
    async with mesh(tmp_path, suite, capabilities=gpu) as rig:
        node = await rig.leader()
        await until(lambda: len(node.log.state.workers) == 3)
        rig.nodes["b"].crash()
        other = next(each for each in rig.nodes.values() if each.peer != "b")
        node = await rig.leader()
        run = await rig.submit(node, requires="gpu")
        await trio.sleep(2 * HOPELESS_SECONDS)
        await rig.restart("b")
        await done(rig, other, run, suite)


async def test_a_coordinator_that_was_replaced_closes_no_lease_of_its_successor(tmp_path, autojump_clock):
    """A worker may ask it once more, before it notices: it must not take a lease that it has not heard of for one that
    is closed, or the worker would forget results that nobody recorded."""
    async with mesh(tmp_path, suite_of(1)) as rig:
        node = await rig.leader()
        await until(lambda: len(node.log.state.workers) == 3)
        ahead = LeaseId(node.log.applied + 1)
        beat = Heartbeat(node.incarnation, (LeaseId(1), ahead), ())
        answer = decode(await node.coordinator.handle_work(node.peer, beat), HeartbeatAck)
        assert answer.closed == (LeaseId(1),)
        for request in (
            Result(ahead, Cid("x"), (), b"", ()),
            GiveBack(ahead, ()),
            Collection(ahead, None, 2, "", None),
        ):
            with pytest.raises(MeshFailed, match="not known here"):
                await node.coordinator.handle_work(node.peer, request)


async def test_the_coordinator_draws_what_it_knows(tmp_path, autojump_clock):
    suite = suite_of(30)
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        await done(rig, node, await rig.submit(node), suite)
        document = await node.coordinator.clients.overview(node.peer)
        assert [run["done"] for run in document["runs"]] == [30]
        assert sorted(row["test"] for row in document["verdicts"]) == sorted(test.id for test in suite.tests)
        assert sum(each["tests"] for each in document["nodes"]) == 30
        assert document["verdicts"] == [
            {key: row[key] for key in ("run", "test", "outcome", "duration", "worker")}
            for row in (await node.backend.overview())["verdicts"]
        ]
        await node.coordinator.generate_visualization(tmp_path / "sheet.svg")
        assert "30 / 30" in (tmp_path / "sheet.svg").read_text()


async def test_a_run_whose_python_nobody_has_says_so_of_everyone(tmp_path, autojump_clock):
    """An interpreter's path is no capability: each worker that is asked gives the run back, and says why."""
    suite = suite_of(10)
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        await until(lambda: len(node.log.state.workers) == 3)
        run = await rig.submit(node, python="/nowhere/bin/python")
        (*_, finished) = await rig.follow(node, run)
        assert (finished["state"], finished["exit_code"]) == ("error", 10)
        said = "none of 3 workers could prepare the run; host-a, host-b, host-c: has no interpreter /nowhere/bin/python"
        assert finished["reason"] == said


async def test_runs_that_come_together_take_over_from_those_before(tmp_path, autojump_clock):
    """Each has idle sessions of the same tests ended before it collects; both wait for the same ones."""
    async with mesh(tmp_path, suite_of(40), slots={"a": 2}) as rig:
        node = await rig.leader()
        for _ in range(3):
            runs = [await rig.submit(node) for _ in range(3)]
            for run in runs:
                with trio.fail_after(60):
                    assert len(verdicts(await rig.follow(node, run))) == 40


async def test_a_lease_may_be_closed_while_its_results_are_written(tmp_path, autojump_clock):
    suite = suite_of(BATCH_TESTS_MAX + 100)
    suite.seconds = lambda test: 0.0
    async with mesh(tmp_path, suite, slots={"a": 2}) as rig:
        node = await rig.leader()
        node.outbox.sync = (3.0, 3.0)
        run = await rig.submit(node)
        await until(lambda: len(suite.ran) >= BATCH_TESTS_MAX)
        await node.backend.cancel(run)
        await trio.sleep(10)
        node.outbox.sync = (0.0, 0.0)
        with trio.fail_after(200):
            assert len(verdicts(await rig.follow(node, await rig.submit(node)))) == len(suite.tests)
