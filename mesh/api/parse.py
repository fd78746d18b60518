"""What clients send, checked field by field: a body becomes a value of `protocols`, or a `UsageError` that names it.

Invariant: nothing that came over HTTP reaches the `Backend` unchecked. Bodies are bounded before they are parsed.
Rejected: a schema library; a table of a dozen fields does not need one.
"""

import json
import os
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from mesh.api.checks import digits, parse_cid
from mesh.scheduler.environments import ENVIRONMENTS, checked_python, with_needs
from mesh.scheduler.requirements import parse as parse_requirement
from protocols.client import PLANNED_RUNS_MAX
from protocols.codec import encode
from protocols.errors import UsageError
from protocols.ids import Cid, PeerId
from protocols.manifests import SPEC_BYTES_MAX, RunSpec
from protocols.traceparent import parse_traceparent

BODY_BYTES_MAX = 256 * 1024
"""Of any request but the one that names a bundle's files."""

NAMES_BYTES_MAX = 64 * 1024 * 1024
"""Of a request that names the files of a bundle."""

NONCE_BYTES_MAX = 64

NAME_BYTES_MAX = 255
"""Of the directory that a worker makes for the tree."""

PLAN_BYTES_MAX = 4 * 1024 * 1024
"""Of a request that names several runs."""

NO_BUNDLE = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
"""The CID of nothing, for a run that is only planned."""

_SPEC_FIELDS: dict[str, tuple[str, ...]] = {
    "text": (
        *("bundle", "name", "project", "command", "requires", "prefers", "test_type", "environment", "python"),
        *("preempt", "trace"),
    ),
    "texts": ("arguments", "files", "cached_allow"),
    "integer": ("priority", "worker_count", "retries", "maxfail", "share"),
    "integers": ("after",),
    "flag": ("hedge", "cached"),
    "cid": ("selection",),
    "number": ("timeout", "deadline"),
    "map": ("variables",),
}


def asked_number(request: Request, name: str, default: int, most: int) -> int:
    """A whole number of the query, from 1 to `most`."""
    given = request.query_params.get(name, str(default))
    number = digits(given, 8)
    if number is None or not 1 <= number <= most:
        raise UsageError(f"{name!r} must be a whole number from 1 to {most}, not {given[:40]!r}")
    return number


async def body(request: Request, bytes_max: int = BODY_BYTES_MAX) -> dict[str, Any]:
    """The JSON object in the request's body."""
    held = bytearray()
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            held += piece
            if len(held) > bytes_max:
                raise UsageError(f"the request's body is longer than {bytes_max} bytes")
    try:
        document = json.loads(held)
    except (ValueError, RecursionError):
        raise UsageError("the request's body is not JSON") from None
    if not isinstance(document, dict):
        raise UsageError("the request's body is not a JSON object")
    return document


def text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name!r} must be a non-empty string")
    return value


def nonce(value: str) -> bytes:
    try:
        made = bytes.fromhex(value)
    except ValueError:
        made = b""
    if not 8 <= len(made) <= NONCE_BYTES_MAX:
        raise UsageError(f"'nonce' must be 8 to {NONCE_BYTES_MAX} bytes in hexadecimal")
    return made


def plan(document: Mapping[str, Any], peer: PeerId) -> tuple[list[RunSpec], list[Cid | None]]:
    """The specs and manifests of runs that may never be; a spec needs no bundle."""
    runs = document.get("runs")
    if not isinstance(runs, list) or not 0 < len(runs) <= PLANNED_RUNS_MAX:
        raise UsageError(f"'runs' must be a list of 1 to {PLANNED_RUNS_MAX} objects")
    specs: list[RunSpec] = []
    manifests: list[Cid | None] = []
    for run in runs:
        if not isinstance(run, dict) or not isinstance(run.get("spec"), dict):
            raise UsageError("each of 'runs' must be an object with 'spec'")
        specs.append(spec({"bundle": NO_BUNDLE, **run["spec"]}, peer))
        manifests.append(_field("manifest", "cid", run.get("manifest")))
    return specs, manifests


def spec(document: Any, submitter: PeerId) -> RunSpec:
    """The run's spec; the node that was asked is its submitter."""
    if not isinstance(document, dict):
        raise UsageError("'spec' must be an object")
    known = {name: kind for kind, names in _SPEC_FIELDS.items() for name in names}
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if name not in known:
            raise UsageError(f"'spec' has an unknown field {name[:80]!r}")
        fields[name] = _field(name, known[name], value)
    for name in ("bundle", "name", "project"):
        if not fields.get(name):
            raise UsageError(f"'spec' lacks {name!r}")
    fields["bundle"] = parse_cid(fields["bundle"])
    too_long = len(os.fsencode(fields["name"])) > NAME_BYTES_MAX
    if too_long or fields["name"] in (".", "..") or "/" in fields["name"] or "\0" in fields["name"]:
        raise UsageError(f"'name' of 'spec' must be a plain directory name, not {fields['name'][:80]!r}")
    if fields.get("environment", ENVIRONMENTS[0]) not in ENVIRONMENTS:
        raise UsageError(f"'environment' of 'spec' must be one of {', '.join(ENVIRONMENTS)}")
    python = fields["python"] = checked_python(fields["python"]) if fields.get("python") else ""
    fields["requires"] = with_needs(fields.get("requires", ""), fields.get("environment", ENVIRONMENTS[0]), python)
    for name in ("requires", "prefers"):
        parse_requirement(fields.get(name, ""))
    if fields.get("trace") and parse_traceparent(fields["trace"]) is None:
        raise UsageError(f"'trace' of 'spec' must be a W3C traceparent, not {fields['trace'][:80]!r}")
    try:
        made = RunSpec(submitter=submitter, **fields)
        size = len(encode(made))
    except UnicodeEncodeError:
        raise UsageError("'spec' holds text that is not Unicode (a lone surrogate)") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if size > SPEC_BYTES_MAX:
        raise UsageError(f"the run's spec has {size} bytes, and {SPEC_BYTES_MAX} is the limit: name fewer arguments")
    return made


def _field(name: str, kind: str, value: Any) -> Any:
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "text" and name == "command" and value is None:
        return None
    if kind == "texts" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind == "integer" and type(value) is int and 0 <= value < 2**31:
        return value
    if kind == "flag" and isinstance(value, bool):
        return value
    if kind == "integers" and isinstance(value, list) and all(type(one) is int and 0 < one < 2**63 for one in value):
        return tuple(value)
    if kind == "number" and type(value) in (int, float) and 0 <= value < 2**31:
        return float(value)
    if kind == "cid" and (value is None or isinstance(value, str)):
        return None if value is None else parse_cid(value)
    if kind == "map" and isinstance(value, dict) and all(_is_variable(*item) for item in value.items()):
        return tuple(sorted(value.items()))
    raise UsageError(f"{name!r} of 'spec' has a wrong value; expected is {_EXPECTED[kind]}")


def _is_variable(name: str, value: Any) -> bool:
    return isinstance(value, str) and name != "" and "=" not in name and "\0" not in name + value


_EXPECTED = {
    "text": "a string",
    "texts": "a list of strings",
    "integer": "a whole number that is not negative",
    "integers": "a list of numbers over 0",
    "flag": "true or false",
    "number": "a number that is not negative",
    "map": "an object of strings that can be variables of a process",
    "cid": "a CID, or null",
}
