"""Past runs over the API: trends, a test over time, what a node did, and how a history is rebuilt."""

from tests.api.fake_backend import PEER, TREE
from tests.api.served import Served, error


async def test_past_runs(api: Served) -> None:
    answer = (await api.http.get("/api/tests", params={"project": "suite", "test": "a.py::x[/?&]"})).json()
    assert answer["asked"] == {"project": "suite", "test": "a.py::x[/?&]", "limit": 100}
    answer = (await api.http.get("/api/trends?project=suite&limit=7")).json()
    assert answer["asked"] == {"project": "suite", "limit": 7}
    assert (await api.http.get("/api/projects")).json()["view"] == "projects"
    for query, named in (("", "'project'"), ("?project=p&limit=0", "'limit'"), ("?project=p&limit=1e3", "'limit'")):
        status, code, sentence = error(await api.http.get(f"/api/trends{query}"))
        assert (status, code) == (400, 4)
        assert named in sentence


async def test_a_nodes_history_and_runs(api: Served) -> None:
    assert len((await api.http.get("/api/nodes/one/history")).json()["cpu"]) == 24 * 60
    assert len((await api.http.get(f"/api/nodes/{PEER}/history?hours=2")).json()["cpu"]) == 2 * 60
    assert [run["run"] for run in (await api.http.get("/api/nodes/one/runs?limit=1")).json()["runs"]] == ["17"]
    for path, named in (
        ("one/history?hours=25", "'hours' must be a whole number from 1 to 24, not '25'"),
        ("one/history?hours=-1", "'hours' must be a whole number from 1 to 24, not '-1'"),
        ("one/runs?limit=201", "'limit' must be a whole number from 1 to 200, not '201'"),
        ("three/history", "no node answers to 'three': give a name or a peer ID of `mesh nodes`"),
    ):
        assert error(await api.http.get(f"/api/nodes/{path}")) == (400, 4, named)


async def test_a_history_is_rebuilt_from_reports(api: Served) -> None:
    assert (await api.http.post("/api/history/rebuild", json={})).json()["added"] == ["17"]
    assert (await api.http.post("/api/history/rebuild", json={"reports": [TREE]})).json()["added"] == [TREE]
    for wrong in ("x", [1], ["junk"]):
        assert error(await api.http.post("/api/history/rebuild", json={"reports": wrong}))[:2] == (400, 4)
