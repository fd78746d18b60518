"""The API over real HTTP on a real socket, with a fake node behind it."""

import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from mesh.api import streams
from mesh.api.server import serve_api
from mesh.views.tests_table import Wanted
from protocols.client import PLANNED_RUNS_MAX
from protocols.errors import NoCapableWorker, NodeUnavailable, NoQuorum, UsageError
from protocols.snapshots import unpack
from protocols.work import CommandVerb
from tests.api.fake_backend import ABSENT, OTHER, PEER, RECORD, TREE, FakeBackend, FakeContent
from tests.api.served import TOKEN, Served, error

NONCE = "00112233445566778899aabbccddeeff"
SPEC = {"bundle": TREE, "name": "suite", "project": "suite"}


async def test_api_json_is_private_and_true(api: Served) -> None:
    path = api.home / "api.json"
    assert json.loads(path.read_text()) == {"url": api.url, "token": TOKEN, "peer": PEER, "pid": os.getpid()}
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in api.home.iterdir()) == ["api-port", "api.json"]


async def test_api_json_goes_with_the_server(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_api, "127.0.0.1:0", TOKEN, FakeBackend(), FakeContent({}), PEER, tmp_path)
        assert (tmp_path / "api.json").exists()
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "api.json").exists()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))).close()


async def test_a_bind_in_use_is_named(api: Served, tmp_path: Path) -> None:
    bind = api.url.removeprefix("http://")
    with pytest.raises(UsageError, match=f"--api '{bind}': Address already in use"):
        await serve_api(bind, TOKEN, api.backend, api.content, PEER, tmp_path / "other")


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
async def test_without_the_token_nothing_but_health(api: Served, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, trust_env=False) as http:
        for path in ("/api/status", "/api/ticket", "/api/nothing"):
            status, code, sentence = error(await http.get(path))
            assert (status, code) == (401, 13)
            assert "token" in sentence
        assert (await http.get("/healthz")).json() == {"status": "ok", "peer": PEER}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
async def test_another_hosts_name_is_refused(api: Served, host: str) -> None:
    answer = await api.http.get("/api/status", headers={"host": host})
    assert answer.status_code == 421
    for good in ("localhost", "localhost:1", "127.0.0.1", "[::1]:80"):
        assert (await api.http.get("/healthz", headers={"host": good})).status_code == 200


async def test_the_page_runs_only_its_own_script(api: Served) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        answer = await http.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert TOKEN not in answer.text


async def test_views(api: Served) -> None:
    status = (await api.http.get("/api/status")).json()
    assert status["voters"] == [PEER, OTHER]
    assert (await api.http.get("/api/ticket")).json() == {"ticket": "mesh1secret"}
    assert (await api.http.get("/api/topology")).json()["links"][0]["b"] == OTHER
    assert (await api.http.get("/api/overview")).json()["verdicts"] == []
    assert (await api.http.get("/api/raft")).json()["health"]["quorum"] is True
    snapshot = await api.http.get("/api/snapshot")
    assert snapshot.headers["content-type"] == "application/octet-stream"
    assert unpack(snapshot.content, "answer").index == 17
    runs = (await api.http.get("/api/runs")).json()
    assert (runs["runs"][0]["run"], runs["agreed"], runs["as_of"]) == ("17", True, 90.0)
    assert (await api.http.get("/api/runs/17")).json()["report"] == TREE
    why = (await api.http.get("/api/why/tests%2Ftest_a.py%3A%3Atest_x%5B%3F%5D")).json()
    assert why["target"] == "tests/test_a.py::test_x[?]"
    record = (await api.http.get(f"/api/records/{RECORD}")).json()
    assert (record["outcome"], record["message"]) == ("failed", "assert 1 == 2")
    assert record["phases"] == [{"name": "call", "outcome": "failed", "duration": 0.25}]


async def test_alerts(api: Served) -> None:
    assert [alert["id"] for alert in (await api.http.get("/api/alerts")).json()["alerts"]] == ["129"]
    answer = await api.http.post("/api/alerts/129/acknowledge", json={"by": "ada"})
    assert answer.json()["acknowledged_by"] == "ada"
    assert error(await api.http.post("/api/alerts/7/acknowledge", json={"by": "ada"}))[:2] == (400, 4)
    assert "'by'" in error(await api.http.post("/api/alerts/129/acknowledge", json={}))[2]


