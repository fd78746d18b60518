"""What the API is, as an OpenAPI 3.1 document: one row for each route, beside the table of routes in `app.py`.

By hand, because handlers take and give plain data: a framework that derives it would have to own them. A test compares
the two tables, and another has the document checked by a validator.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mesh.api import schemas
from mesh.api.nodes import HOURS_MAX
from mesh.api.schemas import AS_OF, CID, TEXT, WHOLE, Schema, listed, may, of, the
from mesh.views import tests_table

JSON, STREAM, LINES, BYTES = "application/json", "text/event-stream", "application/x-ndjson", "application/octet-stream"

VERSION = "1"
"""Of the API: it grows by fields and routes; a change of what is there would change it."""

ABOUT = (
    "Every node of a mesh serves it, for the whole mesh. Errors are `Error`, their `exit_code` that of a command. "
    "docs/api.md tells more."
)

Query = tuple[str, Schema, str]

PATHS: dict[str, tuple[Schema, str]] = {
    "run": ({"type": "string", "pattern": "^[0-9]{1,19}$"}, "a run"),
    "index": ({"type": "integer", "minimum": 0}, "a test's place in its run, from 0"),
    "cid": (CID, "CIDv1 in base32, or CIDv0"),
    "target": (TEXT, "a run, or a test's ID"),
    "path": (TEXT, "a CID, and a path under it"),
    "build": (TEXT, "a hash of all files"),
    "name": (TEXT, "of a file"),
    "alert": (TEXT, "an alert's ID"),
    "node": (TEXT, "a name, a peer ID, or an unambiguous beginning or end of one"),
}
"""What stands in paths."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation."""

    method: str
    path: str
    tag: str
    summary: str
    answer: Schema | None = None
    """Of its body; None: what `media` says."""
    query: tuple[Query, ...] = ()
    body: Schema | None = None
    status: int = 200
    media: str = JSON
    is_open: bool = False
    """Needs no token."""


