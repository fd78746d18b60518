"""What pytest tells its plugins of a test, or of a collection, packed for a client that replays it.

Tests: zlib over JSON of {"root", "sections": [[title, text], …], "reports": […], "warnings": […]}: all reports of the
attempt in their order, reruns and subtests included, as pytest itself makes them serialisable. pytest repeats captured
text in each later phase: here it stands once, and reports name it by its place. Collections ("notes"): {"root",
"reports": those that did not pass, "warnings", "deselected": a number, "lines": where each test stands}. Paths under
`root`, the tree on that host, are the reader's to translate.

The standard library only: the node and the client read it, too. A pack that gets too large is left out (empty).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

PACK_BYTES_MAX = 128 * 1024
"""Of one test, packed."""
NOTES_BYTES_MAX = 1024 * 1024
"""Of a collection, packed."""
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
WARNINGS_MAX = 100
"""Kept of one test, or of a collection."""

PLAIN = frozenset(
    (
        *("nodeid", "_id", "location", "keywords", "outcome", "longrepr", "when", "user_properties", "sections"),
        *("duration", "start", "stop"),
    )
)
"""Attributes of a report; one that has others, which a hook gave it, is told whole."""


def serialisable(config: Any, reports: Iterable[Any]) -> list[dict[str, Any]]:
    """As pytest, or the plugin whose report it is, turns them into plain data."""
    hook = config.hook.pytest_report_to_serializable
    made = (hook(config=config, report=report) for report in reports)
    return [data for data in made if data is not None]


def too_much(reports: Iterable[Any]) -> bool:
    """Whether a test's properties alone are more than can be told: each of its reports has them all."""
    values = (value for report in reports for _, value in report.user_properties)
    return sum(len(value) for value in values if isinstance(value, str)) > UNPACKED_BYTES_MAX


def warning(message: Any, node_id: str, location: Any) -> dict[str, Any]:
    """One recorded warning. `message`: a `warnings.WarningMessage`."""
    category = message.category
    return {
        "text": _text(message.message),
        "category": category.__name__,
        "module": category.__module__,
        "file": message.filename,
        "line": message.lineno,
        "nodeid": node_id,
        "location": location,
    }


def pack(root: str, reports: Sequence[dict[str, Any]], warnings: Sequence[dict[str, Any]], **more: Any) -> bytes:
    """Of one test; empty if it is too much."""
    places: dict[tuple[str, str], int] = {}
    told = []
    for report in reports:
        sections = [places.setdefault((title, text), len(places)) for title, text in report.get("sections", ())]
        told.append({**report, "sections": sections})
    packed = {"root": root, "sections": list(places), "reports": told, "warnings": warnings, **more}
    return _packed(packed, PACK_BYTES_MAX)


def unpack(data: bytes) -> dict[str, Any]:
    """The same again, sections in their reports; `ValueError` for what nobody packed."""
    told = _unpacked(data)
    try:
        for report in told["reports"]:
            report["sections"] = [tuple(told["sections"][place]) for place in report["sections"]]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a test's reports: {type(error).__name__}") from None
    return told


def pack_notes(notes: dict[str, Any]) -> bytes:
    """Of a collection; without what is least needed if it is too much."""
    return _packed(notes, NOTES_BYTES_MAX) or _packed({**notes, "lines": [], "warnings": []}, NOTES_BYTES_MAX)


def unpack_notes(data: bytes) -> dict[str, Any]:
    """The same again, or what stands for nothing known."""
    return {
        "root": "",
        "reports": [],
        "warnings": [],
        "deselected": 0,
        "lines": [],
        **(_unpacked(data) if data else {}),
    }


def _text(value: Any) -> str:
    """`str(value)`, whatever the value makes of that."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: its text can't be had: {type(error).__name__}>"


def _packed(value: dict[str, Any], limit: int) -> bytes:
    text = json.dumps(value, separators=(",", ":"), default=_text)
    data = zlib.compress(text.encode(), 1) if len(text) <= UNPACKED_BYTES_MAX else b""
    return data if len(data) <= limit else b""


def _unpacked(data: bytes) -> dict[str, Any]:
    try:
        text = zlib.decompressobj().decompress(data, UNPACKED_BYTES_MAX)
        value = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"not packed: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("not packed: no object")
    return value


def line(item: Any, known: dict[tuple[int, str], Any]) -> Any:
    """Where an item stands: its line in its own file, or (file, line, name) where these don't follow from its ID.

    `known` remembers the answer for all parameters of one function: pytest takes its time to find it.
    """
    name = getattr(item, "originalname", None)
    if name is None:
        return item.location
    key = (id(item.parent), name)
    if key not in known:
        path, number, _ = item.location
        known[key] = number if path == item.nodeid.split("::", 1)[0] else (path, number)
    found = known[key]
    return found if not isinstance(found, tuple) else (*found, domain(item.nodeid))


def domain(node_id: str) -> str:
    """What pytest calls a Python test inside its file."""
    head, bracket, rest = node_id.partition("[")
    return head.partition("::")[2].replace("::", ".") + bracket + rest