async def test_submit_fills_in_the_submitter(api: Served) -> None:
    spec = {**SPEC, "arguments": ["-k", "x"], "priority": 70, "timeout": 5, "variables": {"B": "2", "A": "1"}}
    answer = await api.http.post("/api/runs", json={"nonce": NONCE, "spec": spec})
    assert (answer.status_code, answer.json()) == (201, {"run": "17"})
    made = api.backend.submitted[bytes.fromhex(NONCE)]
    assert (made.submitter, made.arguments, made.priority, made.timeout) == (PEER, ("-k", "x"), 70, 5.0)
    assert made.variables == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"spec": SPEC}, "nonce"),
        ({"nonce": "zz", "spec": SPEC}, "nonce"),
        ({"nonce": "00" * 65, "spec": SPEC}, "nonce"),
        ({"nonce": NONCE}, "spec"),
        ({"nonce": NONCE, "spec": {**SPEC, "bundle": "bafynonsense"}}, "bafynonsense"),
        ({"nonce": NONCE, "spec": {"bundle": TREE, "name": "x"}}, "project"),
        ({"nonce": NONCE, "spec": {**SPEC, "colour": "red"}}, "colour"),
        ({"nonce": NONCE, "spec": {**SPEC, "priority": 101}}, "priority"),
        ({"nonce": NONCE, "spec": {**SPEC, "priority": True}}, "priority"),
        ({"nonce": NONCE, "spec": {**SPEC, "arguments": "-k x"}}, "arguments"),
        ({"nonce": NONCE, "spec": {**SPEC, "variables": {"A": 1}}}, "variables"),
        ({"nonce": NONCE, "spec": {**SPEC, "timeout": -1}}, "timeout"),
        ({"nonce": NONCE, "spec": {**SPEC, "name": "../../etc"}}, "name"),
        ({"nonce": NONCE, "spec": {**SPEC, "name": ".."}}, "name"),
        ({"nonce": NONCE, "spec": {**SPEC, "name": "x" * 256}}, "name"),
        ({"nonce": NONCE, "spec": {**SPEC, "variables": {"A=B": "c"}}}, "variables"),
        ({"nonce": NONCE, "spec": {**SPEC, "variables": {"A": "x\0"}}}, "variables"),
        ({"nonce": NONCE, "spec": {**SPEC, "requires": "gpu >="}}, "gpu"),
        ({"nonce": NONCE, "spec": {**SPEC, "environment": "conda"}}, "environment"),
        ({"nonce": NONCE, "spec": {**SPEC, "test_type": "\ud800"}}, "Unicode"),
        ({"nonce": NONCE, "spec": {**SPEC, "submitter": "me"}}, "submitter"),
        ({"nonce": NONCE, "spec": {**SPEC, "arguments": ["x" * 70_000]}}, "limit"),
    ],
)
async def test_a_wrong_submission_is_refused_by_name(api: Served, document: dict[str, Any], named: str) -> None:
    status, code, sentence = error(await api.http.post("/api/runs", content=json.dumps(document)))
    assert (status, code) == (400, 4)
    assert named in sentence
    assert api.backend.submitted == {}


async def test_a_plan_needs_no_bundle_and_submits_nothing(api: Served) -> None:
    spec = {"name": "suite", "project": "suite", "requires": "gpu", "python": "3.12"}
    answer = await api.http.post("/api/plan", json={"runs": [{"spec": spec, "manifest": TREE}, {"spec": SPEC}]})
    assert (answer.status_code, answer.json()["makespan_seconds"]) == (200, 0.25)
    ((specs, manifests),) = api.backend.planned
    assert [spec.submitter for spec in specs] == [PEER, PEER]
    assert specs[0].requires == "(python == 3.12 or 3.12 in pythons) and (gpu)"
    assert (specs[1].bundle, manifests) == (TREE, [TREE, None])
    assert api.backend.submitted == {}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({}, "runs"),
        ({"runs": []}, "runs"),
        ({"runs": [{"spec": SPEC}] * (PLANNED_RUNS_MAX + 1)}, "runs"),
        ({"runs": [SPEC]}, "spec"),
        ({"runs": [{"spec": {**SPEC, "colour": "red"}}]}, "colour"),
        ({"runs": [{"spec": SPEC, "manifest": 7}]}, "manifest"),
    ],
)
async def test_a_wrong_plan_is_refused_by_name(api: Served, document: dict[str, Any], named: str) -> None:
    status, code, sentence = error(await api.http.post("/api/plan", json=document))
    assert (status, code, api.backend.planned) == (400, 4, [])
    assert named in sentence


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b'"x"'])
async def test_a_body_that_is_no_object(api: Served, body: bytes) -> None:
    status, code, _ = error(await api.http.post("/api/runs", content=body))
    assert (status, code) == (400, 4)


