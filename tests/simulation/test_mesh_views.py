"""What is told of a run while it goes on and after it, by a whole mesh of real services on fake ports."""

import json
import time
from contextlib import aclosing
from typing import Any

import pytest
import trio

from mesh.views.tests_table import Wanted
from protocols.errors import RemoteCallError, UsageError
from protocols.ids import RunId
from protocols.manifests import Outcome
from tests.fakes.runner import suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import Node, mesh


async def feed_of(node: Node, events: list[tuple[str, dict[str, Any]]], upto: str) -> None:
    """What the node's feed tells, with the simulated time, until an event of that name."""
    async with aclosing(node.backend.feed.listen(None)) as pieces:
        async for piece in pieces:
            for block in piece.decode().split("\n\n"):
                fields = dict(line.partition(": ")[::2] for line in block.splitlines())
                if "data" in fields:
                    events.append((fields["event"], {**json.loads(fields["data"]), "heard": trio.current_time()}))
            if events and events[-1][0] == upto:
                return


async def test_a_run_seen_from_another_node(tmp_path, autojump_clock):
    suite = suite_of(60)
    suite.seconds = lambda test: 1.5
    suite.outcome = lambda test: Outcome.FAILED if test.endswith("_47") else Outcome.PASSED
    async with mesh(tmp_path, suite) as rig, trio.open_nursery() as nursery:
        leader = await rig.leader()
        other = next(node for node in rig.nodes.values() if node is not leader)
        events: list[tuple[str, dict[str, Any]]] = []
        nursery.start_soon(feed_of, other, events, "run-finished")
        await trio.sleep(1)
        run = await rig.submit(leader, retries=1)
        seen = other.backend.details
        await until(lambda: leader.log.state.runs[run].done > 30)
        await check_while_it_runs(seen, run)
        await until(lambda: leader.log.state.runs[run].exit_code is not None)
        await until(lambda: events[-1][0] == "run-finished")
        names = [name for name, _ in events if name.startswith("run")]
        assert names[:3] == ["run-submitted", "run-leased", "run-collected"]
        progress = [data for name, data in events if name == "run-progress"]
        assert [data["done"] for data in progress] == sorted({data["done"] for data in progress})
        assert [bad["index"] for data in progress for bad in data["bad"]] == [47]
        assert (progress[-1]["done"], progress[-1]["state"]) == (60, "reporting")
        await check_when_it_is_over(seen, run)
        told = await other.backend.run(run)
        assert (told["agreed"], told["spec"]["retries"]) == (True, 1)
        hosts = {host["peer"]: host for host in told["hosts"]}
        assert set(hosts) == {"a", "b", "c"}
        assert sum(host["tests"] for host in hosts.values()) == 60
        assert sum(host["bad"] + host["retried"] for host in hosts.values()) == 2
        assert sum(host["seconds"] for host in hosts.values()) == pytest.approx(61 * 1.5)
        with pytest.raises(RemoteCallError, match="no run 99") as refused:
            await seen.timeline(RunId(99))
        assert refused.value.exit_code == UsageError.exit_code
        nursery.cancel_scope.cancel()


async def check_while_it_runs(seen: Any, run: RunId) -> None:
    while not (page := json.loads(await seen.tests(run, Wanted(outcome="running"))))["tests"]:  # noqa: ASYNC110
        await trio.sleep(0.1)  # the workers' next heartbeats tell it
    assert page["agreed"]
    assert 0 < len(page["tests"]) == page["matching"] <= 6
    assert {row["state"] for row in page["tests"]} == {"running"}
    assert {row["name"] for row in page["tests"]} <= {"host-a", "host-b", "host-c"}
    counts = page["counts"]
    done = sum(counts[outcome.value] for outcome in Outcome)
    assert done + counts["running"] + counts["leased"] + counts["pending"] == page["total"] == 60
    queue = json.loads(await seen.queue())
    (told,) = queue["runs"]
    assert (told["run"], told["priority"], told["leased"] > 0) == (str(run), 50, True)
    assert 2 < told["eta_seconds"] < 20
    timeline = json.loads(await seen.timeline(run))
    assert (timeline["end"], timeline["agreed"]) == (None, True)
    assert 30 < sum(len(slot["spans"]) for slot in timeline["slots"]) < 60


async def check_when_it_is_over(seen: Any, run: RunId) -> None:
    page = json.loads(await seen.tests(run, Wanted(outcome="bad")))
    ((row),) = page["tests"]
    assert (row["index"], row["outcome"], row["attempt"], row["expected"]) == (47, "failed", 2, None)
    timeline = json.loads(await seen.timeline(run))
    spans = [span for slot in timeline["slots"] for span in slot["spans"]]
    assert sorted(span[0] for span in spans) == sorted([*range(60), 47])
    assert len(timeline["slots"]) == 6
    assert timeline["critical"]
    assert not timeline["cut"]
    test = await seen.test(run, 47)
    assert [(one["attempt"], one["outcome"], one["record"]["outcome"]) for one in test["tries"]] == [
        (1, "failed", "failed"),
        (2, "failed", "failed"),
    ]
    assert (test["record"], test["artifacts"]) == (test["tries"][1]["record"], [])
    assert test["record"]["test"] == test["test"]
    assert (await seen.test(run, 3))["record"]["outcome"] == "passed"


async def test_without_a_quorum_a_member_tells_what_it_knows(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(400)) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        other = next(node for node in rig.nodes.values() if node is not leader)
        await until(lambda: other.log.state.runs[run].done > 30 if run in other.log.state.runs else False)
        assert await other.backend.feed.ready() == []
        for node in rig.nodes.values():
            if node is not other:
                node.crash()
        await until(lambda: other.log.leader is None)
        other.backend.feed._now = lambda: time.time() + 30
        lost = trio.current_time()
        (reason,) = await other.backend.feed.ready()
        assert "no coordinator" in reason or "does not answer" in reason
        details = other.backend.details
        told = await other.backend.run(run)
        assert (told["agreed"], told["done"] > 30, told["eta_seconds"]) == (False, True, None)
        page = json.loads(await details.tests(run, Wanted(limit=5)))
        assert (page["agreed"], len(page["tests"]), page["total"]) == (False, 5, 400)
        queue = json.loads(await details.queue())
        assert (queue["agreed"], queue["by_reason"][0]["text"][:13]) == (False, "a coordinator")
        timeline = json.loads(await details.timeline(run))
        assert (timeline["agreed"], timeline["lost_chunks"] < 50) == (False, True)
        assert trio.current_time() - lost < 60, "what is on no node in reach is not waited for"
