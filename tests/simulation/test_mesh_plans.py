"""`mesh plan` through real services on fake ports: what is known of a run that is not submitted."""

import trio

from protocols.codec import encode
from protocols.ids import Cid, PeerId
from protocols.manifests import CollectedTest, Manifest, RunSpec
from tests.fakes.runner import suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import mesh


async def test_a_run_is_planned_by_those_before_it_and_nothing_comes_of_it(tmp_path, autojump_clock):
    suite = suite_of(200)
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        await until(lambda: len(node.log.state.workers) == 3)
        await trio.sleep(1)
        other = next(one for one in rig.nodes.values() if one is not node)
        backend = other.backend
        spec = RunSpec(Cid("nothing"), "suite", "suite", PeerId("c"))
        unknown = await backend.plan([spec], [None])
        assert [(run["source"], run["tests"], run["last_run"]) for run in unknown["runs"]] == [("unknown", 0, None)]
        assert (unknown["tests"], unknown["makespan_seconds"]) == (0, 0.0)

        collected = await backend.plan([spec], [await rig_manifest(rig, other.peer)])
        assert [(run["source"], run["durations"]) for run in collected["runs"]] == [("collected", "guessed")]
        assert collected["tests"] == collected["placed"] == 40

        walls = []
        for _ in range(2):
            start = trio.current_time()
            events = await rig.follow(node, await rig.submit(node))
            assert events[-1]["state"] == "passed"
            walls.append(trio.current_time() - start)
        before = node.log.applied
        planned = await backend.plan([spec], [None])
        (run,) = planned["runs"]
        assert (run["source"], run["tests"], run["durations"]) == ("run", 200, "history")
        assert run["last_run"]["run"] == events[-1]["run"]
        assert run["prediction_error"]["tests"] == 200
        assert run["prediction_error"]["median_relative"] < 0.05, "each test takes what it took"
        assert sum(one["tests"] for one in planned["nodes"]) == 200
        assert planned["lower_bound_seconds"] <= planned["makespan_seconds"] <= max(walls)
        unlike = await backend.plan([RunSpec(Cid("nothing"), "suite", "suite", PeerId("c"), ("-k", "x"))], [None])
        assert unlike["runs"][0]["source"] == "unknown", "other arguments, other tests"
        assert node.log.applied - before < 3, "nothing was proposed for it"
        assert len(node.log.state.runs) == 2


async def test_commands_are_their_files_and_what_nobody_can_do_waits(tmp_path, autojump_clock):
    async with mesh(tmp_path, suite_of(4)) as rig:
        node = await rig.leader()
        await until(lambda: len(node.log.state.workers) == 3)
        await trio.sleep(1)
        fields = {"command": "check {}", "files": tuple(f"{n}.dat" for n in range(12))}
        specs = [
            RunSpec(Cid("nothing"), "suite", "suite", PeerId("c"), **fields),
            RunSpec(Cid("nothing"), "suite", "suite", PeerId("c"), requires="gpu", **fields),
        ]
        planned = await node.backend.plan(specs, [None, None])
        assert [(run["source"], run["tests"]) for run in planned["runs"]] == [("files", 12)] * 2
        (waiting,) = planned["waiting"]
        assert (waiting["requirement"], waiting["capable"]) == ("gpu", False)
        assert {worker["reason"] for worker in waiting["workers"]} == {"has no gpu"}
        assert [help["kind"] for help in waiting["helps"]] == ["node"]
        assert planned["placed"] == 12


async def rig_manifest(rig, peer):
    """A manifest that only this node has."""
    tests = tuple(CollectedTest(f"t.py::test_{n}", "t.py") for n in range(40))
    return await rig.shelves.of(peer).put(encode(Manifest(Cid(""), tests)))