async def test_bodies_are_bounded(api: Served) -> None:
    status, code, sentence = error(await api.http.post("/api/pins", content=b" " * 300_000))
    assert (status, code) == (400, 4)
    assert "262144 bytes" in sentence


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NoQuorum("no majority"), 503, 11),
        (NoCapableWorker("no gpu"), 409, 10),
        (NodeUnavailable("gone"), 504, 12),
        (UsageError("what?"), 400, 4),
    ],
)
async def test_errors_keep_their_sentence(api: Served, failure: Exception, status: int, code: int) -> None:
    api.backend.failure = failure
    assert error(await api.http.get("/api/status")) == (status, code, str(failure))


async def test_a_bug_is_logged_and_not_shown(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    api.backend.failure = ZeroDivisionError("private detail")
    status, code, sentence = error(await api.http.get("/api/status"))
    assert (status, code) == (500, 3)
    assert "private" not in sentence
    assert "private detail" in caplog.text


async def test_unknown_routes_and_methods(api: Served) -> None:
    assert error(await api.http.get("/api/nothing"))[:2] == (404, 4)
    assert error(await api.http.delete("/api/status"))[:2] == (405, 4)


async def test_events_to_the_end_and_from_a_cursor(api: Served) -> None:
    events = await api.events()
    assert [event["event"] for event in events] == ["collected", *["started", "verdict"] * 3, "finished"]
    assert events[-1]["exit_code"] == 1
    assert (await api.events("?cursor=2"))[1:] == events[5:]


async def test_events_flush_at_once_and_keep_alive(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    api.backend.hang_at = 0
    async with api.http.stream("GET", "/api/runs/17/events") as answer:
        lines = answer.aiter_lines()
        assert [json.loads(await anext(lines))["event"] for _ in range(2)] == ["collected", "started"]
        assert await anext(lines) == ""
        await api.http.post("/api/runs/17/cancel")
        last = [line async for line in lines if line]
    assert json.loads(last[-1])["state"] == "cancelled"
    assert api.backend.cancelled == [17]


async def test_a_failure_amid_events_is_the_last_line(api: Served) -> None:
    api.backend.cut_at = 1
    events = await api.events()
    assert [event["event"] for event in events[:-1]] == ["collected", "started", "verdict", "started"]
    assert events[-1] == {"event": "error", "error": "the mesh has no coordinator for now", "exit_code": 11}


async def test_a_client_that_leaves_ends_its_stream(api: Served) -> None:
    api.backend.hang_at = 0
    left = trio.Event()
    follow = api.backend.follow

    async def watched(run: Any, cursor: int = 0, whole: bool = False) -> AsyncIterator[dict[str, Any]]:
        try:
            async for event in follow(run, cursor, whole):
                yield event
        finally:
            left.set()

    api.backend.follow = watched  # type: ignore[method-assign]
    async with api.http.stream("GET", "/api/runs/17/events"):
        pass
    with trio.fail_after(5):
        await left.wait()


@pytest.mark.parametrize("cursor", ["-1", "x", "1e3", "9" * 30, "²"])
async def test_a_wrong_cursor(api: Served, cursor: str) -> None:
    answer = await api.http.get("/api/runs/17/events", params={"cursor": cursor})
    assert error(answer)[:2] == (400, 4)


async def test_content(api: Served, tmp_path: Path) -> None:
    assert (await api.http.get(f"/api/content/{TREE}", params={"path": "big"})).content == api.content.files["big"]
    assert error(await api.http.get(f"/api/content/{ABSENT}"))[:2] == (404, 12)
    assert error(await api.http.get("/api/content/nonsense"))[:2] == (400, 4)
    added = await api.http.post("/api/content", json={"path": str(tmp_path), "names": ["a", "b"]})
    assert (added.status_code, added.json()) == (201, {"cid": TREE})
    assert api.content.added == [(tmp_path, ["a", "b"])]
    for wrong in ({"path": "relative", "names": None}, {"path": str(tmp_path), "names": "a"}, {"path": "/\0"}):
        assert error(await api.http.post("/api/content", json=wrong))[:2] == (400, 4)


async def test_a_file_cut_short_is_not_taken_for_whole(api: Served) -> None:
    api.content.break_after = 8192
    with pytest.raises(httpx.RemoteProtocolError):
        await api.http.get(f"/api/content/{TREE}", params={"path": "big"})


async def test_checkout(api: Served, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    answer = await api.http.post("/api/checkout", json={"cid": TREE, "target": str(target)})
    assert answer.status_code == 200
    assert (target / "report.json").read_bytes() == b"{}"
    status, code, sentence = error(await api.http.post("/api/checkout", json={"cid": TREE, "target": str(target)}))
    assert (status, code) == (400, 4)
    assert str(target) in sentence


async def test_pins(api: Served) -> None:
    assert (await api.http.post("/api/pins", json={"cid": TREE})).status_code == 201
    assert api.backend.pinned == {TREE: 2}
    (pin,) = (await api.http.get("/api/pins")).json()["pins"]
    assert (pin["cid"], pin["reason"], pin["wanted"], pin["under_replicated"]) == (TREE, "user", 2, True)
    assert (await api.http.post("/api/pins", json={"cid": TREE, "replicas": 5})).json()["wanted"] == 5
    for wrong in (0, 17, "2", True, None):
        assert "from 1 to 16" in error(await api.http.post("/api/pins", json={"cid": TREE, "replicas": wrong}))[2]
    unpinned = await api.http.delete(f"/api/pins/{TREE}")
    assert (unpinned.status_code, unpinned.json()["cid"], unpinned.json()["left"]) == (200, TREE, ["user"])
    assert error(await api.http.delete(f"/api/pins/{TREE}"))[:2] == (400, 4)
    assert error(await api.http.post("/api/pins", json={"cid": ABSENT}))[:2] == (404, 12)


async def test_command(api: Served) -> None:
    await api.http.post("/api/command", json={"node": "two", "verb": "drain"})
    assert api.backend.commands == [("two", CommandVerb.DRAIN)]
    assert "explode" in error(await api.http.post("/api/command", json={"node": "two", "verb": "explode"}))[2]
    assert "three" in error(await api.http.post("/api/command", json={"node": "three", "verb": "stop"}))[2]


async def test_a_client_that_does_not_read_cannot_hold_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.api.server.STALLED_CLIENT_MS_MAX", 500)
    content = FakeContent({"huge": bytes(64 * 2**20)})
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_api, "127.0.0.1:0", TOKEN, FakeBackend(), content, PEER, tmp_path)
            client = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
            request = f"GET /api/content/{TREE}?path=huge HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}"
            await client.send_all(request.encode() + b"\r\n\r\n")
            assert (await client.receive_some(4096)).startswith(b"HTTP/1.1 200")
            nursery.cancel_scope.cancel()
    await client.aclose()


async def test_the_feed_is_server_sent_events_after_the_last_seen(api: Served) -> None:
    api.backend.feed.tell(18, "run-submitted", '{"run":"18"}')
    async with api.http.stream("GET", "/api/events?after=3", headers={"last-event-id": "17"}) as answer:
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: hello"
        told = [await anext(lines) for _ in range(5)]
        assert told[2:] == ["id: 18", "event: run-submitted", 'data: {"run":"18"}']
        api.backend.feed.tell(19, "pins-changed")
        assert [await anext(lines) for _ in range(2)][1] == "id: 19"
    assert api.backend.feed.asked == [17]
    with trio.fail_after(5):
        while api.backend.feed.listening:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert (await api.http.head("/api/events")).headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("given", ["-1", "x", "1.5", "9" * 30, "²"])
async def test_a_wrong_place_in_the_feed(api: Served, given: str) -> None:
    status, code, sentence = error(await api.http.get("/api/events", params={"after": given}))
    assert (status, code) == (400, 4)
    assert "'after'" in sentence


async def test_readiness_needs_no_token_and_says_what_is_wrong(api: Served) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        assert (await http.get("/readyz")).json() == {"ready": True, "peer": PEER, "reasons": []}
        api.backend.feed.unready = ("this node knows of no coordinator",)
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["reasons"] == ["this node knows of no coordinator"]


async def test_details_of_a_run(api: Served) -> None:
    query = "outcome=bad&search=a%20b&sort=duration&order=desc&offset=20&limit=7"
    answer = await api.http.get(f"/api/runs/17/tests?{query}")
    assert (answer.status_code, answer.json()["agreed"]) == (200, True)
    for path in ("/api/runs/17/tests", "/api/runs/17/tests/2", "/api/runs/17/timeline", "/api/queue"):
        assert (await api.http.get(path)).status_code == 200
    asked = (17, Wanted("bad", "a b", "duration", "desc", 20, 7)), (17, Wanted()), (17, 2), 17, "queue"
    assert api.backend.details.asked == list(asked)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/runs/17/tests?outcome=odd", "'outcome'"),
        ("/api/runs/17/tests?limit=1001", "'limit'"),
        ("/api/runs/17/tests?offset=-1", "'offset'"),
        ("/api/runs/x/tests", "'x'"),
        ("/api/runs/17/tests/three", "'three'"),
        ("/api/runs/17/tests/3", "no test 3"),
        ("/api/runs/-/timeline", "'-'"),
    ],
)
async def test_wrong_details_are_named(api: Served, path: str, named: str) -> None:
    status, code, sentence = error(await api.http.get(path))
    assert (status, code) == (400, 4)
    assert named in sentence
