"""The feed of a real node: it is killed, and who listened misses nothing."""

import json
from typing import Any

import httpx
import pytest

from tests.processes.lab import Lab, lab

pytestmark = pytest.mark.processes


def follow(made: Lab, after: int, upto: int) -> tuple[dict[str, Any], list[int]]:
    """`hello`, and the IDs of what comes until one is as high as `upto`."""
    api = json.loads((made.home("a") / "api.json").read_text())
    headers = {"authorization": f"Bearer {api['token']}", "last-event-id": str(after)}
    hello, ids, name = {}, [], ""
    with httpx.stream("GET", f"{api['url']}/api/events", headers=headers, timeout=20, trust_env=False) as answer:
        for line in answer.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "id":
                ids.append(int(value))
            elif key == "data" and name == "hello":
                hello = json.loads(value)
            if ids and ids[-1] >= upto:
                return hello, ids
    raise AssertionError("the feed ended")


def test_who_listened_to_a_node_that_was_killed_misses_nothing(tmp_path):
    with lab(tmp_path) as made:
        made.start("a")
        made.until(lambda: bool((made.status("a") or {}).get("coordinator")), "a coordinates")
        page = made.folder / "page"
        page.write_text("kept")
        cid = json.loads(made.mesh("add", str(page), "--json", home="a").stdout)["cid"]
        made.mesh("pin", "add", cid, home="a")
        hello, before = follow(made, 0, 1)
        head = hello["head"]
        made.nodes["a"].kill()
        made.nodes["a"].wait()
        made.start("a")
        made.until(lambda: bool((made.status("a") or {}).get("coordinator")), "a coordinates again")
        made.mesh("pin", "rm", cid, home="a")
        hello, ids = follow(made, before[0], head + 1)
        assert not hello["reset"]
        assert ids[0] > before[0]
        _, everything = follow(made, 0, ids[-1])
        assert [*before[:1], *ids] == everything
        assert len(everything) >= 3