_LIMIT = ("limit", {"type": "integer", "minimum": 1}, "at most so many")
_PROJECT = ("project", TEXT, "its name")
_RUN = of(run=TEXT)
_OUT = of(cid=CID, target=TEXT)
_LEFT = of(cid=CID, ended=listed(TEXT), left=listed(TEXT))
_NODE = of(node=TEXT, verb={"enum": ["drain", "stop", "restart", "update"]})


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", "node", "The dashboard's page", media="text/html", is_open=True),
    Route("GET", "/static/{build}/{name:path}", "node", "Its files", media="*/*", is_open=True),
    Route("GET", "/healthz", "node", "Whether the process answers", of(status=TEXT, peer=TEXT), is_open=True),
    Route("GET", "/readyz", "node", "Whether it follows a coordinator; else 503", the("Ready"), is_open=True),
    Route("GET", "/metrics", "node", "Numbers for Prometheus; has a token of its own, too", media="text/plain"),
    Route("GET", "/api/openapi.json", "node", "This document", schemas.ANY),
    Route("GET", "/api/status", "mesh", "The mesh, its nodes and runs", the("Status")),
    Route("GET", "/api/ticket", "mesh", "What another node joins by: a secret", of(ticket=TEXT)),
    Route("GET", "/api/topology", "mesh", "Who is connected to whom", the("Topology")),
    Route("GET", "/api/overview", "mesh", "Nodes, runs and verdicts of the newest runs", the("Overview")),
    Route("GET", "/api/raft", "mesh", "The group that keeps the log", the("Raft")),
    Route(
        "GET", "/api/nodes/{node}/history", "mesh", "How busy a node was, by what this one heard", the("NodeHistory"),
        query=(("hours", {"type": "integer", "minimum": 1, "maximum": HOURS_MAX}, "the last ones"),),
    ),
    Route("GET", "/api/nodes/{node}/runs", "past", "What it did of past runs", the("NodeRuns"), query=(_LIMIT,)),
    Route(
        "GET", "/api/events", "mesh", "What happens in the mesh, from an event's ID on (also: Last-Event-ID)",
        media=STREAM, query=(("after", WHOLE, "the ID of the last event seen"),),
    ),
    Route("GET", "/api/snapshot", "mesh", "A file of all that was committed", media=BYTES),
    Route("POST", "/api/command", "mesh", "Tell a node what to do", _NODE, body=_NODE),
    Route("GET", "/api/queue", "runs", "What waits, by run, priority and reason", the("Queue")),
    Route("GET", "/api/runs", "runs", "The newest runs, oldest first", of(runs=listed(the("Run")), **AS_OF)),
    Route(
        "POST", "/api/runs", "runs", "Submit a run; the same nonce again is the same run", _RUN,
        body=of(nonce={"type": "string", "pattern": "^([0-9a-fA-F]{2}){8,64}$"}, spec=the("Spec")), status=201,
    ),
    Route("GET", "/api/runs/{run}", "runs", "One run, its spec and hosts", the("OneRun")),
    Route(
        "GET", "/api/runs/{run}/events", "runs", "Its events, a line of JSON each, to its end", media=LINES,
        query=(("cursor", WHOLE, "verdicts told so far"), ("whole", _one_of("1"), "with what pytest told")),
    ),
    Route(
        "GET", "/api/runs/{run}/output", "runs", "What its tests print while they run", media=LINES,
        query=(("test", TEXT, "an ID, or a part of it"),),
    ),
    Route(
        "GET", "/api/runs/{run}/tests", "runs", "A page of its tests", the("Tests"),
        query=(
            ("outcome", _one_of(*tests_table.OUTCOMES), "those alone"),
            ("search", TEXT, "a part of the ID, in any case"),
            ("sort", _one_of(*tests_table.SORTS), ""),
            ("order", _one_of(*tests_table.ORDERS), ""),
            ("offset", {"type": "integer", "minimum": 0}, ""),
            ("limit", {"type": "integer", "minimum": 1, "maximum": tests_table.LIMIT_MAX}, ""),
        ),
    ),
    Route("GET", "/api/runs/{run}/tests/{index}", "runs", "A test, with the records of all its tries", the("Test")),
    Route("GET", "/api/runs/{run}/timeline", "runs", "When its tests ran, slot by slot", the("Timeline")),
    Route("POST", "/api/runs/{run}/cancel", "runs", "End it", _RUN),
    Route("GET", "/api/why/{target:path}", "runs", "Why it waits, or how it ended", the("Why")),
    Route(
        "POST", "/api/plan", "runs", "Where runs would go; nothing is submitted", the("Plan"),
        body=of(runs=listed(may(spec=the("Spec"), manifest=schemas.or_null(CID)))),
    ),
    Route("GET", "/api/records/{cid}", "runs", "One attempt at a test", the("Record")),
    Route("GET", "/api/projects", "past", "What has a history", the("Projects")),
    Route("GET", "/api/trends", "past", "A project's runs over time", the("Trends"), query=(_PROJECT, _LIMIT)),
    Route(
        "GET", "/api/tests", "past", "A test over time", the("Past"), query=(_PROJECT, ("test", TEXT, "its ID"), _LIMIT)
    ),
    Route(
        "POST", "/api/history/rebuild", "past", "Fill this node's history from reports",
        of(added=listed(TEXT), known=WHOLE, failed=listed(of(report=CID, error=TEXT))),
        body=may(reports=schemas.or_null(listed(CID))),
    ),
    Route(
        "GET", "/api/alerts", "alerts", "What the mesh noticed",
        of(alerts=listed(the("Alert")), quarantine=listed(schemas.ANY), **AS_OF),
    ),
    Route(
        "POST", "/api/alerts/{alert}/acknowledge", "alerts", "Say that somebody knows", the("Alert"), body=of(by=TEXT)
    ),
    Route(
        "POST", "/api/content", "content", "Add a path of the node's host", of(cid=CID), status=201,
        body=of(path=TEXT, names=schemas.or_null(listed(TEXT))),
    ),
    Route("GET", "/api/content/{cid}", "content", "A file's bytes", media=BYTES, query=(("path", TEXT, "below it"),)),
    Route("GET", "/api/link/{cid}", "content", "Where a browser may read it without the token", of(cid=CID, path=TEXT)),
    Route("POST", "/api/checkout", "content", "Write a tree to the node's host", schemas.ANY, body=_OUT),
    Route("POST", "/api/export", "content", "Write a CAR file", schemas.ANY, body=_OUT),
    Route("POST", "/api/import", "content", "Read a CAR file", schemas.ANY, body=of(path=TEXT), status=201),
    Route("GET", "/api/pins", "content", "What is kept", of(pins=listed(the("Pin")), **AS_OF)),
    Route("POST", "/api/pins", "content", "Keep something", the("Pin"), body=may(cid=CID, replicas=WHOLE), status=201),
    Route("DELETE", "/api/pins/{cid}", "content", "Keep it no longer", _LEFT),
    Route("GET", "/ipfs/{path:path}", "content", "The gateway: files, pages, blocks and CAR files", media="*/*"),
)  # fmt: skip


def document(routes: Sequence[Route] = ROUTES) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_plain(route.path), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mesh", "version": VERSION, "description": ABOUT},
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "schemas": schemas.SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "of api.json in the node's home"}
            },
        },
    }


@cache
def _made() -> dict[str, Any]:
    return document()


async def openapi(request: Request) -> Response:
    """The handler of the document's own route."""
    return JSONResponse(_made())


def _plain(path: str) -> str:
    """Without what Starlette's paths say of their parts."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)


def _operation(route: Route) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", _plain(route.path))
    inside = [
        {"name": name, "in": "path", "required": True, "schema": PATHS[name][0], "description": PATHS[name][1]}
        for name in names
    ]
    query = [
        {"name": name, "in": "query", "schema": schema, **({"description": text} if text else {})}
        for name, schema, text in route.query
    ]
    body = {"schema": route.answer} if route.answer is not None else {}
    made: dict[str, Any] = {
        "operationId": _identifier(route),
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": [*inside, *query],
        "responses": {
            str(route.status): {"description": route.summary, "content": {route.media: body}},
            "default": {"description": "it did not work", "content": {JSON: {"schema": the("Error")}}},
        },
    }
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": route.body}}}
    if route.is_open:
        made["security"] = []
    return made


def _identifier(route: Route) -> str:
    words = re.findall(r"[a-zA-Z]+", _plain(route.path).replace("/api", ""))
    return "".join([route.method.lower(), *(word.capitalize() for word in words or ["page"])])
