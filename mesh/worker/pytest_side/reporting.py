"""From pytest's reports of one test to one frame for the node.

The verdict is pytest's: what the call gave, with xfail and xpass; an `error` where setup failed, or teardown after a
call that did not fail.
"""

from __future__ import annotations

from typing import Any

from _mesh_pytest_side import wire


def is_plain(reports: list[Any]) -> bool:
    """Whether a test passed without a word: its result fits a few numbers."""
    if len(reports) != 3:
        return False
    for report in reports:
        if report.outcome != "passed" or hasattr(report, "wasxfail") or report.sections or report.user_properties:
            return False
    return bool(reports[1].when == "call")


def plain_frame(key: int, reports: list[Any]) -> bytes:
    setup, call, teardown = reports
    return wire.PASSED.pack(b"P", key, setup.start, setup.duration, call.duration, teardown.duration)


def full(key: int, reports: list[Any], dropped: int) -> dict[str, Any]:
    """The JSON object of a test's result; `dropped` bytes of its output are lost already."""
    outcome, message = verdict(reports)
    streams, extra = sections(reports)
    longrepr, _ = wire.clip("\n\n".join(tracebacks(reports) + extra), wire.TEXT_BYTES_MAX)
    result: dict[str, Any] = {
        "key": key,
        "outcome": outcome,
        "started": getattr(reports[0], "start", 0.0),
        "phases": [(report.when, _category(report), report.duration) for report in reports],
        "message": wire.clip(message)[0][: wire.MESSAGE_CHARS_MAX],
        "longrepr": longrepr,
        "properties": [
            (wire.clip(str(name), 1000)[0], wire.clip(str(value), wire.TEXT_BYTES_MAX)[0])
            for name, value in reports[-1].user_properties[: wire.PROPERTIES_MAX]
        ],
    }
    for name, text in streams.items():
        result[name], lost = wire.clip(text)
        dropped += lost
    result["dropped"] = dropped
    return result


def _category(report: Any) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.outcome == "skipped" else "xpassed"
    if report.outcome == "failed" and report.when != "call":
        return "error"
    return str(report.outcome)


_RANK = ("failed", "error", "xfailed", "xpassed", "skipped", "passed")


def verdict(reports: list[Any]) -> tuple[str, str]:
    """(outcome, one line that says why)."""
    worst = min(reports, key=lambda report: _RANK.index(_category(report)))
    outcome = _category(worst)
    if outcome == "passed":
        return outcome, ""
    if hasattr(worst, "wasxfail"):
        return outcome, str(worst.wasxfail)
    if outcome == "skipped":
        reason = str(worst.longrepr[2]) if isinstance(worst.longrepr, tuple) else str(worst.longrepr)
        return outcome, reason[len("Skipped: ") :] if reason.startswith("Skipped: ") else reason
    crash = getattr(worst.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else worst.longreprtext
    lines = str(text).strip().splitlines() or [""]
    return outcome, lines[0] if crash is not None else lines[-1]


def tracebacks(reports: list[Any]) -> list[str]:
    """What pytest prints of each phase that went wrong."""
    return [
        report.longreprtext
        for report in reports
        if report.longrepr is not None and not isinstance(report.longrepr, tuple)
    ]


def sections(reports: list[Any]) -> tuple[dict[str, str], list[str]]:
    """Captured text by stream, and plugins' sections as text."""
    streams = {"stdout": "", "stderr": "", "log": ""}
    extra: list[str] = []
    seen = set()
    for report in reports:
        for title, content in report.sections:
            if (title, content) in seen:
                continue
            seen.add((title, content))
            kind = title.split(" ")[1] if title.startswith("Captured ") else ""
            if kind in streams:
                streams[kind] += content if not streams[kind] or kind != "log" else "\n" + content
            else:
                extra.append(f"{title}\n{content}")
    return streams, extra
