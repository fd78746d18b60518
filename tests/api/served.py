"""What tests of the API share: one served on a real socket, and how it answers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.api.fake_backend import FakeBackend, FakeContent

TOKEN = "t0ken"


@dataclass
class Served:
    url: str
    http: httpx.AsyncClient
    backend: FakeBackend
    content: FakeContent
    home: Path

    async def events(self, query: str = "") -> list[dict[str, Any]]:
        answer = await self.http.get(f"/api/runs/17/events{query}")
        assert answer.status_code == 200
        return [json.loads(line) for line in answer.text.splitlines() if line]


def error(answer: httpx.Response) -> tuple[int, int, str]:
    document = answer.json()
    assert set(document) == {"error", "exit_code"}
    return answer.status_code, document["exit_code"], document["error"]
